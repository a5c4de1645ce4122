"""Pulling content features towards the voice's own."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
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
    if not 0 <= rate <= 1:
        raise InputError(f"[retrieval] rate must be from 0 to 1, got {rate}")
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
