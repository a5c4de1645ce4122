"""What pocketsphinx, which knows nothing of the training, understands of a person converted by the demo voice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

import rvc_fast
from rvc_fast.resources import demo_dir

if not os.environ.get("CI"):
    pytest.importorskip("pocketsphinx", reason="the listener needs the extra `train`")

from training import words

DEMO = demo_dir()
FOLDER = Path(__file__).parent / "people"
RATE = 16000
SAID = {
    "0870": "and mister john dashwood had then leisure to consider how much there might be prudently in his power to do"
    " for them",
    "0920": "had he married a more amiable woman he might have been made still more respectable than he was",
}
# Word error of the results, the mean of the speakers: measured, and how much worse fails.
MEASURED = 0.64
MARGIN = 0.05


def word_error(sounds: dict[str, np.ndarray], rate: int) -> float:
    wrong = total = 0
    for name, sound in sounds.items():
        want = words.plain(SAID[name])
        wrong += words.errors(want, words.heard(sound, rate))
        total += len(want)
    return wrong / total


def test_the_words_of_a_person_are_understood_as_was_measured() -> None:
    """The bound is what was measured for these models and a margin of 8 of the 160 words.

    The aim, 0.6, is missed.
    """
    sources = {}
    for name in SAID:
        sources[name], rate = soundfile.read(FOLDER / f"{name}.wav", dtype="float32")
        assert rate == RATE
    assert word_error(sources, RATE) < 0.4
    converter = rvc_fast.load(DEMO / "voice.pth", embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt")
    found = []
    for speaker, target in enumerate(json.loads((DEMO / "speakers.json").read_text())):
        results = {}
        for name, source in sources.items():
            result = converter.convert(
                source, sample_rate=RATE, speaker=speaker, proposed_pitch=target["pitch_hz"]
            )
            results[name] = result.samples
        found.append(word_error(results, result.sample_rate))
    assert np.mean(found) <= MEASURED + MARGIN, found


def test_word_error_does_not_depend_on_what_was_heard_before() -> None:
    sounds = [soundfile.read(FOLDER / f"{name}.wav", dtype="float32")[0] for name in ("0890", "0920", "0890")]
    heard = [words.heard(sound, RATE) for sound in sounds]
    assert heard[0] == heard[2]
