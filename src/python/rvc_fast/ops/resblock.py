"""resblock: the residual blocks of one decoder stage, (B, T, C) -> (B, T, C), averaged (HiFi-GAN, Kong 2020).

block(x): for each step, x = x + conv_n(leaky(... conv_1(leaky(x)))); the stage is the mean of its blocks.

A step is one or more convolutions C -> C of stride 1 that keep the length (odd kernels, padding
dilation * (K - 1) // 2); a block is a sequence of steps.

The CPU kernel runs the whole stage in one pass over time, each convolution with the algorithm that its weight was
packed for: "direct", or a fast one (an FFT with extra Toom-Cook points) that needs 2.4 to 5.3 times fewer
multiplications and three times the memory, and rounds at 106 dB or better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from ..errors import InputError
from . import dispatch
from .blocks import after
from .blocks import blocks as split
from .conv1d import conv1d, pack_conv1d
from .packed import Dtype, PackedWeight, Weight, check_dtype, faster_dtype
from .spec import Case, OpSpec, Tolerance


class ResConv(NamedTuple):
    """One convolution of a residual block: weight (C, K, C) or what `pack_resblock` made of it, bias (C,), dilation."""

    weight: Weight
    bias: mx.array | None
    dilation: int = 1


Step = Sequence[ResConv]
Block = Sequence[Step]

dispatch.register("resblock", "cpu")


def pack_resblock(weight: mx.array, *, algorithm: str = "auto", dtype: Dtype = "float32") -> Weight:
    """Rearrange the weight (C, K, C) of one convolution, float32, float16 or bfloat16, for the backend in use.

    Do it once at load; `ResConv` takes the result in place of the weight. On the reference route the weight
    itself comes back, as float32.

    Args:
        algorithm: of the CPU kernel. "auto" takes the fastest for the shape; "direct" keeps the weight's size,
            which saves memory; "fast" insists on a fast one; or the name of one, such as "k7n16e10".
        dtype: what to multiply in, see `pack_conv1d`. Only "direct" comes in "bfloat16"; "auto" takes it where it
            is faster than a fast one in float32.

    Raises:
        InputError: an algorithm that there is not, or not for this shape and dtype; a dtype that the CPU has not.
    """
    dispatch.check_arrays("resblock", weight=weight)
    shape = tuple(weight.shape)
    fits = len(shape) == 3 and shape[0] == shape[2]
    dispatch.check("resblock", fits, "weight", "of shape (C, K, C)", shape)
    check_dtype("resblock", dtype)
    if algorithm == "direct":
        return pack_conv1d(weight, dtype=dtype)
    run = dispatch.select("resblock", {"cpu": _pack_cpu, "reference": _pack_reference})
    return run(weight, algorithm, dtype)


def _pack_reference(weight: mx.array, algorithm: str, dtype: Dtype) -> mx.array:
    dispatch.check(
        "resblock", algorithm == "auto", "algorithm", '"auto" or "direct" without the CPU kernel', algorithm
    )
    return weight.astype(mx.float32)


def _pack_cpu(weight: mx.array, algorithm: str, dtype: Dtype = "float32") -> PackedWeight:
    from .. import native

    shape = tuple(weight.shape)
    dtype = faster_dtype(dtype, shape[2], shape[0])
    try:
        if algorithm == "auto":
            name = native.ext().resblock_algorithm(shape[0], shape[1], "auto", dtype=dtype)
            if name != "direct":
                dtype = "float32"
        else:
            name = native.ext().resblock_algorithm(shape[0], shape[1], algorithm)
        data = native.ext().resblock_pack(weight, algorithm=name, dtype=dtype)
    except ValueError as e:
        raise InputError(str(e)) from None
    return PackedWeight("resblock", data, shape, algorithm=name, dtype=dtype)


def _conv(
    x: mx.array, conv: ResConv, slope: float, residual: mx.array | None = None, scale: float = 1.0
) -> mx.array:
    padding = conv.dilation * (conv.weight.shape[1] - 1) // 2
    return conv1d(
        x,
        conv.weight,
        conv.bias,
        padding=padding,
        dilation=conv.dilation,
        leaky=slope,
        residual=residual,
        scale=scale,
    )


def _block(x: mx.array, block: Block, slope: float, total: mx.array | None, scale: float) -> mx.array:
    """(block(x) + total) * scale, the addition and the factor fused into the last convolution."""
    for i, step in enumerate(block):
        last = i == len(block) - 1
        y = x
        for conv in step[:-1]:
            y = _conv(y, conv, slope)
        residual = x + total if last and total is not None else x
        x = _conv(y, step[-1], slope, residual, scale if last else 1.0)
    return x


def resblock_stage_reference(x: mx.array, blocks: Sequence[Block], *, slope: float = 0.1) -> mx.array:
    """The definition, on `conv1d`."""
    *others, last = blocks
    total = None
    for block in others:
        total = _block(x, block, slope, total, 1.0)
    return _block(x, last, slope, total, 1 / len(blocks))


# Numbers of an activation that are worked on at a time without a compiled kernel: 4 MB.
PIECE = 1 << 20


def _resblock_stage_pieces(x: mx.array, blocks: Sequence[Block], *, slope: float) -> mx.array:
    """The reference in pieces along time that overlap by what the blocks can see.

    Done at once, its intermediates would be the peak memory of a conversion, many times x.
    """
    halo = max(
        sum(conv.dilation * (conv.weight.shape[1] - 1) // 2 for step in block for conv in step)
        for block in blocks
    )
    length = x.shape[1]
    out: list[mx.array] = []
    for start, stop in split(length, max(PIECE // x.shape[2], 4 * halo, 1)):
        low, high = max(start - halo, 0), min(stop + halo, length)
        piece = resblock_stage_reference(after(x[:, low:high], out), blocks, slope=slope)
        out.append(piece[:, start - low : stop - low])
    return mx.concatenate(out, axis=1)


def _resblock_stage_cpu(x: mx.array, blocks: Sequence[Block], *, slope: float) -> mx.array:
    from .. import native

    weights, biases, convs = [], [], []
    for block in blocks:
        for i, step in enumerate(block):
            for j, conv in enumerate(step):
                packed = conv.weight
                if not isinstance(packed, PackedWeight):
                    packed = _pack_cpu(packed, "auto")
                weights.append(packed.data)
                biases.append(conv.bias)
                last = j == len(step) - 1
                convs.append(
                    (packed.shape[1], conv.dilation, packed.algorithm, last, last and i == len(block) - 1)
                )
    return native.ext().resblock(x, weights, biases, convs, slope=slope)


def resblock_stage(x: mx.array, blocks: Sequence[Block], *, slope: float = 0.1) -> mx.array:
    """Mean of the residual blocks of one stage; see the module's formula.

    Args:
        x: (B, T, C).
        blocks: at least one, each with at least one step of at least one `ResConv`.
        slope: of the leaky ReLU before every convolution.

    Returns:
        (B, T, C) in x's dtype.

    Raises:
        InputError: a shape or value that does not fit, named with the argument.
    """
    op = "resblock"
    dispatch.check_arrays(op, x=x)
    dispatch.check(op, x.ndim == 3 and x.size > 0, "x", "of shape (B, T, C), not empty", tuple(x.shape))
    full = len(blocks) > 0 and all(len(block) > 0 and all(len(s) > 0 for s in block) for block in blocks)
    dispatch.check(op, full, "blocks", "non-empty sequences of non-empty steps", "an empty one")
    for block in blocks:
        for step in block:
            for conv in step:
                dispatch.check_arrays(op, weight=conv.weight, bias=conv.bias)
                dispatch.check_whole(op, dilation=conv.dilation)
                dispatch.check_packed(op, conv.weight, "resblock", "conv1d")
                shape = tuple(conv.weight.shape)
                fits = len(shape) == 3 and shape[0] == shape[2] == x.shape[2] and shape[1] % 2 == 1
                dispatch.check(op, fits, "weight", f"of shape ({x.shape[2]}, odd, {x.shape[2]})", shape)
                dispatch.check(op, conv.dilation >= 1, "dilation", "at least 1", conv.dilation)
                dispatch.check_shape(op, "bias", conv.bias, (x.shape[2],))
    dispatch.check_finite(op, slope=slope)
    dispatch.check(op, 0 <= slope <= 1, "slope", "from 0 to 1", slope)
    run = dispatch.select(op, {"cpu": _resblock_stage_cpu, "reference": _resblock_stage_pieces})
    return run(x, blocks, slope=slope)


def _case(
    name: str,
    batch: int,
    length: int,
    channels: int,
    kernels: Sequence[int] = (3, 7, 11),
    dilations: Sequence[int] = (1, 3, 5),
    pairs: bool = True,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        def conv(kernel: int, dilation: int) -> ResConv:
            weight = rng.standard_normal((channels, kernel, channels), dtype=np.float32)
            weight *= np.float32(0.5 / np.sqrt(channels * kernel))
            return ResConv(
                mx.array(weight), mx.array(rng.standard_normal(channels, dtype=np.float32)), dilation
            )

        blocks = [[[conv(k, d), conv(k, 1)] if pairs else [conv(k, d)] for d in dilations] for k in kernels]
        x = mx.array(rng.standard_normal((batch, length, channels), dtype=np.float32))
        return {"x": x, "blocks": blocks, "slope": 0.1}

    return Case(name, make, **options)


def _weights(blocks: Sequence[Block]) -> int:
    return sum(int(np.prod(conv.weight.shape)) for block in blocks for step in block for conv in step)


SPEC = OpSpec(
    name="resblock",
    op=resblock_stage,
    reference=resblock_stage_reference,
    cases=(
        _case("length_1", 1, 1, 4),
        _case("primes", 1, 53, 7),
        _case("batch", 3, 17, 8),
        _case("one_block", 1, 31, 5, kernels=(3,), dilations=(2,)),
        _case("single_convolutions", 1, 31, 8, dilations=(1, 3), pairs=False),
        _case("last_stage_100ms", 1, 4800, 32, benchmark=True),
    ),
    flops=lambda x, blocks, slope: 2 * x.shape[0] * x.shape[1] * _weights(blocks),
    bytes=lambda x, blocks, slope: 4 * (2 * x.size + _weights(blocks)),
    tolerance={"float32": Tolerance(max_abs=4e-6, rms=2e-6)},
)
