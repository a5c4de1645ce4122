"""Coverage-guided fuzzing of everything that reads a file: `python -m tests.fuzz KIND --seconds 600`.

`targets.py` says which kinds of files there are and how each is read, `seeds.py` makes small good files, `mutators.py`
changes files inside their containers, `engine.py` is the fuzzer. The inputs worth keeping are in `corpus/`, one
archive per kind; `test_replay.py` reads them all.
"""
