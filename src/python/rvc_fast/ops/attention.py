"""attention: softmax(scale * q @ k^T) @ v for q (B, H, T, D) and k, v (B, H, S, D) -> (B, H, T, D)."""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, gpu
from .blocks import blocks
from .op import Op
from .spec import HALF, Case, Tolerance, normal

# MLX's attention on Metal is fused for these head widths; for others it makes all scores of the rows at hand, in
# the dtype of q.
_FUSED = (64, 72, 80, 96, 128)
_ROWS = 1024


class Options(NamedTuple):
    """What a call states beside its arrays."""

    scale: float


def _check(q: mx.array, k: mx.array, v: mx.array, o: Options) -> Options:
    op = "attention"
    checks.arrays(op, q=q, k=k, v=v)
    checks.finite(op, scale=o.scale)
    checks.rank(op, "q", q, "(B, H, T, D)")
    fits = k.ndim == 4 and (k.shape[:2], k.shape[3]) == (q.shape[:2], q.shape[3])
    checks.check(op, fits, "k", f"of shape {(*q.shape[:2], 'S', q.shape[3])}", tuple(k.shape))
    checks.shape(op, "v", v, tuple(k.shape))
    return o


def _reference(q: mx.array, k: mx.array, v: mx.array, o: Options) -> mx.array:
    return mx.softmax((q * o.scale) @ k.swapaxes(-1, -2), axis=-1, precise=True) @ v


def _cpu(q: mx.array, k: mx.array, v: mx.array, o: Options) -> mx.array:
    return native.compiled.attention(q, k, v, o.scale)


def _gpu(q: mx.array, k: mx.array, v: mx.array, o: Options) -> mx.array:
    """MLX's own attention is fused for the head widths of content encoders, with softmax and sums in float32."""
    dtype = q.dtype
    if q.shape[3] not in _FUSED:
        q, k, v = (a.astype(mx.float32) for a in (q, k, v))
    rows = [
        mx.fast.scaled_dot_product_attention(q[:, :, start:end], k, v, scale=o.scale)
        for start, end in blocks(q.shape[2], _ROWS)
    ]
    return mx.concatenate(rows, axis=2).astype(dtype)


ATTENTION = Op("attention", Options, _check, _reference, {"cpu": _cpu}, of_mlx=gpu.alike(_gpu))


def attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float) -> mx.array:
    """Softmax attention; the compiled kernel never holds more than a few blocks of the T x S scores.

    Args:
        q: (B, H, T, D), any strides.
        k, v: (B, H, S, D).
        scale: factor on the scores, usually D ** -0.5.

    Returns:
        (B, H, T, D) in q's dtype. From the compiled kernel it lies in memory as (B, T, H, D), so that
        `y.swapaxes(1, 2).reshape(B, T, H * D)` copies nothing.

    Raises:
        InputError: a shape that does not fit, named with the argument.
    """
    return ATTENTION(q, k, v, scale)


def _case(
    name: str, batch: int, heads: int, queries: int, keys: int, dim: int, *, benchmark: bool = False
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        # As a transformer has them: the heads of a row side by side, seen as (B, H, T, D).
        q, k, v = (normal(rng, batch, n, heads, dim).swapaxes(1, 2) for n in (queries, keys, keys))
        return {"q": q, "k": k, "v": v, "scale": dim**-0.5}

    return Case(name, make, benchmark)


def _sharp(rng: np.random.Generator) -> dict[str, Any]:
    """Scores far apart, the largest in the last block of keys: the running maximum has to catch up."""
    q, k, v = (normal(rng, 1, 1, 700, 16) for _ in range(3))
    return {"q": q, "k": k * mx.linspace(0, 5, 700)[:, None], "v": v, "scale": 0.5}


SPEC = ATTENTION.describe(
    attention,
    cases=(
        _case("one query, one key", 1, 1, 1, 1, 1),
        _case("primes", 2, 3, 53, 31, 17),
        _case("more than one block of keys", 1, 2, 29, 1031, 40),
        _case("a block of keys exactly", 1, 2, 49, 512, 33),
        _case("a key past a block", 1, 1, 5, 513, 64),
        Case("sharp", _sharp),
        _case("HuBERT, 5 s", 1, 12, 250, 250, 64, benchmark=True),
        _case("HuBERT, 20 s", 1, 12, 1000, 1000, 64, benchmark=True),
    ),
    flops=lambda q, k, v, scale: 4 * q.size * k.shape[2],
    bytes=lambda q, k, v, scale: 4 * (2 * q.size + k.size + v.size),
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
