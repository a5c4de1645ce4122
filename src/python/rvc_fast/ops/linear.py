"""linear: (..., C) * (O, C) -> (..., O), with fused neighbours.

y = activation(x @ weight.T + bias) + residual
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mlx.core as mx

from .. import native
from . import checks, gpu, precision
from .epilogue import Activation, epilogue, fused_epilogue
from .op import Op
from .packed import Array, PackedWeight, Weight, faster_dtype
from .precision import Dtype
from .spec import HALF, Case, Tolerance, layer_bytes, layer_case


class Options(NamedTuple):
    """What a call states beside its arrays."""

    activation: Activation | None


def _check(x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> Options:
    checks.arrays("linear", x=x, weight=weight, bias=bias, residual=residual)
    checks.packed("linear", weight, beside=x)
    checks.check("linear", x.ndim >= 1, "x", "of shape (..., C)", tuple(x.shape))
    checks.rank("linear", "weight", weight, "(O, C)")
    checks.channels("linear", x, weight)
    checks.epilogue("linear", _shape(x, weight), bias, residual, o.activation)
    return o


def _reference(x: mx.array, weight: mx.array, bias: Array, residual: Array, o: Options) -> mx.array:
    return epilogue(x @ weight.astype(x.dtype).T, bias, residual, o.activation)


def _cpu(x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> mx.array:
    data = weight.data if isinstance(weight, PackedWeight) else weight
    return native.compiled.linear(x, data, bias, residual, weight.shape[0], o.activation or "")


def _gpu(x: mx.array, weight: mx.array, bias: Array, residual: Array, o: Options) -> mx.array:
    """MLX's matrix product runs at the rate of the hardware, its neural accelerators included, and adds a bias."""
    w = weight.astype(x.dtype).T
    y = x @ w if bias is None else mx.addmm(bias.astype(x.dtype), x, w)
    return fused_epilogue(y, None, residual, o.activation)


def _pack_cpu(weight: mx.array, dtype: Dtype) -> PackedWeight:
    dtype = faster_dtype(dtype, weight.shape[1], weight.shape[0])
    data = native.compiled.linear_pack(weight, dtype)
    return PackedWeight("linear", data, tuple(weight.shape), dtype=dtype)


def _unpack(weight: PackedWeight) -> mx.array:
    return linear(mx.eye(weight.shape[1]), weight).T


_PACK = {"cpu": _pack_cpu}
LINEAR = Op(
    "linear", Options, _check, _reference, {"cpu": _cpu}, of_mlx=gpu.alike(_gpu), pack=_PACK, unpack=_unpack
)


def pack_linear(weight: mx.array, *, dtype: Dtype = "float32") -> Weight:
    """Rearrange a weight (O, C) for the backend in use; see `pack_conv1d`."""
    checks.arrays("linear", weight=weight)
    checks.rank("linear", "weight", weight, "(O, C)")
    precision.check("linear", dtype)
    return LINEAR.packed(weight, dtype, beside=precision.beside(dtype))


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
        activation: what is applied after the bias, "relu", "gelu", "sigmoid" or "tanh".
        residual: (..., O) added after the activation.

    Returns:
        (..., O) in x's dtype.
    """
    return LINEAR(x, weight, bias, residual, activation)


def _shape(x: mx.array, weight: Weight, **_: Any) -> tuple[int, ...]:
    return (*x.shape[:-1], weight.shape[0])


def _case(name: str, lead: tuple[int, ...], channels: int, out_channels: int, **options: Any) -> Case:
    return layer_case(name, (*lead, channels), (out_channels, channels), _shape, **options)


SPEC = LINEAR.describe(
    linear,
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
    flops=lambda x, weight, **_: 2 * math.prod(_shape(x, weight)) * weight.shape[1],
    bytes=lambda x, weight, residual=None, **_: layer_bytes(x, weight, _shape(x, weight), residual),
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
