"""Signals before and after the models: resampling, peaks, the high-pass, loudness."""

from __future__ import annotations

import numpy as np

from .. import native
from ..errors import InputError

RATE = 16000
"""Sample rate of everything before the synthesizer, Hz."""

LOUDEST = 1e10
"""No sample may be larger. Full scale is 1.0, or 2^31 where a program writes its whole numbers as they are."""

_BLOCK = 1 << 20

# scipy's butter(5, 48, "high", fs=16000) and lfilter_zi of it. Importing scipy.signal takes half a second, a
# sixth of what converting ten seconds does.
_B = np.array(
    [
        0.9699606451838447,
        -4.849803225919223,
        9.699606451838447,
        -9.699606451838447,
        4.849803225919223,
        -0.9699606451838447,
    ]
)
_A = np.array(
    [1.0, -4.939001819168364, 9.757863526739543, -9.639544849413458, 4.761506797356209, -0.9408236532054606]
)
_ZI = np.array(
    [-0.9699604796995847, 3.8798419288925783, -5.819762908173043, 3.879841948472456, -0.9699604894923387]
)


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


def check_values(where: str, x: np.ndarray) -> None:
    """InputError if a sample of x is NaN, infinite or larger than LOUDEST; `where` begins its message."""
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        low, high = block.min(), block.max()  # NaN if one is
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(f"{where} must not be NaN or infinite")
        if max(high, -low) > LOUDEST:
            raise InputError(f"{where} must have a full scale of 1.0, got {max(high, -low):g}")


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
    x = np.asarray(x)
    edge = min(3 * len(_B), len(x) - 1)
    extended = np.concatenate((2 * x[:1] - x[edge:0:-1], x, 2 * x[-1:] - x[-2 : -(edge + 2) : -1]))
    y = extended.astype(np.float64)
    for _ in range(2):
        y = filtered(_B, _A, y, _ZI * y[0])[::-1]
    return y[edge : len(y) - edge]


def filtered(b: np.ndarray, a: np.ndarray, x: np.ndarray, delays: np.ndarray) -> np.ndarray:
    """Return x (n,) through the filter b / a in direct form II transposed, whose delays begin as given: float64 (n,)."""
    ext = native.ext()
    if ext is not None:
        return ext.iir(b, a, np.ascontiguousarray(x), delays)
    from scipy.signal import lfilter

    return lfilter(b, a, x, zi=delays)[0]


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
        gain = _stretch(wanted, start, stop, len(y)) ** np.float32(1 - mix)
        gain *= np.maximum(_stretch(present, start, stop, len(y)), np.float32(1e-6)) ** np.float32(mix - 1)
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
    """Samples start..stop of `points` linearly interpolated to `length` (align_corners = False), float32."""
    position = (np.arange(start, stop) + 0.5) * (len(points) / length) - 0.5
    return np.interp(position, np.arange(len(points)), points).astype(np.float32)
