"""Weights rearranged once for a kernel, and the element-wise steps that the convolution kernels share."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

from ..errors import InputError

Activation = Literal["relu", "gelu", "sigmoid", "tanh"]
Dtype = Literal["float32", "bfloat16"]
ACTIVATIONS: tuple[str, ...] = ("relu", "gelu", "sigmoid", "tanh")
DTYPES: tuple[str, ...] = ("float32", "bfloat16")

# Half a tile: what is missing to a whole one is multiplied as zeros.
BFLOAT16_LEAST = 16


@dataclass(frozen=True)
class PackedWeight:
    """A weight in the layout of the kernel of `backend`.

    `shape` is the shape of the array it was made from (MLX layout, channels last), `groups` its groups and
    `stride` the strides of a transposed convolution, whose layout depends on them;
    `algorithm` names what the kernel will do with `data` ("direct" multiplies taps one by one), `dtype` what it multiplies in;
    sums are float32.
    """

    op: str
    data: mx.array
    shape: tuple[int, ...]
    groups: int = 1
    algorithm: str = "direct"
    stride: tuple[int, ...] = ()
    dtype: str = "float32"
    backend: str = "cpu"


Weight = mx.array | PackedWeight


def bfloat16_missing() -> str | None:
    """Return why nothing can be multiplied in bfloat16 here, or None."""
    from .. import native
    from . import dispatch

    backend, reason = dispatch.route("conv1d")
    if backend != "cpu":
        return f"it needs the compiled CPU kernels, and {reason}"
    if not native.ext().bfloat16():
        return f"this CPU has neither AMX-BF16 nor AVX512-BF16, or RVC_FAST_ISA={native.ext().isa()} leaves them out"
    return None


def check_dtype(what: str, dtype: str) -> None:
    """InputError unless `dtype` is one of the two and can be multiplied in here."""
    if dtype not in DTYPES:
        raise InputError(f"[{what}] dtype must be one of {DTYPES}, got {dtype!r}")
    if dtype == "bfloat16" and (why := bfloat16_missing()) is not None:
        raise InputError(f"[{what}] dtype must be 'float32' here, got 'bfloat16': {why}")


def faster_dtype(dtype: Dtype, channels: int, outputs: int) -> Dtype:
    """Return "float32" where bfloat16 would be slower: too few channels or outputs (of a group) for its tiles."""
    return dtype if min(channels, outputs) >= BFLOAT16_LEAST else "float32"


def plain_weight(weight: mx.array, *_: object) -> mx.array:
    """What packing is where MLX's own kernels take the weight as it is: float32, as the result of other packings."""
    return weight.astype(mx.float32)


def activate(x: mx.array, activation: Activation | None) -> mx.array:
    """Apply ReLU, exact (erf) GELU, a sigmoid, tanh, or nothing."""
    if activation is None:
        return x
    if activation == "relu":
        return mx.maximum(x, 0)
    if activation == "sigmoid":
        return mx.sigmoid(x)
    if activation == "tanh":
        return mx.tanh(x)
    return x * (mx.erf(x * 0.5**0.5) + 1) * 0.5


def leaky_relu(x: mx.array, slope: float) -> mx.array:
    """max(x, slope * x), for slopes from 0 to 1."""
    return mx.maximum(x, x * slope)


def epilogue(
    y: mx.array,
    bias: mx.array | None,
    activation: Activation | None,
    residual: mx.array | None,
    scale: float,
) -> mx.array:
    """(activation(y + bias) + residual) * scale: what every convolution here may do in its store."""
    if bias is not None:
        y = y + bias
    y = activate(y, activation)
    if residual is not None:
        y = y + residual
    return y if scale == 1.0 else y * scale


@functools.partial(mx.compile, shapeless=True)
def _fused(
    y: mx.array, bias: mx.array | None, activation: Activation | None, residual: mx.array | None
) -> mx.array:
    return epilogue(y.astype(mx.float32), bias, activation, residual, 1.0).astype(y.dtype)


def fused_epilogue(
    y: mx.array, bias: mx.array | None, activation: Activation | None, residual: mx.array | None
) -> mx.array:
    """`epilogue` after one of MLX's own kernels: at most one more launch, float32 inside."""
    if bias is None and activation is None and residual is None:
        return y
    return _fused(y, bias, activation, residual)
