"""conv2d: (B, H, W, C) * (O, KH, KW, C) -> (B, H', W', O), stride 1, with fused neighbours.

y = activation(conv(x) + bias) + residual

The CPU kernel multiplies taps one by one ("direct"), or, 3 x 3 taps packed for it, by Winograd's method: F(2 x 2, 3 x 3) with
2.25 times fewer products and 1.8 times the memory, or F(4 x 4, 3 x 3) with 4 times fewer and 4 times the memory. These
round at 129 and 119 dB or better, and an input that is not finite spoils its whole tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import InputError
from . import dispatch
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

dispatch.register("conv2d", "cpu", of_mlx=("metal", "cuda"))


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
    dispatch.check_arrays("conv2d", weight=weight)
    dispatch.check("conv2d", weight.ndim == 4, "weight", "of shape (O, KH, KW, C)", tuple(weight.shape))
    check_dtype("conv2d", dtype)
    backends: dict[str, Callable[..., Any]] = {
        "cpu": _pack_cpu,
        **dict.fromkeys(("reference", "metal", "cuda"), _pack_plain),
    }
    return dispatch.select("conv2d", backends)(weight, algorithm, dtype)


def _pack_plain(weight: mx.array, algorithm: str, dtype: Dtype) -> mx.array:
    fits = algorithm in ("auto", "direct")
    dispatch.check("conv2d", fits, "algorithm", '"auto" or "direct" without the CPU kernel', algorithm)
    return plain_weight(weight)


def _pack_cpu(weight: mx.array, algorithm: str = "direct", dtype: Dtype = "float32") -> PackedWeight:
    from .. import native

    dtype = faster_dtype(dtype, weight.shape[3], weight.shape[0])
    shape = tuple(weight.shape)
    try:
        name = native.ext().conv2d_algorithm(shape, algorithm, dtype=dtype)
        if algorithm == "auto" and name != "direct":
            dtype = "float32"
        data = native.ext().conv2d_pack(weight, algorithm=name, dtype=dtype)
    except ValueError as e:
        raise InputError(str(e)) from None
    return PackedWeight("conv2d", data, shape, algorithm=name, dtype=dtype)


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
        algorithm=packed.algorithm,
    )


def _conv2d_gpu(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    *,
    padding: tuple[int, int],
    activation: Activation | None,
    residual: mx.array | None,
) -> mx.array:
    """MLX's own convolution is an implicit matrix product, or Winograd's for wide and large ones."""
    y = mx.conv2d(x, weight.astype(x.dtype), padding=padding)
    return fused_epilogue(y, bias, activation, residual)


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
        activation: what is applied after the bias, one of `packed.ACTIVATIONS`.
        residual: (B, H', W', O) added after the activation.

    Returns:
        (B, H', W', O) in x's dtype, H' = H + 2 * padding[0] - KH + 1 and W' likewise.
    """
    dispatch.check_arrays("conv2d", x=x, weight=weight, bias=bias, residual=residual)
    dispatch.check_packed("conv2d", weight, dtype=x.dtype)
    shape = weight.shape
    pad = dispatch.pair("conv2d", "padding", padding)
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
    backends: dict[str, Callable[..., Any]] = {
        "cpu": _conv2d_cpu,
        "reference": conv2d_reference,
        "metal": _conv2d_gpu,
        "cuda": _conv2d_gpu,
    }
    return dispatch.select("conv2d", backends, dtype=x.dtype)(
        x, weight, bias, padding=pad, activation=activation, residual=residual
    )


def _case(
    name: str,
    batch: int,
    size: tuple[int, int],
    channels: int,
    out_channels: int,
    kernel: tuple[int, int],
    *,
    residual: bool = False,
    strided: bool = False,
    benchmark: bool = False,
    padding: int | tuple[int, int] = 0,
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
        kwargs: dict[str, Any] = {
            "x": x,
            "weight": normal(out_channels, *kernel, channels) * (kernel[0] * kernel[1] * channels) ** -0.5,
            "bias": normal(out_channels),
            "padding": padding,
            **options,
        }
        if residual:
            kwargs["residual"] = normal(*_shape(**kwargs))
        return kwargs

    return Case(name, make, benchmark)


def _shape(x: mx.array, weight: Weight, *, padding: int | tuple[int, int] = 0, **_: Any) -> tuple[int, ...]:
    pad = (padding, padding) if isinstance(padding, int) else padding
    height, width = (x.shape[1 + i] + 2 * pad[i] - weight.shape[1 + i] + 1 for i in (0, 1))
    return x.shape[0], height, width, weight.shape[0]


def _flops(x: mx.array, weight: Weight, **options: Any) -> int:
    return 2 * math.prod(_shape(x, weight, **options)) * math.prod(weight.shape[1:])


def _bytes(x: mx.array, weight: Weight, residual: mx.array | None = None, **options: Any) -> int:
    y = math.prod(_shape(x, weight, **options)) * (1 if residual is None else 2)
    return 4 * (x.size + math.prod(weight.shape) + y)


def _rmvpe(channels: int, out_channels: int, height: int, width: int) -> Case:
    name = f"RMVPE {channels} -> {out_channels}, {height} x {width}"
    return _case(
        name, 1, (height, width), channels, out_channels, (3, 3), padding=1, activation="relu", benchmark=True
    )


SPEC = OpSpec(
    name="conv2d",
    op=conv2d,
    reference=conv2d_reference,
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
    flops=_flops,
    bytes=_bytes,
    # Sums of up to 4608 terms, and Winograd's tiles of 4 x 4: 119 dB at 128 channels.
    tolerance={"float32": Tolerance(max_abs=8e-6, rms=2e-6), **HALF},
)
