"""conv1d: (B, T, C) * (O, K, C/groups) -> (B, T', O), with the neighbours of a convolution fused into it.

y = (activation(conv(leaky_relu(x, slope)) + bias) + residual) * scale

Channels last, as everywhere in MLX; T' = (T + left + right - dilation * (K - 1) - 1) // stride + 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mlx.core as mx

from .. import native
from . import checks, conv_tiles, gpu, precision
from .epilogue import Activation, epilogue, leaky_relu
from .op import Op
from .packed import Array, PackedWeight, Weight, faster_dtype
from .precision import Dtype, mlx_dtype
from .spec import Case, Tolerance, layer_bytes, layer_case


class Options(NamedTuple):
    """What a call states beside its arrays; `padding` before and after, once it is checked."""

    stride: int
    padding: tuple[int, int]
    dilation: int
    groups: int
    leaky: float | None
    activation: Activation | None
    scale: float


def _check(x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> Options:
    op = "conv1d"
    checks.arrays(op, x=x, weight=weight, bias=bias, residual=residual)
    checks.whole(op, stride=o.stride, dilation=o.dilation, groups=o.groups)
    checks.packed(op, weight, groups=o.groups, beside=x)
    o = o._replace(padding=checks.pair(op, "padding", o.padding))
    checks.rank(op, "x", x, "(B, T, C)")
    checks.rank(op, "weight", weight, "(O, K, C/groups)")
    checks.channels(op, x, weight, o.groups)
    checks.at_least(op, 1, stride=o.stride, dilation=o.dilation)
    checks.at_least(op, 0, padding=o.padding)
    shape = _shape(x, weight, **o._asdict())
    least = o.dilation * (weight.shape[1] - 1) + 1 - sum(o.padding)
    checks.check(op, shape[1] >= 1, "x", f"at least {least} steps long", x.shape[1])
    checks.slope(op, "leaky", o.leaky)
    checks.epilogue(op, shape, bias, residual, o.activation, o.scale)
    return o


def _reference(x: mx.array, weight: mx.array, bias: Array, residual: Array, o: Options) -> mx.array:
    y = mx.conv_general(
        leaky_relu(x, o.leaky),
        weight.astype(x.dtype),
        stride=o.stride,
        padding=([o.padding[0]], [o.padding[1]]),
        kernel_dilation=o.dilation,
        groups=o.groups,
    )
    return epilogue(y, bias, residual, o.activation, o.scale)


def _cpu(x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> mx.array:
    data = weight.data if isinstance(weight, PackedWeight) else weight
    stride, padding, dilation, groups, leaky, activation, scale = o
    return native.compiled.conv1d(
        x,
        data,
        bias,
        residual,
        weight.shape[0],
        weight.shape[1],
        stride,
        padding,
        dilation,
        groups,
        1.0 if leaky is None else leaky,
        activation or "",
        scale,
    )


def _gpu(backend: str, x: mx.array, weight: Weight, bias: Array, residual: Array, o: Options) -> mx.array:
    if not isinstance(weight, PackedWeight):
        weight = conv_tiles.pack(backend, "conv1d", weight, o.groups)
    length = _shape(x, weight, **o._asdict())[1]
    return conv_tiles.convolve(
        backend,
        x,
        weight,
        bias,
        residual,
        rows=length,
        shape=(length, weight.shape[0]),
        stride=o.stride,
        dilation=o.dilation,
        before=o.padding[0],
        leaky=o.leaky,
        activation=o.activation,
        scale=o.scale,
    )


def _pack_cpu(weight: mx.array, groups: int, dtype: Dtype) -> PackedWeight:
    dtype = faster_dtype(dtype, weight.shape[2], weight.shape[0] // groups)
    data = native.compiled.conv1d_pack(weight, groups, dtype)
    return PackedWeight("conv1d", data, tuple(weight.shape), groups, dtype=dtype)


def _pack_gpu(backend: str, weight: mx.array, groups: int, dtype: Dtype) -> PackedWeight:
    return conv_tiles.pack(backend, "conv1d", weight.astype(mlx_dtype(dtype)), groups)


def _unpack(weight: PackedWeight) -> mx.array:
    """What the convolution makes of an impulse in each channel of a group, in all groups at once."""
    _, taps, channels = weight.shape
    impulses = mx.tile(mx.eye(channels)[:, None], (1, 1, weight.groups))
    return conv1d(impulses, weight, padding=taps - 1, groups=weight.groups)[:, ::-1].transpose(2, 1, 0)


_PACK = {"cpu": _pack_cpu, **gpu.both(_pack_gpu)}
CONV1D = Op(
    "conv1d", Options, _check, _reference, {"cpu": _cpu, **gpu.both(_gpu)}, pack=_PACK, unpack=_unpack
)


def pack_conv1d(weight: mx.array, *, groups: int = 1, dtype: Dtype = "float32") -> Weight:
    """Rearrange a weight (O, K, C/groups), float32, float16 or bfloat16, for the backend in use.

    Do it once at load; `conv1d` takes the result in place of the weight. On the reference route the weight
    itself comes back, in the dtype.

    Args:
        dtype: what to multiply in; sums are float32. On a CPU "bfloat16" rounds inputs to it as well, whatever they
            are, and shapes too small to gain from it stay float32, as the result's `dtype` says. On a GPU
            the inputs have to be of this dtype. "int8", on a CPU: whole numbers with a scale per output and tap, and
            per row of the input; a row with NaN or infinity gives NaN.

    Raises:
        InputError: a dtype that this device does not compute in: "float16" on a CPU; "int8" on a GPU; "bfloat16" and
            "int8" on a CPU without the compiled kernels or the instructions.
    """
    checks.arrays("conv1d", weight=weight)
    checks.whole("conv1d", groups=groups)
    checks.rank("conv1d", "weight", weight, "(O, K, C/groups)")
    checks.divides("conv1d", groups, weight)
    precision.check("conv1d", dtype)
    return CONV1D.packed(weight, groups, dtype, beside=precision.beside(dtype))


def conv1d(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None = None,
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
    leaky: float | None = None,
    activation: Activation | None = None,
    residual: mx.array | None = None,
    scale: float = 1.0,
) -> mx.array:
    """1-D convolution (cross-correlation) with fused neighbours; see the module's formula.

    Args:
        x: (B, T, C).
        weight: (O, K, C // groups), or what `pack_conv1d` made of it.
        bias: (O,) or None.
        padding: zeros before and after, one number for both or a pair.
        leaky: slope in [0, 1] of a leaky ReLU applied to x before the convolution.
        activation: what is applied after the bias, "relu", "gelu", "sigmoid" or "tanh".
        residual: (B, T', O) added after the activation.
        scale: factor on everything.

    Returns:
        (B, T', O) in x's dtype.

    Raises:
        InputError: a shape or value that does not fit, named with the argument.
    """
    return CONV1D(x, weight, bias, residual, stride, padding, dilation, groups, leaky, activation, scale)


def _shape(
    x: mx.array,
    weight: Weight,
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    **_: Any,
) -> tuple[int, int, int]:
    pad = 2 * padding if isinstance(padding, int) else sum(padding)
    length = (x.shape[1] + pad - dilation * (weight.shape[1] - 1) - 1) // stride + 1
    return x.shape[0], length, weight.shape[0]


def _dims(
    x: mx.array, weight: Weight, groups: int = 1, residual: mx.array | None = None, **options: Any
) -> dict[str, int]:
    """Batch, steps in and out, groups, their channels and outputs, taps, residuals."""
    out, kernel, channels = weight.shape
    steps = _shape(x, weight, **options)[1]
    numbers = (*x.shape[:2], steps, groups, channels, out // groups, kernel, int(residual is not None))
    return dict(zip("BTNGCOKR", numbers, strict=True))


def _case(
    name: str,
    batch: int,
    length: int,
    channels: int,
    out_channels: int,
    kernel: int,
    *,
    groups: int = 1,
    **options: Any,
) -> Case:
    weight = out_channels, kernel, channels // groups
    return layer_case(name, (batch, length, channels), weight, _shape, groups=groups, **options)


def _resblock(channels: int, length: int, kernel: int, dilation: int) -> Case:
    """A convolution of the decoder's residual blocks, sounds as long as stock MLX can check in a second."""
    return _case(
        f"resblock C={channels} K={kernel} dilation={dilation}",
        1,
        length,
        channels,
        channels,
        kernel,
        padding=(kernel - 1) * dilation // 2,
        dilation=dilation,
        leaky=0.1,
        residual=dilation == 1,
        benchmark=True,
    )


def _hubert(kernel: int, length: int) -> Case:
    """A layer of the front end of a content encoder."""
    name = f"HuBERT front end, K={kernel}"
    options: dict[str, Any] = {"stride": 2, "bias": False, "activation": "gelu", "benchmark": True}
    return _case(name, 1, length, 512, 512, kernel, **options)


SPEC = CONV1D.describe(
    conv1d,
    cases=(
        _case("one step, one channel", 1, 1, 1, 1, 1),
        _case("one step, wide kernel", 1, 1, 5, 7, 11, padding=5, leaky=0.1),
        _case("tanh", 1, 37, 5, 1, 7, padding=3, leaky=0.01, activation="tanh"),
        _case("primes", 1, 101, 13, 29, 7, padding=3, leaky=0.1, activation="gelu"),
        _case("batch, residual, scale", 3, 37, 24, 40, 3, padding=1, residual=True, scale=0.25),
        _case("dilation 5, longer than the input", 2, 11, 16, 16, 11, padding=25, dilation=5, leaky=0.2),
        _case("stride 3, one-sided padding", 2, 50, 17, 33, 4, stride=3, padding=(5, 0), activation="relu"),
        _case("groups", 2, 31, 36, 54, 5, groups=3, padding=2, dilation=2, residual=True),
        _case("depthwise", 1, 40, 19, 19, 3, groups=19, padding=1),
        _case("strided input", 2, 45, 31, 20, 3, padding=1, strided=True),
        _case("no bias, leaky slope 0", 1, 64, 32, 32, 3, leaky=0.0, bias=False),
        _case("long reduction in blocks", 2, 29, 300, 49, 11, padding=5, leaky=0.1, residual=True),
        _case(
            "dilation too wide for one tile", 1, 500, 24, 33, 3, dilation=200, padding=(150, 170), leaky=0.1
        ),
        _case("stride, one tap", 2, 301, 40, 12, 1, stride=3, residual=True),
        _case(
            "few channels, dilation", 2, 60, 3, 70, 5, stride=2, dilation=3, padding=4, activation="sigmoid"
        ),
        _case("several row blocks", 1, 1301, 32, 16, 3, padding=1, leaky=0.1),
        *(
            _resblock(channels, length, kernel, dilation)
            for channels, length in ((256, 480), (128, 1200), (64, 6000), (32, 24000))
            for kernel, dilation in ((3, 1), (7, 3), (11, 5))
        ),
        _case("decoder input", 1, 480, 192, 512, 7, padding=3, benchmark=True),
        _case("decoder output", 1, 48000, 32, 1, 7, padding=3, leaky=0.01, bias=False, benchmark=True),
        _case("noise branch", 1, 48000, 1, 256, 80, stride=40, padding=20, benchmark=True),
        _case("HuBERT front end, first", 1, 48000, 1, 512, 10, stride=5, bias=False, benchmark=True),
        _hubert(3, 999),
        _hubert(2, 998),
        _case(
            "HuBERT positional",
            1,
            100,
            768,
            768,
            128,
            groups=16,
            padding=(64, 63),
            activation="gelu",
            benchmark=True,
        ),
    ),
    flops=lambda x, weight, **options: (
        2 * math.prod(_shape(x, weight, **options)) * math.prod(weight.shape[1:])
    ),
    bytes=lambda x, weight, residual=None, **options: layer_bytes(
        x, weight, _shape(x, weight, **options), residual
    ),
    dims=_dims,
    # Half a unit in the last place of the largest number, and of any other: the output is rounded once.
    tolerance={
        "float32": Tolerance(max_abs=2e-6, rms=1e-6),
        "float16": Tolerance(max_abs=1e-3, rms=5e-4),
        "bfloat16": Tolerance(max_abs=8e-3, rms=4e-3),
    },
)
