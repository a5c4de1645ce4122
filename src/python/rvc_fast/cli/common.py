"""What several commands share: argument types, tables, peak memory."""

from __future__ import annotations

import argparse
import json
import math
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


def printable(text: str, encoding: str | None) -> str:
    """Return text from a file as what a terminal of this encoding may be given: no control characters."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown.encode(encoding or "ascii", "backslashreplace").decode(encoding or "ascii")


def one_line(text: str) -> str:
    """Return a message as one line for stderr."""
    return printable(" ".join(text.split()), sys.stderr.encoding)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout; JSON has no NaN or infinity, which become text."""
    print(json.dumps(_finite(value), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


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
