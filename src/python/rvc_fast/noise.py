"""Where random numbers come from: every model takes a `NoiseSource`, so that its output is a function of its
inputs.

Shapes and order of the draws are those of the public PyTorch code (channels before time), which is what makes
waveform parity testable: its noise can be replayed here.
"""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx


class NoiseSource(Protocol):
    """Gives the random arrays of a synthesis in the order in which they are needed."""

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        """Return float32 standard normal numbers of `shape`."""
        ...

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        """Return float32 numbers uniform in [0, 1) of `shape`."""
        ...


class SeededNoise:
    """Noise from a seed: the same seed gives the same sound on every run of one machine."""

    def __init__(self, seed: int):
        self._key = mx.random.key(seed)

    def _next(self) -> mx.array:
        self._key, key = mx.random.split(self._key)
        return key

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        return mx.random.normal(shape, key=self._next())

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        return mx.random.uniform(shape=shape, key=self._next())
