"""resblock: the residual blocks of one decoder stage, (B, T, C) -> (B, T, C), averaged (HiFi-GAN, Kong 2020).

block(x): for each step, x = x + conv_n(leaky(... conv_1(leaky(x)))); the stage is the mean of its blocks.

A step is one or more convolutions C -> C of stride 1 that keep the length (odd kernels, padding
dilation * (K - 1) // 2); a block is a sequence of steps.

The CPU kernel runs the whole stage in one pass over time, each convolution with the algorithm that its weight was
packed for: "direct", or a fast one (an FFT with extra Toom-Cook points) that needs 2.4 to 5.3 times fewer
multiplications and three times the memory, and rounds at 106 dB or better.

On a GPU a step of two convolutions is one launch where the activation between them fits on chip; otherwise every
convolution is one. The mean is made in their stores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from ..errors import InputError
from . import checks, conv_tiles, gpu, precision
from .blocks import after
from .blocks import blocks as split
from .conv1d import conv1d, pack_conv1d
from .op import Op
from .packed import PackedWeight, Weight, faster_dtype
from .precision import Dtype, mlx_dtype
from .spec import Case, Tolerance


class ResConv(NamedTuple):
    """One convolution of a residual block: weight (C, K, C) or what `pack_resblock` made of it, bias (C,), dilation."""

    weight: Weight
    bias: mx.array | None
    dilation: int = 1


Step = Sequence[ResConv]
Block = Sequence[Step]


class Options(NamedTuple):
    """What a call states beside its arrays."""

    slope: float


def _check(x: mx.array, blocks: Sequence[Block], o: Options) -> Options:
    op = "resblock"
    checks.arrays(op, x=x)
    checks.rank(op, "x", x, "(B, T, C)")
    full = len(blocks) > 0 and all(len(block) > 0 and all(len(s) > 0 for s in block) for block in blocks)
    checks.check(op, full, "blocks", "non-empty sequences of non-empty steps", "an empty one")
    channels = x.shape[2]
    for conv in _convs(blocks):
        checks.arrays(op, weight=conv.weight, bias=conv.bias)
        checks.whole(op, dilation=conv.dilation)
        checks.packed(op, conv.weight, "resblock", "conv1d", beside=x)
        shape = tuple(conv.weight.shape)
        fits = len(shape) == 3 and shape[0] == shape[2] == channels and shape[1] % 2 == 1
        checks.check(op, fits, "weight", f"of shape ({channels}, odd, {channels})", shape)
        checks.at_least(op, 1, dilation=conv.dilation)
        checks.shape(op, "bias", conv.bias, (channels,))
    checks.slope(op, "slope", o.slope)
    return o


def _convs(blocks: Sequence[Block]) -> list[ResConv]:
    return [conv for block in blocks for step in block for conv in step]


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


def _reference(x: mx.array, blocks: Sequence[Block], o: Options) -> mx.array:
    """On `conv1d`."""
    *others, last = blocks
    total = None
    for block in others:
        total = _block(x, block, o.slope, total, 1.0)
    return _block(x, last, o.slope, total, 1 / len(blocks))


# Numbers of an activation that are worked on at a time without a compiled kernel: 4 MB.
PIECE = 1 << 20


def _in_pieces(x: mx.array, blocks: Sequence[Block], o: Options) -> mx.array:
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
        piece = _reference(after(x[:, low:high], out), blocks, o)
        out.append(piece[:, start - low : stop - low])
    return mx.concatenate(out, axis=1)


def _cpu(x: mx.array, blocks: Sequence[Block], o: Options) -> mx.array:
    ext = native.compiled
    weights, biases, convs = [], [], []
    for block in blocks:
        for step in block:
            for weight, bias, dilation in step:
                taps = weight.shape[1]
                if isinstance(weight, PackedWeight):
                    weights.append(weight.data)
                    algorithm = weight.algorithm
                else:
                    weights.append(weight)
                    algorithm = ext.resblock_algorithm(x.shape[2], taps, "auto")
                biases.append(bias)
                convs.append((taps, dilation, algorithm, False, False))
            convs[-1] = (*convs[-1][:3], True, False)
        convs[-1] = (*convs[-1][:3], True, True)
    return ext.resblock(x, weights, biases, convs, o.slope)


def _regroup(
    operands: tuple[Any, ...], o: Options, inputs: list[mx.array]
) -> tuple[tuple[Any, ...], Options]:
    """The kernel's inputs are x, all weights, and all biases, zeros where there is none."""
    count = len(_convs(operands[1]))
    x, given = inputs[0], zip(inputs[1 : count + 1], inputs[count + 1 :], strict=True)

    def conv(old: ResConv) -> ResConv:
        weight, bias = next(given)
        if isinstance(old.weight, PackedWeight):
            return ResConv(dataclasses.replace(old.weight, data=weight), bias, old.dilation)
        return ResConv(weight, bias, old.dilation)

    return (x, [[[conv(c) for c in step] for step in block] for block in operands[1]]), o


# Threadgroup memory on any GPU, the sizes of tiles that kernels are compiled for, the rows of a group to try (a weight is
# loaded once for all of them), its threads, and how much of its first convolution a pair must use for it to be better
# than two launches.
ON_CHIP = 32 * 1024
TILE_CLASSES = (conv_tiles.TILE_BYTES, ON_CHIP)
TALL = (256, 128, 64)
THREADS = (128, 256)
USEFUL = 0.9


class PairTiles(NamedTuple):
    """Rows of the first convolution that a group makes, rows of its tile, channels and outputs with zeros, threads."""

    tall: int
    rows: int
    width: int
    columns: int
    threads: int


def pair_tiles(channels: int, spans: tuple[int, int], size: int) -> PairTiles | None:
    """Choose tiles for two convolutions on chip, None if they are better launched one by one.

    Args:
        spans: dilation * (K - 1) of both.
        size: bytes of a number.
    """
    if channels < conv_tiles.NARROW:  # their taps lie side by side
        return None
    width, columns = (-(-channels // n) * n for n in (conv_tiles.CHANNELS, conv_tiles.OUTPUTS))
    for tall in TALL:
        rows = conv_tiles.row_class(tall + max(spans), width, size, TILE_CLASSES)
        threads = tall // 32 * columns
        if rows and THREADS[0] <= threads <= THREADS[1] and tall - spans[1] >= USEFUL * tall:
            return PairTiles(tall, rows, width, columns, threads)
    return None


def _pair_gpu(
    backend: str,
    x: mx.array,
    tiles: PairTiles,
    convs: Sequence[ResConv],
    weights: Sequence[PackedWeight],
    slope: float,
    total: mx.array | None,
    scale: float,
) -> mx.array:
    batch, length, channels = x.shape
    first, second = convs
    taps = [w.shape[1] for w in weights]
    useful = tiles.tall - second.dilation * (taps[1] - 1)
    y = gpu.launch(
        backend,
        "resblock",
        "resblock",
        {
            "x": x,
            "packed_1": conv_tiles.data(weights[0], x.dtype)[0],
            "bias_1": first.bias,
            "packed_2": conv_tiles.data(weights[1], x.dtype)[0],
            "bias_2": second.bias,
            "total": total,
        },
        sizes={
            "length": length,
            "channels": channels,
            "taps_1": taps[0],
            "dilation_1": first.dilation,
            "taps_2": taps[1],
            "dilation_2": second.dilation,
            "slope": slope,
            "scale": scale,
            "has_total": total is not None,
        },
        options={
            "TALL": tiles.tall,
            "ROWS": tiles.rows,
            "WIDTH": tiles.width,
            "STEP": conv_tiles.row_step(tiles.width, x.dtype.size),
            "COLUMNS": tiles.columns,
            "FOURS": channels % 4 == 0,
        },
        groups=(-(-length // useful) * batch, 1, 1),
        threads=tiles.threads,
        outputs=[(x.shape, x.dtype)],
    )
    return y[0]


def _step_gpu(
    backend: str, x: mx.array, step: Step, slope: float, total: mx.array | None, scale: float
) -> mx.array:
    """(step(x) + total) * scale."""
    weights = [
        conv.weight
        if isinstance(conv.weight, PackedWeight)
        else conv_tiles.pack(backend, "resblock", conv.weight)
        for conv in step
    ]
    spans = [conv.dilation * (conv.weight.shape[1] - 1) for conv in step]
    if len(step) == 2:
        tiles = pair_tiles(x.shape[2], (spans[0], spans[1]), x.dtype.size)
        if tiles is not None:
            return _pair_gpu(backend, x, tiles, step, weights, slope, total, scale)
    y = x
    for i, (conv, weight, span) in enumerate(zip(step, weights, spans, strict=True)):
        last = i == len(step) - 1
        y = conv_tiles.convolve(
            backend,
            y,
            weight,
            conv.bias,
            x if last else None,
            total if last else None,
            rows=x.shape[1],
            shape=(x.shape[1], x.shape[2]),
            dilation=conv.dilation,
            before=span // 2,
            leaky=slope,
            scale=scale if last else 1.0,
        )
    return y


def _gpu(backend: str, x: mx.array, blocks: Sequence[Block], o: Options) -> mx.array:
    total: mx.array | None = None
    for i, block in enumerate(blocks):
        y = x
        for j, step in enumerate(block):
            last = j == len(block) - 1
            scale = 1 / len(blocks) if last and i == len(blocks) - 1 else 1.0
            y = _step_gpu(backend, y, step, o.slope, total if last else None, scale)
        total = y
    assert total is not None
    return total


def _pack_cpu(weight: mx.array, algorithm: str, dtype: Dtype) -> PackedWeight:
    shape = tuple(weight.shape)
    dtype = faster_dtype(dtype, shape[2], shape[0])
    try:
        if algorithm == "auto":
            name = native.compiled.resblock_algorithm(shape[0], shape[1], "auto", dtype=dtype)
            if name != "direct":
                dtype = "float32"
        else:
            name = native.compiled.resblock_algorithm(shape[0], shape[1], algorithm)
        data = native.compiled.resblock_pack(weight, algorithm=name, dtype=dtype)
    except ValueError as e:
        raise InputError(str(e)) from None
    return PackedWeight("resblock", data, shape, algorithm=name, dtype=dtype)


def _pack_plain(weight: mx.array, algorithm: str, dtype: Dtype) -> Weight:
    """The reference is made of `conv1d`, which may have a kernel."""
    checks.no_algorithm("resblock", algorithm)
    return pack_conv1d(weight, dtype=dtype)


def _pack_gpu(backend: str, weight: mx.array, algorithm: str, dtype: Dtype) -> PackedWeight:
    checks.no_algorithm("resblock", algorithm)
    return conv_tiles.pack(backend, "resblock", weight.astype(mlx_dtype(dtype)))


def _unpack(weight: PackedWeight) -> mx.array:
    """What a block x + conv(x) makes of an impulse in each channel, but for the impulse."""
    channels, taps, _ = weight.shape
    impulses = mx.pad(mx.eye(channels)[:, None], [(0, 0), (taps // 2, taps // 2), (0, 0)])
    y = resblock_stage(impulses, [[[ResConv(weight, None)]]], slope=1.0) - impulses
    return y[:, ::-1].transpose(2, 1, 0)


_BACKENDS = {"cpu": _cpu, "reference": _in_pieces, **gpu.both(_gpu)}
_PACK = {"cpu": _pack_cpu, "reference": _pack_plain, **gpu.both(_pack_gpu)}
RESBLOCK = Op(
    "resblock", Options, _check, _reference, _BACKENDS, pack=_PACK, unpack=_unpack, regroup=_regroup
)


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
    checks.arrays("resblock", weight=weight)
    shape = tuple(weight.shape)
    checks.check("resblock", len(shape) == 3 and shape[0] == shape[2], "weight", "of shape (C, K, C)", shape)
    precision.check("resblock", dtype, precision.FLOATS)
    if algorithm == "direct":
        return pack_conv1d(weight, dtype=dtype)
    return RESBLOCK.packed(weight, algorithm, dtype, beside=mlx_dtype(dtype))


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
    return RESBLOCK(x, blocks, slope)


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


SPEC = RESBLOCK.describe(
    resblock_stage,
    cases=(
        _case("length_1", 1, 1, 4),
        _case("primes", 1, 53, 7),
        _case("batch", 3, 17, 8),
        _case("one_block", 1, 31, 5, kernels=(3,), dilations=(2,)),
        _case("single_convolutions", 1, 31, 8, dilations=(1, 3), pairs=False),
        _case("pairs_of_48_channels", 1, 150, 48, kernels=(3,), dilations=(1, 3)),
        _case("pairs_of_13_channels", 2, 153, 13, kernels=(7, 5), dilations=(2,)),
        _case("one_by_one", 2, 90, 72, kernels=(3, 7), dilations=(1, 5)),
        _case("last_stage_100ms", 1, 4800, 32, benchmark=True),
    ),
    flops=lambda x, blocks, slope: 2 * x.shape[0] * x.shape[1] * _weights(blocks),
    bytes=lambda x, blocks, slope: 4 * (2 * x.size + _weights(blocks)),
    dims=lambda x, blocks, slope: dict(
        zip("BTCW", (*x.shape, _weights(blocks) // x.shape[2] ** 2), strict=True)
    ),
    # In 16 bits a unit in the last place: what leaves chip is rounded at least three times on its way.
    tolerance={
        "float32": Tolerance(max_abs=4e-6, rms=2e-6),
        "float16": Tolerance(max_abs=1e-3, rms=1e-3),
        "bfloat16": Tolerance(max_abs=8e-3, rms=8e-3),
    },
)
