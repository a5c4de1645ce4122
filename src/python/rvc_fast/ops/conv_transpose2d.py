"""conv_transpose2d: (B, H, W, C) * (O, KH, KW, C) -> (B, H', W', O), with fused neighbours.

y = activation(conv_transpose(x) + bias), and beside it perhaps another array's channels. PyTorch's definition:
H' = (H - 1) * stride - 2 * padding + KH + output_padding, W' likewise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from . import dispatch, gpu
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

dispatch.register("conv_transpose2d", "cpu", of_mlx=("metal", "cuda"))

Pair = tuple[int, int]


def conv_transpose2d_reference(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    activation: Activation | None = None,
    beside: mx.array | None = None,
) -> mx.array:
    """The definition, in stock MLX."""
    y = mx.conv_transpose2d(
        x, weight.astype(x.dtype), stride=stride, padding=padding, output_padding=output_padding
    )
    y = epilogue(y, bias, activation, None, 1.0)
    return y if beside is None else mx.concatenate([y, beside.astype(y.dtype)], axis=-1)


def pack_conv_transpose2d(weight: mx.array, *, stride: Pair = (1, 1), dtype: Dtype = "float32") -> Weight:
    """Rearrange a weight (O, KH, KW, C) for the backend in use; see `pack_conv1d`."""
    op = "conv_transpose2d"
    dispatch.check_arrays(op, weight=weight)
    dispatch.check(op, weight.ndim == 4, "weight", "of shape (O, KH, KW, C)", tuple(weight.shape))
    stride = dispatch.pair(op, "stride", stride)
    dispatch.check(op, min(stride) >= 1, "stride", "at least 1", stride)
    check_dtype("conv_transpose2d", dtype)
    backends: dict[str, Callable[..., Weight]] = {
        "cpu": _pack_cpu,
        "reference": plain_weight,
        **gpu.both(_pack_gpu),
    }
    return dispatch.select(op, backends)(weight, stride, dtype)


def _pack_cpu(weight: mx.array, stride: Pair, dtype: Dtype = "float32") -> PackedWeight:
    from .. import native

    dtype = faster_dtype(dtype, weight.shape[-1], weight.shape[0])
    data = native.ext().conv_transpose2d_pack(weight, stride=stride, dtype=dtype)
    return PackedWeight("conv_transpose2d", data, tuple(weight.shape), stride=tuple(stride), dtype=dtype)


def _conv_transpose2d_cpu(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    activation: Activation | None,
    beside: mx.array | None,
) -> mx.array:
    from .. import native

    packed = weight if isinstance(weight, PackedWeight) else _pack_cpu(weight, stride)
    return native.ext().conv_transpose2d(
        x,
        packed.data,
        bias,
        out_channels=packed.shape[0],
        kernel=(packed.shape[1], packed.shape[2]),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        activation=activation or "",
        beside=beside,
    )


def _pack_gpu(backend: str, weight: mx.array, stride: Pair, dtype: Dtype = "float32") -> PackedWeight:
    """(O, KH, KW, C) -> (stride[0] * stride[1] * O, ceil(KH / stride[0]), ceil(KW / stride[1]), C).

    Phase (r, s) has the taps (r + i * stride[0], s + j * stride[1]), last first.
    """
    out, *kernel, channels = weight.shape
    taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    missing = [(0, t * s - k) for k, t, s in zip(kernel, taps, stride, strict=True)]
    data = mx.pad(weight.astype(mx.float32), [(0, 0), *missing, (0, 0)])
    data = data.reshape(out, taps[0], stride[0], taps[1], stride[1], channels)[:, ::-1, :, ::-1]
    data = mx.contiguous(data.transpose(2, 4, 0, 1, 3, 5).reshape(-1, *taps, channels))
    return PackedWeight("conv_transpose2d", data, tuple(weight.shape), stride=tuple(stride), backend=backend)


def _conv_transpose2d_gpu(
    backend: str,
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    activation: Activation | None,
    beside: mx.array | None,
) -> mx.array:
    """By phases, with MLX's convolution of stride 1: its own transposed one multiplies the inserted zeros.

    Row m of the convolution holds the outputs m * stride[0] + r of all phases r, columns likewise.
    """
    packed = weight if isinstance(weight, PackedWeight) else _pack_gpu(backend, weight, stride)
    out, *kernel, _ = packed.shape
    taps = packed.data.shape[1:3]
    size = [(x.shape[1 + i] - 1) * stride[i] - 2 * padding[i] + kernel[i] + output_padding[i] for i in (0, 1)]
    rows = [-(-(size[i] + padding[i]) // stride[i]) for i in (0, 1)]
    # As many zeros after x as the last rows reach for; the last ones of x may be cropped, too.
    after = [max(0, rows[i] - x.shape[1 + i]) for i in (0, 1)]
    y = mx.conv_general(
        x,
        packed.data.astype(x.dtype),
        padding=([t - 1 for t in taps], after),
    )[:, : rows[0], : rows[1]]
    y = y.reshape(x.shape[0], *rows, *stride, out).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(x.shape[0], rows[0] * stride[0], rows[1] * stride[1], out)
    y = y[:, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]
    y = fused_epilogue(y, bias, activation, None)
    return y if beside is None else mx.concatenate([y, beside.astype(y.dtype)], axis=-1)


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
        activation: what is applied after the bias, one of `packed.ACTIVATIONS`.
        beside: (B, H', W', S), whose channels follow the result's.

    Returns:
        (B, H', W', O + S) in x's dtype.
    """
    op = "conv_transpose2d"
    dispatch.check_arrays(op, x=x, weight=weight, bias=bias)
    stride, padding = dispatch.pair(op, "stride", stride), dispatch.pair(op, "padding", padding)
    output_padding = dispatch.pair(op, "output_padding", output_padding)
    dispatch.check_packed(op, weight, stride=stride, dtype=x.dtype)
    shape = weight.shape
    check = dispatch.check
    check(op, x.ndim == 4, "x", "of shape (B, H, W, C)", tuple(x.shape))
    check(op, len(shape) == 4, "weight", "of shape (O, KH, KW, C)", tuple(shape))
    check(op, x.shape[3] == shape[3], "x", f"{shape[3]} channels wide", x.shape[3])
    check(op, min(stride) >= 1, "stride", "at least 1", stride)
    check(op, min(padding) >= 0, "padding", "at least 0", padding)
    fits = all(0 <= p < s for p, s in zip(output_padding, stride, strict=True))
    check(op, fits, "output_padding", f"from 0 to below the stride {stride}", output_padding)
    out = [
        (x.shape[1 + i] - 1) * stride[i] - 2 * padding[i] + shape[1 + i] + output_padding[i] for i in (0, 1)
    ]
    check(op, min(x.shape) >= 1 and min(out) >= 1, "x", "large enough for one output", tuple(x.shape))
    dispatch.check_shape(op, "bias", bias, (shape[0],))
    if beside is not None:
        fits = beside.size > 0 and tuple(beside.shape[:-1]) == (x.shape[0], *out)
        check(op, fits, "beside", f"of shape {(x.shape[0], *out, 'S')}", tuple(beside.shape))
    check(
        op, activation is None or activation in ACTIVATIONS, "activation", f"one of {ACTIVATIONS}", activation
    )
    backends: dict[str, Callable[..., mx.array]] = {
        "cpu": _conv_transpose2d_cpu,
        "reference": conv_transpose2d_reference,
        **gpu.both(_conv_transpose2d_gpu),
    }
    return dispatch.select(op, backends, dtype=x.dtype)(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        activation=activation,
        beside=beside,
    )


def _case(
    name: str,
    batch: int,
    size: Pair,
    channels: int,
    out_channels: int,
    kernel: Pair,
    *,
    strided: bool = False,
    beside: int = 0,
    benchmark: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> mx.array:
            return mx.array(rng.standard_normal(shape, dtype=np.float32))

        x = (
            normal(batch, channels, *size).transpose(0, 2, 3, 1)
            if strided
            else normal(batch, *size, channels)
        )
        weight = normal(out_channels, *kernel, channels) * (kernel[0] * kernel[1] * channels) ** -0.5
        kwargs = {"x": x, "weight": weight, "bias": normal(out_channels), **options}
        if beside:
            shape = conv_transpose2d_reference(**kwargs).shape
            kwargs["beside"] = normal(*shape[:3], beside)
        return kwargs

    return Case(name, make, benchmark)


def _flops(x: mx.array, weight: Weight, **_: Any) -> int:
    return 2 * math.prod(x.shape[:3]) * math.prod(weight.shape)


def _bytes(
    x: mx.array,
    weight: Weight,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    beside: mx.array | None = None,
    **_: Any,
) -> int:
    height, width = (
        (x.shape[1 + i] - 1) * stride[i] - 2 * padding[i] + weight.shape[1 + i] + output_padding[i]
        for i in (0, 1)
    )
    out = x.shape[0] * height * width * weight.shape[0]
    return 4 * (x.size + math.prod(weight.shape) + out + (0 if beside is None else 2 * beside.size))


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


SPEC = OpSpec(
    name="conv_transpose2d",
    op=conv_transpose2d,
    reference=conv_transpose2d_reference,
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
    flops=_flops,
    bytes=_bytes,
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
