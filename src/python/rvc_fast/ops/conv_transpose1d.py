"""conv_transpose1d: (B, T, C) * (O, K, C) -> (B, T', O), with fused neighbours.

y = conv_transpose(leaky_relu(x, slope)) + bias + residual, PyTorch's definition:
T' = (T - 1) * stride - 2 * padding + K + output_padding.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import mlx.core as mx

from .. import native
from . import checks, conv_tiles, gpu, precision
from .epilogue import epilogue, leaky_relu
from .op import Op
from .packed import Array, PackedWeight, Weight, faster_dtype
from .precision import Dtype, mlx_dtype
from .spec import HALF, Case, Tolerance, layer_bytes, layer_case


class Options(NamedTuple):
    """What a call states beside its arrays."""

    stride: int
    padding: int
    output_padding: int
    leaky: float | None


def _check(x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> Options:
    op = "conv_transpose1d"
    checks.arrays(op, x=x, weight=weight, bias=bias, residual=residual)
    checks.whole(op, stride=o.stride, padding=o.padding, output_padding=o.output_padding)
    checks.packed(op, weight, stride=(o.stride,), beside=x)
    checks.rank(op, "x", x, "(B, T, C)")
    checks.rank(op, "weight", weight, "(O, K, C)")
    checks.channels(op, x, weight)
    checks.at_least(op, 1, stride=o.stride)
    checks.at_least(op, 0, padding=o.padding)
    fits = 0 <= o.output_padding < o.stride
    checks.check(op, fits, "output_padding", f"from 0 to {o.stride - 1}", o.output_padding)
    shape = _shape(x, weight, **o._asdict())
    checks.check(op, shape[1] >= 1, "x", "long enough for one output step", x.shape[1])
    checks.slope(op, "leaky", o.leaky)
    checks.epilogue(op, shape, bias, residual)
    return o


def _reference(x: mx.array, weight: mx.array, bias: Array, residual: Array, o: Options) -> mx.array:
    y = mx.conv_transpose1d(
        leaky_relu(x, o.leaky),
        weight.astype(x.dtype),
        stride=o.stride,
        padding=o.padding,
        output_padding=o.output_padding,
    )
    return epilogue(y, bias, residual)


def _cpu(x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> mx.array:
    data = weight.data if isinstance(weight, PackedWeight) else weight
    stride, padding, output_padding, leaky = o
    slope = 1.0 if leaky is None else leaky
    return native.compiled.conv_transpose1d(
        x, data, bias, residual, weight.shape[0], weight.shape[1], stride, padding, output_padding, slope
    )


def _phases(weight: Weight, stride: int) -> tuple[int, int, int]:
    """Return the shape of the weight of the convolution that makes all phases, the outputs `stride` apart, at once."""
    out, kernel, channels = weight.shape
    return stride * out, -(-kernel // stride), channels


def _gpu(backend: str, x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> mx.array:
    """One convolution whose rows hold the outputs of all phases: one after the other they are the result."""
    packed = weight if isinstance(weight, PackedWeight) else _laid(backend, weight, o.stride)
    _, length, out = _shape(x, packed, **o._asdict())
    phases = dataclasses.replace(packed, shape=_phases(packed, o.stride))
    return conv_tiles.convolve(
        backend,
        x,
        phases,
        bias,
        residual,
        rows=-(-(length + o.padding) // o.stride),
        shape=(length, out),
        before=phases.shape[1] - 1,
        crop=o.padding,
        leaky=o.leaky,
    )


def _pack_cpu(weight: mx.array, stride: int, dtype: Dtype) -> PackedWeight:
    dtype = faster_dtype(dtype, weight.shape[-1], weight.shape[0])
    data = native.compiled.conv_transpose1d_pack(weight, stride, dtype)
    return PackedWeight("conv_transpose1d", data, tuple(weight.shape), stride=(stride,), dtype=dtype)


def _laid(backend: str, weight: mx.array, stride: int) -> PackedWeight:
    """(O, K, C) -> (stride * O, ceil(K / stride), C), packed: phase r has the taps r, r + stride and so on, last first."""
    out, kernel, channels = weight.shape
    shape = _phases(weight, stride)
    rows = mx.pad(weight, [(0, 0), (0, shape[1] * stride - kernel), (0, 0)])
    rows = rows.reshape(out, shape[1], stride, channels)[:, ::-1].transpose(2, 0, 1, 3).reshape(shape)
    packed = conv_tiles.pack(backend, "conv_transpose1d", rows)
    return dataclasses.replace(packed, shape=tuple(weight.shape), stride=(stride,))


def _pack_gpu(backend: str, weight: mx.array, stride: int, dtype: Dtype) -> PackedWeight:
    return _laid(backend, weight.astype(mlx_dtype(dtype)), stride)


def _unpack(weight: PackedWeight) -> mx.array:
    """What is made of an impulse in each channel."""
    y = conv_transpose1d(mx.eye(weight.shape[2])[:, None], weight, stride=weight.stride[0])
    return y.transpose(2, 1, 0)


_PACK = {"cpu": _pack_cpu, **gpu.both(_pack_gpu)}
CONV_TRANSPOSE1D = Op(
    "conv_transpose1d",
    Options,
    _check,
    _reference,
    {"cpu": _cpu, **gpu.both(_gpu)},
    pack=_PACK,
    unpack=_unpack,
)


def pack_conv_transpose1d(weight: mx.array, *, stride: int = 1, dtype: Dtype = "float32") -> Weight:
    """Rearrange a weight (O, K, C) for the backend in use; see `pack_conv1d`."""
    op = "conv_transpose1d"
    checks.arrays(op, weight=weight)
    checks.whole(op, stride=stride)
    checks.rank(op, "weight", weight, "(O, K, C)")
    checks.at_least(op, 1, stride=stride)
    precision.check(op, dtype, precision.FLOATS)
    return CONV_TRANSPOSE1D.packed(weight, stride, dtype, beside=mlx_dtype(dtype))


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
    return CONV_TRANSPOSE1D(x, weight, bias, residual, stride, padding, output_padding, leaky)


def _shape(
    x: mx.array, weight: Weight, *, stride: int = 1, padding: int = 0, output_padding: int = 0, **_: Any
) -> tuple[int, int, int]:
    length = (x.shape[1] - 1) * stride - 2 * padding + weight.shape[1] + output_padding
    return x.shape[0], length, weight.shape[0]


def _case(
    name: str, batch: int, length: int, channels: int, out_channels: int, kernel: int, **options: Any
) -> Case:
    return layer_case(name, (batch, length, channels), (out_channels, kernel, channels), _shape, **options)


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


SPEC = CONV_TRANSPOSE1D.describe(
    conv_transpose1d,
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
    flops=lambda x, weight, **_: 2 * math.prod(x.shape[:2]) * math.prod(weight.shape),
    bytes=lambda x, weight, residual=None, **options: layer_bytes(
        x, weight, _shape(x, weight, **options), residual
    ),
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
