"""Which backend runs an op: the one place that decides.

`RVC_FAST_BACKEND=auto` takes the compiled kernel where there is one for the default device and falls back
to the pure-MLX reference otherwise; `rvc-fast info` prints why. On a GPU it first asks `trust` whether the kernel was
found right and fast on this machine. An explicit choice never falls back: an op that has kernels, but none for that
backend, is an error. An op that has none anywhere is its reference. The CPU's kernels run on the CPU whatever the
default device is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import device, env, native
from ..errors import BackendError, InputError
from . import trust
from .packed import PackedWeight

FLOATING = (mx.float32, mx.float16, mx.bfloat16)

# op -> names of the backends it has, and of those where MLX's own kernels do the work. Each op module registers
# itself on import.
_KERNELS: dict[str, frozenset[str]] = {}
_OF_MLX: dict[str, frozenset[str]] = {}

# backend -> why it cannot take one call, or None. A backend that is not named can.
Limits = Mapping[str, str | None]


class Route(NamedTuple):
    """The backend an op takes and the reason, as `rvc-fast info` prints it."""

    backend: str
    reason: str


def register(op: str, *backends: str, of_mlx: tuple[str, ...] = ()) -> None:
    """Declare the backends of an op; the reference always exists.

    Args:
        backends: that have a kernel of ours.
        of_mlx: for which MLX's own kernels are the right ones, put together for this op.
    """
    _KERNELS[op] = frozenset((*backends, *of_mlx))
    _OF_MLX[op] = frozenset(of_mlx)


def ops() -> tuple[str, ...]:
    """Return the names of all ops, sorted."""
    return tuple(sorted(_KERNELS))


def backends(op: str) -> frozenset[str]:
    """Return the names of the backends that an op has."""
    return _KERNELS[op]


def of_mlx(op: str, backend: str) -> bool:
    """Return whether an op's backend is made of MLX's own kernels."""
    return backend in _OF_MLX[op]


def _device_backend() -> str:
    if device.current() == "cpu":
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def gpu_backend() -> str | None:
    """Return "metal" or "cuda" where MLX's default device is such a GPU, else None."""
    backend = _device_backend()
    return None if backend == "cpu" else backend


def _missing(op: str, backend: str, limits: Limits) -> str | None:
    """Why `op` cannot run on `backend`, or None."""
    if backend == "reference":
        return None
    if not _KERNELS[op]:
        return "no backend has a kernel for it yet"
    if backend not in _KERNELS[op]:
        return f"there is no {backend} kernel for it"
    if backend not in ("cpu", _device_backend()):
        return f"MLX's default device is {mx.default_device()}"
    if backend == "cpu" and native.ext() is None:
        return native.load()[1]
    return limits.get(backend)


def route(
    op: str, limits: Limits | None = None, dtype: mx.Dtype = mx.float32, *, first_use: bool = True
) -> Route:
    """Return the backend that `op` takes now, and why; BackendError for an explicit, impossible choice.

    Args:
        limits: of one call; without them this is the route of calls that no kernel refuses.
        dtype: of the arrays. A GPU's kernel is trusted in each dtype by itself.
        first_use: whether a GPU that was not checked on this machine yet is checked now; see `trust`.
    """
    wanted = env.backend()
    backend = _device_backend() if wanted == "auto" else wanted
    missing = _missing(op, backend, limits or {})
    if missing is None:
        kernel = "MLX's own kernels" if of_mlx(op, backend) else "our kernel"
        if wanted == "auto" and backend != "cpu":
            taken, reason = trust.verdict(op, backend, dtype, run=first_use)
            return Route(taken, f"{kernel} for the default device, {reason}" if taken == backend else reason)
        if wanted == "auto":
            return Route(backend, f"{kernel} for the default device")
        asked = "as asked by RVC_FAST_BACKEND"
        return Route(backend, asked if backend == "reference" else f"{kernel}, {asked}")
    if wanted != "auto" and _KERNELS[op]:
        raise BackendError(f"[{op}] backend {wanted!r} was asked for, but {missing}")
    return Route("reference", missing)


def select(
    op: str,
    implementations: dict[str, Callable[..., Any]],
    limits: Limits | None = None,
    dtype: mx.Dtype = mx.float32,
) -> Callable[..., Any]:
    """Return the function of the backend that `op` takes now in `dtype`, given what cannot take this call."""
    return implementations[route(op, limits, dtype).backend]


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
    op: str,
    weight: object,
    *made_for: str,
    groups: int = 1,
    stride: tuple[int, ...] = (),
    dtype: mx.Dtype = mx.float32,
) -> None:
    """Raise InputError if `weight` was packed for another op than these, other groups or strides, or elsewhere.

    `dtype` is that of the arrays that it is used with.
    """
    if isinstance(weight, PackedWeight):
        backend = route(weight.op if weight.op in made_for else op, dtype=dtype).backend
        here = weight.backend == backend
        check(
            op, here, "weight", f"packed where it is used, on {backend}", f"one packed for {weight.backend}"
        )
        got = (weight.op, weight.groups, weight.stride)
        fits = weight.op in (made_for or (op,)) and got[1:] == (groups, stride)
        check(op, fits, "weight", f"packed for {op} with groups {groups} and stride {stride or 1}", got)
