"""What several commands share: argument types, tables, peak memory."""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from ..notes import printable


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


_DEEPEST = 64


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(plain(value), indent=1, allow_nan=False))


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value, which may come from a file, as JSON can hold it: NaN and infinity are null, its depth has an end."""
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {key: plain(v, depth + 1) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, depth + 1) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe(error: BaseException) -> str:
    """Return what went wrong: the message of an error of ours, the kind too of one that nobody has foreseen."""
    from ..errors import RvcFastError
    from ..writing import reason

    if isinstance(error, RvcFastError):
        return str(error)
    if isinstance(error, MemoryError):
        said = "" if str(error) == "std::bad_alloc" else str(error)
        return "not enough memory" + (f": {said}" if said else "")
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "not enough memory for a thread, or too many threads"
    if isinstance(error, OSError):
        name = "" if error.filename is None else f"{error.filename}: "
        return name + reason(error)
    return f"internal error: {type(error).__name__}: {error} (run with --debug for the traceback)"


def show(text: str) -> None:
    """Print text on stdout at once, with what comes from files unable to steer a terminal."""
    print(printable(text), flush=True)


def tell(text: str) -> None:
    """Print one line on stderr, with what comes from files unable to steer a terminal."""
    print(printable(" ".join(text.split("\n"))), file=sys.stderr)


def show_traceback() -> None:
    """Print on stderr where the error that is being handled came from."""
    print(printable(traceback.format_exc()), end="", file=sys.stderr)


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
        tell(message)


def progress_wanted(args: argparse.Namespace) -> bool:
    """Whether a progress bar belongs on stderr: only on a terminal, and not with --quiet."""
    return not args.quiet and sys.stderr.isatty()
