"""Lines on stderr that the library itself says; the command line's --quiet silences them."""

from __future__ import annotations

import sys

quiet = False


def printable(text: str) -> str:
    """Return text that a terminal shows and does not obey: what is not printable, but for line ends, is escaped."""
    return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text)


def note(text: str) -> None:
    """Print one line on stderr, unless `quiet`."""
    if not quiet:
        print(f"rvc_fast: {printable(text)}", file=sys.stderr, flush=True)
