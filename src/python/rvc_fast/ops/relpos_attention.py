"""relpos_attention: softmax attention with learned relative positions in a window of w steps (Shaw 2018).

score[i, j] = q_i . (k_j + rel_k[j - i + w]) / sqrt(D)
y_i = sum_j softmax(score)[i, j] * (v_j + rel_v[j - i + w])

rel_k and rel_v count as zero where |j - i| > w.

Shapes: q, k, v (B, H, T, D); rel_k, rel_v (2w + 1, D), shared by batch and heads; y (B, H, T, D). Any T >= 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, gpu
from .op import Op
from .spec import HALF, Case, Tolerance, normal

# The GPU kernel's: queries of a group, columns loaded at a time, how many of those a group's sums may span.
QUERIES, SLAB, MOST_COLUMNS, THREADS = 32, 32, 4, 128

# Rows of the score matrix alive at a time: (B, H, _ROWS, T) instead of (B, H, T, T).
_ROWS = 512


class Options(NamedTuple):
    """What a call states beside its arrays."""

    window: int


def _check(q: mx.array, k: mx.array, v: mx.array, rel_k: mx.array, rel_v: mx.array, o: Options) -> Options:
    op = "relpos_attention"
    checks.arrays(op, q=q, k=k, v=v, rel_k=rel_k, rel_v=rel_v)
    checks.whole(op, window=o.window)
    checks.rank(op, "q", q, "(B, H, T, D)")
    checks.at_least(op, 0, window=o.window)
    for name, array in (("k", k), ("v", v)):
        checks.shape(op, name, array, tuple(q.shape))
    for name, array in (("rel_k", rel_k), ("rel_v", rel_v)):
        checks.shape(op, name, array, (2 * o.window + 1, q.shape[3]))
    return o


def _skew(rel: mx.array) -> mx.array:
    """(..., R, N) -> (..., R, R + N - 1), row i moved right by i, zeros around it."""
    *lead, r, n = rel.shape
    wide = mx.pad(rel, [(0, 0)] * (rel.ndim - 1) + [(0, r)])
    return wide.reshape(*lead, r * (n + r))[..., : r * (n + r - 1)].reshape(*lead, r, n + r - 1)


def _unskew(band: mx.array, n: int) -> mx.array:
    """The inverse: (..., R, R + N - 1) -> (..., R, N), row i taken from column i on."""
    *lead, r, width = band.shape
    flat = mx.pad(band.reshape(*lead, r * width), [(0, 0)] * len(lead) + [(0, r)])
    return flat.reshape(*lead, r, width + 1)[..., :n]


def _reference(
    q: mx.array, k: mx.array, v: mx.array, rel_k: mx.array, rel_v: mx.array, o: Options
) -> mx.array:
    """In blocks of query rows."""
    window = o.window
    length, n = q.shape[2], 2 * window + 1
    q, keys = q * q.shape[3] ** -0.5, k.swapaxes(-1, -2)
    out = []
    for start in range(0, length, _ROWS):
        rows = q[:, :, start : start + _ROWS]
        count = rows.shape[2]
        # The band of this block covers the columns [start - w, start + count + w), cut at both ends of k.
        low, high = max(start - window, 0), min(start + count + window, length)
        left, right = low - (start - window), start + count + window - high
        band = _skew(rows @ rel_k.T)[..., left : left + high - low]
        p = mx.softmax((rows @ keys).at[..., low:high].add(band), axis=-1, precise=True)
        near = mx.pad(p[..., low:high], [(0, 0)] * 3 + [(left, right)])
        out.append(p @ v + _unskew(near, n) @ rel_v)
    return mx.concatenate(out, axis=2)


def _cpu(q: mx.array, k: mx.array, v: mx.array, rel_k: mx.array, rel_v: mx.array, o: Options) -> mx.array:
    return native.compiled.relpos_attention(q, k, v, rel_k, rel_v, o.window)


def _gpu(
    backend: str, q: mx.array, k: mx.array, v: mx.array, rel_k: mx.array, rel_v: mx.array, o: Options
) -> mx.array:
    batch, heads, length, dim = q.shape
    columns = min(-(-dim // SLAB), MOST_COLUMNS)
    y = gpu.launch(
        backend,
        "relpos_attention",
        "relpos_attention",
        # As the layers before have it in memory: no copy where the heads of a step lie side by side.
        {
            **{name: a.swapaxes(1, 2).astype(q.dtype) for name, a in (("q", q), ("k", k), ("v", v))},
            **{name: a.astype(q.dtype) for name, a in (("rel_k", rel_k), ("rel_v", rel_v))},
        },
        sizes={"heads": heads, "length": length, "window": o.window},
        options={"HEAD": dim, "COLUMNS": columns},
        groups=(batch * heads * -(-length // QUERIES), -(-dim // (columns * SLAB)), 1),
        threads=THREADS,
        outputs=[((batch, length, heads, dim), q.dtype)],
    )
    return y[0].swapaxes(1, 2)


RELPOS_ATTENTION = Op("relpos_attention", Options, _check, _reference, {"cpu": _cpu, **gpu.both(_gpu)})


def relpos_attention(
    q: mx.array, k: mx.array, v: mx.array, rel_k: mx.array, rel_v: mx.array, window: int
) -> mx.array:
    """Self-attention with windowed relative keys and values; see the module's formula.

    Args:
        q, k, v: (B, H, T, D), T >= 1.
        rel_k, rel_v: (2 * window + 1, D); row window + d belongs to the key d steps after the query.
        window: largest distance with a learned position.

    Returns:
        (B, H, T, D) in q's dtype. From the compiled kernel it lies in memory as (B, T, H, D), so that
        `y.swapaxes(1, 2).reshape(B, T, H * D)` copies nothing.

    Raises:
        InputError: a shape that does not fit, named with the argument.
    """
    return RELPOS_ATTENTION(q, k, v, rel_k, rel_v, window)


def _case(name: str, batch: int, heads: int, length: int, dim: int, window: int = 10, **options: Any) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        q, k, v = (normal(rng, batch, heads, length, dim) for _ in range(3))
        rel_k, rel_v = (normal(rng, 2 * window + 1, dim) for _ in range(2))
        return {"q": q, "k": k, "v": v, "rel_k": rel_k, "rel_v": rel_v, "window": window}

    return Case(name, make, **options)


def _sharp(rng: np.random.Generator) -> dict[str, Any]:
    """Scores far apart, the largest at the end: what was summed near the diagonal has to shrink."""
    q, k, v = (normal(rng, 1, 2, 700, 16) for _ in range(3))
    rel_k, rel_v = (normal(rng, 9, 16) for _ in range(2))
    k = k * mx.linspace(0, 5, 700)[:, None]
    return {"q": q, "k": k, "v": v, "rel_k": 3 * rel_k, "rel_v": rel_v, "window": 4}


SPEC = RELPOS_ATTENTION.describe(
    relpos_attention,
    cases=(
        _case("length_1", 1, 2, 1, 16),
        _case("shorter_than_window", 1, 2, 7, 16),
        _case("primes", 1, 3, 53, 17, window=5),
        _case("batch", 3, 2, 31, 16),
        _case("two_blocks", 1, 1, 521, 8),
        _case("window_0", 2, 1, 19, 5, window=0),
        _case("window_past_all_keys", 1, 2, 1031, 24, window=1100),
        _case("encoder_heads", 1, 2, 101, 96),
        _case("wide_heads", 1, 2, 37, 150, window=3),
        Case("sharp", _sharp),
        _case("encoder_10s", 1, 2, 1000, 96, benchmark=True),
    ),
    dims=lambda q, rel_k, **_: {**dict(zip("BHTD", q.shape, strict=True)), "R": rel_k.shape[0]},
    flops=lambda q, k, v, rel_k, rel_v, window: (
        4 * q.size * (q.shape[2] + rel_k.shape[0]) + 4 * q.shape[0] * q.shape[1] * q.shape[2] ** 2
    ),
    bytes=lambda q, k, v, rel_k, rel_v, window: 4 * (4 * q.size + 2 * rel_k.size),
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
