"""rvc-fast verify: waveform parity with the public PyTorch code, shown on a folder of golden cases."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..env import BACKENDS
from .common import note, print_json, show

if TYPE_CHECKING:
    from ..verify.golden import Row

HELP = "check every model against recorded outputs of the PyTorch code"
DESCRIPTION = (
    "Rebuild seeded weights, run every case of a golden folder and compare each output tensor. "
    "Exit code 1 if any fails, 2 if the folder cannot be read."
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("folder", metavar="DIR", help="a folder in the golden format (see tests/golden)")
    p.add_argument("--json", action="store_true", help="print the rows as JSON on stdout, at the end")
    p.add_argument("--backend", choices=BACKENDS, help="run on this backend (sets RVC_FAST_BACKEND)")


# The case and its tensor come last, as their names are of any length.
_LINE = "{:<6}  {:>9}  {:>7}  {:>11}  {:<13}  {:>6}  {}"
_HEADER = ("result", "SNR dB", "max-abs", "correlation", "bar", "ms", "case tensor")


def _line(row: Row) -> str:
    """Return a row of the table."""
    return _LINE.format(
        "pass" if row.passed else "FAIL",
        "identical" if row.identical else f"{row.snr_db:.1f}",
        f"{row.max_abs:.2g}",
        f"{row.correlation:.8f}",
        row.bar,
        f"{row.ms:.0f}",
        f"{row.case} {row.tensor}",
    )


def run(args: argparse.Namespace) -> int:
    if args.backend:
        os.environ["RVC_FAST_BACKEND"] = args.backend
    from .. import device
    from ..ops import dispatch
    from ..verify.golden import verify_folder

    device.use_for_process()
    dispatch.check_backend("verify")
    rows = []
    for row in verify_folder(args.folder):
        rows.append(row)
        if args.json:
            note(args, f"{'ok  ' if row.passed else 'FAIL'} {row.case} {row.tensor}")
            continue
        if len(rows) == 1:
            show(_LINE.format(*_HEADER))
        show(_line(row))
    failed = sum(not row.passed for row in rows)
    if args.json:
        print_json([row.as_dict() for row in rows])
    else:
        show(f"{len(rows) - failed} of {len(rows)} passed")
    return 1 if failed else 0
