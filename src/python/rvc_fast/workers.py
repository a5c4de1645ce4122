"""Python threads that start or fail, and never hang."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor

_NEEDED = 10 << 20
"""Bytes that a new thread takes, nearly all of it address space for its stack."""


def workers(count: int) -> ThreadPoolExecutor:
    """Return a pool of so many threads; MemoryError where there is no memory for them.

    Python (3.10 to 3.13) waits for ever for a new thread whose first allocation fails, so it is tried here before.
    """
    try:
        mmap.mmap(-1, count * _NEEDED).close()
    except OSError as e:
        raise MemoryError(f"for {count} threads") from e
    return ThreadPoolExecutor(count)
