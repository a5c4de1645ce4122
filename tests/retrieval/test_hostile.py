"""Index files that lie: one clear line each, before anything of the claimed size is made."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from hostile import refused
from rvc_fast.retrieval import load_index

from .index_files import flat, grouped, header, ivf

GOLDEN = Path(__file__).parents[1] / "golden"
VECTORS = np.random.default_rng(0).standard_normal((60, 4), dtype=np.float32)
GOOD = ivf(*grouped(VECTORS, 5))
# Where GOOD keeps its counts, behind a header of 37 bytes; the quantizer has a header of its own.
NLIST, NPROBE, COARSE = 37, 45, 53
CENTROIDS = COARSE + 37
MAP = CENTROIDS + 8 + 5 * 4 * 4
LISTS = MAP + 9


def refuse(tmp_path: Path, data: bytes, words: str) -> None:
    message = refused(load_index, tmp_path / "a.index", data, words, 1_000_000 + 10 * len(data))
    assert message.startswith("[retrieval] cannot load ")


def patched(at: int, layout: str, *values: int | bytes) -> bytes:
    new = struct.pack(layout, *values)
    return GOOD[:at] + new + GOOD[at + len(new) :]


def test_the_good_one_is_good(tmp_path):
    (tmp_path / "a.index").write_bytes(GOOD)
    assert load_index(tmp_path / "a.index").count == 60
    assert GOOD[LISTS : LISTS + 4] == b"ilar"


@pytest.mark.parametrize("big", [61, 2**31, 2**62, 2**63 - 1])
@pytest.mark.parametrize(
    ("at", "layout"),
    [
        (8, "<q"),
        (NLIST, "<Q"),
        (COARSE + 8, "<q"),
        (CENTROIDS, "<Q"),
        (MAP + 1, "<Q"),
        (LISTS + 4, "<Q"),
        (LISTS + 12, "<Q"),
        (LISTS + 24, "<Q"),
        (LISTS + 32, "<Q"),
    ],
)
def test_lying_counts(tmp_path, at, layout, big):
    refuse(
        tmp_path, patched(at, layout, big), "must|should|cannot be|claims|do not fit|not hold|header says 61"
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"I", "kind should take 4 bytes, but 1 are left"),
        (b"a letter, not an index", "it is a text that begins with 'a letter"),
        (b"\x80\x02}.", r"no faiss index, its kind reads '\\x80"),
        (patched(4, "<i", 0), "must be 1 to 65536 wide, got 0"),
        (patched(4, "<i", -4), "wide, got -4"),
        (patched(4, "<i", 2**30), "wide, got 1073741824"),
        (patched(4, "<i", 5), "coarse quantizer must be 5 x 5 numbers, got 5 x 4"),
        (patched(8, "<q", -1), "cannot be -1"),
        (patched(8, "<q", 59), "lists hold 60 vectors, its header says 59|claims"),
        (patched(32, "<B", 0), "not trained"),
        (patched(33, "<i", 0), "metric must be L2, got inner product"),
        (patched(33, "<i", 4), "metric must be L2, got faiss's number 4"),
        (patched(NLIST, "<Q", 0), "coarse quantizer must be 0 x 4"),
        (patched(NPROBE, "<Q", 0), "nprobe must be at least 1, got 0"),
        (patched(COARSE, "4s", b"IHNf"), "coarse quantizer must be Flat of faiss, got HNSW .'IHNf'."),
        (patched(MAP, "<B", 7), "direct map must be of type 0, 1 or 2, got 7"),
        (patched(LISTS, "4s", b"ilod"), "stored as 'ilar', got 'ilod'"),
        (patched(LISTS + 20, "4s", b"none"), "'full' or 'sprs', got 'none'"),
        (flat(VECTORS, b"IxFI"), "metric must be L2, got inner product"),
        (flat(np.full((3, 4), np.nan)), "vectors hold NaN, infinity"),
        (flat(np.full((3, 4), 1e38)), "vectors hold NaN, infinity or numbers beyond 1e\\+15"),
        (flat(np.full((3, 4), np.inf)), "vectors hold NaN, infinity"),
        (ivf(np.full((1, 4), np.nan), [(np.arange(60), VECTORS)]), "centroids hold NaN, infinity"),
        (ivf(VECTORS[:1], [(np.arange(60), VECTORS * np.inf)]), "vectors hold NaN, infinity"),
        (ivf(VECTORS[:1], [(np.zeros(60, int), VECTORS)]), "ids must be distinct"),
        (ivf(VECTORS[:1], [(np.arange(60) - 1, VECTORS)]), "not negative"),
        (ivf(VECTORS[:1], [(np.arange(60), VECTORS)], kind=b"IvFl")[:-1], "truncated"),
        (ivf(VECTORS[:1], [(np.arange(60), VECTORS[:59])], kind=b"IvFL"), "does not hold its 60 vectors"),
        (header(b"IxF2", 4, 3) + struct.pack("<Q", 11) + bytes(44), "3 x 4 numbers, got 11|cannot be"),
    ],
)
def test_lies(tmp_path, data, words):
    refuse(tmp_path, data, words)


@pytest.mark.parametrize("kind", ["IxPQ", "IHNf", "IwPQ", "IwSq", "IxPT", "IxHe", "IvPQ", "IwFd"])
def test_other_kinds_are_named(tmp_path, kind):
    refuse(
        tmp_path,
        header(kind.encode(), 4, 3) + bytes(100),
        f"must be a Flat or IVF-Flat index of faiss, got .* .'{kind}'.",
    )


def test_sparse_sizes_of_lists_that_are_not_there(tmp_path):
    data = ivf(*grouped(VECTORS, 5), sizes="sprs")
    at = LISTS + 24
    refuse(tmp_path, data[: at + 8] + struct.pack("<Q", 2**40) + data[at + 16 :], "lists that are not there")


def test_truncated_anywhere(tmp_path):
    for kind in (b"IwFl", b"IvFl", b"IvFL"):
        data = ivf(*grouped(VECTORS, 5), kind=kind, map_type=2)
        for cut in range(1, len(data), 7):
            refuse(tmp_path, data[:cut], "truncated")
