"""What the ops require of their arguments: the one place that says what was wrong with a call.

Every message reads `[op] argument must be requirement, got value`. An op is checked once for each signature of its
arguments (see `op`), so nothing here needs to be fast.
"""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np

from ..errors import InputError
from . import dispatch
from .epilogue import ACTIVATIONS
from .packed import PackedWeight, Weight

FLOATING = (mx.float32, mx.float16, mx.bfloat16)


def check(op: str, condition: bool, argument: str, requirement: str, got: object) -> None:
    """Raise InputError `[op] argument must be requirement, got ...` unless `condition`."""
    if not condition:
        raise InputError(f"[{op}] {argument} must be {requirement}, got {got}")


def arrays(op: str, **given: object) -> None:
    """Raise unless every argument is absent or an array that is floating and not empty, or packed from one.

    TypeError for what is no array at all, InputError otherwise.
    """
    for argument, array in given.items():
        if array is None or isinstance(array, PackedWeight):
            continue
        if not isinstance(array, mx.array):
            raise TypeError(f"[{op}] {argument} must be an mx.array, got {type(array).__name__}")
        check(op, array.dtype in FLOATING, argument, "float32, float16 or bfloat16", array.dtype)
        check(op, array.size > 0, argument, "not empty", f"shape {tuple(array.shape)}")


def words(op: str, **given: object) -> None:
    """Raise unless every argument is an array of 32-bit words that is not empty.

    TypeError for what is no array at all, InputError otherwise.
    """
    for argument, array in given.items():
        if not isinstance(array, mx.array):
            raise TypeError(f"[{op}] {argument} must be an mx.array, got {type(array).__name__}")
        check(op, array.dtype == mx.uint32, argument, "uint32, as mx.quantize makes it", array.dtype)
        check(op, array.size > 0, argument, "not empty", f"shape {tuple(array.shape)}")


def rank(op: str, argument: str, array: Weight, axes: str) -> None:
    """Raise InputError unless an array has as many axes as `axes` names, such as "(B, T, C)"."""
    fits = array.ndim == len(axes.split(","))
    check(op, fits, argument, f"of shape {axes}", tuple(array.shape))


def shape(op: str, argument: str, array: Weight | None, wanted: tuple[int, ...]) -> None:
    """Raise InputError unless an optional array is absent or of the shape wanted."""
    if array is not None:
        check(op, tuple(array.shape) == wanted, argument, f"of shape {wanted}", tuple(array.shape))


def whole(op: str, **numbers: object) -> None:
    """Raise InputError unless every argument is a whole number of 32 bits."""
    for argument, value in numbers.items():
        fits = isinstance(value, int | np.integer) and bool(-(2**31) <= value < 2**31)
        check(op, fits, argument, "a whole number of 32 bits", repr(value))


def pair(op: str, argument: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """Return one whole number for both, or a pair of them, as a pair; InputError for anything else."""
    both = tuple(value) if isinstance(value, tuple | list) else (value, value)
    check(op, len(both) == 2, argument, "one number or a pair", value)
    whole(op, **{f"{argument}[{i}]": both[i] for i in (0, 1)})
    return both[0], both[1]


def at_least(op: str, least: int, **numbers: int | tuple[int, int]) -> None:
    """Raise InputError unless every number, or both of a pair, is so large."""
    for argument, value in numbers.items():
        lowest = min(value) if isinstance(value, tuple) else value
        check(op, lowest >= least, argument, f"at least {least}", value)


def finite(op: str, **numbers: object) -> None:
    """Raise InputError unless every argument is a finite number."""
    for argument, value in numbers.items():
        fits = isinstance(value, float | int | np.floating | np.integer) and math.isfinite(value)
        check(op, fits, argument, "a finite number", repr(value))


def slope(op: str, argument: str, value: float | None) -> None:
    """Raise InputError unless an optional slope of a leaky ReLU is a number from 0 to 1."""
    if value is not None:
        finite(op, **{argument: value})
        check(op, 0 <= value <= 1, argument, "from 0 to 1", value)


def epilogue(
    op: str,
    out: tuple[int, ...],
    bias: mx.array | None,
    residual: mx.array | None = None,
    activation: object = None,
    scale: object = 1.0,
) -> None:
    """Raise InputError for what cannot be done in the store of a result of shape `out`."""
    shape(op, "bias", bias, out[-1:])
    shape(op, "residual", residual, out)
    known = activation is None or (isinstance(activation, str) and activation in ACTIVATIONS)
    check(op, known, "activation", f"one of {ACTIVATIONS}", activation)
    finite(op, scale=scale)


def packed(
    op: str,
    weight: object,
    *made_for: str,
    groups: int = 1,
    stride: tuple[int, ...] = (),
    beside: mx.array,
) -> None:
    """Raise InputError if `weight` was packed for another op than these, other groups or strides, or elsewhere.

    `beside` is the array that it is used with, whose dtype decides the backend too.
    """
    if isinstance(weight, PackedWeight):
        asked = weight.op if weight.op in made_for else op
        backend = dispatch.route(asked, dtype=beside.dtype).backend
        wanted = f"packed where it is used, on {backend}"
        check(op, weight.backend == backend, "weight", wanted, f"one packed for {weight.backend}")
        got = (weight.op, weight.groups, weight.stride)
        fits = weight.op in (made_for or (op,)) and got[1:] == (groups, stride)
        check(op, fits, "weight", f"packed for {op} with groups {groups} and stride {stride or 1}", got)


def no_algorithm(op: str, algorithm: str) -> None:
    """Raise InputError if an algorithm of the CPU kernel is asked for where it does not run."""
    fits = algorithm in ("auto", "direct")
    check(op, fits, "algorithm", '"auto" or "direct" without the CPU kernel', algorithm)


def divides(op: str, groups: int, weight: Weight) -> None:
    """Raise InputError unless a weight's outputs can be divided into so many groups."""
    fits = groups >= 1 and weight.shape[0] % groups == 0
    check(op, fits, "groups", f"a divisor of {weight.shape[0]} outputs", groups)


def channels(op: str, x: mx.array, weight: Weight, groups: int = 1) -> None:
    """Raise InputError unless x has the channels of a weight (O, ..., C / groups)."""
    divides(op, groups, weight)
    wanted = weight.shape[-1] * groups
    check(op, x.shape[-1] == wanted, "x", f"{wanted} channels wide", x.shape[-1])
