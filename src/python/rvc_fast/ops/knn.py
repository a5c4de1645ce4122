"""knn: (n, d) queries, (m, d) vectors -> squared L2 distances (n, k) and rows (n, k) of the k nearest vectors.

Nearest first, of equal distances the lower row first; infinity and -1 where m < k.

Candidates come from `|v|^2 - 2 q.v`, one matrix product, with both moved to the middle of the vectors; that form
cancels for near vectors, so the distances of 8 more candidates than asked for are then computed from differences.
A vector that this rounding misplaces by more than 8 ranks is not found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, gpu
from .blocks import after, blocks
from .op import Op
from .spec import Case

MARGIN = 8
_VECTORS = 4096
_NUMBERS = 1 << 22

Neighbours = tuple[mx.array, mx.array]


def _lowest(scores: mx.array, rows: mx.array, count: int) -> Neighbours:
    """The `count` lowest of each query's scores (n, c) and their rows, unordered."""
    if scores.shape[1] > count:
        keep = mx.stop_gradient(mx.argpartition(scores, count - 1, axis=1)[:, :count])
        scores, rows = mx.take_along_axis(scores, keep, 1), mx.take_along_axis(rows, keep, 1)
    return scores, rows


def _ranked(distances: mx.array, rows: mx.array) -> Neighbours:
    """In order of distance, then of row: MLX's sort does not promise to leave equal ones in order."""
    near, far = distances[:, :, None], distances[:, None]
    before = (far < near) | ((far == near) & (rows[:, None] < rows[:, :, None]))
    order = mx.stop_gradient(mx.argsort(before.sum(axis=2), axis=1))
    return mx.take_along_axis(distances, order, 1), mx.take_along_axis(rows, order, 1)


class Options(NamedTuple):
    """What a call states beside its arrays."""

    k: int


def _check(queries: mx.array, vectors: mx.array, o: Options) -> Options:
    checks.arrays("knn", queries=queries, vectors=vectors)
    checks.whole("knn", k=o.k)
    checks.rank("knn", "queries", queries, "(n, d)")
    fits = vectors.ndim == 2 and vectors.shape[1] == queries.shape[1]
    checks.check("knn", fits, "vectors", f"of shape (m, {queries.shape[1]})", tuple(vectors.shape))
    checks.at_least("knn", 1, k=o.k)
    return o


def _search(
    queries: mx.array, vectors: mx.array, k: int, seen: Callable[[slice, slice], mx.array] | None
) -> Neighbours:
    """The k nearest of the vectors that `seen` marks for some queries and some vectors; None marks all."""
    m, d = vectors.shape
    wanted = min(k + MARGIN, m)
    middle = vectors[:_VECTORS].mean(axis=0)
    all_distances: list[mx.array] = []
    all_rows: list[mx.array] = []
    for start, end in blocks(queries.shape[0], max(1, _NUMBERS // max(_VECTORS, wanted * max(d, wanted)))):
        q = after(queries[start:end], all_rows)
        scores = mx.zeros((end - start, 0))
        rows = mx.zeros((end - start, 0), mx.int32)
        for low, high in blocks(m, _VECTORS):
            v = after(vectors[low:high], [rows]) - middle
            block = (v * v).sum(axis=1) - 2 * ((q - middle) @ v.T)
            numbers = mx.broadcast_to(mx.arange(low, high, dtype=mx.int32), block.shape)
            if seen is not None:
                marked = seen(slice(start, end), slice(low, high))
                block, numbers = mx.where(marked, block, float("inf")), mx.where(marked, numbers, -1)
            scores, rows = _lowest(
                mx.concatenate([scores, block], axis=1), mx.concatenate([rows, numbers], axis=1), wanted
            )
        distances = ((vectors[mx.stop_gradient(mx.maximum(rows, 0))] - q[:, None]) ** 2).sum(axis=2)
        distances, rows = _ranked(mx.where(rows < 0, float("inf"), distances), rows)
        missing = [(0, 0), (0, max(0, k - wanted))]
        all_distances.append(mx.pad(distances[:, :k], missing, constant_values=float("inf")))
        all_rows.append(mx.pad(rows[:, :k], missing, constant_values=-1))
    return mx.concatenate(all_distances), mx.concatenate(all_rows)


def _reference(queries: mx.array, vectors: mx.array, o: Options) -> Neighbours:
    return _search(queries, vectors, o.k, None)


def _cpu(queries: mx.array, vectors: mx.array, o: Options) -> Neighbours:
    return native.compiled.knn(queries, vectors, o.k)


def _gpu(queries: mx.array, vectors: mx.array, o: Options) -> Neighbours:
    """Matrix products and sorts of blocks, which are MLX's own already: the reference, in float32."""
    return _reference(queries.astype(mx.float32), vectors.astype(mx.float32), o)


KNN = Op("knn", Options, _check, _reference, {"cpu": _cpu}, of_mlx=gpu.alike(_gpu))


def knn(queries: mx.array, vectors: mx.array, k: int) -> Neighbours:
    """Nearest neighbours by squared L2 distance, among all vectors; see the module's text.

    Args:
        queries: (n, d), finite.
        vectors: (m, d), finite, m >= 1.
        k: how many.

    Returns:
        (distances (n, k) float32, rows of `vectors` (n, k) int32).

    Raises:
        InputError: a shape or value that does not fit, named with the argument.
    """
    return KNN(queries, vectors, k)


def knn_in_lists(
    queries: mx.array, vectors: mx.array, k: int, centroids: mx.array, list_of: mx.array, probes: int
) -> Neighbours:
    """Nearest neighbours among the vectors of each query's nearest lists, as an IVF index is searched.

    Every query is compared with every vector, and those of other lists are left out: on a GPU one large matrix
    product is faster than many small ones, and the host is not asked which lists these are.

    Args:
        queries: (n, d) float32, finite.
        vectors: (m, d) float32, finite, m >= 1.
        k: how many.
        centroids: (lists, d) float32, the middles of the lists.
        list_of: (m,) int32, the list of each vector.
        probes: how many lists a query visits, from 1 to `lists`.

    Returns:
        (distances (n, k) float32, rows of `vectors` (n, k) int32) as `knn`; infinity and -1 where a query's lists
        hold fewer than k.
    """
    _, near = knn(queries, centroids, probes)

    def seen(some: slice, of: slice) -> mx.array:
        lists, mine = list_of[of], near[some]
        marked = mine[:, :1] == lists
        for i in range(1, probes):
            marked = marked | (mine[:, i : i + 1] == lists)
        return marked

    return _search(queries, vectors, k, seen)


def _case(name: str, n: int, m: int, d: int, k: int, *, copies: int = 1, **options: Any) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        # Around a common middle far from 0, as features are.
        vectors = 3 + rng.standard_normal((m, d), dtype=np.float32)
        vectors = np.resize(vectors[: -(-m // copies)], (m, d))
        near = vectors[rng.integers(0, m, n)] + 0.3 * rng.standard_normal((n, d), dtype=np.float32)
        return {"queries": mx.array(near), "vectors": mx.array(vectors), "k": k}

    return Case(name, make, **options)


SPEC = KNN.describe(
    knn,
    cases=(
        _case("one of one", 1, 1, 1, 1),
        _case("fewer than asked for", 3, 5, 7, 9),
        _case("primes", 37, 1009, 13, 5),
        _case("equal vectors", 33, 600, 24, 8, copies=3),
        _case("a width of cache sets", 5, 500, 768, 8),
        _case("several blocks of everything", 4099, 257, 3, 2),
        _case("wider than the blocks of a reduction", 3, 50, 17000, 4),
        _case("10 s, 20000 vectors", 500, 20000, 768, 8, benchmark=True),
    ),
    flops=lambda queries, vectors, k: 2 * queries.size * vectors.shape[0],
    bytes=lambda queries, vectors, k: 4 * (queries.size + vectors.size + 2 * k * queries.shape[0]),
)
