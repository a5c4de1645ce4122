"""Which backend runs an op: the one place that decides.

`RVC_FAST_BACKEND=auto` takes the compiled kernel where there is one for the default device and falls back
to the pure-MLX reference otherwise; `rvc-fast info` prints why. An explicit choice never falls back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from .. import env, native
from ..errors import BackendError, InputError

# op -> names of the compiled backends it has. Each op module registers itself on import.
_KERNELS: dict[str, frozenset[str]] = {}


class Route(NamedTuple):
    """The backend an op takes and the reason, as `rvc-fast info` prints it."""

    backend: str
    reason: str


def register(op: str, *backends: str) -> None:
    """Declare the compiled backends of an op; the reference always exists."""
    _KERNELS[op] = frozenset(backends)


def ops() -> tuple[str, ...]:
    """Return the names of all ops, sorted."""
    return tuple(sorted(_KERNELS))


def backends(op: str) -> frozenset[str]:
    """Return the names of the compiled backends that an op has."""
    return _KERNELS[op]


def _device_backend() -> str:
    if mx.default_device().type == mx.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def _missing(op: str, backend: str) -> str | None:
    """Why `op` cannot run on `backend`, or None."""
    if backend == "reference":
        return None
    if backend not in _KERNELS[op]:
        return f"there is no {backend} kernel for it"
    if backend != _device_backend():
        return f"MLX's default device is {mx.default_device()}"
    if backend == "cpu" and native.ext() is None:
        return native.load()[1]
    return None


def route(op: str) -> Route:
    """Return the backend that `op` takes now, and why; BackendError for an explicit, impossible choice."""
    wanted = env.backend()
    backend = _device_backend() if wanted == "auto" else wanted
    missing = _missing(op, backend)
    if missing is None:
        reason = (
            "as asked by RVC_FAST_BACKEND" if wanted != "auto" else "compiled kernel for the default device"
        )
        return Route(backend, reason)
    if wanted != "auto":
        raise BackendError(f"[{op}] backend {wanted!r} was asked for, but {missing}")
    return Route("reference", missing)


def select(op: str, implementations: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Return the function of the backend that `op` takes now."""
    return implementations[route(op).backend]


def check(op: str, condition: bool, argument: str, requirement: str, got: object) -> None:
    """Raise InputError `[op] argument must be requirement, got ...` unless `condition`."""
    if not condition:
        raise InputError(f"[{op}] {argument} must be {requirement}, got {got}")


def check_shape(op: str, argument: str, array: mx.array | None, shape: tuple[int, ...]) -> None:
    """Raise InputError unless an optional array is absent or has `shape`."""
    if array is not None and tuple(array.shape) != shape:
        raise InputError(f"[{op}] {argument} must be of shape {shape}, got {tuple(array.shape)}")
