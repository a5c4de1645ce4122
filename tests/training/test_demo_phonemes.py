"""What the evaluation's recogniser understands of the bundled sounds and of what the demo voice makes of them.

It has heard espeak-ng and one voice of flite, and hears more than half of what the demo voice's targets say themselves
wrongly: of results its error says little but that they have not got worse. Their words are judged in test_demo_words.py.
"""

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

from safetensors.torch import load_file

from training import content
from training.text import CLASSES

DEMO = demo_dir()
RATE = 16000
SOUNDS = ("speech_male", "speech_female")
# Phoneme error of the results, as measured.
ERRORS = {"slt": 0.481, "rms": 0.557, "awb": 0.613, "heart": 0.491}
MARGIN = 6 / 106
SAID = json.loads((DEMO / "sounds" / "phonemes.json").read_text())


@pytest.fixture(scope="module")
def recogniser() -> content.Recogniser:
    """That of the evaluation, which shares nothing with the content encoder."""
    model = content.Recogniser().eval()
    model.load_state_dict(load_file(Path(__file__).parent / "recogniser.safetensors"))
    return model


@pytest.fixture(scope="module")
def converter() -> rvc_fast.Converter:
    return rvc_fast.load(DEMO / "voice.pth", embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt")


@pytest.fixture(scope="module")
def sources() -> list[np.ndarray]:
    found = []
    for name in SOUNDS:
        samples, rate = read_audio(DEMO / "sounds" / f"{name}.wav")
        assert rate == RATE
        found.append(samples.mean(axis=1))
    return found


def error(recogniser: content.Recogniser, sounds: list[np.ndarray]) -> float:
    wrong = total = 0
    for name, sound in zip(SOUNDS, sounds, strict=True):
        want = [CLASSES.index(phoneme) for phoneme in SAID[name]]
        wrong += content.distance(content.decode(content.log_probabilities(recogniser, sound)), want)
        total += len(want)
    return wrong / total


def test_what_is_said_is_understood(recogniser: content.Recogniser, sources: list[np.ndarray]) -> None:
    """0.170 was measured."""
    assert error(recogniser, sources) < 0.18


@pytest.mark.parametrize("speaker", range(len(ERRORS)))
def test_results_are_understood_as_was_measured(
    recogniser: content.Recogniser, sources: list[np.ndarray], converter: rvc_fast.Converter, speaker: int
) -> None:
    """The bound is what was measured for these models and a margin of 6 of the 106 phonemes.

    It is far from the aim of 0.12: see the module.
    """
    target = json.loads((DEMO / "speakers.json").read_text())[speaker]
    sounds = []
    for source in sources:
        result = converter.convert(
            source, sample_rate=RATE, speaker=speaker, proposed_pitch=target["pitch_hz"]
        )
        sounds.append(resample(result.samples, result.sample_rate, RATE))
    assert error(recogniser, sounds) <= ERRORS[target["name"]] + MARGIN
