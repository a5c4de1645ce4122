"""bigru: (B, T, I) -> (B, T, 2H), a bidirectional GRU as PyTorch defines it; direction 0 runs forward.

r, z = sigmoid(W_i x + b_i + W_h h + b_h) of their rows, n = tanh(W_in x + b_in + r * (W_hn h + b_hn)),
h' = (1 - z) * n + z * h, from h = 0. Rows of the weights are those of r, z, n in that order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, gpu
from .blocks import after, blocks
from .epilogue import epilogue
from .linear import linear
from .op import Op
from .packed import PackedWeight, Weight
from .precision import name_of
from .spec import Case, Tolerance, normal

# Steps whose gates are projected at a time: 6H numbers each.
BLOCK = 1024

Pair = tuple[Weight, Weight]
Biases = tuple[mx.array | None, mx.array | None]


def _scan_reference(
    forward: mx.array, backward: mx.array, w_hh: mx.array, b_hh: mx.array, h: mx.array
) -> mx.array:
    """The recurrence alone, in stock MLX.

    Takes the projected gates (B, T, 3H) of both directions, the second one's to be read from the end, and the
    states h (2, B, H) before; returns both directions' states (B, T, 2H), all in order of time.
    """
    gates = mx.stack([forward, backward[:, ::-1]]).transpose(2, 0, 1, 3)
    w, b = w_hh.swapaxes(1, 2), b_hh[:, None]
    hidden = w_hh.shape[2]
    states = []
    for gate in gates:
        inner = h @ w + b
        r, z = mx.split(mx.sigmoid(gate[..., : 2 * hidden] + inner[..., : 2 * hidden]), 2, axis=-1)
        n = mx.tanh(gate[..., 2 * hidden :] + r * inner[..., 2 * hidden :])
        h = n + z * (h - n)
        states.append(h)
    y = mx.stack(states, axis=2)
    return mx.concatenate([y[0], y[1][:, ::-1]], axis=-1).astype(forward.dtype)


def _halves(
    forward: mx.array, backward: mx.array, w_hh: mx.array, b_hh: mx.array, h: mx.array, _: Options
) -> tuple[mx.array, ...]:
    """What the CPU's primitive computes: the states of each direction by themselves."""
    return tuple(mx.split(_scan_reference(forward, backward, w_hh, b_hh, h), 2, axis=-1))


def _scan_cpu(forward: mx.array, backward: mx.array, w_hh: mx.array, b_hh: mx.array, h: mx.array) -> mx.array:
    return mx.concatenate(list(native.compiled.bigru(forward, backward, w_hh, b_hh, h)), axis=-1)


class Limits(NamedTuple):
    """What a group of the kernel may have: threads, 48-byte chunks of weights in a thread's registers, bytes of
    shared memory.

    Weights take 72 of the 128 registers that a thread can have on Metal, 156 of 255 on CUDA.
    """

    threads: int
    kept: int
    shared: int


LIMITS = {"metal": Limits(256, 6, 32 * 1024), "cuda": Limits(256, 13, 48 * 1024)}
CHUNK = 48
MOST_ROWS = 4


class Layout(NamedTuple):
    """How the recurrent weights of a direction are divided among the threads of a group.

    `split` neighbouring threads share a unit, and where there are more units than threads each has `units` of
    them. A thread's part of a unit is `chunks` times `wide` columns of the three gates' rows.
    """

    threads: int
    split: int
    units: int
    chunks: int
    wide: int

    @property
    def columns(self) -> int:
        """Columns, with those that fill the last chunk."""
        return self.chunks * self.split * self.wide


class Plan(NamedTuple):
    """One launch: `groups` of `rows` of the batch per direction, and how many chunks of a thread stay in its
    registers (`kept`) and in shared memory (`stored`)."""

    rows: int
    groups: int
    kept: int
    stored: int


def layout(backend: str, hidden: int, itemsize: int) -> Layout:
    """Return the layout of weights of `itemsize` bytes."""
    most, wide = LIMITS[backend].threads, 16 // itemsize
    split = 1
    while split < 32 and 2 * split * hidden <= most and split * wide < hidden:
        split *= 2
    units = -(-hidden // most)
    threads = -(-hidden // units) * split
    return Layout(-(-threads // 32) * 32, split, units, -(-hidden // (split * wide)), wide)


def plan(backend: str, batch: int, parts: Layout) -> Plan | None:
    """Return the launch for `batch` rows, or None where the states of not even one fit in shared memory."""
    limits, states = LIMITS[backend], 2 * 4 * parts.columns
    most_rows = min(MOST_ROWS, limits.shared // states)
    if most_rows == 0:
        return None
    groups = -(-batch // most_rows)
    rows = -(-batch // groups)
    kept = min(limits.kept, parts.chunks)
    stored = min(parts.chunks - kept, (limits.shared - rows * states) // (CHUNK * parts.threads))
    return Plan(rows, groups, kept, stored)


def _scan_gpu(
    backend: str, forward: mx.array, backward: mx.array, w_hh: Weight, b_hh: mx.array, h: mx.array
) -> mx.array:
    batch, length, width = forward.shape
    hidden, dtype = width // 3, forward.dtype
    weights = w_hh if isinstance(w_hh, PackedWeight) else _pack_gpu(backend, w_hh.astype(dtype))
    if not isinstance(weights, PackedWeight):
        # Weights of hundreds of megabytes, read anew each step: work for all of a GPU, which MLX's matmul gives it.
        return _scan_reference(forward, backward, weights, b_hh, h)
    parts = layout(backend, hidden, weights.data.itemsize)
    launch = plan(backend, batch, parts)
    assert launch is not None
    y = gpu.launch(
        backend,
        "bigru",
        "bigru",
        {
            "forward": forward,
            "backward": backward,
            "weights": weights.data.view(mx.uint32),
            "bias": b_hh.astype(mx.float32),
            "before": h,
        },
        sizes={"batch": batch, "length": length, "hidden": hidden, "zero": 0},
        options={
            "ROWS": launch.rows,
            "KEPT": launch.kept,
            "STORED": launch.stored,
            "SPLIT": parts.split,
            "UNITS": parts.units,
            "CHUNKS": parts.chunks,
            "WIDE": parts.wide,
            "BFLOAT": weights.data.dtype == mx.bfloat16,
        },
        groups=(launch.groups, 2, 1),
        threads=parts.threads,
        outputs=[((batch, length, 2 * hidden), dtype)],
    )
    return y[0]


class Options(NamedTuple):
    """What a call states beside its arrays: nothing."""


def _check(
    x: mx.array, w_ih: mx.array | Pair, w_hh: Weight, b_ih: mx.array | Biases, b_hh: mx.array, o: Options
) -> Options:
    op = "bigru"
    checks.arrays(op, x=x, w_hh=w_hh, b_hh=b_hh)
    for argument, value in (("w_ih", w_ih), ("b_ih", b_ih)):
        if isinstance(value, tuple | list):
            count = len(value)
        else:
            checks.arrays(op, **{argument: value})
            count = value.shape[0] if value.ndim else 0
        checks.check(op, count == 2, argument, "two, one per direction", count)
        checks.arrays(op, **{f"{argument}[{d}]": value[d] for d in (0, 1)})
    checks.rank(op, "x", x, "(B, T, I)")
    checks.packed(op, w_hh, beside=x)
    _check_recurrent(w_hh)
    rows = 3 * w_hh.shape[2]
    checks.shape(op, "b_hh", b_hh, (2, rows))
    for d in (0, 1):
        checks.packed(op, w_ih[d], "linear", beside=x)
        checks.shape(op, f"w_ih[{d}]", w_ih[d], (rows, x.shape[2]))
        checks.shape(op, f"b_ih[{d}]", b_ih[d], (rows,))
    return o


def _check_recurrent(w_hh: Weight) -> None:
    fits = w_hh.ndim == 3 and w_hh.shape[0] == 2 and w_hh.shape[1] == 3 * w_hh.shape[2]
    checks.check("bigru", fits, "w_hh", "of shape (2, 3H, H)", tuple(w_hh.shape))


def _reference(
    x: mx.array,
    w_ih: mx.array | tuple[mx.array, mx.array],
    w_hh: mx.array,
    b_ih: mx.array | Biases,
    b_hh: mx.array,
    _: Options,
) -> mx.array:
    # A pair may have None for a bias.
    forward, backward = (epilogue(x @ w_ih[d].T, b_ih[d]) for d in (0, 1))
    h = mx.zeros((2, x.shape[0], w_hh.shape[2]))
    return _scan_reference(forward, backward, w_hh, b_hh, h)


def _in_blocks(
    scan: Callable[..., mx.array],
    x: mx.array,
    w_ih: mx.array | Pair,
    w_hh: Weight,
    b_ih: mx.array | Biases,
    b_hh: mx.array,
    _: Options,
) -> mx.array:
    """Project the gates in blocks from both ends, and `scan` each."""
    batch, length, _width = x.shape
    hidden = w_hh.shape[2]
    h = mx.zeros((2, batch, hidden))
    if length <= BLOCK:
        return scan(linear(x, w_ih[0], b_ih[0]), linear(x, w_ih[1], b_ih[1]), w_hh, b_hh, h)
    done: list[mx.array] = []
    for start, end in blocks(length, BLOCK):
        mirrored = slice(length - end, length - start)
        forward = linear(after(x[:, start:end], done), w_ih[0], b_ih[0])
        backward = linear(after(x[:, mirrored], done), w_ih[1], b_ih[1])
        done.append(scan(forward, backward, w_hh, b_hh, h))
        h = mx.stack([done[-1][:, -1, :hidden], done[-1][:, 0, hidden:]]).astype(mx.float32)
    ahead, back = [y[..., :hidden] for y in done], [y[..., hidden:] for y in reversed(done)]
    return mx.concatenate([mx.concatenate(ahead, axis=1), mx.concatenate(back, axis=1)], axis=-1)


def _pack_gpu(backend: str, w_hh: mx.array) -> Weight:
    """(2, 3H, H) -> (chunks, 3 gates, 2 directions, 4 words, units, parts of a unit, numbers of a word), zeros where
    there is nothing: neighbouring threads read neighbouring words."""
    hidden = w_hh.shape[2]
    parts = layout(backend, hidden, w_hh.itemsize)
    if plan(backend, 1, parts) is None:
        return w_hh
    rows = parts.units * parts.threads // parts.split
    missing = [(0, 0), (0, 0), (0, rows - hidden), (0, parts.columns - hidden)]
    data = mx.pad(w_hh.reshape(2, 3, hidden, hidden), missing)
    data = data.reshape(2, 3, rows, parts.chunks, parts.split, 4, parts.wide // 4)
    data = mx.contiguous(data.transpose(3, 1, 0, 5, 2, 4, 6))
    return PackedWeight("bigru", data, tuple(w_hh.shape), dtype=name_of(w_hh.dtype), backend=backend)


def _keep(w_hh: mx.array) -> mx.array:
    return w_hh


def _unpack(weight: PackedWeight) -> mx.array:
    """The inverse of `_pack_gpu`."""
    hidden = weight.shape[2]
    chunks, _, _, _, rows, split, part = weight.data.shape
    data = weight.data.transpose(2, 1, 4, 0, 5, 3, 6).reshape(2, 3, rows, chunks * split * 4 * part)
    return data[:, :, :hidden, :hidden].reshape(weight.shape)


def _regroup(_: tuple[Any, ...], o: Options, inputs: list[mx.array]) -> tuple[tuple[Any, ...], Options]:
    return tuple(inputs), o


_BACKENDS = {
    "cpu": functools.partial(_in_blocks, _scan_cpu),
    "reference": functools.partial(_in_blocks, _scan_reference),
    **{name: functools.partial(_in_blocks, scan) for name, scan in gpu.both(_scan_gpu).items()},
}
_PACK = {"cpu": _keep, "reference": _keep, **gpu.both(_pack_gpu)}
BIGRU = Op(
    "bigru",
    Options,
    _check,
    _reference,
    _BACKENDS,
    pack=_PACK,
    unpack=_unpack,
    regroup=_regroup,
    smooth=_halves,
)


def pack_bigru(w_hh: mx.array) -> Weight:
    """Rearrange recurrent weights (2, 3H, H) for the backend in use, in their own dtype."""
    checks.arrays("bigru", w_hh=w_hh)
    _check_recurrent(w_hh)
    return BIGRU.packed(w_hh, beside=w_hh.dtype)


def bigru(
    x: mx.array,
    w_ih: mx.array | Pair,
    w_hh: Weight,
    b_ih: mx.array | tuple[mx.array | None, mx.array | None],
    b_hh: mx.array,
) -> mx.array:
    """Bidirectional GRU; see the module's formula.

    The gates are projected in blocks from both ends, so memory beyond the result does not grow with T.

    Args:
        x: (B, T, I).
        w_ih: (2, 3H, I), or the two directions' weights as `pack_linear` made them.
        w_hh: (2, 3H, H), or what `pack_bigru` made of it.
        b_ih: (2, 3H), or a pair, of which None is 0.
        b_hh: (2, 3H).

    Returns:
        (B, T, 2H) in x's dtype, forward states then backward states.
    """
    return BIGRU(x, w_ih, w_hh, b_ih, b_hh)


def _case(name: str, batch: int, length: int, width: int, hidden: int, benchmark: bool = False) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        return {
            "x": normal(rng, batch, length, width),
            "w_ih": normal(rng, 2, 3 * hidden, width) * width**-0.5,
            "w_hh": normal(rng, 2, 3 * hidden, hidden) * hidden**-0.5,
            "b_ih": normal(rng, 2, 3 * hidden) * 0.1,
            "b_hh": normal(rng, 2, 3 * hidden) * 0.1,
        }

    return Case(name, make, benchmark)


def _dims(x: mx.array, w_hh: mx.array, **_: Any) -> dict[str, int]:
    return dict(zip("BTIH", (*x.shape, w_hh.shape[2]), strict=True))


SPEC = BIGRU.describe(
    bigru,
    cases=(
        _case("one step", 1, 1, 5, 3),
        _case("primes", 2, 13, 7, 11),
        _case("a batch, no multiple of a vector", 3, 29, 33, 37),
        _case("more rows than a group carries", 5, 9, 6, 70),
        _case("more units than threads", 1, 4, 5, 530),
        _case("rmvpe, odd length", 1, 101, 384, 256),
        _case("several blocks", 1, BLOCK * 2 + 17, 9, 5),
        _case("rmvpe, 10 s", 1, 1024, 384, 256, benchmark=True),
    ),
    dims=_dims,
    flops=lambda x, w_ih, w_hh, **_: 2 * x.shape[0] * x.shape[1] * (w_ih.size + w_hh.size),
    bytes=lambda x, w_ih, w_hh, b_ih, b_hh: (
        4
        * (
            x.size
            + w_ih.size
            + w_hh.size
            + b_ih.size
            + b_hh.size
            + 2 * x.shape[0] * x.shape[1] * w_hh.shape[2]
        )
    ),
    # States stay within [-1, 1], but a step's rounding is carried on to the next. In 16 bits: half an epsilon for
    # a state near 1 and as much for its gates; the epsilon over sqrt(12) in the mean, and a quarter more.
    tolerance={
        "float32": Tolerance(max_abs=5e-6, rms=1e-6),
        "float16": Tolerance(max_abs=1e-3, rms=3.6e-4),
        "bfloat16": Tolerance(max_abs=8e-3, rms=2.9e-3),
    },
)
