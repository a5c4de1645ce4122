"""Signals that arrive in pieces: a queue, a resampler and a high-pass that keep their state, a crossfade.

Each gives for all pieces together what it would give for the whole, sample by sample.
"""

from __future__ import annotations

import math

import numpy as np

from ..audio.process import filtered

# scipy's butter(2, 48, "high", fs=16000): causal, since what follows is not known yet.
_B = np.array([0.9867597804394032, -1.9735195608788063, 0.9867597804394032])
_A = np.array([1.0, -1.9733442497812987, 0.9736948719763148])

# The resampler's windowed sinc: zero crossings to either side at the lower rate, its cut-off in terms of that rate's
# Nyquist frequency, and Kaiser's beta, with which everything above that frequency is 80 dB down.
_CROSSINGS, _CUT_OFF, _BETA = 32, 0.94, 8.0


class Fifo:
    """Samples in the order of their arrival."""

    def __init__(self) -> None:
        self._data = np.empty(4096, np.float32)
        self._start = self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def put(self, x: np.ndarray) -> None:
        """Add x (n,) at the end."""
        if self._stop + len(x) > len(self._data):
            kept = self._data[self._start : self._stop]
            if len(kept) + len(x) > len(self._data) // 2:
                self._data = np.empty(2 * (len(kept) + len(x)), np.float32)
            self._data[: len(kept)] = kept.copy()
            self._start, self._stop = 0, len(kept)
        self._data[self._stop : self._stop + len(x)] = x
        self._stop += len(x)

    def take(self, count: int) -> np.ndarray:
        """Remove and return the first `count` samples, or as many as there are."""
        taken = self._data[self._start : min(self._start + count, self._stop)].copy()
        self._start += len(taken)
        return taken


class Resampler:
    """From `rate` to `to` Hz, through a sinc with Kaiser's window, which delays nothing: sample m stands for time m / to.

    `ahead` is how many samples beyond that time one depends on, which is how long it has to wait for them.
    """

    def __init__(self, rate: int, to: int):
        common = math.gcd(rate, to)
        self._up, self._down = to // common, rate // common
        self.ahead = 0 if rate == to else math.ceil(_CROSSINGS * max(1.0, rate / to))
        self._taken = self._given = 0
        if self.ahead:
            lower = _CUT_OFF * min(1.0, to / rate)
            phase = np.arange(self._up)[:, None] / self._up
            distance = np.arange(1 - self.ahead, self.ahead + 1) - phase
            window = np.i0(_BETA * np.sqrt(np.clip(1 - (distance / self.ahead) ** 2, 0, 1))) / np.i0(_BETA)
            taps = lower * np.sinc(lower * distance) * window
            # Without a ripple between the phases: each passes a constant as it is.
            self._taps = (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
            # Before the first sample there is silence; `_past[0]` is sample `_taken - len(_past)`.
            self._past = np.zeros(self.ahead - 1, np.float32)

    def needed(self, outputs: int) -> int:
        """Return how many samples have to be put in, from the first one on, until `outputs` samples have come out."""
        if outputs <= 0:
            return 0
        return (outputs - 1) * self._down // self._up + self.ahead + 1

    def push(self, x: np.ndarray) -> np.ndarray:
        """Take the next samples x (n,) and return those that can be told now, float32."""
        if not self.ahead:
            return x
        x = np.concatenate([self._past, x])
        first = self._taken - len(self._past)
        self._taken = first + len(x)
        # Output m needs the samples up to m * down // up + ahead.
        stop = max(self._given, -(-(self._taken - self.ahead) * self._up // self._down))
        position = np.arange(self._given, stop, dtype=np.int64) * self._down
        out = np.zeros(0, np.float32)
        if len(position):
            windows = np.lib.stride_tricks.sliding_window_view(x, 2 * self.ahead)
            start = position // self._up + 1 - self.ahead - first
            out = np.einsum("mk,mk->m", windows[start], self._taps[position % self._up])
        self._given = stop
        self._past = x[stop * self._down // self._up + 1 - self.ahead - first :].copy()
        return out


class HighPass:
    """What lies below 48 Hz is taken away, at 16 kHz: a Butterworth filter of order 2, which waits for nothing."""

    def __init__(self) -> None:
        self._delays = np.zeros(2)

    def push(self, x: np.ndarray) -> np.ndarray:
        """Return float32 (n,) of the next n >= 2 samples."""
        y = filtered(_B, _A, x.astype(np.float64), self._delays)
        # What direct form II transposed holds after the last sample follows from the last two of each side.
        self._delays = np.array(
            [
                _B[1] * x[-1] + _B[2] * x[-2] - _A[1] * y[-1] - _A[2] * y[-2],
                _B[2] * x[-1] - _A[2] * y[-1],
            ]
        )
        return y.astype(np.float32)


def crossfade(old: np.ndarray, new: np.ndarray, longest: int) -> None:
    """Let `new` (n,) begin as `old` (m,) does and become itself linearly, in place, within `longest` samples at most."""
    count = min(longest, len(old), len(new))
    rising = np.linspace(0, 1, count, endpoint=False, dtype=np.float32)
    new[:count] = old[:count] * (1 - rising) + new[:count] * rising


class Seam:
    """Joins pieces that were each rendered `length` samples further than they are long: linear crossfades."""

    def __init__(self, length: int):
        self._length = length
        self._tail: np.ndarray | None = None

    def join(self, rendered: np.ndarray, count: int) -> np.ndarray:
        """Return the `count` next samples of the sound, of a piece that has at least the fade's length more."""
        piece = rendered[:count].copy()
        if self._tail is not None:
            crossfade(self._tail, piece, self._length)
        self._tail = rendered[count : count + self._length].copy()
        return piece
