"""The measures of the evaluation on sounds whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from training import measures

RATE = 24000
SECONDS = 2


def pulses(f0: float) -> np.ndarray:
    """Every harmonic up to 5 kHz, alike."""
    t = np.arange(SECONDS * RATE) / RATE
    return sum(np.sin(2 * np.pi * k * f0 * t + k * k) for k in range(1, int(5000 // f0) + 1))


ALL = np.ones(100 * SECONDS, bool)


@pytest.mark.parametrize("f0", [123.0, 137.0, 223.0])
def test_harmonics_and_comb_are_told_apart(f0: float) -> None:
    harmonic, comb = measures.line_shares(pulses(f0), RATE, f0, ALL)
    assert harmonic > 0.95
    assert comb < 0.05
    harmonic, comb = measures.line_shares(pulses(100), RATE, f0, ALL)
    assert harmonic < 0.05
    assert comb > 0.95


def test_noise_is_on_no_line() -> None:
    noise = np.random.default_rng(0).standard_normal(SECONDS * RATE)
    harmonic, comb = measures.line_shares(noise, RATE, 137, ALL)
    assert harmonic == pytest.approx(16 / 137, abs=0.05)
    assert comb == pytest.approx(16 / 100, abs=0.05)


def test_only_voiced_windows_count() -> None:
    noise = np.random.default_rng(0).standard_normal(SECONDS * RATE) * 10
    sound = np.where(np.arange(SECONDS * RATE) < RATE, pulses(137), noise)
    voiced = np.arange(100 * SECONDS) < 100
    assert measures.line_shares(sound, RATE, 137, voiced)[0] > 0.95
    assert measures.line_shares(sound, RATE, 137, ALL)[0] < 0.5
    assert np.isnan(measures.line_shares(sound, RATE, 137, ~ALL)[0])


def test_pitch_agreement() -> None:
    want = np.concatenate([np.linspace(100, 200, 50), np.zeros(10)])
    assert measures.pitch_agreement(want, want * 2 ** (20 / 1200)) == pytest.approx((1, 20))
    assert measures.pitch_agreement(want, np.where(want > 0, 300 - want, 0))[0] < -0.9
    assert measures.pitch_agreement(want, np.zeros(60)) == (0.0, float("inf"))


def test_long_term_spectrum_hears_the_tilt_and_not_the_level() -> None:
    noise = np.random.default_rng(0).standard_normal(4 * RATE)
    spectrum = measures.long_term_spectrum(noise, RATE)
    assert measures.spectrum_distance(spectrum, measures.long_term_spectrum(noise * 0.1, RATE)) < 1e-6
    assert np.abs(spectrum).max() < 1.5  # white
    tilted = measures.long_term_spectrum(np.diff(noise), RATE)
    assert tilted[-1] - tilted[0] > 20
    assert measures.spectrum_distance(spectrum, tilted) > 5
