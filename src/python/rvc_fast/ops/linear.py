"""linear: (..., C) * (O, C) -> (..., O), with fused neighbours.

y = activation(x @ weight.T + bias) + residual
"""

from __future__ import annotations

import mlx.core as mx

from . import dispatch
from .packed import ACTIVATIONS, Activation, PackedWeight, Weight, epilogue

dispatch.register("linear", "cpu")


def linear_reference(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    activation: Activation | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """The definition, in stock MLX."""
    return epilogue(x @ weight.astype(x.dtype).T, bias, activation, residual, 1.0)


def pack_linear(weight: mx.array) -> Weight:
    """Rearrange a weight (O, C) for the backend in use; see `pack_conv1d`."""
    return dispatch.select("linear", {"cpu": _pack_cpu, "reference": _pack_reference})(weight)


def _pack_reference(weight: mx.array) -> mx.array:
    return weight.astype(mx.float32)


def _pack_cpu(weight: mx.array) -> PackedWeight:
    from .. import native

    return PackedWeight("linear", native.ext().linear_pack(weight), tuple(weight.shape))


def _linear_cpu(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None,
    *,
    activation: Activation | None,
    residual: mx.array | None,
) -> mx.array:
    from .. import native

    packed = weight if isinstance(weight, PackedWeight) else _pack_cpu(weight)
    return native.ext().linear(
        x, packed.data, bias, residual, out_channels=packed.shape[0], activation=activation or ""
    )


def linear(
    x: mx.array,
    weight: Weight,
    bias: mx.array | None = None,
    *,
    activation: Activation | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """Affine map of the last axis with fused neighbours; see the module's formula.

    Args:
        x: (..., C).
        weight: (O, C), or what `pack_linear` made of it.
        bias: (O,) or None.
        activation: "relu" or "gelu" (erf) applied after the bias.
        residual: (..., O) added after the activation.

    Returns:
        (..., O) in x's dtype.
    """
    shape = weight.shape
    check = dispatch.check
    check("linear", x.ndim >= 1, "x", "of shape (..., C)", tuple(x.shape))
    check("linear", len(shape) == 2, "weight", "of shape (O, C)", tuple(shape))
    check("linear", x.shape[-1] == shape[1], "x", f"{shape[1]} channels wide", x.shape[-1])
    dispatch.check_shape("linear", "bias", bias, (shape[0],))
    check(
        "linear",
        activation is None or activation in ACTIVATIONS,
        "activation",
        f"one of {ACTIVATIONS}",
        activation,
    )
    out = (*x.shape[:-1], shape[0])
    dispatch.check_shape("linear", "residual", residual, out)
    run = dispatch.select("linear", {"cpu": _linear_cpu, "reference": linear_reference})
    return run(x, weight, bias, activation=activation, residual=residual)
