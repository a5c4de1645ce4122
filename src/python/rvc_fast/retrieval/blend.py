"""Pulling content features towards the voice's own."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..errors import InputError
from ..ops import dispatch
from .index import Index

NEIGHBOURS = 8
_BLOCK = 256


def blend(features: np.ndarray, index: Index, rate: float, *, exact: bool = False) -> np.ndarray:
    """Return `rate * sum(w v) + (1 - rate) * features` over the 8 nearest vectors v, w = d2^-2 normalised to
    sum 1.

    Args:
        features: (n, dim) float32.
        index: the voice's index.
        rate: 0 (features unchanged) to 1.
        exact: search all vectors instead of the index's nearest lists.

    Returns:
        (n, dim) float32. A vector at distance 0 takes all the weight (shared among several); where an IVF
        search finds nothing, the features stay as they are.

    Raises:
        InputError: rate outside 0 to 1, or features that do not fit the index.
    """
    _check_rate(rate)
    features = np.asarray(features, np.float32)
    if rate == 0:
        return features.copy()
    d2, ids = index.search(features, NEIGHBOURS, exact=exact)
    nearest = d2[:, :1]
    with np.errstate(invalid="ignore", divide="ignore"):
        # Relative to the nearest, (1 / d2)^2 cannot overflow.
        weights = np.where(nearest == 0, d2 == 0, np.where(ids < 0, 0, nearest / d2) ** 2).astype(np.float32)
    total = weights.sum(1, keepdims=True)
    weights /= np.where(total == 0, 1, total)
    out = features.copy()
    ids = np.where(ids < 0, ids[:, :1], ids)
    hit = np.flatnonzero(ids[:, 0] >= 0)
    for at in range(0, len(hit), _BLOCK):
        part = hit[at : at + _BLOCK]
        drawn = np.einsum("nk,nkd->nd", weights[part], index.vectors(ids[part]))
        out[part] = np.float32(rate) * drawn + np.float32(1 - rate) * features[part]
    return out


def blend_array(features: mx.array, index: Index, rate: float, *, exact: bool = False) -> mx.array:
    """Return what `blend` returns, of an MLX array and as one.

    On a GPU it is not evaluated yet, and the host does not wait: the vectors are searched there (`ops.knn`). An index
    of more than `index.DEVICE_BYTES` is searched by the CPU, where it need not be in memory.

    Args:
        features: (n, dim) float32. On a GPU it is not checked that they are finite.

    Raises:
        InputError: as `blend`.
    """
    _check_rate(rate)
    vectors = None if dispatch.gpu_backend() is None else index.on_device()
    if rate == 0:
        return features
    if vectors is None:
        return mx.array(blend(np.array(features), index, rate, exact=exact))
    d2, rows = vectors.search(features, NEIGHBOURS, exact=exact)
    nearest = d2[:, :1]
    # Relative to the nearest, as above.
    ratios = mx.where(rows < 0, 0, nearest / mx.where(d2 == 0, 1, d2))
    weights = mx.where(nearest == 0, (d2 == 0).astype(mx.float32), ratios * ratios)
    weights = weights / mx.maximum(weights.sum(axis=1, keepdims=True), 1)
    drawn = (weights[:, None] @ vectors.vectors[mx.maximum(rows, 0)])[:, 0]
    return mx.where(rows[:, :1] < 0, features, rate * drawn + (1 - rate) * features)


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise InputError(f"[retrieval] rate must be from 0 to 1, got {rate}")
