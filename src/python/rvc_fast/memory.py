"""How much memory an evaluation may take: the one place that decides.

Models are graphs: they compute nothing and wait for nothing. Whoever evaluates one does it inside `bounded`, which sets
limits for that time:

- On a CPU, MLX runs up to ten operations ahead of itself and holds what all of them read and write. Above SLACK more
  than what is in use at the beginning, our kernels let the thread that evaluates wait until all but one of the
  operations before have ended. MLX's own memory limit would do without kernels of ours, and does so for the references;
  but while MLX waits for the last operation it keeps a core busy, which the operation could use.
- On a GPU, freed memory goes into a cache, from which the next chunk takes it. That cache is limited to CACHE, instead
  of being emptied after each chunk, which would make the driver allocate everything anew. MLX bounds how far it runs
  ahead of a GPU by itself.

The limits that stood before are set again at the end. That of our kernels belongs to the thread. Those of MLX belong to
the process: while several threads are inside, the first one's limits hold.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx

from . import native
from .ops import dispatch

SLACK = 16 << 20
"""Bytes that operations which run ahead may take on a CPU."""

CACHE = 1 << 30
"""Bytes of freed memory that are kept for the next chunk on a GPU."""

_lock = threading.Lock()
_inside = 0
_restore: Callable[[], object] = dict  # overwritten by whoever enters first


@contextmanager
def bounded() -> Iterator[None]:
    """Bound the memory of what this thread evaluates inside; see the module's text."""
    if dispatch.gpu_backend() is None and dispatch.compiled_missing() is None:
        before = native.compiled.set_ahead_limit(mx.get_active_memory() + SLACK)
        try:
            yield
        finally:
            native.compiled.set_ahead_limit(before)
        return
    with _limits_of_mlx():
        yield


@contextmanager
def _limits_of_mlx() -> Iterator[None]:
    global _inside, _restore
    with _lock:
        if _inside == 0:
            _restore = _bound()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _restore()


def give_back() -> None:
    """Free the memory that the compiled kernels work in, which they keep for the next call."""
    if dispatch.compiled_missing() is None:
        native.compiled.release_scratch()


def _bound() -> Callable[[], object]:
    """Set the limit that this device needs, unless it is lower already, and return what sets the old one again."""
    if dispatch.gpu_backend() is None:
        before = mx.get_memory_limit()
        mx.set_memory_limit(min(before, mx.get_active_memory() + SLACK))
        return functools.partial(mx.set_memory_limit, before)
    before = mx.set_cache_limit(CACHE)
    if before < CACHE:
        mx.set_cache_limit(before)
    return functools.partial(mx.set_cache_limit, before)
