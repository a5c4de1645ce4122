"""Files that lie: each ends in one clear line, and takes no more memory than it has bytes for."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from rvc_fast.errors import FileFormatError


def refused(load: Callable[[Path], object], path: Path, data: bytes, words: str, most: int) -> str:
    """Write `data`, check that `load` refuses it with these words and takes at most so many bytes; return the message."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=words) as e:
            load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(e.value)
    assert "\n" not in message
    assert peak < most
    return message
