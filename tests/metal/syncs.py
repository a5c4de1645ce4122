"""Counts where rvc_fast makes the host wait for MLX: everything that is counted is patched here."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

# What waits by itself, and what waits if it is handed an MLX array.
WAITS = ("eval", "synchronize")
CONVERTS = ("array", "asarray", "ascontiguousarray", "frombuffer", "copy")
METHODS = ("item", "tolist", "__array__", "__int__", "__float__", "__bool__", "__index__", "__dlpack__")


def _place() -> str | None:
    """Return the file and line of rvc_fast that is calling, None if the caller is another: a test, the emulator."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("rvc_fast."):
            return f"{module}:{frame.f_lineno}"
        if not module.startswith(("numpy", "mlx")):
            return None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def count(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count from now on, by the place that waits. One conversion to NumPy is one wait, however it is made."""
    found: Counter[str] = Counter()
    inside = False

    def counted(function: Callable[..., Any], *, always: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            place = None if inside else _place()
            if place is None or not (always or (args and isinstance(args[0], mx.array))):
                return function(*args, **kwargs)
            found[place] += 1
            inside = True
            try:
                return function(*args, **kwargs)
            finally:
                inside = False

        return call

    for name in WAITS:
        monkeypatch.setattr(mx, name, counted(getattr(mx, name), always=True))
    for name in CONVERTS:
        monkeypatch.setattr(np, name, counted(getattr(np, name), always=False))
    for name in METHODS:
        monkeypatch.setattr(mx.array, name, counted(getattr(mx.array, name), always=True))
    return found
