"""layer_norm: (x + residual - mean) / sqrt(variance + eps) * weight + bias over the last axis, (..., C) -> (..., C)."""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, gpu
from .op import Op
from .packed import Array
from .spec import HALF, Case, Tolerance, normal


class Options(NamedTuple):
    """What a call states beside its arrays."""

    eps: float


def _check(x: mx.array, weight: Array, bias: Array, residual: Array, o: Options) -> Options:
    op = "layer_norm"
    checks.arrays(op, x=x, weight=weight, bias=bias, residual=residual)
    checks.finite(op, eps=o.eps)
    checks.check(op, x.ndim >= 1, "x", "of shape (..., C)", tuple(x.shape))
    checks.check(op, o.eps >= 0, "eps", "at least 0", o.eps)
    checks.shape(op, "weight", weight, (x.shape[-1],))
    checks.shape(op, "bias", bias, (x.shape[-1],))
    checks.shape(op, "residual", residual, tuple(x.shape))
    return o


def _reference(x: mx.array, weight: Array, bias: Array, residual: Array, o: Options) -> mx.array:
    return mx.fast.layer_norm(x if residual is None else x + residual, weight, bias, o.eps)


def _cpu(x: mx.array, weight: Array, bias: Array, residual: Array, o: Options) -> mx.array:
    return native.compiled.layer_norm(x, weight, bias, residual, o.eps)


def _gpu(x: mx.array, weight: Array, bias: Array, residual: Array, o: Options) -> mx.array:
    """MLX's own layer norm reads its input once; the sum is half a unit in the last place of x's dtype off."""
    return _reference(x, weight, bias, residual, o).astype(x.dtype)


LAYER_NORM = Op("layer_norm", Options, _check, _reference, {"cpu": _cpu}, of_mlx=gpu.alike(_gpu))


def layer_norm(
    x: mx.array,
    weight: mx.array | None = None,
    bias: mx.array | None = None,
    *,
    eps: float = 1e-5,
    residual: mx.array | None = None,
) -> mx.array:
    """Layer normalisation with the addition before it; see the module's formula.

    Args:
        x: (..., C).
        weight: (C,) or None for 1.
        bias: (C,) or None for 0.
        eps: added to the variance, at least 0.
        residual: x's shape, added to x first.

    Returns:
        (..., C) in x's dtype.

    Raises:
        InputError: a shape that does not fit, named with the argument.
    """
    return LAYER_NORM(x, weight, bias, residual, eps)


def _case(
    name: str,
    shape: tuple[int, ...],
    *,
    affine: bool = True,
    residual: bool = False,
    offset: float = 0.0,
    benchmark: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        kwargs: dict[str, Any] = {"x": normal(rng, *shape) + offset, **options}
        if affine:
            kwargs |= {"weight": normal(rng, shape[-1]), "bias": normal(rng, shape[-1])}
        if residual:
            kwargs["residual"] = normal(rng, *shape)
        return kwargs

    return Case(name, make, benchmark)


SPEC = LAYER_NORM.describe(
    layer_norm,
    cases=(
        _case("one number", (1,)),
        _case("primes", (3, 7, 31), residual=True),
        _case("no weights", (2, 40), affine=False, eps=1e-3),
        _case("more rows than an item", (1501, 17)),
        _case("far from 0", (5, 100), offset=30.0),
        _case("HuBERT, 10 s", (1, 500, 768), residual=True, benchmark=True),
        _case("HuBERT projection, 10 s", (1, 500, 512), benchmark=True),
    ),
    flops=lambda x, **_: 8 * x.size,
    bytes=lambda x, residual=None, **_: 4 * x.size * (2 if residual is None else 3),
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
