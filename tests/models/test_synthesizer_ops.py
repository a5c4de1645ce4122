"""The synthesizer's ops against definitions written out in numpy, in double."""

from __future__ import annotations

import importlib

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast.errors import InputError
from rvc_fast.ops.nsf_source import advance_phase, nsf_source
from rvc_fast.ops.relpos_attention import relpos_attention
from rvc_fast.ops.resblock import ResConv, resblock_stage
from rvc_fast.ops.wavenet_gate import wavenet_gate


def attention_by_hand(q, k, v, rel_k, rel_v, window):
    q, k, v, rel_k, rel_v = (np.array(a, dtype=np.float64) for a in (q, k, v, rel_k, rel_v))
    length, dim = q.shape[2:]
    out = np.zeros_like(q)
    for b, h, i in np.ndindex(q.shape[:3]):
        keys, values = k[b, h].copy(), v[b, h].copy()
        for j in range(max(i - window, 0), min(i + window + 1, length)):
            keys[j] += rel_k[j - i + window]
            values[j] += rel_v[j - i + window]
        score = keys @ q[b, h, i] / np.sqrt(dim)
        p = np.exp(score - score.max())
        out[b, h, i] = p / p.sum() @ values
    return out


@pytest.mark.parametrize("rows", [3, 8, 512])
@pytest.mark.parametrize("length", [1, 2, 5, 6, 23])
def test_relpos_attention(monkeypatch, length, rows):
    module = importlib.import_module("rvc_fast.ops.relpos_attention")
    monkeypatch.setattr(module, "_ROWS", rows)
    rng = np.random.default_rng(length)
    q, k, v = (mx.array(rng.standard_normal((2, 3, length, 4), dtype=np.float32)) for _ in range(3))
    rel_k, rel_v = (mx.array(rng.standard_normal((11, 4), dtype=np.float32)) for _ in range(2))
    got = relpos_attention(q, k, v, rel_k, rel_v, 5)
    np.testing.assert_allclose(np.array(got), attention_by_hand(q, k, v, rel_k, rel_v, 5), atol=4e-6)


def test_relpos_attention_refuses_a_wrong_table():
    q = mx.zeros((1, 1, 4, 2))
    with pytest.raises(InputError, match=r"\[relpos_attention\] rel_v must be of shape \(7, 2\)"):
        relpos_attention(q, q, q, mx.zeros((7, 2)), mx.zeros((21, 2)), 3)


def test_wavenet_gate():
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 5, 6)), rng.standard_normal((2, 1, 6))
    a, b = np.split(x + g, 2, axis=-1)
    got = wavenet_gate(mx.array(x.astype(np.float32)), mx.array(g.astype(np.float32)))
    np.testing.assert_allclose(np.array(got), np.tanh(a) / (1 + np.exp(-b)), atol=1e-6)
    with pytest.raises(InputError, match=r"\[wavenet_gate\] g must be broadcastable"):
        wavenet_gate(mx.zeros((1, 5, 6)), mx.zeros((1, 2, 6)))


def test_resblock_stage_refuses_even_kernels_and_nothing():
    x = mx.zeros((1, 5, 2))
    with pytest.raises(InputError, match=r"\[resblock\] weight must be of shape \(2, odd, 2\)"):
        resblock_stage(x, [[[ResConv(mx.zeros((2, 4, 2)), None)]]])
    for blocks in ([], [[]], [[[]]]):
        with pytest.raises(InputError, match=r"\[resblock\] blocks must be non-empty"):
            resblock_stage(x, blocks)


def silent(f0, hop, harmonics=1, **options):
    """The source without noise, before tanh."""
    noise = mx.zeros((f0.shape[0], f0.shape[1] * hop, harmonics))
    weight = mx.ones((harmonics,))
    y = nsf_source(mx.array(f0), noise, weight, hop=hop, sample_rate=100 * hop, **options)
    return np.arctanh(np.array(y, dtype=np.float64))[..., 0]


@pytest.mark.parametrize("accumulation", ["frame", "sample"])
@pytest.mark.parametrize("harmonics", [1, 3])
def test_source_is_the_sine_of_the_summed_frequency(accumulation, harmonics):
    rng = np.random.default_rng(0)
    f0 = (rng.uniform(80, 300, (2, 20)) * (rng.random((2, 20)) < 0.7)).astype(np.float32)
    hop = 37
    per_sample = np.repeat(f0.astype(np.float64), hop, axis=1)
    cycles = np.cumsum(per_sample, axis=1) / (100 * hop)
    offsets = rng.random((2, harmonics), dtype=np.float32)
    sines = [np.sin(2 * np.pi * ((h + 1) * cycles + offsets[:, h : h + 1])) for h in range(harmonics)]
    want = 0.1 * sum(sines) * (per_sample > 0)
    got = silent(f0, hop, harmonics, offsets=mx.array(offsets), accumulation=accumulation)
    np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("hop", [36, 37])
def test_source_interpolates_f0(hop):
    f0 = np.array([[0, 0, 100, 120, 90, 0, 200]], dtype=np.float32)
    places = (np.arange(7 * hop) + 0.5) / hop - 0.5
    per_sample = np.interp(places, np.arange(7), f0[0].astype(np.float64))
    want = 0.1 * np.sin(2 * np.pi * np.cumsum(per_sample) / (100 * hop)) * (per_sample > 0)
    got = silent(f0, hop, interpolation="linear", accumulation="sample")
    np.testing.assert_allclose(got[0], want, atol=2e-6)


def test_source_noise_level_and_merge():
    f0 = mx.array([[100.0, 0.0]])
    noise = mx.ones((1, 8, 1))
    y = nsf_source(f0, noise, mx.array([0.5]), mx.array([0.25]), hop=4, sample_rate=400, phase=0.0)
    want = np.full(8, 0.25 + 0.5 * 0.1 / 3)
    want[:4] = 0.25 + 0.5 * (0.1 * np.sin(2 * np.pi * np.arange(1, 5) / 4) + 0.003)
    np.testing.assert_allclose(np.array(y)[0, :, 0], np.tanh(want), atol=1e-6)


@pytest.mark.parametrize("accumulation", ["frame", "sample"])
def test_source_continues_where_the_chunk_before_ended(accumulation):
    f0 = np.random.default_rng(0).uniform(80, 900, (2, 41)).astype(np.float32)
    options = {"hop": 48, "accumulation": accumulation}
    whole = silent(f0, harmonics=2, **options)
    phase = advance_phase(mx.array(f0), sample_rate=4800, **options)[:, 16]
    pieces = [silent(f0[:, :17], harmonics=2, **options)]
    pieces.append(silent(f0[:, 17:], harmonics=2, phase=phase, **options))
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-6)


def test_source_does_not_drift_in_an_hour():
    """With an advance per frame that float32 holds and that is no whole number of cycles."""
    frames = 360_000
    f0 = mx.full((1, frames), 110.25)
    for accumulation in ("frame", "sample"):
        ends = advance_phase(f0, hop=1, sample_rate=128, accumulation=accumulation)
        cycles = frames * 110.25 / 128
        assert abs(ends[0, -1] - cycles % 1) < 1e-8


def test_source_refuses_what_does_not_fit():
    f0, noise, weight = mx.zeros((1, 2)), mx.zeros((1, 8, 1)), mx.zeros((1,))
    with pytest.raises(InputError, match=r"\[nsf_source\] noise must be of shape \(1, 8, 1\)"):
        nsf_source(f0, noise[:, 1:], weight, hop=4, sample_rate=400)
    with pytest.raises(InputError, match=r"\[nsf_source\] accumulation must be"):
        nsf_source(f0, noise, weight, hop=4, sample_rate=400, interpolation="linear")
    with pytest.raises(InputError, match=r"\[nsf_source\] phase must be"):
        nsf_source(f0, noise, weight, hop=4, sample_rate=400, phase=np.zeros(2))
