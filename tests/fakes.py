"""Models that obey the contracts of the real ones, with outputs that can be foreseen; they count calls."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import mlx.core as mx
import numpy as np
import scipy.signal

from rvc_fast.audio import process

DIM = 8


class FakeEmbedder:
    """Each frame holds the middle sample of its window in every channel."""

    def __init__(self, dim: int = DIM):
        self.dim = dim
        self.calls = 0
        self.version: str | None = None

    def features(self, audio: mx.array, version: str, layer: int | None = None) -> mx.array:
        self.calls += 1
        self.layer = layer
        self.version = version
        frames = (audio.shape[0] - 400) // 320 + 1
        return mx.repeat(audio[200 : 200 + 320 * frames : 320][:, None], self.dim, axis=1)


class FakePitch:
    """The pitch is bin 100 + 20 * (the loudest of the frame's 160 samples), sharply."""

    def __init__(self) -> None:
        self.calls = 0
        self.pad: str | None = None

    def salience(self, audio: mx.array, pad: str = "reflect") -> mx.array:
        self.calls += 1
        self.pad = pad
        samples = np.array(audio)
        padded = np.pad(samples, (80, 80 + 160), mode="reflect")
        frames = len(samples) // 160 + 1
        loudest = np.abs(padded[: frames * 160]).reshape(frames, 160).max(axis=1)
        salience = np.zeros((frames, 360), np.float32)
        salience[np.arange(frames), np.clip(100 + np.round(20 * loudest), 0, 359).astype(int)] = 0.9
        return mx.array(salience)


class FakeVoice:
    """Says f0 / 1000 (or, told so, its first feature), held for each frame."""

    def __init__(self, says: str = "f0", hop: int = 320, use_f0: bool = True, dim: int = DIM):
        self.config = SimpleNamespace(
            version="v2",
            use_f0=use_f0,
            text_enc_hidden_dim=dim,
            spk_embed_dim=3,
            sr=hop * 100,
            embedder="",
            embedder_layer=None,
        )
        self.hop = hop
        self.sample_rate = hop * 100
        self.says = says
        self.calls: list[SimpleNamespace] = []

    def phases(self, f0: mx.array, phase: float) -> np.ndarray:
        return (phase + np.cumsum(np.array(f0, np.float64), axis=1) / 100) % 1

    def infer(self, phone, pitch, f0, speaker, noise, part, phase=0.0) -> mx.array:
        frames = phone.shape[1]
        drawn = noise.normal((1, 2, frames))
        self.calls.append(
            SimpleNamespace(phone=phone, pitch=pitch, f0=f0, speaker=speaker, noise=drawn, phase=phase)
        )
        if pitch is not None:
            assert pitch.shape == f0.shape == (1, frames)
            assert pitch.dtype == mx.int32
        value = {"f0": lambda: f0[0] / 1000, "phone": lambda: phone[0, :, 0], "noise": lambda: drawn[0, 0]}
        return mx.repeat(value[self.says]()[part], self.hop)[None]


class FakeIndex:
    """Every query's neighbours are the same vectors, all of one value."""

    def __init__(self, value: float = 1.0, dim: int = DIM):
        self.dim = dim
        self.count = 8
        self.value = value
        self.exact: list[bool] = []

    def search(self, queries: np.ndarray, k: int = 8, *, exact: bool = False):
        self.exact.append(exact)
        return np.ones((len(queries), k), np.float32), np.tile(np.arange(k), (len(queries), 1))

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        return np.full((*ids.shape, self.dim), self.value, np.float32)


def voiced_sound(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """A noisy 200 Hz tone that swells and fades."""
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    x = 0.4 * np.sin(2 * np.pi * 200 * t) * (1 + 0.5 * np.sin(2 * np.pi * 0.7 * t))
    return (x + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def scipys_high_pass(x: np.ndarray, padlen: int | None = None) -> np.ndarray:
    """Return what scipy makes of x (n,) at 16 kHz by the filter of `audio.high_pass`.

    The filter's initial state is ours. Scipy finds it by solving a system that is so badly conditioned that its eighth
    digit depends on the processor.
    """
    with mock.patch("scipy.signal._signaltools.lfilter_zi", return_value=process._ZI):
        return scipy.signal.filtfilt(*scipy.signal.butter(5, 48, "high", fs=16000), x, padlen=padlen)
