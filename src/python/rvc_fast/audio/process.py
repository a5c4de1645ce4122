"""Signals before and after the models: resampling, peaks, the high-pass, loudness."""

from __future__ import annotations

import numpy as np

from ..errors import InputError

RATE = 16000
"""Sample rate of everything before the synthesizer, Hz."""

_BLOCK = 1 << 20


def resample(x: np.ndarray, rate: int, to: int) -> np.ndarray:
    """Return float32 x (n,) or (n, channels) at `to` Hz, ceil(n * to / rate) long (soxr VHQ).

    The length is librosa's: soxr's own may be one sample off, which is cut or filled with zeros.
    """
    x = np.asarray(x, np.float32)
    if rate == to:
        return x
    import soxr

    length = -(-len(x) * to // rate)
    y = soxr.resample(x, rate, to, quality="VHQ")
    if len(y) < length:
        y = np.concatenate([y, np.zeros((length - len(y), *y.shape[1:]), np.float32)])
    return y[:length]


def to_mono_16k(x: np.ndarray, rate: int) -> np.ndarray:
    """Return the mean of the channels of x (n,) or (n, channels), resampled to 16 kHz: float32 (m,)."""
    x = np.asarray(x)
    if x.ndim not in (1, 2) or 0 in x.shape:
        raise InputError(f"[audio] samples must be (n,) or (n, channels), not empty, got shape {x.shape}")
    if x.ndim == 2:
        mono = np.empty(len(x), np.float32)
        for start in range(0, len(x), _BLOCK):
            mono[start : start + _BLOCK] = x[start : start + _BLOCK].mean(axis=1, dtype=np.float32)
        x = mono
    return resample(x, rate, RATE)


def limit_peak(x: np.ndarray, peak: float) -> np.ndarray:
    """Return x (n,) scaled down so that max|x| is at most `peak`; quieter sounds are returned as they are."""
    if len(x) == 0:
        return x
    loudest = max(float(x.max()), -float(x.min())) / peak
    return x / np.float32(loudest) if loudest > 1 else x


def high_pass(x: np.ndarray) -> np.ndarray:
    """Return x (n,) at 16 kHz without what lies below 48 Hz, float64 (n,), phase kept.

    A Butterworth filter of order 5, forwards and backwards: scipy's `filtfilt(*butter(5, 48, "high",
    fs=16000), x)` with its odd extension, which is shortened for sounds of 18 samples or less.
    """
    from scipy.signal import butter, filtfilt

    b, a = butter(5, 48, "high", fs=RATE)
    y: np.ndarray = filtfilt(b, a, x, padlen=min(3 * len(b), len(x) - 1))
    return y


def volume_envelope(y: np.ndarray, rate: int, source: np.ndarray, mix: float) -> np.ndarray:
    """Return y (n,) at `rate` Hz with its loudness over time moved towards that of `source` (m,) at 16 kHz.

    mix = 1 keeps the loudness of y, mix = 0 gives it the source's: y * rms_source^(1-mix) * rms_y^(mix-1),
    both RMS taken over one second every half second and interpolated linearly.
    """
    if mix == 1 or len(y) == 0:
        return y
    wanted, present = _rms(source, RATE), _rms(y, rate)
    out = np.empty(len(y), np.float32)
    for start in range(0, len(y), _BLOCK):
        stop = min(start + _BLOCK, len(y))
        gain = _stretch(wanted, start, stop, len(y)) ** (1 - mix)
        gain *= np.maximum(_stretch(present, start, stop, len(y)), 1e-6) ** (mix - 1)
        out[start:stop] = y[start:stop] * gain
    return out


def _rms(x: np.ndarray, rate: int) -> np.ndarray:
    """`librosa.feature.rms` with hop_length = rate // 2 and frames of two hops: float64 (len(x) // hop + 1,).

    A centred frame is exactly two hops, so each is the sum of two neighbouring blocks' energies.
    """
    hop = rate // 2
    blocks = (x[start : start + hop].astype(np.float64) for start in range(0, len(x) + 1, hop))
    energy = np.array([0.0, *(float(np.dot(block, block)) for block in blocks)])
    return np.sqrt((energy[:-1] + energy[1:]) / (2 * hop))


def _stretch(points: np.ndarray, start: int, stop: int, length: int) -> np.ndarray:
    """Samples start..stop of `points` linearly interpolated to `length` (align_corners = False)."""
    position = (np.arange(start, stop) + 0.5) * (len(points) / length) - 0.5
    return np.interp(position, np.arange(len(points)), points)
