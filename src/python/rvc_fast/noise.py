"""Where random numbers come from: every model takes a `NoiseSource`, so that its output is a function of its
inputs.

Shapes and order of the draws are those of the public PyTorch code (channels before time), which is what makes
waveform parity testable: its noise can be replayed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import mlx.core as mx


@runtime_checkable
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


class WindowedNoise:
    """The columns from `start` to `stop` of what `noise` would give to a whole sound of `frames` frames.

    Shapes are those of the window: their last axis is a whole number of columns for each of its frames.
    """

    def __init__(self, noise: NoiseSource, frames: int, start: int, stop: int):
        self._noise, self._frames, self._start, self._stop = noise, frames, start, stop

    def _cut(self, draw: Callable[[tuple[int, ...]], mx.array], shape: tuple[int, ...]) -> mx.array:
        each, rest = divmod(shape[-1], self._stop - self._start)
        if rest:
            raise ValueError(f"{shape[-1]} columns for {self._stop - self._start} frames")
        whole = draw((*shape[:-1], self._frames * each))
        return whole[..., self._start * each : self._stop * each]

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        return self._cut(self._noise.normal, shape)

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        return self._cut(self._noise.uniform, shape)
