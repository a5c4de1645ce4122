"""conv2d: (B, H, W, C) * (O, KH, KW, C) -> (B, H', W', O), stride 1, with fused neighbours.

y = activation(conv(x) + bias) + residual

The CPU kernel multiplies taps one by one ("direct"), or, 3 x 3 taps packed for it, by Winograd's method: F(2 x 2, 3 x 3) with
2.25 times fewer products and 1.8 times the memory, or F(4 x 4, 3 x 3) with 4 times fewer and 4 times the memory. These
round at 129 and 119 dB or better, and an input that is not finite spoils its whole tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from .. import native
from ..errors import InputError
from . import checks, gpu, precision
from .epilogue import Activation, epilogue, fused_epilogue
from .op import Op
from .packed import Array, PackedWeight, Weight, faster_dtype, plain_weight
from .precision import Dtype, mlx_dtype
from .spec import HALF, Case, Tolerance, layer_bytes, layer_case


class Options(NamedTuple):
    """What a call states beside its arrays; `padding` of both axes, once it is checked."""

    padding: tuple[int, int]
    activation: Activation | None


def _check(x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> Options:
    op = "conv2d"
    checks.arrays(op, x=x, weight=weight, bias=bias, residual=residual)
    checks.packed(op, weight, beside=x)
    o = o._replace(padding=checks.pair(op, "padding", o.padding))
    checks.rank(op, "x", x, "(B, H, W, C)")
    checks.rank(op, "weight", weight, "(O, KH, KW, C)")
    checks.channels(op, x, weight)
    checks.at_least(op, 0, padding=o.padding)
    shape = _shape(x, weight, padding=o.padding)
    checks.check(op, min(shape) >= 1, "x", "large enough for one output", tuple(x.shape))
    checks.epilogue(op, shape, bias, residual, o.activation)
    return o


def _reference(x: mx.array, weight: mx.array, bias: Array, residual: Array, o: Options) -> mx.array:
    y = mx.conv2d(x, weight.astype(x.dtype), padding=o.padding)
    return epilogue(y, bias, residual, o.activation)


def _cpu(x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> mx.array:
    out, height, width, _ = weight.shape
    data, algorithm = (
        (weight.data, weight.algorithm) if isinstance(weight, PackedWeight) else (weight, "direct")
    )
    return native.compiled.conv2d(
        x, data, bias, residual, out, (height, width), o.padding, o.activation or "", algorithm
    )


def _gpu(x: mx.array, weight: mx.array, bias: Array, residual: Array, o: Options) -> mx.array:
    """MLX's own convolution is an implicit matrix product, or Winograd's for wide and large ones."""
    y = mx.conv2d(x, weight.astype(x.dtype), padding=o.padding)
    return fused_epilogue(y, bias, residual, o.activation)


def _pack_cpu(weight: mx.array, algorithm: str, dtype: Dtype) -> PackedWeight:
    dtype = faster_dtype(dtype, weight.shape[3], weight.shape[0])
    shape = tuple(weight.shape)
    try:
        name = native.compiled.conv2d_algorithm(shape, algorithm, dtype)
        if algorithm == "auto" and name != "direct":
            dtype = "float32"
        data = native.compiled.conv2d_pack(weight, name, dtype)
    except ValueError as e:
        raise InputError(str(e)) from None
    return PackedWeight("conv2d", data, shape, algorithm=name, dtype=dtype)


def _pack_plain(weight: mx.array, algorithm: str, dtype: Dtype) -> mx.array:
    checks.no_algorithm("conv2d", algorithm)
    return plain_weight(weight, dtype)


def _unpack(weight: PackedWeight) -> mx.array:
    """What the convolution makes of an impulse in each channel."""
    _, *taps, channels = weight.shape
    y = conv2d(mx.eye(channels)[:, None, None], weight, padding=(taps[0] - 1, taps[1] - 1))
    return y[:, ::-1, ::-1].transpose(3, 1, 2, 0)


_PACK: dict[str, Callable[..., Weight]] = {
    "cpu": _pack_cpu,
    **dict.fromkeys(("reference", "metal", "cuda"), _pack_plain),
}
CONV2D = Op(
    "conv2d", Options, _check, _reference, {"cpu": _cpu}, of_mlx=gpu.alike(_gpu), pack=_PACK, unpack=_unpack
)


def pack_conv2d(weight: mx.array, *, algorithm: str = "auto", dtype: Dtype = "float32") -> Weight:
    """Rearrange a weight (O, KH, KW, C) for the backend in use; see `pack_conv1d`.

    A plain weight is multiplied directly by `conv2d`, as packing it for every call would cost more than it saves.

    Args:
        algorithm: of the CPU kernel. "auto" takes the fastest for the shape; "direct" keeps the weight's size, which
            saves memory; "fast" insists on Winograd's; or "winograd2" or "winograd4".
        dtype: what to multiply in. Only "direct" comes in "bfloat16"; "auto" takes it where it is faster than
            Winograd's method in float32.

    Raises:
        InputError: an algorithm that there is not, or not for this shape and dtype; a dtype that the CPU has not.
    """
    checks.arrays("conv2d", weight=weight)
    checks.rank("conv2d", "weight", weight, "(O, KH, KW, C)")
    precision.check("conv2d", dtype, precision.FLOATS)
    return CONV2D.packed(weight, algorithm, dtype, beside=mlx_dtype(dtype))


def conv2d(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None = None,
    *,
    padding: int | tuple[int, int] = 0,
    activation: Activation | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """2-D convolution of stride 1 with fused neighbours; see the module's formula.

    Args:
        x: (B, H, W, C).
        weight: (O, KH, KW, C), or what `pack_conv2d` made of it.
        bias: (O,) or None.
        padding: zeros on both sides of H and of W.
        activation: what is applied after the bias, "relu", "gelu", "sigmoid" or "tanh".
        residual: (B, H', W', O) added after the activation.

    Returns:
        (B, H', W', O) in x's dtype, H' = H + 2 * padding[0] - KH + 1 and W' likewise.
    """
    return CONV2D(x, weight, bias, residual, padding, activation)


def _shape(x: mx.array, weight: Weight, *, padding: int | tuple[int, int] = 0, **_: Any) -> tuple[int, ...]:
    pad = (padding, padding) if isinstance(padding, int) else padding
    height, width = (x.shape[1 + i] + 2 * pad[i] - weight.shape[1 + i] + 1 for i in (0, 1))
    return x.shape[0], height, width, weight.shape[0]


def _case(
    name: str,
    batch: int,
    size: tuple[int, int],
    channels: int,
    outputs: int,
    kernel: tuple[int, int],
    **options: Any,
) -> Case:
    return layer_case(name, (batch, *size, channels), (outputs, *kernel, channels), _shape, **options)


def _rmvpe(channels: int, out_channels: int, height: int, width: int) -> Case:
    name = f"RMVPE {channels} -> {out_channels}, {height} x {width}"
    return _case(
        name, 1, (height, width), channels, out_channels, (3, 3), padding=1, activation="relu", benchmark=True
    )


SPEC = CONV2D.describe(
    conv2d,
    cases=(
        _case("one pixel", 1, (1, 1), 1, 1, (1, 1)),
        _case("one pixel, wide kernel", 1, (1, 1), 3, 5, (3, 3), padding=1),
        _case("primes", 1, (13, 7), 11, 19, (3, 3), padding=1, activation="gelu"),
        _case("batch, oblong kernel and padding", 2, (9, 12), 16, 33, (2, 5), padding=(1, 3), residual=True),
        _case("narrow and tall", 1, (53, 2), 24, 24, (3, 3), padding=1, residual=True),
        _case("1 x 1", 2, (5, 30), 17, 40, (1, 1)),
        _case("strided input", 1, (10, 11), 12, 16, (3, 3), padding=1, strided=True),
        _case("padding beyond the kernel", 1, (3, 3), 4, 4, (2, 2), padding=3),
        *(_rmvpe(*shape) for shape in ((1, 16, 320, 128), (16, 16, 320, 128), (32, 32, 160, 64))),
        *(_rmvpe(*shape) for shape in ((64, 64, 80, 32), (128, 128, 40, 16), (256, 256, 20, 8))),
        _rmvpe(512, 512, 32, 4),
    ),
    flops=lambda x, weight, **options: (
        2 * math.prod(_shape(x, weight, **options)) * math.prod(weight.shape[1:])
    ),
    bytes=lambda x, weight, residual=None, **options: layer_bytes(
        x, weight, _shape(x, weight, **options), residual
    ),
    # Sums of up to 4608 terms, and Winograd's tiles of 4 x 4: 119 dB at 128 channels.
    tolerance={"float32": Tolerance(max_abs=8e-6, rms=2e-6), **HALF},
)
