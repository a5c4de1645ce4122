"""What arrives in pieces is treated as the whole would be."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import scipy.signal

from rvc_fast.live.noise import FrameNoise
from rvc_fast.live.signal import Fifo, HighPass, Resampler, Seam

SIZES = (700, 1, 2, 1300, 37, 640)


def pieces(x: np.ndarray) -> list[np.ndarray]:
    """Cut x into pieces of SIZES, again and again."""
    cuts = np.cumsum(np.resize(SIZES, 2 * len(x) // min(len(x), 300)))
    return [piece for piece in np.split(x, cuts[cuts < len(x)]) if len(piece)]


def test_a_fifo_keeps_the_order() -> None:
    x = np.arange(20_000, dtype=np.float32)
    fifo, out = Fifo(), []
    for piece in pieces(x):
        fifo.put(piece)
        out.append(fifo.take(len(piece) // 2))
    out.append(fifo.take(10**9))
    np.testing.assert_array_equal(np.concatenate(out), x)
    assert len(fifo) == 0


@pytest.mark.parametrize(("rate", "to"), [(48000, 16000), (44100, 16000), (24000, 44100), (8000, 16000)])
def test_a_resampled_sine_is_that_sine_at_once(rate: int, to: int) -> None:
    x = np.sin(2 * np.pi * 440 / rate * np.arange(rate // 2)).astype(np.float32)
    resampler = Resampler(rate, to)
    y = np.concatenate([resampler.push(piece) for piece in pieces(x)])
    assert len(y) == -(-(len(x) - resampler.ahead) * to // rate)
    inner = slice(to // 50, None)  # before the first sample there is silence
    np.testing.assert_allclose(y[inner], np.sin(2 * np.pi * 440 / to * np.arange(len(y)))[inner], atol=2e-4)


def test_what_the_lower_rate_cannot_hold_is_taken_away() -> None:
    x = np.sin(2 * np.pi * 9000 / 48000 * np.arange(24000)).astype(np.float32)
    y = Resampler(48000, 16000).push(x)
    assert np.abs(y[200:]).max() < 10 ** (-75 / 20)


@pytest.mark.parametrize(("rate", "to"), [(48000, 16000), (44100, 16000), (40000, 44100), (16000, 16000)])
def test_a_resampler_says_what_it_needs(rate: int, to: int) -> None:
    for outputs in (1, 2, 159, 160, 1281):
        needed = Resampler(rate, to).needed(outputs)
        assert len(Resampler(rate, to).push(np.zeros(needed, np.float32))) >= outputs
        assert len(Resampler(rate, to).push(np.zeros(needed - 1, np.float32))) < outputs


def test_a_high_pass_goes_on() -> None:
    x = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    filtering = HighPass()
    got = np.concatenate([filtering.push(piece) for piece in np.split(x, [2, 640, 1281])])
    want = scipy.signal.lfilter(*scipy.signal.butter(2, 48, "high", fs=16000), x)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_seam_fades_from_what_was_rendered_before() -> None:
    seam = Seam(4)
    np.testing.assert_array_equal(seam.join(np.ones(14, np.float32), 10), np.ones(10))
    joined = seam.join(np.full(14, 3, np.float32), 10)
    np.testing.assert_array_equal(joined, [1, 1.5, 2, 2.5, *[3] * 6])


def test_noise_belongs_to_absolute_frames() -> None:
    def draws(first: int, frames: int, noise: FrameNoise) -> list[np.ndarray]:
        window = noise.window(first, frames)
        shapes = (1, 4, frames), (1, frames * 6, 9), (2, 3, frames * 5)
        return [np.array(window.normal(shape)) for shape in shapes] + [np.array(window.uniform((1, 9)))]

    latent, source, inner, phases = draws(0, 40, FrameNoise(7))
    moving = FrameNoise(7)
    for first, frames in ((0, 6), (2, 8), (4, 4), (20, 20)):
        seen, stop = draws(first, frames, moving), first + frames
        np.testing.assert_array_equal(seen[0], latent[..., first:stop])
        np.testing.assert_array_equal(seen[1], source[:, 6 * first : 6 * stop])
        np.testing.assert_array_equal(seen[2], inner[..., 5 * first : 5 * stop])
        np.testing.assert_array_equal(seen[3], phases)
    assert abs(np.std(inner) - 1) < 0.1
    assert not np.array_equal(draws(0, 40, FrameNoise(8))[0], latent)
    assert isinstance(FrameNoise(0).window(0, 2).normal((1, 2)), mx.array)
