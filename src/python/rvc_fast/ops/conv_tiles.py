"""Convolutions on a GPU: how their weights lie, which tiles they take, and their launch.

`conv1d`, `conv_transpose1d` and `resblock` share it. The kernel (src/kernels/conv1d) multiplies tiles of 32 outputs and
16 channels without looking at their edges, so a weight is packed as (groups, K, C, O) with zeros up to those. Fewer
than 8 channels are laid side by side with their taps, as one tap of K * C channels, and groups of few outputs are
merged.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from . import gpu
from .epilogue import Activation
from .packed import PackedWeight
from .precision import name_of

CHANNELS = 16
OUTPUTS = 32
NARROW = 8
# Of a tile of the input: three groups share a core of an M1 then, twelve simdgroups. A kernel is compiled for the size
# of its tile, so there are only these two for all spans of taps.
TILE_BYTES = 20 * 1024
TILE_CLASSES = (TILE_BYTES // 2, TILE_BYTES)
THREADS = 128
# What the kernel calls an activation. Nothing and relu differ by a size alone, so that they are one pipeline.
ACTIVATION: dict[Activation | None, int] = {None: 0, "relu": 0, "gelu": 1, "sigmoid": 2, "tanh": 3}
LOWEST_FLOAT = -3.4028235e38


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _laid(backend: str, weight: mx.array) -> mx.array:
    """(groups, K, C, O) -> what the kernel reads: CUDA's tensor cores take two channels of an output at a time."""
    if backend == "cuda" and weight.dtype.size == 2:
        groups, taps, channels, outputs = weight.shape
        weight = weight.reshape(groups, taps, channels // 2, 2, outputs).swapaxes(3, 4)
    return mx.contiguous(weight)


def _merged(weight: PackedWeight | mx.array, groups: int) -> int:
    """Return how many groups of few outputs share a tile, their weights a block diagonal matrix."""
    return min(groups, max(1, OUTPUTS * groups // weight.shape[0]))


def pack(backend: str, op: str, weight: mx.array, groups: int = 1) -> PackedWeight:
    """Return a weight (O, K, C / groups) as the kernel reads it, in its own dtype."""
    out, taps, channels = weight.shape
    merged = _merged(weight, groups)
    rows = weight.reshape(groups, out // groups, taps, channels)
    if groups == 1 and channels < NARROW:
        rows = rows.reshape(1, out, 1, taps * channels)
    if merged > 1:
        rows = mx.pad(rows, [(0, -groups % merged), (0, 0), (0, 0), (0, 0)])
        rows = rows.reshape(-1, merged, out // groups, taps, 1, channels)
        diagonal = mx.eye(merged, dtype=mx.bool_).reshape(merged, 1, 1, merged, 1)
        rows = mx.where(diagonal, rows, mx.array(0, weight.dtype))
        rows = rows.reshape(-1, merged * out // groups, taps, merged * channels)
    rows = rows.transpose(0, 2, 3, 1)
    missing = -rows.shape[2] % CHANNELS, -rows.shape[3] % OUTPUTS
    rows = mx.pad(rows, [(0, 0), (0, 0), (0, missing[0]), (0, missing[1])])
    shape, dtype = tuple(weight.shape), name_of(weight.dtype)
    return PackedWeight(op, _laid(backend, rows), shape, groups, dtype=dtype, backend=backend)


def data(weight: PackedWeight, dtype: mx.Dtype) -> tuple[mx.array, int, int]:
    """Return a packed weight in a dtype, and its channels and outputs with what fills the last tiles."""
    array = weight.data
    paired = array.ndim == 5
    channels, outputs = array.shape[2] * (2 if paired else 1), array.shape[3]
    if array.dtype != dtype:
        if paired:
            array = array.swapaxes(3, 4)
        array = _laid(weight.backend, array.reshape(*array.shape[:2], channels, outputs).astype(dtype))
    return array, channels, outputs


class Tiles(NamedTuple):
    """Rows and columns of a group's outputs; rows, channels and row step of its tile of the input, for all taps or one."""

    tall: int
    columns: int
    rows: int
    width: int
    step: int
    all_taps: bool


def row_step(width: int, size: int) -> int:
    """Return how far rows of a tile are apart: 16 bytes more than they need, so that they fall on other banks."""
    return width + 16 // size


def _fit(room: int, width: int, size: int) -> int:
    """Return how many rows of `width` numbers of `size` bytes a tile of `room` bytes has."""
    return room // (row_step(width, size) * size)


def row_class(rows: int, width: int, size: int, classes: tuple[int, ...]) -> int:
    """Return the rows of the smallest tile, of one of `classes` bytes, that has at least `rows`; 0 if none has."""
    return next((_fit(room, width, size) for room in classes if _fit(room, width, size) >= rows), 0)


def tiles(channels: int, outputs: int, taps: int, stride: int, dilation: int, size: int) -> Tiles:
    """Choose tiles for padded numbers of channels and outputs, and `size` bytes a number.

    The input's tile serves all taps where it fits and is not larger than one tile for each.
    """
    tall, columns = (64, 64) if outputs % 64 == 0 else (128, 32)
    span = (tall - 1) * stride + (taps - 1) * dilation + 1

    def width(rows: int) -> int:
        """Return the most channels that a tile holds, 0 if it is too tall for any."""
        fits = [n for n in range(CHANNELS, 128 // size + 1, CHANNELS) if _fit(TILE_BYTES, n, size) >= rows]
        return max(fits, default=0)

    all_taps = span <= tall * taps and width(span) > 0
    needed = span if all_taps else tall
    slices = -(-channels // width(needed))
    wide = _up(-(-channels // slices), CHANNELS)
    return Tiles(
        tall, columns, row_class(needed, wide, size, TILE_CLASSES), wide, row_step(wide, size), all_taps
    )


def convolve(
    backend: str,
    x: mx.array,
    weight: PackedWeight,
    bias: mx.array | None = None,
    residual: mx.array | None = None,
    total: mx.array | None = None,
    *,
    rows: int,
    shape: tuple[int, int],
    stride: int = 1,
    dilation: int = 1,
    before: int = 0,
    crop: int = 0,
    leaky: float | None = None,
    activation: Activation | None = None,
    scale: float = 1.0,
) -> mx.array:
    """Launch (activation(conv(leaky_relu(x)) + bias) + residual + total) * scale.

    Args:
        x: (B, T, C).
        weight: from `pack`.
        bias: (shape[1],), repeated where a row has more outputs.
        residual: (B, *shape), as `total`.
        rows: how many steps the convolution makes, each with all outputs of the weight.
        shape: (length, width) of the result for one item: the rows' numbers one after the other, read as steps of
            `width`, without the first `crop` of these.
        before: steps of zeros before x; after it there are as many as the rows need.

    Returns:
        (B, *shape) in x's dtype.
    """
    out, taps, channels = weight.shape
    folded = weight.groups == 1 and channels < NARROW
    array, padded, columns = data(weight, x.dtype)
    # Taps side by side are taken 16 at a time, however many there are: again to have fewer kernels.
    shape_of_tile = (CHANNELS, columns, 1, 1) if folded else (padded, columns, taps, stride)
    t = tiles(*shape_of_tile, dilation, x.dtype.size)
    apart = 1 if t.all_taps and not folded else stride
    segments = 1 if t.all_taps else taps
    merged = _merged(weight, weight.groups)
    outputs = merged * out // weight.groups
    # Not the length: one of another length would need another kernel.
    multiples = out, outputs, shape[1]
    y = gpu.launch(
        backend,
        "conv1d",
        "conv1d",
        {"x": x, "packed": array, "bias": bias, "residual": residual, "total": total},
        sizes={
            "steps": x.shape[1],
            "width_in": x.shape[2],
            "channels": taps * channels if folded else merged * channels,
            "padded": padded,
            "parts": array.shape[0],
            "outputs": outputs,
            "columns": columns,
            "rows": rows,
            "width": out,
            "steps_out": shape[0],
            "width_out": shape[1],
            "stride": stride,
            "apart": apart,
            "row_step": stride // apart,
            "tap_step": dilation,
            "taps": 1 if folded else taps // segments,
            "segments": segments,
            "dilation": dilation,
            "before": before,
            "side_by_side": channels,
            "crop": crop,
            "slope": 1.0 if leaky is None else leaky,
            "scale": scale,
            "has_residual": residual is not None,
            "has_total": total is not None,
            "lowest": 0.0 if activation == "relu" else LOWEST_FLOAT,
        },
        options={
            "TALL": t.tall,
            "COLUMNS": t.columns,
            "ROWS": t.rows,
            "WIDTH": t.width,
            "STEP": t.step,
            "JUMPS": folded,
            "ACTIVATION": ACTIVATION[activation],
            "FOURS": all(n % 4 == 0 for n in multiples),
        },
        groups=(-(-rows // t.tall) * (columns // t.columns) * array.shape[0] * x.shape[0], 1, 1),
        threads=THREADS,
        outputs=[((x.shape[0], *shape), x.dtype)],
    )
    return y[0]
