"""The compiled CPU kernels: import once, test once, and say so once if they are missing.

Everything in rvc_fast works without them, on stock MLX; `ext()` is then None. Code that only runs where they are takes
`native.compiled`, whose types stand in `_ext.pyi` (`make stubs` writes it).
"""

from __future__ import annotations

import functools
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

import mlx.core as mx  # before the extension: registers mx.array and loads libmlx

from . import env
from .errors import BackendError, InputError


def _self_test(ext: ModuleType) -> None:
    """One small convolution against arithmetic done by hand: catches an ABI that loads but computes nonsense."""
    x = mx.array([[[1.0], [2.0], [3.0]]])
    packed = ext.conv1d_pack(mx.ones((1, 3, 1), stream=mx.cpu), groups=1)
    y = ext.conv1d(x, packed, None, None, out_channels=1, kernel=3, padding=(1, 1))
    if y.tolist() != [[[3.0], [6.0], [5.0]]]:
        raise ImportError(f"self-test of the compiled kernels gave {y.tolist()}")


def _fits() -> None:
    """ImportError unless there is an extension, built for the MLX that is installed: another one's may load and crash."""
    try:
        from ._built import MLX
    except ImportError:
        raise ImportError("this installation has none, as a pure-Python wheel") from None
    installed = mx.__version__  # type: ignore[attr-defined]  # MLX's stub does not have it
    if installed != MLX:
        raise ImportError(
            f"they were built for MLX {MLX}, and {installed} is installed: `pip install mlx=={MLX}`, or build them for "
            "yours from the source by `pip install --no-build-isolation .`"
        )


@functools.cache
def load() -> tuple[ModuleType | None, str]:
    """Return (extension or None, why)."""
    threads = env.threads() or 0
    try:
        _fits()
        from . import _ext

        try:
            _ext.configure(threads=threads, isa=env.isa() or "")
        except ValueError as e:
            raise InputError(f"[env] RVC_FAST_ISA: {e}") from e
        _self_test(_ext)
    except (ImportError, RuntimeError, TypeError, AttributeError) as e:
        why = f"the compiled CPU kernels cannot be used ({str(e).splitlines()[0]})"
        if env.backend() != "cpu":  # then nothing runs instead of them, and the error says why
            warnings.warn(f"rvc_fast: {why}; running on stock MLX, much slower", UserWarning, stacklevel=2)
        return None, why
    return _ext, f"compiled kernels, {_ext.isa()}, {_ext.threads()} threads"


def ext() -> ModuleType | None:
    """Return the extension module, or None when it is missing or failed its self-test."""
    return load()[0]


if TYPE_CHECKING:
    from . import _ext

    compiled = _ext
else:

    def __getattr__(name: str) -> ModuleType:
        """`compiled` is the extension for code that only runs where there is one; BackendError without."""
        if name != "compiled":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found, why = load()
        if found is None:
            raise BackendError(why)
        globals()[name] = found
        return found
