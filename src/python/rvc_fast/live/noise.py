"""Noise by absolute frames: a window of frames gets the same numbers wherever it begins and however long it is."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np

Draw = Callable[[int], np.ndarray]


class _Track:
    """The numbers of one draw of a synthesis, `width` for each frame, in the order of time."""

    def __init__(self, draw: Draw, width: int):
        self._draw, self._width = draw, width
        self._first = 0
        self._rows = np.zeros((0, width), np.float32)

    def rows(self, first: int, frames: int) -> np.ndarray:
        """Return (frames, width) from frame `first` on, which may not decrease."""
        missing = first + frames - self._first - len(self._rows)
        if missing > 0:
            new = self._draw(missing * self._width).reshape(missing, self._width)
            self._rows = np.concatenate([self._rows, new])
        self._rows, self._first = self._rows[first - self._first :], first
        return self._rows[:frames]


class FrameNoise:
    """The noise of a synthesis of any length, seen through windows that move on.

    Each draw of a synthesis has a generator of its own, which follows from `seed` and the number of the draw.
    """

    def __init__(self, seed: int):
        self._seed = seed
        self._tracks: list[_Track] = []
        self._constants: list[mx.array] = []

    def window(self, first: int, frames: int) -> WindowNoise:
        """Return the `NoiseSource` of `frames` frames from `first` on. Later windows may not begin earlier."""
        return WindowNoise(self, first, frames)

    def _generator(self, kind: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, kind, number])))

    def track(self, number: int, width: int) -> _Track:
        """Return the normal numbers of draw `number`, `width` per frame."""
        if number == len(self._tracks):
            generator = self._generator(0, number)
            self._tracks.append(_Track(lambda count: generator.standard_normal(count, np.float32), width))
        return self._tracks[number]

    def constant(self, number: int, shape: tuple[int, ...]) -> mx.array:
        """Return the uniform numbers of draw `number`, which hold for all time."""
        if number == len(self._constants):
            self._constants.append(mx.array(self._generator(1, number).random(shape, np.float32)))
        return self._constants[number]


class WindowNoise:
    """A `NoiseSource` for some frames. Time is the last axis that is a multiple of them.

    So the latent (1, inter, T), the source (1, T * hop, harmonics) and the decoder's own noise (1, channels, T * n) are
    told apart from each other. The number of harmonics is odd and that of frames even, so that harmonics are never taken
    for time. Uniform numbers are phases, which have no time.
    """

    def __init__(self, noise: FrameNoise, first: int, frames: int):
        self._noise, self._first, self._frames = noise, first, frames
        self._normals = self._uniforms = 0

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        axis = max(i for i, n in enumerate(shape) if n % self._frames == 0)
        each = shape[axis] // self._frames
        before, after = shape[:axis], shape[axis + 1 :]
        width = int(np.prod((*before, each, *after)))
        rows = self._noise.track(self._normals, width).rows(self._first, self._frames)
        self._normals += 1
        # A frame's numbers are (each, *after) of every row before the axis of time.
        framed = rows.reshape(self._frames, *before, each, *after)
        return mx.array(np.ascontiguousarray(np.moveaxis(framed, 0, axis)).reshape(shape))

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        self._uniforms += 1
        return self._noise.constant(self._uniforms - 1, shape)
