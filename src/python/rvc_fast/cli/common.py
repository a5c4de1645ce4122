"""What several commands share: argument types, tables, peak memory."""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any


def number(low: float, high: float) -> Callable[[str], float]:
    """Return an argparse type for a finite number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a number from {low:g} to {high:g}, got {text!r}")
        return value

    return parse


def peak_memory_mb() -> float:
    """Return the largest resident size of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=1, allow_nan=False))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text: the first and last column to the left, the rest to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        first, *middle, last = row
        cells = [first.ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(middle, widths[1:-1], strict=True)]
        cells.append(last)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def note(args: argparse.Namespace, message: str) -> None:
    """Print one line on stderr unless --quiet."""
    if not args.quiet:
        print(message, file=sys.stderr)


def progress_wanted(args: argparse.Namespace) -> bool:
    """Whether a progress bar belongs on stderr: only on a terminal, and not with --quiet."""
    return not args.quiet and sys.stderr.isatty()
