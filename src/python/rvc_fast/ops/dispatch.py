"""Which backend runs an op: the one place that decides.

`RVC_FAST_BACKEND=auto` takes the compiled kernel where there is one for the default device and falls back
to the pure-MLX reference otherwise; `rvc-fast info` prints why. An explicit choice never falls back: an op
that has kernels, but none for that backend, is an error. An op that has none anywhere is its reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import env, native
from ..errors import BackendError, InputError
from .packed import PackedWeight

FLOATING = (mx.float32, mx.float16, mx.bfloat16)

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
    if not _KERNELS[op]:
        return "no backend has a kernel for it yet"
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
    if wanted != "auto" and _KERNELS[op]:
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


def check_arrays(op: str, **arrays: object) -> None:
    """Raise unless every argument is absent or an array that is floating and not empty, or packed from one.

    TypeError for what is no array at all, InputError otherwise.
    """
    for argument, array in arrays.items():
        if array is None or isinstance(array, PackedWeight):
            continue
        if not isinstance(array, mx.array):
            raise TypeError(f"[{op}] {argument} must be an mx.array, got {type(array).__name__}")
        check(op, array.dtype in FLOATING, argument, "float32, float16 or bfloat16", array.dtype)
        check(op, array.size > 0, argument, "not empty", f"shape {tuple(array.shape)}")


def check_whole(op: str, **numbers: object) -> None:
    """Raise InputError unless every argument is a whole number of 32 bits."""
    for argument, value in numbers.items():
        whole = isinstance(value, int | np.integer) and bool(-(2**31) <= value < 2**31)
        check(op, whole, argument, "a whole number of 32 bits", repr(value))


def pair(op: str, argument: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """Return one whole number for both, or a pair of them, as a pair; InputError for anything else."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    check(op, len(both) == 2, argument, "one number or a pair", value)
    check_whole(op, **{f"{argument}[{i}]": both[i] for i in (0, 1)})
    return both[0], both[1]


def check_finite(op: str, **numbers: object) -> None:
    """Raise InputError unless every argument is a finite number."""
    for argument, value in numbers.items():
        finite = isinstance(value, float | int | np.floating | np.integer) and math.isfinite(value)
        check(op, finite, argument, "a finite number", repr(value))


def check_packed(
    op: str, weight: object, *made_for: str, groups: int = 1, stride: tuple[int, ...] = ()
) -> None:
    """Raise InputError if `weight` was packed for another op than these, other groups or strides, or elsewhere."""
    if isinstance(weight, PackedWeight):
        backend = route(op).backend
        here = weight.backend == backend
        check(
            op, here, "weight", f"packed where it is used, on {backend}", f"one packed for {weight.backend}"
        )
        got = (weight.op, weight.groups, weight.stride)
        fits = weight.op in (made_for or (op,)) and got[1:] == (groups, stride)
        check(op, fits, "weight", f"packed for {op} with groups {groups} and stride {stride or 1}", got)
