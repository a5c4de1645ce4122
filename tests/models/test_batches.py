"""A batch of sounds gives what its sounds give one by one, on the kernels and on the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast.features import hubert
from rvc_fast.noise import SeededNoise
from rvc_fast.pitch import rmvpe
from rvc_fast.synthesizer import Synthesizer
from rvc_fast.verify.golden import Folder

SOUNDS = 3


class SeedPerSound:
    """The noise that each sound of a batch would have alone."""

    def __init__(self) -> None:
        self.each = [SeededNoise(seed) for seed in range(SOUNDS)]

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        return mx.concatenate([noise.normal((1, *shape[1:])) for noise in self.each])

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        return mx.concatenate([noise.uniform((1, *shape[1:])) for noise in self.each])


@pytest.fixture(params=["auto", "reference"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", request.param)


@pytest.fixture
def folder(golden: Path) -> Folder:
    """Its models are packed for the backend of the test."""
    return Folder(golden)


def draw(*shape: int) -> mx.array:
    return mx.array(0.1 * np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


def same(batch: mx.array, alone: list[mx.array], snr: Any) -> None:
    assert batch.shape == (SOUNDS, *alone[0].shape)
    for got, want in zip(batch, alone, strict=True):
        assert snr(got, want) >= 100  # chunks of time are cut elsewhere, where there are more sounds
    # They are sounds of their own.
    assert snr(batch[0], alone[1]) < 20


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_features(folder: Folder, snr: Any, version: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of the front end as well, which depend on each other."""
    model = folder.model("hubert_tiny")
    audio = draw(SOUNDS, 8000)
    audio = audio * mx.array([[1.0], [0.2], [3.0]]) + 0.01
    for block in (hubert.FRONT_END_BLOCK, 7):
        monkeypatch.setattr(hubert, "FRONT_END_BLOCK", block)
        same(model.features(audio, version), [model.features(sound, version) for sound in audio], snr)
    steps = model.trace(audio)
    for name, step in model.trace(audio[1]).items():
        assert snr(steps[name][1], step) >= 110, name


@pytest.mark.parametrize("pad", ["reflect", "zeros"])
def test_salience(folder: Folder, snr: Any, pad: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In tiles of time as well."""
    model = folder.model("rmvpe_tiny")
    audio = draw(SOUNDS, 41000)
    for tile in (rmvpe.TILE, 32):
        monkeypatch.setattr(rmvpe, "TILE", tile)
        same(model.salience(audio, pad), [model.salience(sound, pad) for sound in audio], snr)


REFINEGAN = {"vocoder": "RefineGAN", "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4], "sr": 800}


@pytest.mark.parametrize("name", ["synth_tiny_32k", "synth_tiny_nof0_40k", "synth_tiny_mrf_40k", "refinegan"])
def test_voices(folder: Folder, snr: Any, name: str) -> None:
    if name == "refinegan":
        from test_synthesizer import random_voice, settings

        config = settings(folder.manifests["synth_tiny_32k"])
        model: Synthesizer = random_voice({**config, **REFINEGAN, "upsample_initial_channel": 128})
    else:
        model = folder.model(name)
    frames = 17
    phone = draw(SOUNDS, frames, model.config.text_enc_hidden_dim)
    pitch = f0 = None
    if model.config.use_f0:
        pitch = mx.array([[60], [100], [0]]) + mx.zeros((SOUNDS, frames), mx.int32)
        f0 = mx.array([[200.0], [300.0], [0.0]]) + mx.zeros((SOUNDS, frames))
    got = model.infer(phone, pitch, f0, 1, SeedPerSound())
    alone = []
    for i in range(SOUNDS):
        one = [None if x is None else x[i : i + 1] for x in (phone, pitch, f0)]
        alone.append(model.infer(*one, 1, SeededNoise(i))[0])
    same(got, alone, snr)
