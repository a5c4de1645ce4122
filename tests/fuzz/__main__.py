"""Fuzz one kind of file, and keep the inputs that reach new code."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from .targets import CORPUS, KINDS, SECONDS, kept

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument(
        "--seconds", type=int, default=600, help="how long to fuzz; 0 only replaces the corpus"
    )
    parser.add_argument(
        "--keep", action="store_true", help="replace the kept corpus by the smallest that reaches as much"
    )
    options = parser.parse_args()
    work = ROOT / "build" / "fuzz" / options.kind
    failures, found, known = (work / name for name in ("failures", "found", "known"))
    for folder in (failures, found, known):
        folder.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(KINDS[options.kind].seeds()):
        (known / f"seed-{i:02}").write_bytes(data)
    for name, data in kept(options.kind):
        (known / name).write_bytes(data)
    program = work / "engine"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.fuzz.engine {options.kind} "$@"\n')
    program.chmod(0o755)

    def engine(*arguments: str | Path) -> int:
        limits = [f"-timeout={SECONDS}", f"-max_len={KINDS[options.kind].longest}", "-rss_limit_mb=1000"]
        environment = {
            **os.environ,
            "RVC_FAST_THREADS": "1",
            "FUZZ_PROGRAM": str(program),
            "FUZZ_FAILURES": str(failures),
        }
        command = [program, *limits, f"-artifact_prefix={failures}/", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment).returncode

    status = 0
    if options.seconds:
        status = engine(f"-max_total_time={options.seconds}", "-print_final_stats=1", found, known)
    if options.keep:
        least = work / "least"
        shutil.rmtree(least, ignore_errors=True)
        least.mkdir()
        if engine("-merge=1", least, known, found):
            return 1
        inputs = {path.name: path for path in [*least.iterdir(), *known.glob("failed-*")]}
        for path in failures.iterdir():  # ours, and what libFuzzer calls crash-*, timeout-* and oom-*
            if not path.suffix:
                inputs[f"failed-{path.name.rpartition('-')[2]}"] = path
        CORPUS.mkdir(exist_ok=True)
        with zipfile.ZipFile(CORPUS / f"{options.kind}.zip", "w") as archive:
            for name, path in sorted(inputs.items()):
                # Without the time of day: the same inputs make the same archive.
                archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    return 1 if status or any(failures.iterdir()) else 0


if __name__ == "__main__":
    sys.exit(main())
