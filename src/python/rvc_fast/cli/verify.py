"""rvc-fast verify: waveform parity with the public PyTorch code, shown on a folder of golden cases."""

from __future__ import annotations

import argparse
import os

from ..env import BACKENDS
from .common import note, print_json, show, table

HELP = "check every model against recorded outputs of the PyTorch code"
DESCRIPTION = (
    "Rebuild seeded weights, run every case of a golden folder and compare each output tensor. "
    "Exit code 1 if any fails, 2 if the folder cannot be read."
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="DIR", help="a folder in the golden format (see tests/golden)")
    p.add_argument("--json", action="store_true", help="print the rows as JSON on stdout")
    p.add_argument("--backend", choices=BACKENDS, help="run on this backend (sets RVC_FAST_BACKEND)")


def run(args: argparse.Namespace) -> int:
    if args.backend:
        os.environ["RVC_FAST_BACKEND"] = args.backend
    from .. import device
    from ..verify.golden import verify_folder

    device.use_for_process()
    rows = []
    for row in verify_folder(args.folder):
        rows.append(row)
        note(args, f"{'ok  ' if row.passed else 'FAIL'} {row.case} {row.tensor}")
    if args.json:
        print_json([row.as_dict() for row in rows])
    else:
        cells = [
            (
                f"{r.case} {r.tensor}",
                f"{r.snr_db:.1f}",
                f"{r.max_abs:.2g}",
                f"{r.correlation:.8f}",
                r.bar,
                "pass" if r.passed else "FAIL",
                f"{r.ms:.0f}",
            )
            for r in rows
        ]
        show(table(("case tensor", "SNR dB", "max-abs", "correlation", "bar", "result", "ms"), cells))
        failed = sum(not r.passed for r in rows)
        print(f"{len(rows) - failed} of {len(rows)} passed")
    return 0 if all(r.passed for r in rows) else 1
