"""Nearest neighbours by squared L2 distance, over all vectors or over the lists of an IVF index.

Candidates come from `|q|^2 - 2 q.v + |v|^2`, one matrix product per block; that form cancels for near
vectors, and the blend weighs by d^-4, so the distances of a few more candidates than asked for are then
computed from differences, as faiss does within a list. Memory is bounded by the block sizes, whatever the
number of queries and vectors; of an index that is not large, a copy of the vectors stays for the next search.

All vectors are compared by the compiled `ops.knn` where there is one, else by NumPy, 30 times faster than stock
MLX on a CPU. Lists are compared by NumPy: they are too short, some 40 vectors, to be worth a call each.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from ..ops import dispatch, knn

Rows = Callable[[np.ndarray | slice], np.ndarray]

_COMPILED_BLOCK = 32768
_VECTOR_BLOCK = 4096
_QUERY_BLOCK = 1024
_DIFFERENCE_NUMBERS = 1 << 21
# How many candidates beyond k are compared by differences: near ties may swap in the matrix product's
# rounding.
_MARGIN = 8


def exhaustive(
    queries: np.ndarray, rows: Rows, count: int, k: int, kept: dict[int, mx.array] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compare every query with every vector.

    Args:
        queries: (n, d) float32.
        rows: gives the vectors at some rows, (m, d) float32.
        count: how many rows there are.
        k: how many neighbours.
        kept: of these very rows, where a compiled search keeps its copies for the next, by their first row.

    Returns:
        (d2 (n, k) float32, rows (n, k) int64), unordered; inf and -1 where there are fewer.
    """
    if dispatch.route("knn").backend != "reference":
        return _exhaustive_compiled(queries, rows, count, k, kept)
    best = _Candidates(len(queries), min(k + _MARGIN, count))
    # The product cancels least around the middle of the vectors.
    middle = rows(slice(0, _VECTOR_BLOCK)).mean(0)
    centred = queries - middle
    for begin in range(0, count, _VECTOR_BLOCK):
        block = rows(slice(begin, begin + _VECTOR_BLOCK)) - middle
        norms = np.einsum("ij,ij->i", block, block)
        for at in range(0, len(queries), _QUERY_BLOCK):
            part = slice(at, at + _QUERY_BLOCK)
            # |q|^2 is the same for all candidates of a query.
            best.offer(part, norms - 2 * (centred[part] @ block.T), begin)
    return _by_differences(queries, best.rows, rows, k)


def _exhaustive_compiled(
    queries: np.ndarray, rows: Rows, count: int, k: int, kept: dict[int, mx.array] | None
) -> tuple[np.ndarray, np.ndarray]:
    """`exhaustive` by the op, a block of vectors at a time; the distances of blocks compare exactly."""
    d2 = np.full((len(queries), k), np.inf, np.float32)
    names = np.full((len(queries), k), -1, np.int64)
    if len(queries) == 0:
        return d2, names
    sought = mx.array(queries)
    for begin in range(0, count, _COMPILED_BLOCK):
        block = None if kept is None else kept.get(begin)
        if block is None:
            block = mx.array(rows(slice(begin, begin + _COMPILED_BLOCK)))
            if kept is not None:
                kept[begin] = block
        distances, found = knn(sought, block, k)
        both = np.concatenate([d2, np.array(distances)], 1)
        numbers = np.array(found, np.int64)
        both_names = np.concatenate([names, np.where(numbers < 0, -1, numbers + begin)], 1)
        # Stable, and the rows found before are the lower ones; what is missing is infinitely far.
        keep = np.argsort(both, axis=1, kind="stable")[:, :k]
        d2, names = np.take_along_axis(both, keep, 1), np.take_along_axis(both_names, keep, 1)
    return d2, names


def nearest_lists(queries: np.ndarray, centroids: np.ndarray, nprobe: int) -> np.ndarray:
    """Return (n, nprobe) int64, the lists whose centroids (lists, d) are nearest to each query."""

    def rows(which: np.ndarray | slice) -> np.ndarray:
        return centroids[which]

    _, found = exhaustive(queries, rows, len(centroids), nprobe)
    return found


def in_lists(
    queries: np.ndarray, lists: np.ndarray, rows: Rows, bounds: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compare each query with the vectors of its own lists.

    Args:
        queries: (n, d) float32.
        lists: (n, p) int64, the lists that each query visits.
        rows: gives the vectors at some rows, (m, d) float32.
        bounds: (lists + 1,) int64; list i holds the rows bounds[i] to bounds[i + 1].
        k: how many neighbours.

    Returns:
        As `exhaustive`.
    """
    n, probes = lists.shape
    best = _Candidates(n, k + _MARGIN)
    order = np.argsort(lists, axis=None, kind="stable")
    visited, first = np.unique(lists.reshape(-1)[order], return_index=True)
    for name, members in zip(visited.tolist(), np.split(order // probes, first[1:]), strict=True):
        end = int(bounds[name + 1])
        for begin in range(int(bounds[name]), end, _VECTOR_BLOCK):
            block = rows(slice(begin, min(begin + _VECTOR_BLOCK, end)))
            middle = block.mean(0)
            block = block - middle
            norms = np.einsum("ij,ij->i", block, block)
            for at in range(0, len(members), _QUERY_BLOCK):
                part = members[at : at + _QUERY_BLOCK]
                centred = queries[part] - middle
                # Lists have middles of their own, so that |q|^2 counts here.
                own = np.einsum("ij,ij->i", centred, centred)[:, None]
                best.offer(part, norms - 2 * (centred @ block.T) + own, begin)
    return _by_differences(queries, best.rows, rows, k)


class _Candidates:
    """The rows that scored lowest so far, `wanted` for each query, unordered."""

    def __init__(self, n: int, wanted: int) -> None:
        self.wanted = wanted
        self.scores = np.full((n, wanted), np.inf, np.float32)
        self.rows = np.full((n, wanted), -1, np.int64)

    def offer(self, part: slice | np.ndarray, scores: np.ndarray, begin: int) -> None:
        """Enter `scores` (queries of `part`, m) of the rows from `begin` on."""
        columns = _smallest(scores, self.wanted)
        all_scores = np.concatenate([self.scores[part], np.take_along_axis(scores, columns, 1)], 1)
        all_rows = np.concatenate([self.rows[part], columns + begin], 1)
        keep = _smallest(all_scores, self.wanted)
        self.scores[part] = np.take_along_axis(all_scores, keep, 1)
        self.rows[part] = np.take_along_axis(all_rows, keep, 1)


def _smallest(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the k smallest values of each row, unordered (all of them if there are fewer)."""
    if scores.shape[1] <= k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, k - 1, axis=1)[:, :k]


def _by_differences(
    queries: np.ndarray, found: np.ndarray, rows: Rows, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rank the candidates `found` (n, c; -1 for none) by sum((q - v)^2) and return the first k."""
    n, candidates = found.shape
    d2 = np.full((n, max(candidates, k)), np.inf, np.float32)
    names = np.full((n, max(candidates, k)), -1, np.int64)
    names[:, :candidates] = found
    step = max(1, _DIFFERENCE_NUMBERS // (candidates * queries.shape[1]))
    for at in range(0, n, step):
        part = slice(at, at + step)
        differences = rows(found[part].clip(0)) - queries[part, None]
        distances = np.einsum("ijk,ijk->ij", differences, differences)
        d2[part, :candidates] = np.where(found[part] < 0, np.float32(np.inf), distances)
    # Equal distances go by the order in the file, as in a scan that replaces only what is farther.
    keep = np.lexsort((names, d2))[:, :k]
    return np.take_along_axis(d2, keep, 1), np.take_along_axis(names, keep, 1)
