"""layer_norm: (x + residual - mean) / sqrt(variance + eps) * weight + bias over the last axis, (..., C) -> (..., C)."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from . import dispatch
from .spec import HALF, Case, OpSpec, Tolerance

dispatch.register("layer_norm", "cpu", of_mlx=("metal", "cuda"))


def layer_norm_reference(
    x: mx.array,
    weight: mx.array | None = None,
    bias: mx.array | None = None,
    *,
    eps: float = 1e-5,
    residual: mx.array | None = None,
) -> mx.array:
    """The definition, in stock MLX."""
    return mx.fast.layer_norm(x if residual is None else x + residual, weight, bias, eps)


def _layer_norm_cpu(
    x: mx.array, weight: mx.array | None, bias: mx.array | None, *, eps: float, residual: mx.array | None
) -> mx.array:
    from .. import native

    ext = native.ext()
    assert ext is not None
    return ext.layer_norm(x, weight, bias, residual, eps=eps)


def _layer_norm_gpu(
    x: mx.array, weight: mx.array | None, bias: mx.array | None, *, eps: float, residual: mx.array | None
) -> mx.array:
    """MLX's own layer norm reads its input once; the sum is half a unit in the last place of x's dtype off."""
    return layer_norm_reference(x, weight, bias, eps=eps, residual=residual).astype(x.dtype)


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
    op = "layer_norm"
    dispatch.check_arrays(op, x=x, weight=weight, bias=bias, residual=residual)
    dispatch.check_finite(op, eps=eps)
    dispatch.check(op, x.ndim >= 1 and x.size > 0, "x", "of shape (..., C), none 0", tuple(x.shape))
    dispatch.check(op, eps >= 0, "eps", "at least 0", eps)
    dispatch.check_shape(op, "weight", weight, (x.shape[-1],))
    dispatch.check_shape(op, "bias", bias, (x.shape[-1],))
    dispatch.check_shape(op, "residual", residual, tuple(x.shape))
    backends = {
        "cpu": _layer_norm_cpu,
        "reference": layer_norm_reference,
        "metal": _layer_norm_gpu,
        "cuda": _layer_norm_gpu,
    }
    return dispatch.select(op, backends, dtype=x.dtype)(x, weight, bias, eps=eps, residual=residual)


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
        def normal(*size: int) -> mx.array:
            return mx.array(rng.standard_normal(size, dtype=np.float32))

        kwargs: dict[str, Any] = {"x": normal(*shape) + offset, **options}
        if affine:
            kwargs |= {"weight": normal(shape[-1]), "bias": normal(shape[-1])}
        if residual:
            kwargs["residual"] = normal(*shape)
        return kwargs

    return Case(name, make, benchmark)


def _flops(x: mx.array, **_: Any) -> int:
    return 8 * x.size


def _bytes(x: mx.array, residual: mx.array | None = None, **_: Any) -> int:
    return 4 * x.size * (2 if residual is None else 3)


SPEC = OpSpec(
    name="layer_norm",
    op=layer_norm,
    reference=layer_norm_reference,
    cases=(
        _case("one number", (1,)),
        _case("primes", (3, 7, 31), residual=True),
        _case("no weights", (2, 40), affine=False, eps=1e-3),
        _case("more rows than an item", (1501, 17)),
        _case("far from 0", (5, 100), offset=30.0),
        _case("HuBERT, 10 s", (1, 500, 768), residual=True, benchmark=True),
        _case("HuBERT projection, 10 s", (1, 500, 512), benchmark=True),
    ),
    flops=_flops,
    bytes=_bytes,
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
