"""Packages that only some commands use, installed as extras."""

from __future__ import annotations

from importlib.util import find_spec


def missing(extra: str, *packages: str) -> str | None:
    """Return a sentence that names the packages that are not installed and the extra that has them, or None."""
    names = [name for name in packages if find_spec(name) is None]
    if not names:
        return None
    are = "is" if len(names) == 1 else "are"
    return f"{' and '.join(names)} {are} not installed: pip install 'rvc-fast[{extra}]'"
