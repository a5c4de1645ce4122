"""What the evaluation's recogniser understands of the bundled sounds.

It has heard espeak-ng and one voice of flite, and understands hardly half of what the demo voice's targets say themselves:
results are judged by their words instead (test_demo_words.py).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from rvc_fast.audio import read_audio
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
