"""Lines on stderr that the library itself says; the command line's --quiet silences them."""

from __future__ import annotations

import sys

quiet = False


def note(text: str) -> None:
    """Print one line on stderr, unless `quiet`."""
    if not quiet:
        print(f"rvc_fast: {text}", file=sys.stderr, flush=True)
