"""Number formats: in which of them a layer keeps its weights, and in which it takes and gives numbers.

`choose` is the one place that makes a `Precision` of what a caller asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

from .. import native
from ..errors import InputError
from . import dispatch

Dtype = Literal["float32", "bfloat16", "float16", "int8", "bfloat16x2"]
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16", "int8", "bfloat16x2")
# The ones that arrays have.
FLOATS: tuple[Dtype, ...] = DTYPES[:3]


@dataclass(frozen=True)
class Precision:
    """The number formats of a layer. Sums are float32 in all of them.

    weights: what its weights are kept in. On a CPU inputs are rounded to it too, on the way into the product. "int8" are
        whole numbers with a scale, of inputs one for each row; their sums are exact.
        "bfloat16x2" stands for a number by the sum of two in bfloat16, and for a product by three.
    activations: what the arrays are that a layer takes and gives; one of `FLOATS`.
    """

    weights: Dtype = "float32"
    activations: Dtype = "float32"


FLOAT32 = Precision()


def mlx_dtype(dtype: Dtype) -> mx.Dtype:
    """Return MLX's name for a number format."""
    found: mx.Dtype = getattr(mx, dtype)
    return found


def beside(dtype: Dtype) -> mx.Dtype:
    """Return what the activations are that a weight packed in `dtype` is multiplied with."""
    return mlx_dtype(dtype) if dtype in FLOATS else mx.float32


def name_of(dtype: mx.Dtype) -> Dtype:
    """Return the number format of MLX's arrays of a dtype."""
    return next(name for name in FLOATS if mlx_dtype(name) == dtype)


def check(what: str, dtype: object, of: tuple[Dtype, ...] = DTYPES) -> Dtype:
    """Return one of `of`; InputError `[what] ...` for anything else and where this device does not compute in it."""
    known = next((d for d in of if d == dtype), None)
    if known is None:
        raise InputError(f"[{what}] dtype must be one of {', '.join(of)}, got {dtype!r}")
    why = dispatch.dtype_missing(known)
    if why is not None:
        instead = " or ".join(repr(d) for d in of if dispatch.dtype_missing(d) is None)
        raise InputError(f"[{what}] dtype must be {instead} here, got {dtype!r}: {why}")
    return known


def usable(dtype: Dtype) -> str:
    """Return in one line whether this device computes in a dtype, and whether another one would be the better choice."""
    if (why := dispatch.dtype_missing(dtype)) is not None:
        return why
    if dtype == "int8" and native.compiled.isa() == "amx":
        return "can be used, but bfloat16 is faster on this CPU: its AMX multiplies whole models in it"
    return "can be used"


def choose(what: str, dtype: object) -> Precision:
    """Return how layers compute that are asked for `dtype`; InputError as of `check`.

    The CPU's kernels hand on float32 whatever they multiply in. On a GPU everything is in the narrow format, which
    halves what moves through memory, but for the islands: the phase of the source and the exponential of the
    deviation are float32, and so are the sums of products, layer norm, softmax, mel power and GRU inside their kernels.
    """
    known = check(what, dtype)
    return Precision(known, known if dispatch.on_gpu() else "float32")
