"""Models in memory once: whoever loads the same file while a model of it is alive gets that model.

A model does not change after loading, so any number of Converters and threads can use it.
"""

from __future__ import annotations

import os
import threading
import warnings
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from .. import device
from ..layers import Packing
from .archive import shown
from .checkpoint import load_checkpoint
from .kernels import Unfit, file_name

_models: WeakValueDictionary[tuple[object, ...], Any] = WeakValueDictionary()
_lock = threading.Lock()


def _identity(path: Path) -> tuple[object, ...]:
    """What changes when a file, or a file of a folder, is replaced."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = [(f.name, f.stat()) for f in files]
    return path, tuple((name, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats)


def _load(cls: Any, path: str | os.PathLike[str], kind: str, packing: Packing) -> Any:
    """Load a model, with the packed weights beside it if they fit, and with a warning if they do not."""
    try:
        return cls.from_checkpoint(load_checkpoint(path, kind, packing), packing)
    except Unfit as e:
        file = shown(file_name(Path(path), packing))
        warnings.warn(
            f"rvc_fast: {file} is not used, weights are packed anew: {e}", UserWarning, stacklevel=5
        )
        return cls.from_checkpoint(load_checkpoint(path, kind), packing)


def load_model(cls: Any, path: str | os.PathLike[str], kind: str, packing: Packing) -> Any:
    """Return the `cls` that the file or folder at `path` holds, shared with everyone who has it on this device."""
    try:
        key = (kind, _identity(Path(os.path.realpath(path))), packing, device.current())
    except OSError:
        key = None  # `load_checkpoint` says what is wrong
    with _lock:
        model = _models.get(key) if key else None
        if model is None:
            model = _load(cls, path, kind, packing)
            if key:
                _models[key] = model
        return model
