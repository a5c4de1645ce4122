"""conv2d: (B, H, W, C) * (O, KH, KW, C) -> (B, H', W', O), stride 1, with fused neighbours.

y = activation(conv(x) + bias) + residual
"""

from __future__ import annotations

import mlx.core as mx

from . import dispatch
from .packed import ACTIVATIONS, Activation, PackedWeight, Weight, epilogue

dispatch.register("conv2d", "cpu")


def conv2d_reference(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    padding: tuple[int, int] = (0, 0),
    activation: Activation | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """The definition, in stock MLX."""
    y = mx.conv2d(x, weight.astype(x.dtype), padding=padding)
    return epilogue(y, bias, activation, residual, 1.0)


def pack_conv2d(weight: mx.array) -> Weight:
    """Rearrange a weight (O, KH, KW, C) for the backend in use; see `pack_conv1d`."""
    return dispatch.select("conv2d", {"cpu": _pack_cpu, "reference": _pack_reference})(weight)


def _pack_reference(weight: mx.array) -> mx.array:
    return weight.astype(mx.float32)


def _pack_cpu(weight: mx.array) -> PackedWeight:
    from .. import native

    return PackedWeight("conv2d", native.ext().conv2d_pack(weight), tuple(weight.shape))


def _conv2d_cpu(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    *,
    padding: tuple[int, int],
    activation: Activation | None,
    residual: mx.array | None,
) -> mx.array:
    from .. import native

    packed = weight if isinstance(weight, PackedWeight) else _pack_cpu(weight)
    return native.ext().conv2d(
        x,
        packed.data,
        bias,
        residual,
        out_channels=packed.shape[0],
        kernel=(packed.shape[1], packed.shape[2]),
        padding=padding,
        activation=activation or "",
    )


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
        activation: "relu" or "gelu" (erf) applied after the bias.
        residual: (B, H', W', O) added after the activation.

    Returns:
        (B, H', W', O) in x's dtype, H' = H + 2 * padding[0] - KH + 1 and W' likewise.
    """
    shape = weight.shape
    pad = (padding, padding) if isinstance(padding, int) else tuple(padding)
    check = dispatch.check
    check("conv2d", x.ndim == 4, "x", "of shape (B, H, W, C)", tuple(x.shape))
    check("conv2d", len(shape) == 4, "weight", "of shape (O, KH, KW, C)", tuple(shape))
    check("conv2d", x.shape[3] == shape[3], "x", f"{shape[3]} channels wide", x.shape[3])
    check("conv2d", min(pad) >= 0, "padding", "at least 0", pad)
    out = (
        x.shape[0],
        x.shape[1] + 2 * pad[0] - shape[1] + 1,
        x.shape[2] + 2 * pad[1] - shape[2] + 1,
        shape[0],
    )
    check("conv2d", min(out) >= 1, "x", "large enough for one output", tuple(x.shape))
    dispatch.check_shape("conv2d", "bias", bias, (shape[0],))
    check(
        "conv2d",
        activation is None or activation in ACTIVATIONS,
        "activation",
        f"one of {ACTIVATIONS}",
        activation,
    )
    dispatch.check_shape("conv2d", "residual", residual, out)
    run = dispatch.select("conv2d", {"cpu": _conv2d_cpu, "reference": conv2d_reference})
    return run(x, weight, bias, padding=pad, activation=activation, residual=residual)
