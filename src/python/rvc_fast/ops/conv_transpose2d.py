"""conv_transpose2d: (B, H, W, C) * (O, KH, KW, C) -> (B, H', W', O), PyTorch's definition, with fused neighbours.

y = activation(conv_transpose(x) + bias); H' = (H - 1) * stride - 2 * padding + KH + output_padding, W' likewise.
"""

from __future__ import annotations

import mlx.core as mx

from . import dispatch
from .packed import ACTIVATIONS, Activation, PackedWeight, Weight, epilogue

dispatch.register("conv_transpose2d", "cpu")

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
) -> mx.array:
    """The definition, in stock MLX."""
    y = mx.conv_transpose2d(
        x, weight.astype(x.dtype), stride=stride, padding=padding, output_padding=output_padding
    )
    return epilogue(y, bias, activation, None, 1.0)


def pack_conv_transpose2d(weight: mx.array, *, stride: Pair = (1, 1)) -> Weight:
    """Rearrange a weight (O, KH, KW, C) for the backend in use; see `pack_conv1d`."""
    run = dispatch.select("conv_transpose2d", {"cpu": _pack_cpu, "reference": _pack_reference})
    return run(weight, stride)


def _pack_reference(weight: mx.array, stride: Pair) -> mx.array:
    return weight.astype(mx.float32)


def _pack_cpu(weight: mx.array, stride: Pair) -> PackedWeight:
    from .. import native

    data = native.ext().conv_transpose2d_pack(weight, stride=stride)
    return PackedWeight("conv_transpose2d", data, tuple(weight.shape))


def _conv_transpose2d_cpu(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    *,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    activation: Activation | None,
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
    )


def conv_transpose2d(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    activation: Activation | None = None,
) -> mx.array:
    """Transposed 2-D convolution with fused neighbours; see the module's formula.

    Args:
        x: (B, H, W, C).
        weight: (O, KH, KW, C), or what `pack_conv_transpose2d` made of it.
        bias: (O,) or None.
        activation: "relu" or "gelu" (erf) applied after the bias.

    Returns:
        (B, H', W', O) in x's dtype.
    """
    shape = weight.shape
    check = dispatch.check
    op = "conv_transpose2d"
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
    check(
        op, activation is None or activation in ACTIVATIONS, "activation", f"one of {ACTIVATIONS}", activation
    )
    run = dispatch.select(op, {"cpu": _conv_transpose2d_cpu, "reference": conv_transpose2d_reference})
    return run(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        activation=activation,
    )
