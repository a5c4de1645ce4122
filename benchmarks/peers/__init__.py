"""The models of a voice conversion in PyTorch, as its public code runs them: what rvc_fast is measured against.

Written from the description of the models, with the tensor names of their public checkpoints, and checked
against the outputs of the public code (`python -m benchmarks.peers.check FOLDER`). Eager PyTorch: one module
per layer, weight norm folded before use, batch norm where the public code has it. Masks are left out, as there
is nothing to mask in a batch of one, which only makes it faster.
"""
