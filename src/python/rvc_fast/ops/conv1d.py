"""conv1d: (B, T, C) * (O, K, C/groups) -> (B, T', O), with the neighbours of a convolution fused into it.

y = (activation(conv(leaky_relu(x, slope)) + bias) + residual) * scale

Channels last, as everywhere in MLX; T' = (T + left + right - dilation * (K - 1) - 1) // stride + 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from . import conv_tiles, dispatch, gpu
from .packed import (
    ACTIVATIONS,
    Activation,
    Dtype,
    PackedWeight,
    Weight,
    check_dtype,
    epilogue,
    faster_dtype,
    leaky_relu,
)
from .spec import Case, OpSpec, Tolerance

dispatch.register("conv1d", "cpu", "metal", "cuda")


def conv1d_reference(
    x: mx.array,
    weight: mx.array,
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
    """The definition, in stock MLX."""
    pad = (padding, padding) if isinstance(padding, int) else padding
    if leaky is not None:
        x = leaky_relu(x, leaky)
    y = mx.conv_general(
        x,
        weight.astype(x.dtype),
        stride=stride,
        padding=([pad[0]], [pad[1]]),
        kernel_dilation=dilation,
        groups=groups,
    )
    return epilogue(y, bias, activation, residual, scale)


def pack_conv1d(weight: mx.array, *, groups: int = 1, dtype: Dtype = "float32") -> Weight:
    """Rearrange a weight (O, K, C/groups), float32, float16 or bfloat16, for the backend in use.

    Do it once at load; `conv1d` takes the result in place of the weight. On the reference route the weight
    itself comes back, as float32.

    Args:
        dtype: what to multiply in. "bfloat16" rounds weights and inputs to it and adds in float32; shapes too
            small to gain from it stay float32, as the result's `dtype` says.

    Raises:
        InputError: "bfloat16" without the compiled kernels or on a CPU without the instructions.
    """
    dispatch.check_arrays("conv1d", weight=weight)
    dispatch.check_whole("conv1d", groups=groups)
    dispatch.check("conv1d", weight.ndim == 3, "weight", "of shape (O, K, C/groups)", tuple(weight.shape))
    fits = groups >= 1 and weight.shape[0] % groups == 0
    dispatch.check("conv1d", fits, "groups", f"a divisor of {weight.shape[0]} outputs", groups)
    check_dtype("conv1d", dtype)
    backends: dict[str, Callable[..., Weight]] = {
        "cpu": _pack_cpu,
        "reference": _pack_reference,
        **gpu.both(_pack_gpu),
    }
    return dispatch.select("conv1d", backends)(weight, groups, dtype)


def _pack_reference(weight: mx.array, groups: int, dtype: Dtype) -> mx.array:
    return weight.astype(mx.float32)


def _pack_cpu(weight: mx.array, groups: int, dtype: Dtype = "float32") -> PackedWeight:
    from .. import native

    dtype = faster_dtype(dtype, weight.shape[2], weight.shape[0] // max(groups, 1))
    data = native.ext().conv1d_pack(weight, groups=groups, dtype=dtype)
    return PackedWeight("conv1d", data, tuple(weight.shape), groups, dtype=dtype)


def _conv1d_cpu(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    *,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    groups: int,
    leaky: float | None,
    activation: Activation | None,
    residual: mx.array | None,
    scale: float,
) -> mx.array:
    from .. import native

    packed = weight if isinstance(weight, PackedWeight) else _pack_cpu(weight, groups)
    return native.ext().conv1d(
        x,
        packed.data,
        bias,
        residual,
        out_channels=packed.shape[0],
        kernel=packed.shape[1],
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        leaky=1.0 if leaky is None else leaky,
        activation=activation or "",
        scale=scale,
    )


def _pack_gpu(backend: str, weight: mx.array, groups: int, dtype: Dtype = "float32") -> PackedWeight:
    return conv_tiles.pack(backend, "conv1d", weight, groups)


def _conv1d_gpu(
    backend: str,
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
    packed = weight if isinstance(weight, PackedWeight) else _pack_gpu(backend, weight, groups)
    length = _length(x, weight, stride=stride, padding=padding, dilation=dilation)
    return conv_tiles.convolve(
        backend,
        x,
        packed,
        bias,
        residual,
        rows=length,
        shape=(length, packed.shape[0]),
        stride=stride,
        dilation=dilation,
        before=padding if isinstance(padding, int) else padding[0],
        leaky=leaky,
        activation=activation,
        scale=scale,
    )


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
        activation: what is applied after the bias, one of `packed.ACTIVATIONS`.
        residual: (B, T', O) added after the activation.
        scale: factor on everything.

    Returns:
        (B, T', O) in x's dtype.

    Raises:
        InputError: a shape or value that does not fit, named with the argument.
    """
    dispatch.check_arrays("conv1d", x=x, weight=weight, bias=bias, residual=residual)
    dispatch.check_whole("conv1d", stride=stride, dilation=dilation, groups=groups)
    dispatch.check_finite("conv1d", scale=scale, leaky=1.0 if leaky is None else leaky)
    dispatch.check_packed("conv1d", weight, groups=groups, dtype=x.dtype)
    shape = weight.shape
    pad = dispatch.pair("conv1d", "padding", padding)
    check = dispatch.check
    check("conv1d", x.ndim == 3, "x", "of shape (B, T, C)", tuple(x.shape))
    check("conv1d", len(shape) == 3, "weight", "of shape (O, K, C/groups)", tuple(shape))
    check(
        "conv1d", groups >= 1 and shape[0] % groups == 0, "groups", f"a divisor of {shape[0]} outputs", groups
    )
    check("conv1d", x.shape[2] == shape[2] * groups, "x", f"{shape[2] * groups} channels wide", x.shape[2])
    check("conv1d", stride >= 1 and dilation >= 1, "stride and dilation", "at least 1", (stride, dilation))
    check("conv1d", min(pad) >= 0, "padding", "at least 0", pad)
    span = dilation * (shape[1] - 1) + 1
    length = (x.shape[1] + sum(pad) - span) // stride + 1
    check("conv1d", length >= 1, "x", f"at least {span - sum(pad)} steps long", x.shape[1])
    dispatch.check_shape("conv1d", "bias", bias, (shape[0],))
    check("conv1d", leaky is None or 0 <= leaky <= 1, "leaky", "from 0 to 1", leaky)
    check(
        "conv1d",
        activation is None or activation in ACTIVATIONS,
        "activation",
        f"one of {ACTIVATIONS}",
        activation,
    )
    out = (x.shape[0], length, shape[0])
    dispatch.check_shape("conv1d", "residual", residual, out)
    backends: dict[str, Callable[..., mx.array]] = {
        "cpu": _conv1d_cpu,
        "reference": conv1d_reference,
        **gpu.both(_conv1d_gpu),
    }
    return dispatch.select("conv1d", backends, dtype=x.dtype)(
        x,
        weight,
        bias,
        stride=stride,
        padding=pad,
        dilation=dilation,
        groups=groups,
        leaky=leaky,
        activation=activation,
        residual=residual,
        scale=scale,
    )


def _case(
    name: str,
    batch: int,
    length: int,
    channels: int,
    out_channels: int,
    kernel: int,
    *,
    groups: int = 1,
    bias: bool = True,
    residual: bool = False,
    strided: bool = False,
    benchmark: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        def normal(*shape: int) -> mx.array:
            return mx.array(rng.standard_normal(shape, dtype=np.float32))

        x = normal(batch, channels, length).swapaxes(1, 2) if strided else normal(batch, length, channels)
        weight = normal(out_channels, kernel, channels // groups) * (kernel * channels // groups) ** -0.5
        kwargs: dict[str, Any] = {"x": x, "weight": weight, "groups": groups, **options}
        if bias:
            kwargs["bias"] = normal(out_channels)
        if residual:
            kwargs["residual"] = normal(batch, _length(**kwargs), out_channels)
        return kwargs

    return Case(name, make, benchmark)


def _length(
    x: mx.array,
    weight: Weight,
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    **_: Any,
) -> int:
    pad = 2 * padding if isinstance(padding, int) else sum(padding)
    return (x.shape[1] + pad - dilation * (weight.shape[1] - 1) - 1) // stride + 1


def _flops(x: mx.array, weight: Weight, **options: Any) -> int:
    out, kernel, channels = weight.shape
    return 2 * x.shape[0] * _length(x, weight, **options) * out * kernel * channels


def _bytes(x: mx.array, weight: Weight, residual: mx.array | None = None, **options: Any) -> int:
    out, kernel, channels = weight.shape
    y = x.shape[0] * _length(x, weight, **options) * out * (1 if residual is None else 2)
    return 4 * (x.size + out * kernel * channels + y)


def _dims(
    x: mx.array, weight: Weight, groups: int = 1, residual: mx.array | None = None, **options: Any
) -> dict[str, int]:
    """Batch, steps in and out, groups, their channels and outputs, taps, residuals."""
    out, kernel, channels = weight.shape
    steps = _length(x, weight, **options)
    numbers = (*x.shape[:2], steps, groups, channels, out // groups, kernel, int(residual is not None))
    return dict(zip("BTNGCOKR", numbers, strict=True))


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


SPEC = OpSpec(
    name="conv1d",
    op=conv1d,
    reference=conv1d_reference,
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
        _case(
            "HuBERT front end, K=3",
            1,
            999,
            512,
            512,
            3,
            stride=2,
            bias=False,
            activation="gelu",
            benchmark=True,
        ),
        _case(
            "HuBERT front end, K=2",
            1,
            998,
            512,
            512,
            2,
            stride=2,
            bias=False,
            activation="gelu",
            benchmark=True,
        ),
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
    flops=_flops,
    bytes=_bytes,
    dims=_dims,
    # Half a unit in the last place of the largest number, and of any other: the output is rounded once.
    tolerance={
        "float32": Tolerance(max_abs=2e-6, rms=1e-6),
        "float16": Tolerance(max_abs=1e-3, rms=5e-4),
        "bfloat16": Tolerance(max_abs=8e-3, rms=4e-3),
    },
)
