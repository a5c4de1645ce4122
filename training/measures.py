"""Ear-like measures of converted speech, in numpy: harmonics, pitch, long-term spectrum."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

WINDOW = 0.17  # seconds: tells lines 16 Hz apart
NEAR = 8.0  # Hz around a line
COMB = 100.0  # Hz, the frame rate: lines that a decoder makes of its own frames
BANDS = 32


def _windows(samples: np.ndarray, size: int, hop: int) -> np.ndarray:
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    return np.lib.stride_tricks.sliding_window_view(samples, size)[::hop] * np.hanning(size)


def line_shares(
    samples: np.ndarray, rate: int, f0: float, voiced: np.ndarray, low: float = 1500, high: float = 3000
) -> tuple[float, float]:
    """Return the shares of the energy from `low` to `high` Hz that lie on harmonics of f0 and on the 100 Hz comb.

    For a sound (n,) rendered at one constant `f0`; only windows of 170 ms whose frames of 10 ms are all
    `voiced` count. A line is 8 Hz either way; where a harmonic and a line of the comb touch, the bins count for
    neither, nor for the whole. NaN if there is no such window.
    """
    size = round(WINDOW * rate)
    hop = size // 4
    power = np.abs(np.fft.rfft(_windows(samples, size, hop))) ** 2
    frames = np.arange(len(power))
    first, last = frames * hop * 100 // rate, (frames * hop + size) * 100 // rate
    total = np.concatenate([[0], np.cumsum(voiced)])
    whole = (last < len(total)) & (
        total[np.minimum(last, len(total) - 1)] - total[np.minimum(first, len(total) - 1)] == last - first
    )
    spectrum = power[whole].sum(axis=0)
    bins = np.fft.rfftfreq(size, 1 / rate)

    def near(spacing: float) -> np.ndarray:
        return np.abs(bins - spacing * np.round(bins / spacing)) <= NEAR

    on, comb = near(f0), near(COMB)
    counted = (bins >= low) & (bins <= high) & ~(on & comb)
    energy = spectrum[counted].sum()
    if energy == 0:
        return float("nan"), float("nan")
    return float(spectrum[counted & on].sum() / energy), float(spectrum[counted & comb].sum() / energy)


def pitch_agreement(want: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    """Return (correlation, median distance in cents) of two f0 contours, where both are voiced."""
    length = min(len(want), len(got))
    want, got = want[:length], got[:length]
    both = (want > 0) & (got > 0)
    if both.sum() < 10:
        return 0.0, float("inf")
    a, b = np.log2(want[both]), np.log2(got[both])
    return float(np.corrcoef(a, b)[0, 1]), float(np.median(np.abs(1200 * (a - b))))


def long_term_spectrum(samples: np.ndarray, rate: int, high: float = 8000) -> np.ndarray:
    """Return the level in dB of 32 bands from 80 Hz to `high`, equally wide in mel, their mean subtracted."""
    size = round(0.064 * rate)
    power = (np.abs(np.fft.rfft(_windows(samples, size, size // 2))) ** 2).mean(axis=0)
    bins = np.fft.rfftfreq(size, 1 / rate)
    edges = 700 * (np.exp(np.linspace(np.log1p(80 / 700), np.log1p(high / 700), BANDS + 1)) - 1)
    cumulative = np.concatenate([[0], np.cumsum(power)])
    # Bands are narrower than bins at the bottom: energy between edges, interpolated.
    at = np.interp(edges, np.concatenate([bins - bins[1] / 2, [bins[-1] + bins[1] / 2]]), cumulative)
    level = 10 * np.log10(np.diff(at) / np.diff(edges) + 1e-12)
    return level - level.mean()


def spectrum_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean distance in dB of two long-term spectra."""
    return float(np.abs(a - b).mean())


def envelopes_alike(a: np.ndarray, b: np.ndarray, rate: int, high: float = 4000) -> float:
    """Return how alike two sounds of one rate move over time: the mean correlation of 12 bands of their spectra.

    The same words at the same times correlate whoever says them; other words, or the same ones later, do not.
    """
    size = round(0.032 * rate)
    count = min(len(a), len(b))
    edges = np.geomspace(200, high, 13)
    bins = np.fft.rfftfreq(size, 1 / rate)
    levels = []
    for sound in (a[:count], b[:count]):
        power = np.abs(np.fft.rfft(_windows(sound, size, size // 2))) ** 2
        bands = np.stack([power[:, (bins >= x) & (bins < y)].mean(axis=1) for x, y in pairwise(edges)])
        level = 10 * np.log10(bands + 1e-5 * bands.max())
        level -= level.mean(axis=0)  # the shape of each spectrum, not its level
        levels.append(level - level.mean(axis=1, keepdims=True))
    x, y = levels
    return float(np.mean((x * y).sum(axis=1) / np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))))
