"""Long inputs in blocks, without giving up laziness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import mlx.core as mx

from .switch import Switch

_traced = Switch()


def traced() -> AbstractContextManager[None]:
    """Let this thread build a graph inside that is transformed or compiled: `after` orders nothing."""
    return _traced.on()


def blocks(length: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds (start, end) of consecutive blocks of at most `size`."""
    for start in range(0, length, size):
        yield start, min(start + size, length)


def after(x: mx.array, done: Sequence[mx.array]) -> mx.array:
    """Return x, to be evaluated only after the last of `done`.

    MLX runs independent branches of a graph side by side: without this the intermediates of many blocks would
    be alive at once. Nothing is evaluated here, so that graphs stay whole.
    """
    return mx.depends([x], [done[-1]])[0] if done and not _traced.is_on else x
