"""conv_transpose2d: (B, H, W, C) * (O, KH, KW, C) -> (B, H', W', O), with fused neighbours.

y = activation(conv_transpose(x) + bias), and beside it perhaps another array's channels. PyTorch's definition:
H' = (H - 1) * stride - 2 * padding + KH + output_padding, W' likewise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, gpu, precision
from .epilogue import Activation, epilogue, fused_epilogue
from .op import Op
from .packed import Array, PackedWeight, Weight, faster_dtype
from .precision import Dtype, mlx_dtype, name_of
from .spec import HALF, Case, Tolerance, layer_bytes, layer_case, normal

Pair = tuple[int, int]


class Options(NamedTuple):
    """What a call states beside its arrays."""

    stride: Pair
    padding: Pair
    output_padding: Pair
    activation: Activation | None


def _check(x: mx.array, weight: Weight, bias: Array, beside: Array, o: Options) -> Options:
    op = "conv_transpose2d"
    checks.arrays(op, x=x, weight=weight, bias=bias, beside=beside)
    o = o._replace(
        stride=checks.pair(op, "stride", o.stride),
        padding=checks.pair(op, "padding", o.padding),
        output_padding=checks.pair(op, "output_padding", o.output_padding),
    )
    checks.packed(op, weight, stride=o.stride, beside=x)
    checks.rank(op, "x", x, "(B, H, W, C)")
    checks.rank(op, "weight", weight, "(O, KH, KW, C)")
    checks.channels(op, x, weight)
    checks.at_least(op, 1, stride=o.stride)
    checks.at_least(op, 0, padding=o.padding)
    fits = all(0 <= p < s for p, s in zip(o.output_padding, o.stride, strict=True))
    checks.check(op, fits, "output_padding", f"from 0 to below the stride {o.stride}", o.output_padding)
    shape = _shape(x, weight, **o._asdict())
    checks.check(op, min(shape) >= 1, "x", "large enough for one output", tuple(x.shape))
    checks.epilogue(op, shape, bias, None, o.activation)
    if beside is not None:
        fits = tuple(beside.shape[:-1]) == shape[:-1]
        checks.check(op, fits, "beside", f"of shape {(*shape[:-1], 'S')}", tuple(beside.shape))
    return o


def _join(y: mx.array, beside: Array) -> mx.array:
    return y if beside is None else mx.concatenate([y, beside.astype(y.dtype)], axis=-1)


def _reference(x: mx.array, weight: mx.array, bias: Array, beside: Array, o: Options) -> mx.array:
    y = mx.conv_transpose2d(
        x, weight.astype(x.dtype), stride=o.stride, padding=o.padding, output_padding=o.output_padding
    )
    return _join(epilogue(y, bias, None, o.activation), beside)


def _smooth(x: mx.array, weight: mx.array, bias: Array, beside: Array, o: Options) -> mx.array:
    """The same without MLX's `output_padding`, which has no second derivatives."""
    y = mx.conv_transpose2d(x, weight, stride=o.stride)
    more = [(0, max(0, new - cut)) for new, cut in zip(o.output_padding, o.padding, strict=True)]
    (top, left), (_, height, width, _) = o.padding, _shape(x, weight, **o._asdict())
    y = mx.pad(y, [(0, 0), *more, (0, 0)])[:, top : top + height, left : left + width]
    return _join(epilogue(y, bias, None, o.activation), beside)


def _cpu(x: mx.array, weight: Weight, bias: Array, beside: Array, o: Options) -> mx.array:
    out, height, width, _ = weight.shape
    data = weight.data if isinstance(weight, PackedWeight) else weight
    stride, padding, output_padding, activation = o
    return native.compiled.conv_transpose2d(
        x, data, bias, out, (height, width), stride, padding, output_padding, activation or "", beside
    )


def _gpu(backend: str, x: mx.array, weight: Weight, bias: Array, beside: Array, o: Options) -> mx.array:
    """By phases, with MLX's convolution of stride 1: its own transposed one multiplies the inserted zeros.

    Row m of the convolution holds the outputs m * stride[0] + r of all phases r, columns likewise.
    """
    packed = weight if isinstance(weight, PackedWeight) else _laid(backend, weight, o.stride)
    _, *size, out = _shape(x, packed, **o._asdict())
    taps = packed.data.shape[1:3]
    (stride, padding), batch = (o.stride, o.padding), x.shape[0]
    rows = [-(-(size[i] + padding[i]) // stride[i]) for i in (0, 1)]
    # As many zeros after x as the last rows reach for; the last ones of x may be cropped, too.
    after = [max(0, rows[i] - x.shape[1 + i]) for i in (0, 1)]
    y = mx.conv_general(
        x,
        packed.data.astype(x.dtype),
        padding=([t - 1 for t in taps], after),
    )[:, : rows[0], : rows[1]]
    y = y.reshape(batch, *rows, *stride, out).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(batch, rows[0] * stride[0], rows[1] * stride[1], out)
    y = y[:, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]
    return _join(fused_epilogue(y, bias, None, o.activation), beside)


def _pack_cpu(weight: mx.array, stride: Pair, dtype: Dtype) -> PackedWeight:
    dtype = faster_dtype(dtype, weight.shape[-1], weight.shape[0])
    data = native.compiled.conv_transpose2d_pack(weight, stride, dtype)
    return PackedWeight("conv_transpose2d", data, tuple(weight.shape), stride=stride, dtype=dtype)


def _laid(backend: str, weight: mx.array, stride: Pair) -> PackedWeight:
    """(O, KH, KW, C) -> (stride[0] * stride[1] * O, ceil(KH / stride[0]), ceil(KW / stride[1]), C).

    Phase (r, s) has the taps (r + i * stride[0], s + j * stride[1]), last first.
    """
    out, *kernel, channels = weight.shape
    taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    missing = [(0, t * s - k) for k, t, s in zip(kernel, taps, stride, strict=True)]
    data = mx.pad(weight, [(0, 0), *missing, (0, 0)])
    data = data.reshape(out, taps[0], stride[0], taps[1], stride[1], channels)[:, ::-1, :, ::-1]
    data = mx.contiguous(data.transpose(2, 4, 0, 1, 3, 5).reshape(-1, *taps, channels))
    shape, dtype = tuple(weight.shape), name_of(weight.dtype)
    return PackedWeight("conv_transpose2d", data, shape, stride=stride, dtype=dtype, backend=backend)


def _pack_gpu(backend: str, weight: mx.array, stride: Pair, dtype: Dtype) -> PackedWeight:
    return _laid(backend, weight.astype(mlx_dtype(dtype)), stride)


def _unpack(weight: PackedWeight) -> mx.array:
    """What is made of an impulse in each channel."""
    stride = weight.stride[0], weight.stride[1]
    return conv_transpose2d(mx.eye(weight.shape[3])[:, None, None], weight, stride=stride).transpose(
        3, 1, 2, 0
    )


_PACK = {"cpu": _pack_cpu, **gpu.both(_pack_gpu)}
CONV_TRANSPOSE2D = Op(
    "conv_transpose2d",
    Options,
    _check,
    _reference,
    {"cpu": _cpu},
    of_mlx=gpu.both(_gpu),
    pack=_PACK,
    unpack=_unpack,
    smooth=_smooth,
)


def pack_conv_transpose2d(weight: mx.array, *, stride: Pair = (1, 1), dtype: Dtype = "float32") -> Weight:
    """Rearrange a weight (O, KH, KW, C) for the backend in use; see `pack_conv1d`."""
    op = "conv_transpose2d"
    checks.arrays(op, weight=weight)
    checks.rank(op, "weight", weight, "(O, KH, KW, C)")
    stride = checks.pair(op, "stride", stride)
    checks.at_least(op, 1, stride=stride)
    precision.check(op, dtype, precision.FLOATS)
    return CONV_TRANSPOSE2D.packed(weight, stride, dtype, beside=mlx_dtype(dtype))


def conv_transpose2d(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    activation: Activation | None = None,
    beside: mx.array | None = None,
) -> mx.array:
    """Transposed 2-D convolution with fused neighbours; see the module's formula.

    Args:
        x: (B, H, W, C).
        weight: (O, KH, KW, C), or what `pack_conv_transpose2d` made of it.
        bias: (O,) or None.
        activation: what is applied after the bias, "relu", "gelu", "sigmoid" or "tanh".
        beside: (B, H', W', S), whose channels follow the result's.

    Returns:
        (B, H', W', O + S) in x's dtype.
    """
    return CONV_TRANSPOSE2D(x, weight, bias, beside, stride, padding, output_padding, activation)


def _shape(
    x: mx.array,
    weight: Weight,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    **_: Any,
) -> tuple[int, ...]:
    size = (
        (x.shape[1 + i] - 1) * stride[i] - 2 * padding[i] + weight.shape[1 + i] + output_padding[i]
        for i in (0, 1)
    )
    return x.shape[0], *size, weight.shape[0]


def _case(
    name: str,
    batch: int,
    size: Pair,
    channels: int,
    outputs: int,
    kernel: Pair,
    *,
    beside: int = 0,
    **options: Any,
) -> Case:
    case = layer_case(name, (batch, *size, channels), (outputs, *kernel, channels), _shape, **options)
    if not beside:
        return case

    def make(rng: np.random.Generator) -> dict[str, Any]:
        kwargs = case.make(rng)
        return {**kwargs, "beside": normal(rng, *_shape(**kwargs)[:3], beside)}

    return Case(name, make, case.benchmark)


def _rmvpe(channels: int, height: int, width: int) -> Case:
    return _case(
        f"RMVPE {channels} -> {channels // 2}, {height} x {width}",
        1,
        (height, width),
        channels,
        channels // 2,
        (3, 3),
        stride=(2, 2),
        padding=(1, 1),
        output_padding=(1, 1),
        activation="relu",
        benchmark=True,
    )


SPEC = CONV_TRANSPOSE2D.describe(
    conv_transpose2d,
    cases=(
        _case("one pixel", 1, (1, 1), 1, 1, (1, 1)),
        _case("one pixel in, four out", 1, (1, 1), 3, 5, (2, 2), stride=(2, 2)),
        _case("primes", 2, (7, 11), 13, 17, (3, 3), stride=(2, 2), padding=(1, 1), activation="gelu"),
        _case(
            "unequal strides", 1, (5, 6), 16, 33, (4, 3), stride=(3, 1), padding=(1, 2), output_padding=(2, 0)
        ),
        _case("kernel smaller than stride", 1, (4, 5), 8, 16, (1, 2), stride=(2, 3)),
        _case(
            "narrow and tall",
            1,
            (41, 2),
            24,
            40,
            (3, 3),
            stride=(2, 2),
            padding=(1, 1),
            output_padding=(1, 1),
        ),
        _case("beside another", 2, (7, 11), 13, 17, (3, 3), stride=(2, 2), activation="sigmoid", beside=5),
        _case("strided input", 1, (6, 5), 10, 12, (3, 3), stride=(2, 2), strided=True),
        *(
            _rmvpe(*shape)
            for shape in ((512, 16, 4), (256, 32, 8), (128, 64, 16), (64, 128, 32), (32, 160, 64))
        ),
    ),
    flops=lambda x, weight, **_: 2 * math.prod(x.shape[:3]) * math.prod(weight.shape),
    bytes=lambda x, weight, beside=None, **options: (
        layer_bytes(x, weight, _shape(x, weight, **options)) + (0 if beside is None else 8 * beside.size)
    ),
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
