"""Reading index files, and faiss's own answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.retrieval import Index, load_index
from rvc_fast.retrieval import search as search_module

from .index_files import flat, grouped, ivf

GOLDEN = Path(__file__).parents[1] / "golden"


def opened(tmp_path: Path, data: bytes) -> Index:
    path = tmp_path / "a.index"
    path.write_bytes(data)
    return load_index(path)


def brute(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    d2 = ((queries[:, None].astype(np.float64) - vectors[None].astype(np.float64)) ** 2).sum(-1)
    order = np.argsort(d2, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(d2, order, 1), order


@pytest.mark.parametrize("exact", [False, True])
def test_golden(exact):
    index, golden = load_index(GOLDEN / "voice.index"), load_file(GOLDEN / "pipeline.safetensors")
    assert (index.kind, index.dim, index.count, index.nprobe) == ("IVF-Flat", 64, 1500, 1)
    d2, ids = index.search(golden["index_query"], 8, exact=exact)
    name = "exact" if exact else "ivf"
    assert np.array_equal(ids, golden[f"index_{name}_ids"])
    # Measured: 2.4e-7, two roundings of float32.
    np.testing.assert_allclose(d2, golden[f"index_{name}_d2"], rtol=1e-6)
    assert (d2.dtype, ids.dtype) == (np.float32, np.int64)
    assert np.array_equal(index.vectors(np.arange(16)), golden["index_vectors_head"])


@pytest.mark.parametrize("kind", [b"IwFl", b"IvFl", b"IvFL"])
@pytest.mark.parametrize("map_type", [0, 1, 2])
@pytest.mark.parametrize("sizes", ["full", "sprs"])
def test_every_spelling_of_ivf(tmp_path, kind, map_type, sizes):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((300, 12), dtype=np.float32)
    centroids, lists = grouped(vectors, 9)
    lists[4] = (lists[4][0][:0], lists[4][1][:0])
    index = opened(tmp_path, ivf(centroids, lists, kind=kind, map_type=map_type, sizes=sizes, nprobe=3))
    ids = np.concatenate([ids for ids, _ in lists])
    assert (index.kind, index.dim, index.count, index.nprobe) == ("IVF-Flat", 12, len(ids), 3)
    assert np.array_equal(index.vectors(ids.reshape(1, -1))[0], vectors[ids])

    queries = rng.standard_normal((50, 12), dtype=np.float32)
    d2, got = index.search(queries, 5)
    nearest = brute(centroids, queries, 3)[1]
    for query, row_d2, row, probed in zip(queries, d2, got, nearest, strict=True):
        members = np.sort(np.concatenate([lists[i][0] for i in probed]))
        want_d2, want = brute(vectors[members], query[None], 5)
        assert np.array_equal(row, members[want[0]])
        np.testing.assert_allclose(row_d2, want_d2[0], rtol=1e-5)


@pytest.mark.parametrize("kind", [b"IxF2", b"IxFl"])
def test_flat(tmp_path, kind):
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((100, 7), dtype=np.float32)
    index = opened(tmp_path, flat(vectors, kind))
    assert (index.kind, index.dim, index.count, index.nprobe) == ("Flat", 7, 100, 0)
    queries = rng.standard_normal((20, 7), dtype=np.float32)
    for exact in (False, True):
        d2, ids = index.search(queries, exact=exact)
        want_d2, want = brute(vectors, queries, 8)
        assert np.array_equal(ids, want)
        np.testing.assert_allclose(d2, want_d2, rtol=1e-5)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_blocks_do_not_show(tmp_path, monkeypatch, backend):
    monkeypatch.setenv("RVC_FAST_BACKEND", backend)
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((500, 6), dtype=np.float32)
    queries = rng.standard_normal((70, 6), dtype=np.float32)
    index = opened(tmp_path, ivf(*grouped(vectors, 3), nprobe=2))
    whole = [index.search(queries, 8, exact=exact) for exact in (False, True)]
    index = opened(tmp_path, ivf(*grouped(vectors, 3), nprobe=2))  # what it keeps has the size of its blocks
    monkeypatch.setattr(search_module, "_COMPILED_BLOCK", 41)
    monkeypatch.setattr(search_module, "_VECTOR_BLOCK", 37)
    monkeypatch.setattr(search_module, "_QUERY_BLOCK", 11)
    monkeypatch.setattr(search_module, "_DIFFERENCE_NUMBERS", 1000)
    for exact, (d2, ids) in zip((False, True), whole, strict=True):
        again_d2, again_ids = index.search(queries, 8, exact=exact)
        assert np.array_equal(again_ids, ids)
        assert np.array_equal(again_d2, d2)


def test_fewer_than_asked_for(tmp_path):
    vectors = np.array([[0, 0], [1, 0], [10, 10]], np.float32)
    lists = [
        (np.array([5, 3]), vectors[:2]),
        (np.array([9]), vectors[2:]),
        (np.zeros(0, np.int64), vectors[:0]),
    ]
    centroids = np.array([[0, 0], [10, 10], [-10, -10]], np.float32)
    index = opened(tmp_path, ivf(centroids, lists))
    d2, ids = index.search(np.array([[0, 0], [9, 9], [-9, -9]], np.float32), 3)
    inf = np.inf
    assert ids.tolist() == [[5, 3, -1], [9, -1, -1], [-1, -1, -1]]
    assert d2.tolist() == [[0, 1, inf], [2, inf, inf], [inf, inf, inf]]
    d2, ids = index.search(np.array([[0, 0]], np.float32), 5, exact=True)
    assert ids.tolist() == [[5, 3, 9, -1, -1]]
    assert index.search(np.zeros((0, 2), np.float32))[1].shape == (0, 8)


def test_distances_far_from_the_origin_do_not_cancel(tmp_path):
    """|q|^2 - 2 q.v + |v|^2 alone would lose these differences in 1e6-fold larger norms."""
    rng = np.random.default_rng(4)
    vectors = (1000 + rng.standard_normal((200, 32))).astype(np.float32)
    queries = (1000 + rng.standard_normal((20, 32))).astype(np.float32)
    index = opened(tmp_path, ivf(*grouped(vectors, 4), nprobe=4))
    for exact in (False, True):
        d2, ids = index.search(queries, 8, exact=exact)
        want_d2, want = brute(vectors, queries, 8)
        assert np.array_equal(ids, want)
        np.testing.assert_allclose(d2, want_d2, rtol=1e-5)


def test_near_ties_are_told_apart(tmp_path):
    """12 vectors a millionth apart, far from the middle of all: the matrix product cannot rank them."""
    rng = np.random.default_rng(5)
    near = 1000 + rng.uniform(0, 1, (12, 32))
    vectors = np.concatenate([near, np.full((12, 32), -1000)]).astype(np.float32)
    queries = (1000 + rng.uniform(0, 1, (20, 32))).astype(np.float32)
    index = opened(tmp_path, flat(vectors))
    assert np.array_equal(index.search(queries, 4)[1], brute(vectors, queries, 4)[1])


def test_equal_distances_go_by_id(tmp_path):
    index = opened(tmp_path, flat(np.ones((40, 3), np.float32)))
    d2, ids = index.search(np.ones((2, 3), np.float32), 8)
    assert not d2.any()
    assert len(set(ids[0].tolist())) == 8
    assert (np.diff(ids) > 0).all()


def test_the_vectors_stay_on_disk(tmp_path):
    index = opened(tmp_path, flat(np.ones((40, 3), np.float32)))
    assert not index._windows.flags.owndata
    assert not index._windows.flags.writeable


@pytest.mark.parametrize(
    ("queries", "k", "words"),
    [
        (np.zeros((2, 4)), 1, r"queries must be \(n, 3\), got \(2, 4\)"),
        (np.zeros(3), 1, r"got \(3,\)"),
        (np.full((1, 3), np.nan), 1, "must be finite"),
        (np.full((1, 3), np.inf), 1, "must be finite"),
        (np.full((1, 3), -1e20), 1, r"at most 1e\+15"),
        (np.zeros((1, 3)), 0, "k must be at least 1, got 0"),
    ],
)
def test_bad_queries(tmp_path, queries, k, words):
    index = opened(tmp_path, flat(np.ones((4, 3), np.float32)))
    with pytest.raises(InputError, match=words):
        index.search(queries, k)


def test_unknown_ids(tmp_path):
    index = opened(tmp_path, flat(np.ones((4, 3), np.float32)))
    for bad in (-1, 4, 2**40):
        with pytest.raises(InputError, match=f"ids must be those of the index, got {bad}"):
            index.vectors(np.array([0, bad]))


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot open .*: No such file"):
        load_index(tmp_path / "none.index")
    with pytest.raises(InputError, match=r"cannot open .*: Is a directory"):
        load_index(tmp_path)


def test_trained_only(tmp_path):
    empty = (np.zeros(0, np.int64), np.zeros((0, 4), np.float32))
    with pytest.raises(FileFormatError, match=r"holds no vectors: this is a trained_\*\.index"):
        opened(tmp_path, ivf(np.ones((3, 4), np.float32), [empty] * 3))
    with pytest.raises(FileFormatError, match="holds no vectors"):
        opened(tmp_path, flat(np.zeros((0, 4), np.float32)))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 60), st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1)
)
def test_exact_search_is_a_sort(tmp_path_factory, count, dim, n, k, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dim), dtype=np.float32)
    queries = rng.standard_normal((n, dim), dtype=np.float32)
    queries[0] = vectors[0]
    nlist = int(rng.integers(1, count + 1))
    index = opened(tmp_path_factory.mktemp("i"), ivf(*grouped(vectors, nlist), nprobe=nlist + 2))
    want = brute(vectors, queries, k)[0]
    for exact in (False, True):
        d2, ids = index.search(queries, k, exact=exact)
        found = min(k, count)
        np.testing.assert_allclose(d2[:, :found], want, rtol=1e-4, atol=1e-6)
        assert (ids[:, found:] == -1).all()
        assert np.isinf(d2[:, found:]).all()
        assert d2[0, 0] == 0
        np.testing.assert_allclose(
            ((queries[:, None] - index.vectors(ids[:, :found])) ** 2).sum(-1),
            d2[:, :found],
            rtol=1e-4,
            atol=1e-7,
        )
