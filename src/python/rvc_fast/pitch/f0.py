"""The f0 contour: estimated from sound, read from a file, moved, and turned into what the voice takes.

A contour is one value per 10 ms in Hz, 0 where unvoiced.
"""

from __future__ import annotations

import math
import os
import re
from typing import Literal, Protocol

import mlx.core as mx
import numpy as np

from .. import memory
from ..errors import FileFormatError, InputError

HOP = 160
"""Samples at 16 kHz per value."""

F0_MIN, F0_MAX = 50.0, 1100.0
"""Hz: the range of the 255 coarse bins."""

NOTES = np.round(440 * 2 ** ((np.arange(31, 85) - 69) / 12), 2)
"""The 54 equal-tempered notes of the autotune, G1 (49.00 Hz) to C6 (1046.50 Hz)."""

HIGHEST = 20_000.0
"""Hz: no pitch that is given may be above."""

# Seconds: no f0 file is longer, and how far one may go on after its sound.
_LONGEST, _MARGIN = 1e6, 10.0


class PitchModel(Protocol):
    """What estimates pitch: RMVPE."""

    def salience(self, audio: mx.array, pad: Literal["reflect", "zeros"] = "reflect") -> mx.array:
        """Return (n // 160 + 1, 360) salience of sound (n,) at 16 kHz."""
        ...


def estimate(
    audio: np.ndarray,
    model: PitchModel,
    *,
    threshold: float = 0.03,
    pad: Literal["reflect", "zeros"] = "reflect",
) -> np.ndarray:
    """Return the contour (n // 160 + 1,) float32 of sound (n,) at 16 kHz.

    Frames whose salience is at most `threshold` are unvoiced; `pad` is the model's.
    """
    from .rmvpe import decode_salience

    with memory.bounded():
        salience = np.array(model.salience(mx.array(audio), pad).astype(mx.float32))
    return decode_salience(salience, threshold)


def transpose(f0: np.ndarray, semitones: float) -> np.ndarray:
    """Return f0 moved by `semitones`."""
    return f0 if semitones == 0 else f0 * f0.dtype.type(2 ** (semitones / 12))


def autotune(f0: np.ndarray, strength: float) -> np.ndarray:
    """Return f0 with each voiced value moved to the nearest note: f + (note - f) * strength."""
    if strength == 0:
        return f0
    # The nearest in Hz, as Applio has it: the boundaries are the midpoints, which belong to the lower note.
    note = NOTES[np.searchsorted((NOTES[:-1] + NOTES[1:]) / 2, f0)]
    return np.where(f0 > 0, f0 + (note - f0) * strength, 0).astype(f0.dtype)


def proposed_shift(f0: np.ndarray, target: float) -> float:
    """Return the semitones, -12 to 12, that bring the median of f0 to `target` Hz.

    The median is over all frames, the unvoiced ones filled in linearly (Applio's rule).
    0 if fewer than 2 are voiced.
    """
    voiced = np.flatnonzero(f0 > 0)
    if len(voiced) < 2:
        return 0.0
    median = float(np.median(np.interp(np.arange(len(f0)), voiced, f0[voiced])))
    return float(np.clip(12 * np.log2(target / median), -12, 12))


def proposed_semitones(f0: np.ndarray, target: float) -> int:
    """Return the whole number of semitones nearest to `proposed_shift`."""
    return int(np.round(proposed_shift(f0, target)))


def coarse(f0: np.ndarray) -> np.ndarray:
    """Return the mel bins of f0, int32: 1 (50 Hz and below, and unvoiced) to 255 (1100 Hz and above)."""
    low, high = 1127 * np.log1p(F0_MIN / 700), 1127 * np.log1p(F0_MAX / 700)
    mel = 1127 * np.log1p(np.asarray(f0, np.float64) / 700)
    bins = np.where(mel > 0, (mel - low) * 254 / (high - low) + 1, 1)
    return np.rint(np.clip(bins, 1, 255)).astype(np.int32)


def read_points(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the (seconds, Hz) points (n, 2) float64 of an f0 file: lines `seconds,hertz`, 0 Hz unvoiced.

    Columns may be separated by tabs, semicolons or spaces, too; those after the second do not count. NaN, Praat's
    `--undefined--` and negative frequencies are unvoiced. The first line may be a header; empty ones are skipped.
    Times must rise. FileFormatError names the line that is wrong.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [(i, line) for i, line in enumerate(file.read().splitlines(), 1) if line.strip()]
    except (OSError, ValueError, TypeError) as e:
        if isinstance(e, UnicodeDecodeError):
            raise FileFormatError(f"[f0 file] {path} is not text") from e
        raise InputError(f"[f0 file] cannot read {path!r}: {getattr(e, 'strerror', None) or e}") from e
    if lines and _is_header(lines[0][1]):
        del lines[0]
    if not lines:
        raise FileFormatError(f"[f0 file] {path} has no lines")
    separator = next((s for s in "\t;," if s in lines[0][1].strip()), None)
    points: list[tuple[float, float]] = []
    for number, line in lines:
        try:
            seconds, hertz = (_number(field) for field in line.strip().split(separator)[:2])
        except ValueError:
            raise FileFormatError(
                f"[f0 file] {path}, line {number} must be 'seconds,hertz', got {line[:60]!r}"
            ) from None
        hertz = hertz if hertz > 0 else 0.0  # NaN compares false
        if not (0 <= seconds <= _LONGEST and hertz <= HIGHEST):
            raise FileFormatError(
                f"[f0 file] {path}, line {number} must be of 0 to {_LONGEST:g} s and at most {HIGHEST:g} Hz, "
                f"got {line[:60]!r}"
            )
        if points and seconds <= points[-1][0]:
            raise FileFormatError(
                f"[f0 file] {path}, line {number}: times must rise, got {seconds:g} after {points[-1][0]:g}"
            )
        points.append((seconds, hertz))
    return np.array(points, np.float64)


def _number(field: str) -> float:
    return math.nan if field.strip().strip("-").lower() == "undefined" else float(field)


def _is_header(line: str) -> bool:
    """Whether no column of a line is a number."""
    for field in re.split(r"[\t;, ]+", line.strip()):
        try:
            _number(field)
        except ValueError:
            continue
        return False
    return True


def check_span(points: np.ndarray, seconds: float, path: str | os.PathLike[str]) -> None:
    """InputError for an f0 file whose times cannot be seconds of a sound that is `seconds` long."""
    first, last = float(points[0, 0]), float(points[-1, 0])
    if first > seconds or last > seconds + _MARGIN:
        raise InputError(
            f"[f0 file] {path} spans {first:.2f} to {last:.2f} s, the sound {seconds:.2f} s: its times must be "
            "seconds from the beginning of this sound, not milliseconds, samples or frames"
        )


def overlay(f0: np.ndarray, points: np.ndarray, offset: int = 0) -> np.ndarray:
    """Return f0 (n,) with the values of `points` (m, 2) from the first to the last of their times.

    Points are interpolated linearly; `offset` is the index of second 0 in f0.
    """
    first = int(np.round(points[0, 0] * 100))
    last = min(int(np.round(points[-1, 0] * 100)), len(f0) - 1 - offset)
    if last < first:
        return f0
    out = f0.copy()
    out[offset + first : offset + last + 1] = np.interp(
        np.arange(first, last + 1), points[:, 0] * 100, points[:, 1]
    )
    return out


def check(f0: np.ndarray, what: str) -> np.ndarray:
    """Return a caller's contour as float32 (n,); InputError if it is not one-dimensional or not a pitch."""
    f0 = np.asarray(f0)
    if f0.dtype.kind not in "fiu" or f0.ndim != 1:
        raise InputError(f"[{what}] f0 must be (n,) real numbers, got {f0.dtype} of shape {f0.shape}")
    bad = ~((f0 >= 0) & (f0 <= HIGHEST))
    if bad.any():
        raise InputError(
            f"[{what}] f0 must be from 0 (unvoiced) to {HIGHEST:g} Hz, got {f0[bad][0]:g} at {int(bad.argmax())}"
        )
    return f0.astype(np.float32, copy=False)
