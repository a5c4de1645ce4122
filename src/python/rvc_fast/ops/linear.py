"""linear: (..., C) * (O, C) -> (..., O), with fused neighbours.

y = activation(x @ weight.T + bias) + residual
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from . import dispatch
from .packed import (
    ACTIVATIONS,
    Activation,
    Dtype,
    PackedWeight,
    Weight,
    check_dtype,
    epilogue,
    faster_dtype,
    fused_epilogue,
    plain_weight,
)
from .spec import HALF, Case, OpSpec, Tolerance

dispatch.register("linear", "cpu", of_mlx=("metal", "cuda"))


def linear_reference(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    activation: Activation | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """The definition, in stock MLX."""
    return epilogue(x @ weight.astype(x.dtype).T, bias, activation, residual, 1.0)


def pack_linear(weight: mx.array, *, dtype: Dtype = "float32") -> Weight:
    """Rearrange a weight (O, C) for the backend in use; see `pack_conv1d`."""
    dispatch.check_arrays("linear", weight=weight)
    dispatch.check("linear", weight.ndim == 2, "weight", "of shape (O, C)", tuple(weight.shape))
    check_dtype("linear", dtype)
    backends: dict[str, Callable[..., Any]] = {
        "cpu": _pack_cpu,
        **dict.fromkeys(("reference", "metal", "cuda"), plain_weight),
    }
    return dispatch.select("linear", backends)(weight, dtype)


def _pack_cpu(weight: mx.array, dtype: Dtype = "float32") -> PackedWeight:
    from .. import native

    dtype = faster_dtype(dtype, weight.shape[1], weight.shape[0])
    data = native.ext().linear_pack(weight, dtype=dtype)
    return PackedWeight("linear", data, tuple(weight.shape), dtype=dtype)


def _linear_cpu(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    *,
    activation: Activation | None,
    residual: mx.array | None,
) -> mx.array:
    from .. import native

    packed = weight if isinstance(weight, PackedWeight) else _pack_cpu(weight)
    return native.ext().linear(
        x, packed.data, bias, residual, out_channels=packed.shape[0], activation=activation or ""
    )


def _linear_gpu(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    *,
    activation: Activation | None,
    residual: mx.array | None,
) -> mx.array:
    """MLX's matrix product runs at the rate of the hardware, its neural accelerators included, and adds a bias."""
    w = weight.astype(x.dtype).T
    y = x @ w if bias is None else mx.addmm(bias.astype(x.dtype), x, w)
    return fused_epilogue(y, None, activation, residual)


def linear(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None = None,
    *,
    activation: Activation | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """Affine map of the last axis with fused neighbours; see the module's formula.

    Args:
        x: (..., C).
        weight: (O, C), or what `pack_linear` made of it.
        bias: (O,) or None.
        activation: what is applied after the bias, one of `packed.ACTIVATIONS`.
        residual: (..., O) added after the activation.

    Returns:
        (..., O) in x's dtype.
    """
    dispatch.check_arrays("linear", x=x, weight=weight, bias=bias, residual=residual)
    dispatch.check_packed("linear", weight, dtype=x.dtype)
    shape = weight.shape
    check = dispatch.check
    check("linear", x.ndim >= 1, "x", "of shape (..., C)", tuple(x.shape))
    check("linear", len(shape) == 2, "weight", "of shape (O, C)", tuple(shape))
    check("linear", x.shape[-1] == shape[1], "x", f"{shape[1]} channels wide", x.shape[-1])
    dispatch.check_shape("linear", "bias", bias, (shape[0],))
    check(
        "linear",
        activation is None or activation in ACTIVATIONS,
        "activation",
        f"one of {ACTIVATIONS}",
        activation,
    )
    out = (*x.shape[:-1], shape[0])
    dispatch.check_shape("linear", "residual", residual, out)
    backends: dict[str, Callable[..., Any]] = {
        "cpu": _linear_cpu,
        "reference": linear_reference,
        "metal": _linear_gpu,
        "cuda": _linear_gpu,
    }
    run = dispatch.select("linear", backends, dtype=x.dtype)
    return run(x, weight, bias, activation=activation, residual=residual)


def _case(
    name: str,
    lead: tuple[int, ...],
    channels: int,
    out_channels: int,
    *,
    bias: bool = True,
    residual: bool = False,
    strided: bool = False,
    benchmark: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> mx.array:
            return mx.array(rng.standard_normal(shape, dtype=np.float32))

        x = normal(*lead, 2 * channels)[..., ::2] if strided else normal(*lead, channels)
        kwargs: dict[str, Any] = {
            "x": x,
            "weight": normal(out_channels, channels) * channels**-0.5,
            **options,
        }
        if bias:
            kwargs["bias"] = normal(out_channels)
        if residual:
            kwargs["residual"] = normal(*lead, out_channels)
        return kwargs

    return Case(name, make, benchmark)


def _flops(x: mx.array, weight: Weight, **_: Any) -> int:
    return 2 * x.size * weight.shape[0]


def _bytes(x: mx.array, weight: Weight, residual: mx.array | None = None, **_: Any) -> int:
    out, channels = weight.shape
    return 4 * (x.size + out * channels + x.size // channels * out * (1 if residual is None else 2))


SPEC = OpSpec(
    name="linear",
    op=linear,
    reference=linear_reference,
    cases=(
        _case("one number", (1,), 1, 1),
        _case("a vector", (), 17, 5),
        _case("sigmoid", (19,), 33, 23, activation="sigmoid"),
        _case("primes", (2, 3, 7), 31, 37, activation="gelu"),
        _case("one row, wide", (1, 1), 256, 331, residual=True, activation="relu"),
        _case("strided input", (4, 9), 48, 33, strided=True, bias=False),
        _case("long reduction in blocks", (13,), 3072, 70, residual=True),
        _case("HuBERT attention", (1, 300), 768, 768, residual=True, benchmark=True),
        _case("HuBERT feed-forward up", (1, 150), 768, 3072, activation="gelu", benchmark=True),
        _case("HuBERT feed-forward down", (1, 150), 3072, 768, residual=True, benchmark=True),
        _case("text encoder input", (1, 1000), 768, 192, benchmark=True),
    ),
    flops=_flops,
    bytes=_bytes,
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
