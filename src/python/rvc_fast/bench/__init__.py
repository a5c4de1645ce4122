"""`rvc-fast bench`: how fast rvc_fast is here, beside its peers and beside what the machine can do.

- `session` chooses the tasks and runs them: gate, then interleaved times, one row at a time; `results` is what a row
  is, and comparing files of them; `report` draws them
- `kernels` and `stages` are what is measured; `models` and `work` make full-size models and inputs from seeds
- `sides` are the contestants, each in a process of its own (`worker`); those that need PyTorch are in benchmarks/peers
- `limits` measures the machine's peaks, `machine` says what it is
"""
