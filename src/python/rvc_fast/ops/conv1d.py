"""conv1d: (B, T, C) * (O, K, C/groups) -> (B, T', O), with the neighbours of a convolution fused into it.

y = (activation(conv(leaky_relu(x, slope)) + bias) + residual) * scale

Shapes are channels last, as everywhere in MLX. T' = (T + left + right - dilation * (K - 1) - 1) // stride + 1.
"""

from __future__ import annotations

import mlx.core as mx

from . import dispatch
from .packed import ACTIVATIONS, Activation, PackedWeight, Weight, epilogue, leaky_relu

dispatch.register("conv1d", "cpu")


def conv1d_reference(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
    leaky: float | None = None,
    activation: Activation | None = None,
    residual: mx.array | None = None,
    scale: float = 1.0,
) -> mx.array:
    """The definition, in stock MLX."""
    if leaky is not None:
        x = leaky_relu(x, leaky)
    y = mx.conv_general(
        x,
        weight.astype(x.dtype),
        stride=stride,
        padding=([padding[0]], [padding[1]]),
        kernel_dilation=dilation,
        groups=groups,
    )
    return epilogue(y, bias, activation, residual, scale)


def pack_conv1d(weight: mx.array, *, groups: int = 1) -> Weight:
    """Rearrange a weight (O, K, C/groups), float32, float16 or bfloat16, for the backend in use.

    Do it once at load; `conv1d` takes the result in place of the weight. On the reference route the weight
    itself comes back, as float32.
    """
    return dispatch.select("conv1d", {"cpu": _pack_cpu, "reference": _pack_reference})(weight, groups)


def _pack_reference(weight: mx.array, groups: int) -> mx.array:
    return weight.astype(mx.float32)


def _pack_cpu(weight: mx.array, groups: int) -> PackedWeight:
    from .. import native

    data = native.ext().conv1d_pack(weight, groups=groups)
    return PackedWeight("conv1d", data, tuple(weight.shape), groups)


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
        activation: "relu" or "gelu" (erf) applied after the bias.
        residual: (B, T', O) added after the activation.
        scale: factor on everything.

    Returns:
        (B, T', O) in x's dtype.

    Raises:
        InputError: a shape or value that does not fit, named with the argument.
    """
    shape = weight.shape
    pad = (padding, padding) if isinstance(padding, int) else tuple(padding)
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
    run = dispatch.select("conv1d", {"cpu": _conv1d_cpu, "reference": conv1d_reference})
    return run(
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
