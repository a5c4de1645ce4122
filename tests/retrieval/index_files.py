"""Index files as faiss writes them, made without faiss."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


def header(kind: bytes, dim: int, count: int, trained: int = 1, metric: int = 1) -> bytes:
    return kind + struct.pack("<iqqqBi", dim, count, 1 << 20, 1 << 20, trained, metric)


def vector(array: np.ndarray) -> bytes:
    return struct.pack("<Q", array.size) + array.tobytes()


def flat(vectors: np.ndarray, kind: bytes = b"IxF2", **more: int) -> bytes:
    count, dim = vectors.shape
    return header(kind, dim, count, **more) + vector(vectors.astype("<f4"))


def direct_map(kind: int, ids: np.ndarray) -> bytes:
    if kind == 2:
        pairs = np.stack([ids, ids], 1).astype("<i8")
        return struct.pack("<BQQ", 2, 0, len(ids)) + pairs.tobytes()
    return struct.pack("<B", kind) + vector(ids.astype("<i8") if kind else np.zeros(0, "<i8"))


def ivf(
    centroids: np.ndarray,
    lists: list[tuple[np.ndarray, np.ndarray]],
    *,
    kind: bytes = b"IwFl",
    nprobe: int = 1,
    sizes: str = "full",
    map_type: int = 0,
    **more: Any,
) -> bytes:
    """An IVF-flat index of lists of (ids, vectors); `more` overrides header fields."""
    nlist, dim = centroids.shape
    count = sum(len(ids) for ids, _ in lists)
    all_ids = np.concatenate([ids for ids, _ in lists])
    out = header(kind, dim, more.pop("count", count), **more) + struct.pack("<QQ", nlist, nprobe)
    out += flat(centroids)
    if kind == b"IwFl":
        out += direct_map(map_type, all_ids) + b"ilar" + struct.pack("<QQ", nlist, 4 * dim)
        if sizes == "full":
            out += b"full" + vector(np.array([len(ids) for ids, _ in lists], "<u8"))
        else:
            pairs = [(i, len(ids)) for i, (ids, _) in enumerate(lists) if len(ids)]
            out += b"sprs" + vector(np.array(pairs, "<u8"))
        return out + b"".join(v.astype("<f4").tobytes() + ids.astype("<i8").tobytes() for ids, v in lists)
    out += b"".join(vector(ids.astype("<i8")) for ids, _ in lists) + direct_map(map_type, all_ids)
    numbers = [v.astype("<f4").reshape(-1) for _, v in lists]
    return out + b"".join(vector(n if kind == b"IvFl" else n.view("u1")) for n in numbers)


def grouped(
    vectors: np.ndarray, nlist: int, seed: int = 0
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Centroids drawn from the vectors, and each one's list in file order."""
    rng = np.random.default_rng(seed)
    centroids = vectors[rng.choice(len(vectors), nlist, replace=False)].copy()
    nearest = ((vectors[:, None] - centroids[None]) ** 2).sum(-1).argmin(1)
    return centroids, [(np.flatnonzero(nearest == i), vectors[nearest == i]) for i in range(nlist)]
