"""Training of the demo models: synthetic speech in, three packed models out.

`python -m training --help` is the one command; README.md beside this file says what happens in which order.
"""
