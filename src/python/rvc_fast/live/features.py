"""Content features of a sound that goes on: every frame of 20 ms is computed anew only while its future still arrives."""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx
import numpy as np

from ..features.hubert import HubertModel, KeysValues, Version
from ..ops import Weight
from ..pipeline import Embedder
from ..settings import WINDOW

ROW = 2 * WINDOW
"""Samples at 16 kHz from one row of features to the next."""

SEEN = 400
"""Samples that the front end sees of one row."""

# Seconds of sound that the group norm's statistics stand for at most: when that is full, older sound fades.
_REMEMBERED = 60


class LiveFeatures(Protocol):
    """Gives the features of a sound while it arrives. Row r stands for the samples from 320 r on."""

    def push(self, sound: np.ndarray, first: int, final: int) -> mx.array:
        """Take the next samples (n,) at 16 kHz, n a multiple of 320, and return the features of all rows from `first` on.

        Those before `final` are not asked for again.
        """
        ...

    def limit(self, context: int, settled: int) -> None:
        """Look back `context` rows, and compute rows anew until `settled` more have followed, from now on."""
        ...


class Moments:
    """Mean and covariance of the windows of 10 samples, every 5 samples, in which something is heard.

    A window counts when the 10 ms that it begins in are louder than `gate` dB of full scale. The group norm of the
    encoder takes these statistics over the whole sound. A long silence would pull them away from those of speech, and the
    first words after it would come out worse. Until something is heard, everything counts.
    """

    def __init__(self, gate: float, kernel: int, stride: int):
        self._least = 10 ** (gate / 10)
        self._kernel, self._stride = kernel, stride
        self._tail = np.zeros(0, np.float64)
        self._heard = False
        self._clear()

    def _clear(self) -> None:
        self._count = 0.0
        self._sum = np.zeros(self._kernel)
        self._square = np.zeros((self._kernel, self._kernel))

    def push(self, sound: np.ndarray) -> None:
        """Count the windows that end within the next samples (n,)."""
        joined = np.concatenate([self._tail, sound])
        windows = np.lib.stride_tricks.sliding_window_view(joined, self._kernel)[:: self._stride]
        self._tail = joined[len(windows) * self._stride :]
        loud = np.square(sound.reshape(-1, WINDOW), dtype=np.float64).mean(axis=1) > self._least
        # Windows that begin in what was left over count with the first frame.
        frame = np.maximum(0, np.arange(len(windows)) * self._stride - (len(joined) - len(sound))) // WINDOW
        counted = loud[frame]
        if counted.any() and not self._heard:
            self._heard = True
            self._clear()
        if self._heard:
            windows = windows[counted]
        self._count += len(windows)
        self._sum += windows.sum(axis=0)
        self._square += windows.T @ windows
        if (fade := _REMEMBERED * 16000 / self._stride / max(1.0, self._count)) < 1:
            self._count, self._sum, self._square = self._count * fade, self._sum * fade, self._square * fade

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean (K,) and the covariance (K, K), double."""
        mean = self._sum / self._count
        return mean, self._square / self._count - np.outer(mean, mean)


class ContinuedFeatures:
    """HuBERT that goes on: new sound passes the front end once, and attention looks back at kept keys and values.

    The last rows are computed again at each push, until `settled` more rows have followed them: HuBERT's rows depend on
    what comes after them, by the positional convolution and by attention. Then their keys and values are kept, for
    `context` rows.
    """

    def __init__(
        self,
        model: HubertModel,
        version: Version,
        layer: int | None,
        *,
        context: int,
        settled: int,
        gate: float,
    ):
        self._model, self._version, self._layer = model, version, layer
        self._context, self._settled = context, settled
        self._reach = model.config.num_conv_pos_embeddings // 2
        first = model.config.conv_kernel[0], model.config.conv_stride[0]
        self._moments = Moments(gate, *first)
        self._sound = np.zeros(0, np.float32)
        # Front-end frames from row `_from` on; keys and values are those of the rows before `_begin`.
        self._frames: mx.array | None = None
        self._from = self._begin = 0
        self._past: list[KeysValues] | None = None

    def limit(self, context: int, settled: int) -> None:
        self._context, self._settled = context, settled

    def _folded(self) -> tuple[Weight, mx.array]:
        with mx.stream(mx.cpu):
            mean, covariance = (mx.array(a, dtype=mx.float64) for a in self._moments.statistics())
        return self._model.front_end.first.fold_moments(mean, covariance)

    def push(self, sound: np.ndarray, first: int, final: int) -> mx.array:
        self._moments.push(sound)
        heard = np.concatenate([self._sound, sound])
        new = (len(heard) - SEEN) // ROW + 1
        frames = self._model.front_end.frames(mx.array(heard), self._folded())
        self._sound = heard[new * ROW :]
        if self._frames is not None:
            frames = mx.concatenate([self._frames, frames])
        left = self._begin - self._from
        rows, both = self._model.extend(frames, self._past, left, self._version, self._layer)
        begin = max(self._begin, final - self._settled)
        keep = both[0][0].shape[1] - rows.shape[0] + begin - self._begin
        if keep > 0:
            start = max(0, keep - self._context)
            self._past = [(k[:, start:keep], v[:, start:keep]) for k, v in both]
        kept_from = max(0, begin - self._reach)
        self._frames = frames[kept_from - self._from :]
        rows = rows[first - self._begin :]
        self._from, self._begin = kept_from, begin
        # Copies, because a view would keep all that it was cut from.
        kept = [mx.contiguous(a) for a in (self._frames, *(a for pair in self._past or () for a in pair))]
        self._frames = kept[0]
        if self._past is not None:
            self._past = list(zip(kept[1::2], kept[2::2], strict=True))
        mx.eval(rows, kept)
        return rows


class WindowFeatures:
    """Any embedder, which gets the last `context` rows of the sound each time."""

    def __init__(self, embedder: Embedder, version: Version, layer: int | None, *, context: int):
        self._embedder, self._version, self._layer, self._context = embedder, version, layer, context
        self._sound = np.zeros(0, np.float32)
        self._from = 0

    def limit(self, context: int, settled: int) -> None:
        self._context = context

    def push(self, sound: np.ndarray, first: int, final: int) -> mx.array:
        self._sound = np.concatenate([self._sound, sound])
        rows = self._embedder.features(mx.array(self._sound), self._version, self._layer)
        rows = rows[first - self._from :]
        kept_from = max(self._from, final - self._context)
        self._sound = self._sound[(kept_from - self._from) * ROW :]
        self._from = kept_from
        return rows
