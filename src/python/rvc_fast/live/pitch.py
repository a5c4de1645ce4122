"""The pitch of a sound that goes on: estimated over a short window, moved, and final once its future has been heard."""

from __future__ import annotations

import math

import numpy as np

from ..pitch import f0 as contours
from ..settings import WINDOW, Settings

# A proposed pitch follows the median of this many frames, and leaves its semitone when another one is nearer by this.
_MEDIAN_FRAMES = 6000
_STAYS = 0.75


class LivePitch:
    """Estimates the pitch of a sound frame by frame, each from a window of `frames` frames that ends with the sound.

    frames: a multiple of 32, of which the network's windows are made.
    """

    def __init__(self, model: contours.PitchModel, frames: int):
        self._model = model
        self.limit(frames)
        self._sound = np.zeros(0, np.float32)
        self._frames = 0
        self._history = np.zeros(0, np.float32)
        self._shift = 0

    def limit(self, frames: int) -> None:
        """See windows of `frames` frames from now on."""
        self._samples = (frames - 1) * WINDOW

    def push(self, sound: np.ndarray, first: int, final: int, settings: Settings) -> np.ndarray:
        """Take the next samples (n,) at 16 kHz, whole frames, and return the pitch in Hz of all frames from `first` on.

        One more frame is told than the sound has. Those before `final` are not asked for again.
        """
        self._sound = np.concatenate([self._sound, sound])
        self._frames += len(sound) // WINDOW
        longest = max(self._samples, (self._frames - first) * WINDOW)
        self._sound = self._sound[-longest:]
        estimate = contours.estimate(self._sound, self._model, threshold=settings.f0_threshold)
        estimate = estimate[first - self._frames - 1 :]
        self._history = np.concatenate([self._history, estimate[: final - first]])[-_MEDIAN_FRAMES:]
        semitones = settings.transpose
        if settings.target is not None:
            self._follow(settings.target)
            semitones += self._shift
        return contours.autotune(contours.transpose(estimate, semitones), settings.autotune)

    def _follow(self, target: float) -> None:
        """Choose the shift that brings the median so far to `target` Hz; the one before stays if it nearly does."""
        wanted = contours.proposed_shift(self._history, target)
        if math.fabs(wanted - self._shift) > _STAYS:
            self._shift = round(wanted)
