"""Weights rearranged once for a kernel, and the element-wise steps that the convolution kernels share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mlx.core as mx

Activation = Literal["relu", "gelu", "sigmoid", "tanh"]
ACTIVATIONS: tuple[str, ...] = ("relu", "gelu", "sigmoid", "tanh")


@dataclass(frozen=True)
class PackedWeight:
    """A weight in the layout of one backend's kernel.

    `shape` is the shape of the array it was made from (MLX layout, channels last), `groups` its groups and
    `stride` the strides of a transposed convolution, whose layout depends on them;
    `algorithm` names what the kernel will do with `data` ("direct" multiplies taps one by one).
    """

    op: str
    data: mx.array
    shape: tuple[int, ...]
    groups: int = 1
    algorithm: str = "direct"
    stride: tuple[int, ...] = ()


Weight = mx.array | PackedWeight


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
