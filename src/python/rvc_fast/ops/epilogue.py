"""The element-wise steps that convolutions and linear layers share: before the product, and in its store."""

from __future__ import annotations

import functools
from typing import Literal

import mlx.core as mx

Activation = Literal["relu", "gelu", "sigmoid", "tanh"]
ACTIVATIONS: tuple[str, ...] = ("relu", "gelu", "sigmoid", "tanh")


def leaky_relu(x: mx.array, slope: float | None) -> mx.array:
    """max(x, slope * x), for slopes from 0 to 1; x itself for None."""
    return x if slope is None else mx.maximum(x, x * slope)


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


def epilogue(
    y: mx.array,
    bias: mx.array | None,
    residual: mx.array | None = None,
    activation: Activation | None = None,
    scale: float = 1.0,
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
    y: mx.array, bias: mx.array | None, residual: mx.array | None, activation: Activation | None
) -> mx.array:
    return epilogue(y.astype(mx.float32), bias, residual, activation).astype(y.dtype)


def fused_epilogue(
    y: mx.array, bias: mx.array | None, residual: mx.array | None, activation: Activation | None
) -> mx.array:
    """`epilogue` after one of MLX's own kernels: at most one more launch, float32 inside."""
    if bias is None and activation is None and residual is None:
        return y
    return _fused(y, bias, residual, activation)
