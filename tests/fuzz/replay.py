"""Read all kept inputs, or files, under the limits: `python -m tests.fuzz.replay [KIND [FILE ...]]`."""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path

from .targets import BYTES, KINDS, attempt, kept, peak


def main(names: list[str], paths: list[str]) -> int:
    """Return 1 if an input broke a limit; each is printed before it is read, as a hang ends the process."""
    start, broken = peak(), 0
    for name in names or KINDS:
        inputs = [(path, Path(path).read_bytes()) for path in paths] or kept(name)
        with tempfile.TemporaryDirectory() as folder:
            for entry, data in inputs:
                print(name, entry, end=" ", flush=True)
                try:
                    print(attempt(KINDS[name], Path(folder), data).replace(folder, "") or "is read")
                except Exception:
                    broken = 1
                    print(f"FAILED\n{traceback.format_exc()}")
    if peak() - start > BYTES:  # no single one took more if all together did not
        broken = 1
        print(f"FAILED: reading took {(peak() - start) / 1e6:.0f} MB")
    return broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:2], sys.argv[2:]))
