"""Blending by inverse fourth power of the distance."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file

from rvc_fast.errors import InputError
from rvc_fast.ops import dispatch
from rvc_fast.retrieval import blend, blend_array, load_index
from rvc_fast.retrieval import index as index_module

from .index_files import flat, ivf

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def golden():
    return load_index(GOLDEN / "voice.index"), load_file(GOLDEN / "pipeline.safetensors")


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("rate", [0.25, 0.75, 1.0])
def test_formula(golden, exact, rate):
    index, case = golden
    name = "exact" if exact else "ivf"
    d2, ids = case[f"index_{name}_d2"].astype(np.float64), case[f"index_{name}_ids"]
    weights = (1 / d2) ** 2
    weights /= weights.sum(1, keepdims=True)
    query = case["index_query"]
    want = rate * (weights[..., None] * index.vectors(ids)).sum(1) + (1 - rate) * query
    got = blend(query, index, rate, exact=exact)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_rate_of_zero_changes_nothing(golden):
    index, case = golden
    got = blend(case["index_query"], index, 0.0)
    assert np.array_equal(got, case["index_query"])
    assert got is not case["index_query"]


def test_frames_are_independent(golden):
    index, case = golden
    many = np.tile(case["index_query"], (40, 1))
    np.testing.assert_allclose(
        blend(many, index, 0.5)[-16:], blend(case["index_query"], index, 0.5), atol=1e-6
    )


def test_exact_match_takes_all_the_weight(golden):
    index, _ = golden
    vectors = index.vectors(np.array([3, 700]))
    np.testing.assert_array_equal(blend(vectors, index, 1.0), vectors)


def test_matches_share(tmp_path):
    vectors = np.array([[1, 0], [1, 0], [5, 5]], np.float32)
    (tmp_path / "a.index").write_bytes(flat(vectors))
    got = blend(np.array([[1, 0]], np.float32), load_index(tmp_path / "a.index"), 0.5)
    assert got.tolist() == [[1, 0]]


def test_tiny_and_huge_distances(tmp_path):
    """(1 / d2)^2 itself would overflow for the first query and vanish for the second."""
    vectors = np.array([[0, 0], [1, 0]], np.float32)
    (tmp_path / "a.index").write_bytes(flat(vectors))
    index = load_index(tmp_path / "a.index")
    got = blend(np.array([[1e-15, 0], [-1e15, 0]], np.float32), index, 1.0)
    np.testing.assert_allclose(got, [[0, 0], [0.5, 0]], atol=1e-6)


def test_nothing_found_leaves_the_features(tmp_path):
    vectors = np.array([[4, 4], [5, 4]], np.float32)
    lists = [(np.array([0, 1]), vectors), (np.zeros(0, np.int64), vectors[:0])]
    (tmp_path / "a.index").write_bytes(ivf(np.array([[4, 4], [-4, -4]], np.float32), lists))
    index = load_index(tmp_path / "a.index")
    query = np.array([[-4, -3], [4, 4]], np.float32)
    np.testing.assert_array_equal(blend(query, index, 1.0), [[-4, -3], [4, 4]])
    # Fewer than 8 is fine: id -1 has no weight.
    assert np.isfinite(blend(query + 0.5, index, 0.5)).all()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_bad_rate(golden, rate):
    with pytest.raises(InputError, match="rate must be from 0 to 1"):
        blend(golden[1]["index_query"], golden[0], rate)


def test_bad_width(golden):
    with pytest.raises(InputError, match=r"must be \(n, 64\)"):
        blend(np.zeros((3, 65), np.float32), golden[0], 0.5)


@pytest.fixture
def device(monkeypatch):
    """The route of a GPU, on MLX's kernels for this machine."""
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "metal")
    monkeypatch.setenv("RVC_FAST_BACKEND", "metal")


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_a_device_finds_the_same(golden, device, exact, rate):
    index, case = golden
    many = np.tile(case["index_query"], (30, 1))
    want = blend(many, index, rate, exact=exact)
    got = blend_array(mx.array(many), index, rate, exact=exact)
    assert got.dtype == mx.float32
    np.testing.assert_allclose(np.array(got), want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("probes", [1, 3, 7])
def test_a_device_visits_the_same_lists(device, tmp_path, probes):
    """Lists of a few vectors, empty ones among them: fewer than eight neighbours, or none."""
    rng = np.random.default_rng(probes)
    centroids = rng.standard_normal((40, 5)).astype(np.float32)
    sizes = np.arange(40) % 7
    ids = np.split(rng.permutation(sizes.sum()), np.cumsum(sizes)[:-1])
    lists = [
        (own, (middle + 0.1 * rng.standard_normal((len(own), 5))).astype(np.float32))
        for own, middle in zip(ids, centroids, strict=True)
    ]
    (tmp_path / "a.index").write_bytes(ivf(centroids, lists, nprobe=probes))
    index = load_index(tmp_path / "a.index")
    query = rng.standard_normal((500, 5)).astype(np.float32)
    want_d2, want_ids = index.search(query)
    d2, rows = index.on_device().search(mx.array(query), 8)
    assert (want_ids < 0).any()
    np.testing.assert_array_equal(np.isinf(np.array(d2)), np.isinf(want_d2))
    np.testing.assert_array_equal(np.where(np.array(rows) < 0, -1, index._ids[np.array(rows)]), want_ids)
    np.testing.assert_allclose(
        np.array(blend_array(mx.array(query), index, 0.75)), blend(query, index, 0.75), atol=1e-5
    )


def test_a_device_gives_a_vector_at_distance_0_all_the_weight(golden, device):
    index, _ = golden
    vectors = index.rows(slice(0, 20))
    np.testing.assert_array_equal(np.array(blend_array(mx.array(vectors), index, 1.0)), vectors)


def test_a_large_index_is_searched_by_the_cpu(golden, device, monkeypatch):
    index, case = golden
    monkeypatch.setattr(index_module, "DEVICE_BYTES", 4 * index.count * index.dim - 1)
    assert index.on_device() is None
    query = case["index_query"]
    np.testing.assert_array_equal(
        np.array(blend_array(mx.array(query), index, 0.5)), blend(query, index, 0.5)
    )


def test_the_cpu_s_own_search_is_taken_there(golden):
    index, case = golden
    query = case["index_query"]
    np.testing.assert_array_equal(
        np.array(blend_array(mx.array(query), index, 0.5)), blend(query, index, 0.5)
    )
    assert index._device is None


def test_bad_arguments_of_a_device(golden, device):
    with pytest.raises(InputError, match="rate must be from 0 to 1"):
        blend_array(mx.zeros((3, 64)), golden[0], 1.5)
    with pytest.raises(InputError, match=r"must be \(n, 64\)"):
        blend_array(mx.zeros((3, 65)), golden[0], 0.5)
