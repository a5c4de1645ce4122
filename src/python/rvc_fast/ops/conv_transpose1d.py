"""conv_transpose1d: (B, T, C) * (O, K, C) -> (B, T', O), T' = (T - 1) * stride - 2 * padding + K + output_padding.

y = conv_transpose(leaky_relu(x, slope)) + bias + residual
"""

from __future__ import annotations

import mlx.core as mx

from . import dispatch
from .packed import PackedWeight, Weight, epilogue, leaky_relu

dispatch.register("conv_transpose1d", "cpu")


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


def pack_conv_transpose1d(weight: mx.array, *, stride: int = 1) -> Weight:
    """Rearrange a weight (O, K, C) for the backend in use; see `pack_conv1d`."""
    run = dispatch.select("conv_transpose1d", {"cpu": _pack_cpu, "reference": _pack_reference})
    return run(weight, stride)


def _pack_reference(weight: mx.array, stride: int) -> mx.array:
    return weight.astype(mx.float32)


def _pack_cpu(weight: mx.array, stride: int) -> PackedWeight:
    from .. import native

    data = native.ext().conv_transpose1d_pack(weight, stride=stride)
    return PackedWeight("conv_transpose1d", data, tuple(weight.shape))


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
    shape = weight.shape
    check = dispatch.check
    op = "conv_transpose1d"
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
    run = dispatch.select(op, {"cpu": _conv_transpose1d_cpu, "reference": conv_transpose1d_reference})
    return run(
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        leaky=leaky,
        residual=residual,
    )
