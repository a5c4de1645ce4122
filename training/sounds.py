"""The sounds of `rvc-fast demo`: a person, held-out voices of espeak-ng, male and female, and a sung glide.

Beside them each target says the words of the male sound, so that a result can be compared with its target.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
import soxr

from . import corpus, people, speakers
from .corpus import LEVEL, PEAK, RATE
from .plan import SPEAKERS
from .text import CLASSES, SILENCE

SENTENCE = "The morning train was late, so we walked along the river and talked about the summer."
SONG = "Follow the river, over the hills and home."
MALE, FEMALE = "en-us+m6", "en-us+f5"
PERSON = "0870"  # of the audiobook, which is in the public domain
# The song: semitones above NOTE at equal distances, gliding from one to the next, and how much slower than spoken.
NOTE, GLIDE, SLOWER = 220.0, (0, 0, 7, 12, 5, 9, 4, 0, -5), 1.7
VIBRATO = 5.5, 0.3  # Hz, semitones


def spoken(text: str, voice: str, rate: int = 160) -> tuple[np.ndarray, list[str]]:
    """Return (sound, phoneme classes) of `text` in the voice; the sound is float64 (n,) at 16 kHz."""
    said = corpus.said_by(corpus.Line(text, voice, rate, 50, 50))
    if said is None:
        raise RuntimeError(f"[training] {voice} says {text!r} so that its words cannot be found")
    samples, source_rate, events = said
    classes = [number for _, number in events]
    names = [CLASSES[c] for i, c in enumerate(classes) if c != SILENCE and (i == 0 or classes[i - 1] != c)]
    return soxr.resample(samples.astype(np.float64), source_rate, RATE, quality="VHQ"), names


def sung(samples: np.ndarray) -> np.ndarray:
    """Return speech (n,) at 16 kHz slower and on the pitch of GLIDE: pitch-synchronous overlap-add by Praat."""
    import parselmouth
    from parselmouth.praat import call

    manipulation = call(parselmouth.Sound(samples, RATE), "To Manipulation", 0.01, 60, 400)
    seconds = len(samples) / RATE
    duration = call("Create DurationTier", "slower", 0, seconds)
    call(duration, "Add point", seconds / 2, SLOWER)
    pitch = call("Create PitchTier", "glide", 0, seconds)
    for time in np.arange(0, seconds, 0.01):
        note = np.interp(time, np.linspace(0, seconds, len(GLIDE)), GLIDE)
        note += VIBRATO[1] * np.sin(2 * np.pi * VIBRATO[0] * time * SLOWER)
        call(pitch, "Add point", time, NOTE * 2 ** (note / 12))
    call([duration, manipulation], "Replace duration tier")
    call([pitch, manipulation], "Replace pitch tier")
    return call(manipulation, "Get resynthesis (overlap-add)").values[0]


def write(folder: Path) -> None:
    """Write the wav files, 16 bits at 16 kHz, and what is said in them (phonemes.json)."""
    folder.mkdir(parents=True, exist_ok=True)
    song, phonemes = spoken(SONG, FEMALE, 140)
    found = {
        "speech_male": spoken(SENTENCE, MALE),
        "speech_female": spoken(SENTENCE, FEMALE),
        "sung_glide": (sung(song), phonemes),
    }
    said = {name: phonemes for name, (_, phonemes) in found.items()}
    for name, voice in SPEAKERS.items():
        samples, rate, _ = speakers.sound(SENTENCE, voice, 1.0)
        found[f"target_{name}"] = soxr.resample(samples.astype(np.float64), rate, RATE, quality="VHQ"), []
    (folder / "phonemes.json").write_text(json.dumps(said) + "\n")
    person = next(r for r in people.RECORDINGS if r.person == "audiobook" and r.path.stem.endswith(PERSON))
    found["person"] = people.sound(person).astype(np.float64), []
    (folder / "person.txt").write_text(person.text + "\n")
    for name, (samples, _) in found.items():
        gain = min(LEVEL / samples.std(), PEAK / np.abs(samples).max())
        soundfile.write(folder / f"{name}.wav", samples * gain, RATE, "PCM_16")
