"""Signal processing against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import scipys_high_pass
from rvc_fast.audio import high_pass, limit_peak, resample, to_mono_16k, volume_envelope
from rvc_fast.errors import InputError

RNG = np.random.default_rng(1)


def librosa_rms(y: np.ndarray, frame: int, hop: int) -> np.ndarray:
    padded = np.pad(y.astype(np.float64), frame // 2)
    count = 1 + (len(padded) - frame) // hop
    return np.sqrt([np.mean(padded[i * hop : i * hop + frame] ** 2) for i in range(count)])


def interpolate(points: np.ndarray, length: int) -> np.ndarray:
    """PyTorch's linear interpolation with align_corners = False, one sample at a time."""
    out = np.empty(length)
    for i in range(length):
        source = max((i + 0.5) * len(points) / length - 0.5, 0.0)
        low = int(source)
        high = min(low + 1, len(points) - 1)
        out[i] = points[low] * (1 - (source - low)) + points[high] * (source - low)
    return out


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 3000),
    m=st.integers(1, 3000),
    rate=st.integers(300, 1001),
    mix=st.sampled_from([0.0, 0.25, 0.9]),
)
def test_volume_envelope_is_librosas_and_pytorchs(n: int, m: int, rate: int, mix: float) -> None:
    y, source = RNG.standard_normal(n).astype(np.float32), RNG.standard_normal(m * 16).astype(np.float32)
    wanted = interpolate(librosa_rms(source, 16000, 8000), n)
    present = np.maximum(interpolate(librosa_rms(y, rate // 2 * 2, rate // 2), n), 1e-6)
    expected = y * wanted ** (1 - mix) * present ** (mix - 1)
    np.testing.assert_allclose(volume_envelope(y, rate, source, mix), expected, rtol=2e-5, atol=1e-7)


def test_volume_envelope_of_one_changes_nothing() -> None:
    y = RNG.standard_normal(100).astype(np.float32)
    assert volume_envelope(y, 100, y * 3, 1.0) is y


def test_volume_envelope_follows_silence() -> None:
    y = np.ones(32000, np.float32)
    assert not volume_envelope(y, 32000, np.zeros(16000, np.float32), 0.0).any()
    assert np.isfinite(volume_envelope(np.zeros(32000, np.float32), 32000, np.ones(16000), 0.0)).all()


def test_high_pass_is_scipys_and_keeps_what_is_above() -> None:
    t = np.arange(16000) / 16000
    low, high = np.sin(2 * np.pi * 10 * t), np.sin(2 * np.pi * 440 * t)
    out = high_pass((low + high).astype(np.float32))
    np.testing.assert_array_equal(out, scipys_high_pass((low + high).astype(np.float32)))
    assert np.abs(out - high)[2000:-2000].max() < 1e-3


@pytest.mark.parametrize("n", [1, 2, 18, 19, 100])
def test_high_pass_of_short_sounds(n: int) -> None:
    out = high_pass(np.full(n, 0.5, np.float32))
    assert out.shape == (n,)
    assert np.abs(out).max() < 1e-6


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=20), st.floats(0.1, 1))
def test_limit_peak(values: list[float], peak: float) -> None:
    x = np.array(values, np.float32)
    out = limit_peak(x, peak)
    loudest = np.abs(x).max()
    if loudest <= peak:
        np.testing.assert_array_equal(out, x)
    else:
        np.testing.assert_allclose(out, x * (peak / loudest), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize(
    ("rate", "to"), [(48000, 16000), (44100, 16000), (192000, 16000), (16000, 44100), (8000, 16000)]
)
def test_resample_keeps_a_tone_and_has_librosas_length(rate: int, to: int) -> None:
    n = rate // 2 + 7
    tone = np.sin(2 * np.pi * 440 * np.arange(n) / rate).astype(np.float32)
    out = resample(tone, rate, to)
    assert len(out) == int(np.ceil(n * to / rate))
    assert out.dtype == np.float32
    expected = np.sin(2 * np.pi * 440 * np.arange(len(out)) / to)
    assert np.abs(out - expected)[to // 20 : -to // 20].max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192000])
def test_one_sample_stays_a_sound(rate: int) -> None:
    assert len(to_mono_16k(np.array([0.5], np.float32), rate)) == -(-16000 // rate)


def test_mono_is_the_mean_of_the_channels() -> None:
    x = RNG.standard_normal((1_100_000, 8)).astype(np.float32)
    np.testing.assert_allclose(to_mono_16k(x, 16000), x.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("shape", [(0,), (0, 2), (5, 0), (2, 3, 4)])
def test_wrong_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="not empty, got shape"):
        to_mono_16k(np.zeros(shape, np.float32), 16000)


@pytest.mark.parametrize("n", [1, 2, 18, 19, 5000])
def test_high_pass_is_bit_for_bit_scipys(n: int) -> None:
    """Cuts in near silence hang on the last bits."""
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    np.testing.assert_array_equal(high_pass(x), scipys_high_pass(x, padlen=min(18, n - 1)))
