"""What is measured: tasks, and the inputs of each stage of a conversion, the same in every process that asks.

Inputs are made from seeds: NumPy arrays in PyTorch's layout, channels before time, one tuple per chunk of the sound.
T are frames of 10 ms.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .. import pipeline
from ..pitch import f0 as pitch
from ..settings import WINDOW, Settings
from . import models

Arrays = tuple[np.ndarray, ...]

RATE = 16000


@dataclass(frozen=True)
class Task:
    """One thing to measure; with dtype and backend, the identity of a row.

    suite: "kernels", "stages" or "convert".
    name: OP/CASE, a part of a conversion, or "cold start", "warm", "batch".
    seconds: of sound; None for kernels.
    batch: how many of it at once.
    """

    suite: str
    name: str
    seconds: float | None = None
    batch: int = 1

    @property
    def title(self) -> str:
        """For people."""
        what = {"stages": lambda: STAGES[self.name], "convert": lambda: CONVERT[self.name]}
        stage = what[self.suite]() if self.suite in what else None
        parts = [self.name if stage is None else stage.title]
        parts += [f"{self.seconds:g} s"] if self.seconds is not None else []
        parts += [f"{self.batch} at once"] if self.batch > 1 else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Stage:
    """`title` for people; `longest` seconds of sound that it is given, because of the memory its inputs take."""

    title: str
    longest: float = 3600


STAGES = {
    # sound (n,) -> log mel spectrogram (128, n // 160 + 1)
    "mel": Stage("log mel spectrogram"),
    # sound (n,) -> features (frames, 768)
    "hubert": Stage("HuBERT"),
    # sound (n,) -> salience (n // 160 + 1, 360)
    "rmvpe": Stage("RMVPE, its mel included"),
    # phone (1, T, 768), pitch (1, T) -> mean, log deviation (1, 192, T)
    "text_encoder": Stage("text encoder"),
    # latents (1, 192, T), speaker (1,) -> z (1, 192, T)
    "flow": Stage("flow"),
    # z (1, 192, T), speaker (1,), f0 (1, T), noise (1, T * 480, 1) -> waveform of the frames that are kept (n * 480,)
    "decoder": Stage("decoder, its source included"),
    # the input (1, C, n) of each stage of the decoder -> the mean of its residual blocks
    "resblocks": Stage("the decoder's 72 residual convolutions", 10),
    # features (frames, 768) -> features
    "retrieval": Stage("retrieval from 20 000 vectors, exact"),
}

# sound (n,) -> waveform. Retrieval has a row of its own and is left out.
CONVERT = {
    "cold start": Stage("cold start: rvc-fast convert in a new process", 1),
    "warm": Stage("whole conversion"),
    "batch": Stage("conversions in a thread each", 10),
}


def synthetic_sound(seconds: float) -> np.ndarray:
    """Return something like a voice, (n,) float32 at 16 kHz: a gliding harmonic tone in syllables, and noise."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(160 + 40 * np.sin(2 * np.pi * 0.31 * t)) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 1.7 * t) + 0.4, 0, 1)
    return (0.2 * tone * syllables + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def _contour(frames: int) -> np.ndarray:
    """The pitch of that sound, Hz, 0 between syllables, (frames,) float32."""
    t = np.arange(frames) / 100
    f0 = 160 + 40 * np.sin(2 * np.pi * 0.31 * t)
    return np.where(np.sin(2 * np.pi * 1.7 * t) > -0.4, f0, 0).astype(np.float32)


@functools.lru_cache(maxsize=2)
def _prepared(seconds: float) -> pipeline.Prepared:
    return pipeline.prepare(synthetic_sound(seconds), Settings())


def padded_seconds(seconds: float) -> float:
    """Return about how many seconds are computed, the padding of all chunks included."""
    chunking = Settings().chunking
    chunks = 1 if seconds <= chunking.x_max else math.ceil(seconds / chunking.x_center)
    return seconds + 2 * chunking.x_pad * chunks


def kept(frames: int) -> slice:
    """Return the frames that a conversion keeps of a chunk of `frames` frames: those without the padding."""
    pad = Settings().chunking.pad // WINDOW
    return slice(pad, frames - pad)


def inputs(stage: str, seconds: float) -> Iterator[Arrays]:
    """Yield the inputs of a stage, chunk by chunk, of a sound of this length."""
    prepared = _prepared(seconds)
    if stage in ("mel", "rmvpe"):
        yield (prepared.padded,)
        return
    config = models.VOICE
    for number, chunk in enumerate(prepared.chunks):
        sound = prepared.padded[chunk.samples]
        if stage == "hubert":
            yield (sound,)
            continue
        rng = np.random.default_rng([list(STAGES).index(stage), number])

        def normal(*shape: int, rng: np.random.Generator = rng) -> np.ndarray:
            return rng.standard_normal(shape, dtype=np.float32)

        steps = (len(sound) - models.HUBERT.window) // models.HUBERT.hop + 1
        frames = pipeline.chunk_frames(chunk, np.empty((steps, 0)))
        speaker, f0 = np.array([0]), _contour(prepared.frames)[chunk.frames][None, :frames]
        if stage == "text_encoder":
            yield normal(1, frames, config.text_enc_hidden_dim), pitch.coarse(f0[0])[None].astype(np.int32)
        elif stage == "flow":
            yield normal(1, config.inter_channels, frames), speaker
        elif stage == "decoder":
            z = normal(1, config.inter_channels, frames)
            yield z, speaker, f0, normal(1, frames * config.hop, 1)
        elif stage == "retrieval":
            yield (normal(steps, models.HUBERT.hidden_size),)
        else:
            blocks, length, width = [], frames, config.upsample_initial_channel
            for rate in config.upsample_rates:
                length, width = length * rate, width // 2
                blocks.append(normal(1, width, length))
            yield tuple(blocks)
