"""Sound files <-> arrays, and what happens to a signal before and after the models."""

from __future__ import annotations

from .files import read_audio, read_mono, write_audio
from .process import RATE, check_values, high_pass, limit_peak, resample, to_mono_16k, volume_envelope

__all__ = [
    "RATE",
    "check_values",
    "high_pass",
    "limit_peak",
    "read_audio",
    "read_mono",
    "resample",
    "to_mono_16k",
    "volume_envelope",
    "write_audio",
]
