"""The fuzzer: libFuzzer by atheris. Its arguments are a kind, then libFuzzer's; `tests.fuzz` starts it."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import sys
import tempfile
import traceback
import types
from pathlib import Path

import atheris

from tests.fuzz.targets import KINDS, attempt

# Not `atheris.instrument_imports`, which passes over modules of an editable installation.
for thing in gc.get_objects():
    if type(thing) is types.FunctionType and (thing.__module__ or "").startswith("rvc_fast."):
        atheris.instrument_func(thing)


def main() -> None:
    name, *arguments = sys.argv[1:]
    kind, failures = KINDS[name], Path(os.environ["FUZZ_FAILURES"])
    folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    seen = set()

    def once(data: bytes) -> None:
        try:
            attempt(kind, Path(folder.name), data)
        except Exception as e:
            # Of one fault one input is enough, and the run goes on.
            places = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(e.__traceback__)]
            place = next((p for p in reversed(places) if "rvc_fast/" in p), places[-1])
            fault = (type(e).__name__, place)
            if fault not in seen:
                seen.add(fault)
                path = failures / f"failed-{hashlib.sha256(data).hexdigest()[:16]}"
                path.write_bytes(data)
                path.with_suffix(".txt").write_text(traceback.format_exc())
                print(f"FAILED {path}: {type(e).__name__}: {e} at {place}", flush=True)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if kind.mutate is not None and rng.random() < 0.9:
            try:
                changed = kind.mutate(data, lambda part: atheris.Mutate(part, len(part) + 32), rng)
            except ValueError:
                pass
            else:
                if len(changed) <= size:
                    return changed
        return atheris.Mutate(data, size)

    more = {} if kind.mutate is None else {"custom_mutator": mutate}
    # The program by which libFuzzer starts itself again where it merges.
    atheris.Setup([os.environ["FUZZ_PROGRAM"], *arguments], once, **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
