"""What an independent recogniser understands of the demo voice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import rvc_fast
from rvc_fast.audio import read_audio, resample
from rvc_fast.resources import demo_dir

if not os.environ.get("CI"):
    pytest.importorskip("torch", reason="the recogniser needs the extra `train`")

from models.training import content
from models.training.text import CLASSES
from safetensors.torch import load_file

DEMO = demo_dir()
RATE = 16000
SOUNDS = ("speech_male", "speech_female")
SAID = json.loads((DEMO / "sounds" / "phonemes.json").read_text())


@pytest.fixture(scope="module")
def recogniser() -> content.Recogniser:
    """That of the evaluation, which shares nothing with the content encoder."""
    model = content.Recogniser().eval()
    model.load_state_dict(load_file(Path(__file__).parent / "recogniser.safetensors"))
    return model


def error(recogniser: content.Recogniser, sounds: list[np.ndarray]) -> float:
    wrong = total = 0
    for name, sound in zip(SOUNDS, sounds, strict=True):
        want = [CLASSES.index(phoneme) for phoneme in SAID[name]]
        wrong += content.distance(content.decode(content.log_probabilities(recogniser, sound)), want)
        total += len(want)
    return wrong / total


def test_what_is_said_is_understood(recogniser: content.Recogniser) -> None:
    sources = []
    for name in SOUNDS:
        samples, rate = read_audio(DEMO / "sounds" / f"{name}.wav")
        assert rate == RATE
        sources.append(samples.mean(axis=1))
    assert error(recogniser, sources) < 0.18
    converter = rvc_fast.load(DEMO / "voice.pth", embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt")
    for speaker, target in enumerate(json.loads((DEMO / "speakers.json").read_text())):
        sounds = []
        for source in sources:
            result = converter.convert(
                source, sample_rate=RATE, speaker=speaker, proposed_pitch=target["pitch_hz"]
            )
            sounds.append(resample(result.samples, result.sample_rate, RATE))
        assert error(recogniser, sounds) < 0.2, target["name"]
