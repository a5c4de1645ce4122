"""conv_transpose1d: (B, T, C) * (O, K, C) -> (B, T', O), with fused neighbours.

y = conv_transpose(leaky_relu(x, slope)) + bias + residual, PyTorch's definition:
T' = (T - 1) * stride - 2 * padding + K + output_padding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from . import conv_tiles, dispatch, gpu
from .packed import (
    Dtype,
    PackedWeight,
    Weight,
    check_dtype,
    epilogue,
    faster_dtype,
    leaky_relu,
)
from .spec import HALF, Case, OpSpec, Tolerance

dispatch.register("conv_transpose1d", "cpu", "metal", "cuda")


def conv_transpose1d_reference(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    leaky: float | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """The definition, in stock MLX."""
    if leaky is not None:
        x = leaky_relu(x, leaky)
    y = mx.conv_transpose1d(
        x, weight.astype(x.dtype), stride=stride, padding=padding, output_padding=output_padding
    )
    return epilogue(y, bias, None, residual, 1.0)


def pack_conv_transpose1d(weight: mx.array, *, stride: int = 1, dtype: Dtype = "float32") -> Weight:
    """Rearrange a weight (O, K, C) for the backend in use; see `pack_conv1d`."""
    op = "conv_transpose1d"
    dispatch.check_arrays(op, weight=weight)
    dispatch.check_whole(op, stride=stride)
    dispatch.check(op, weight.ndim == 3, "weight", "of shape (O, K, C)", tuple(weight.shape))
    dispatch.check(op, stride >= 1, "stride", "at least 1", stride)
    check_dtype("conv_transpose1d", dtype)
    backends: dict[str, Callable[..., Weight]] = {
        "cpu": _pack_cpu,
        "reference": _pack_reference,
        **gpu.both(_pack_gpu),
    }
    return dispatch.select(op, backends)(weight, stride, dtype)


def _pack_reference(weight: mx.array, stride: int, dtype: Dtype) -> mx.array:
    return weight.astype(mx.float32)


def _pack_cpu(weight: mx.array, stride: int, dtype: Dtype = "float32") -> PackedWeight:
    from .. import native

    dtype = faster_dtype(dtype, weight.shape[-1], weight.shape[0])
    data = native.ext().conv_transpose1d_pack(weight, stride=stride, dtype=dtype)
    return PackedWeight("conv_transpose1d", data, tuple(weight.shape), stride=(stride,), dtype=dtype)


def _conv_transpose1d_cpu(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    *,
    stride: int,
    padding: int,
    output_padding: int,
    leaky: float | None,
    residual: mx.array | None,
) -> mx.array:
    from .. import native

    packed = weight if isinstance(weight, PackedWeight) else _pack_cpu(weight, stride)
    return native.ext().conv_transpose1d(
        x,
        packed.data,
        bias,
        residual,
        out_channels=packed.shape[0],
        kernel=packed.shape[1],
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        leaky=1.0 if leaky is None else leaky,
    )


def _phases(weight: Weight, stride: int) -> tuple[int, int, int]:
    """Return the shape of the weight of the convolution that makes all phases, the outputs `stride` apart, at once."""
    out, kernel, channels = weight.shape
    return stride * out, -(-kernel // stride), channels


def _pack_gpu(backend: str, weight: mx.array, stride: int, dtype: Dtype = "float32") -> PackedWeight:
    """(O, K, C) -> (stride * O, ceil(K / stride), C), packed: phase r has the taps r, r + stride and so on, last first."""
    out, kernel, channels = weight.shape
    shape = _phases(weight, stride)
    rows = mx.pad(weight, [(0, 0), (0, shape[1] * stride - kernel), (0, 0)])
    rows = rows.reshape(out, shape[1], stride, channels)[:, ::-1].transpose(2, 0, 1, 3).reshape(shape)
    packed = conv_tiles.pack(backend, "conv_transpose1d", rows)
    return dataclasses.replace(packed, shape=tuple(weight.shape), stride=(stride,))


def _conv_transpose1d_gpu(
    backend: str,
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    *,
    stride: int,
    padding: int,
    output_padding: int,
    leaky: float | None,
    residual: mx.array | None,
) -> mx.array:
    """One convolution whose rows hold the outputs of all phases: one after the other they are the result."""
    packed = weight if isinstance(weight, PackedWeight) else _pack_gpu(backend, weight, stride)
    out = packed.shape[0]
    length = _length(x, packed, stride=stride, padding=padding, output_padding=output_padding)
    phases = dataclasses.replace(packed, shape=_phases(packed, stride))
    return conv_tiles.convolve(
        backend,
        x,
        phases,
        bias,
        residual,
        rows=-(-(length + padding) // stride),
        shape=(length, out),
        before=phases.shape[1] - 1,
        crop=padding,
        leaky=leaky,
    )


def conv_transpose1d(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    leaky: float | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """Transposed 1-D convolution, PyTorch's definition, with fused neighbours; see the module's formula.

    Args:
        x: (B, T, C).
        weight: (O, K, C), or what `pack_conv_transpose1d` made of it.
        bias: (O,) or None.
        padding: steps cut from both ends of the full result.
        output_padding: steps added back at the end, less than `stride`.
        leaky: slope in [0, 1] of a leaky ReLU applied to x before the convolution.
        residual: (B, T', O) added to the result.

    Returns:
        (B, T', O) in x's dtype.
    """
    op = "conv_transpose1d"
    dispatch.check_arrays(op, x=x, weight=weight, bias=bias, residual=residual)
    dispatch.check_whole(op, stride=stride, padding=padding, output_padding=output_padding)
    dispatch.check_finite(op, leaky=1.0 if leaky is None else leaky)
    dispatch.check_packed(op, weight, stride=(stride,), dtype=x.dtype)
    shape = weight.shape
    check = dispatch.check
    check(op, x.ndim == 3, "x", "of shape (B, T, C)", tuple(x.shape))
    check(op, len(shape) == 3, "weight", "of shape (O, K, C)", tuple(shape))
    check(op, x.shape[2] == shape[2], "x", f"{shape[2]} channels wide", x.shape[2])
    check(op, stride >= 1, "stride", "at least 1", stride)
    check(op, padding >= 0, "padding", "at least 0", padding)
    check(op, 0 <= output_padding < stride, "output_padding", f"from 0 to {stride - 1}", output_padding)
    length = (x.shape[1] - 1) * stride - 2 * padding + shape[1] + output_padding
    check(op, x.shape[1] >= 1 and length >= 1, "x", "long enough for one output step", x.shape[1])
    dispatch.check_shape(op, "bias", bias, (shape[0],))
    check(op, leaky is None or 0 <= leaky <= 1, "leaky", "from 0 to 1", leaky)
    out = (x.shape[0], length, shape[0])
    dispatch.check_shape(op, "residual", residual, out)
    backends: dict[str, Callable[..., mx.array]] = {
        "cpu": _conv_transpose1d_cpu,
        "reference": conv_transpose1d_reference,
        **gpu.both(_conv_transpose1d_gpu),
    }
    return dispatch.select(op, backends, dtype=x.dtype)(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        leaky=leaky,
        residual=residual,
    )


def _case(
    name: str,
    batch: int,
    length: int,
    channels: int,
    out_channels: int,
    kernel: int,
    *,
    residual: bool = False,
    strided: bool = False,
    benchmark: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> mx.array:
            return mx.array(rng.standard_normal(shape, dtype=np.float32))

        x = normal(batch, channels, length).swapaxes(1, 2) if strided else normal(batch, length, channels)
        kwargs: dict[str, Any] = {
            "x": x,
            "weight": normal(out_channels, kernel, channels) * (kernel * channels) ** -0.5,
            "bias": normal(out_channels),
            **options,
        }
        if residual:
            kwargs["residual"] = normal(batch, _length(**kwargs), out_channels)
        return kwargs

    return Case(name, make, benchmark)


def _length(
    x: mx.array, weight: Weight, *, stride: int = 1, padding: int = 0, output_padding: int = 0, **_: Any
) -> int:
    return (x.shape[1] - 1) * stride - 2 * padding + weight.shape[1] + output_padding


def _flops(x: mx.array, weight: Weight, **_: Any) -> int:
    return 2 * x.shape[0] * x.shape[1] * math.prod(weight.shape)


def _bytes(x: mx.array, weight: Weight, residual: mx.array | None = None, **options: Any) -> int:
    y = x.shape[0] * _length(x, weight, **options) * weight.shape[0] * (1 if residual is None else 2)
    return 4 * (x.size + math.prod(weight.shape) + y)


def _upsample(channels: int, length: int, kernel: int, stride: int) -> Case:
    """An upsampling step of a decoder with the noise branch added."""
    name = f"decoder {channels} -> {channels // 2}, K={kernel} stride={stride}"
    padding = (kernel - stride) // 2
    return _case(
        name,
        1,
        length,
        channels,
        channels // 2,
        kernel,
        stride=stride,
        padding=padding,
        leaky=0.1,
        residual=True,
        benchmark=True,
    )


SPEC = OpSpec(
    name="conv_transpose1d",
    op=conv_transpose1d,
    reference=conv_transpose1d_reference,
    cases=(
        _case("one step", 1, 1, 1, 1, 1),
        _case("one step in, four out", 1, 1, 3, 5, 4, stride=4, leaky=0.1),
        _case("primes", 1, 23, 13, 29, 7, stride=3, padding=2, leaky=0.1),
        _case("kernel shorter than stride", 2, 9, 16, 17, 3, stride=5, residual=True),
        _case("kernel no multiple of stride", 2, 31, 24, 40, 11, stride=4, padding=3, output_padding=1),
        _case("stride 1", 1, 20, 32, 32, 5, padding=2),
        _case("padding beyond the first tap", 1, 30, 8, 16, 9, stride=2, padding=7, residual=True),
        _case("strided input", 2, 19, 18, 33, 4, stride=2, padding=1, strided=True),
        _case("a decoder's step", 1, 12, 256, 128, 20, stride=10, padding=5, leaky=0.1, residual=True),
        _upsample(512, 48, 24, 12),
        _upsample(256, 480, 20, 10),
        _upsample(256, 480, 16, 8),
        _upsample(128, 6000, 4, 2),
        _upsample(64, 24000, 4, 2),
    ),
    flops=_flops,
    bytes=_bytes,
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
