"""Sound of many voices with its phonemes and pitch, as one stream per corpus.

A stream is one utterance after the other, each padded to whole content frames (20 ms), those of one voice side
by side: a random cut is nearly always one voice's.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import soxr

from . import speakers
from .espeak import espeak
from .plan import ACCENTS, ALSO, HELD_OUT, LEFT_OUT, RECORDED, SPEAKERS, Plan
from .text import SILENCE, arpabet_class, espeak_classes, fluent, sentence

RATE = 16000
FRAME = 320  # samples of a content frame at RATE
PITCH_FRAME = 160
TARGET_RATE = 24000
F0_FLOOR, F0_CEILING = 60.0, 600.0
LEVEL, PEAK = 0.08, 0.9
# How often each voice is drawn; espeak-ng's all together as one, kokoro's people too. The neural ones are nearest to people.
SHARES = {"espeak": 1.0, "hibari:heart": 2.0, "kokoro": 4.0, "flite:kal16": 0.3, "festival:ked": 0.3}
# Utterances of one worker process, at least and at most: a fresh library, so that the result does not depend on the order.
_BLOCKS = 8, 32


@dataclass(frozen=True)
class Line:
    """One utterance to be spoken."""

    text: str
    voice: str
    rate: int
    pitch: int
    pitch_range: int


@dataclass(frozen=True)
class Corpus:
    """A stream of utterances.

    sound: int16 (n,) at 16 kHz. wide: the same at 24 kHz, (n * 3 / 2,), or empty.
    f0: float32 (n / 160,) Hz, 0 where unvoiced, by Praat's autocorrelation.
    starts: (utterances + 1,) samples. onsets, phonemes: sample and class of every phoneme.
    first: (utterances + 1,) index of each utterance's first phoneme.
    text, voice: of each utterance.
    """

    sound: np.ndarray
    wide: np.ndarray
    f0: np.ndarray
    starts: np.ndarray
    onsets: np.ndarray
    phonemes: np.ndarray
    first: np.ndarray
    text: np.ndarray
    voice: np.ndarray

    def __len__(self) -> int:
        return len(self.text)

    @cached_property
    def chance(self) -> np.ndarray:
        """How often to draw each utterance: by voice as in SHARES, and by length within a voice."""
        group = np.array(
            ["kokoro" if v.startswith("kokoro") else v if ":" in v else "espeak" for v in self.voice]
        )
        lengths = np.diff(self.starts).astype(np.float64)
        chance = np.zeros(len(self))
        for name in np.unique(group):
            of = group == name
            chance[of] = lengths[of] / lengths[of].sum() * SHARES.get(str(name), 1.0)
        return chance / chance.sum()

    @classmethod
    def join(cls, corpora: list[Corpus]) -> Corpus:
        """Return the corpora as one, without wide sound."""
        at = np.cumsum([0] + [len(c.sound) for c in corpora])
        phone = np.cumsum([0] + [len(c.phonemes) for c in corpora])

        def moved(name: str, by: np.ndarray, last: bool) -> np.ndarray:
            parts = [getattr(c, name)[: None if last else -1] + b for c, b in zip(corpora, by, strict=False)]
            return np.concatenate(parts if last else [*parts, by[-1:]])

        joined = {
            name: np.concatenate([getattr(c, name) for c in corpora])
            for name in ("sound", "f0", "phonemes", "text", "voice")
        }
        return cls(
            wide=np.zeros(0, np.int16),
            starts=moved("starts", at, False),
            onsets=moved("onsets", at, True),
            first=moved("first", phone, False),
            **joined,
        )

    def part(self, keep: list[int]) -> Corpus:
        """Return some of the utterances, without wide sound."""
        cuts = [slice(self.starts[i], self.starts[i + 1]) for i in keep]
        spoken = [self.spoken(i) for i in keep]
        starts = np.cumsum([0] + [cut.stop - cut.start for cut in cuts])
        return Corpus(
            sound=np.concatenate([self.sound[cut] for cut in cuts]),
            wide=np.zeros(0, np.int16),
            f0=np.concatenate([self.pitch(i) for i in keep]),
            starts=starts,
            onsets=np.concatenate([onsets + at for (onsets, _), at in zip(spoken, starts, strict=False)]),
            phonemes=np.concatenate([classes for _, classes in spoken]),
            first=np.cumsum([0] + [len(classes) for _, classes in spoken]),
            text=self.text[keep],
            voice=self.voice[keep],
        )

    def utterance(self, i: int) -> np.ndarray:
        """Return the sound of utterance i, float32 at 16 kHz."""
        return self.sound[self.starts[i] : self.starts[i + 1]].astype(np.float32) / 32768

    def wide_utterance(self, i: int) -> np.ndarray:
        """Return the sound of utterance i, float32 at 24 kHz."""
        start, stop = self.starts[i : i + 2] * TARGET_RATE // RATE
        return self.wide[start:stop].astype(np.float32) / 32768

    def pitch(self, i: int) -> np.ndarray:
        """Return f0 of utterance i."""
        return self.f0[self.starts[i] // PITCH_FRAME : self.starts[i + 1] // PITCH_FRAME]

    def spoken(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (onset sample within the utterance, class) of the phonemes of utterance i."""
        part = slice(self.first[i], self.first[i + 1])
        return self.onsets[part] - self.starts[i], self.phonemes[part]

    def class_at(self, sample: np.ndarray) -> np.ndarray:
        """Return the phoneme class at samples of the stream."""
        return self.phonemes[np.searchsorted(self.onsets, sample, side="right") - 1]

    def save(self, path: Path) -> None:
        """Write an .npz, atomically."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, **{f.name: getattr(self, f.name) for f in fields(self)})
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        with np.load(path) as file:
            return cls(**{f.name: file[f.name] for f in fields(cls)})


def praat_f0(
    samples: np.ndarray, rate: int, frames: int, floor: float = F0_FLOOR, ceiling: float = F0_CEILING
) -> np.ndarray:
    """Return f0 (frames,) from `floor` to `ceiling` Hz at 0, 10, 20, ... ms; 0 where unvoiced."""
    import parselmouth

    if len(samples) < 4 * rate / floor:
        return np.zeros(frames, np.float32)
    sound = parselmouth.Sound(samples.astype(np.float64), rate)
    track = sound.to_pitch_ac(time_step=0.0025, pitch_floor=floor, pitch_ceiling=ceiling)
    values, times = track.selected_array["frequency"], track.xs()
    nearest = np.clip(
        np.round((np.arange(frames) * 0.01 - times[0]) / 0.0025).astype(int), 0, len(values) - 1
    )
    return values[nearest].astype(np.float32)


def praat_f0_twice(samples: np.ndarray, rate: int, frames: int) -> np.ndarray:
    """`praat_f0`, the second time from 3/4 of the first quartile that the first time found to 3/2 of the third.

    Over the whole range Praat takes some frames of low voices for notes two octaves up (2 % of held-out Michael's).
    """
    f0 = praat_f0(samples, rate, frames)
    if not f0.any():
        return f0
    low, high = np.percentile(f0[f0 > 0], (25, 75))
    return praat_f0(samples, rate, frames, max(F0_FLOOR, 0.75 * low), min(F0_CEILING, 1.5 * high))


def said_by(line: Line) -> tuple[np.ndarray, int, list[tuple[float, int]]] | None:
    """Return (samples, rate, (onset in seconds, class) of every phoneme), or None: see `speakers.speak`."""
    if ":" in line.voice:
        said = speakers.speak(line.text, line.voice, line.rate / 165)
        if said is None:
            return None
        return said.samples, said.rate, [(time, arpabet_class(name)) for time, name in said.phonemes]
    speech = espeak().speak(line.text, line.voice, line.rate, line.pitch, line.pitch_range)
    ends = [time for time, _ in speech.phonemes[1:]] + [len(speech.samples) / speech.rate]
    events = [(0.0, SILENCE)]
    for (time, mnemonic), end in zip(speech.phonemes, ends, strict=True):
        first, *rest = espeak_classes(mnemonic)
        events.append((time, first))
        # A vowel with an r in it: the r is its last two fifths.
        events += [(time + 0.6 * (end - time), number) for number in rest]
    return speech.samples, speech.rate, events


def _speak(task: tuple[Line, bool]) -> dict[str, np.ndarray] | None:
    line, wide = task
    said = said_by(line)
    if said is None:
        return None
    spoken, source_rate, events = said
    gain = min(LEVEL / max(spoken.std(), 1e-4), PEAK / max(np.abs(spoken).max(), 1e-4))
    samples = spoken * gain
    frames = -(-len(samples) * RATE // (source_rate * FRAME))

    def at(rate: int) -> np.ndarray:
        out = soxr.resample(samples, source_rate, rate, quality="VHQ")
        length = frames * FRAME * rate // RATE
        out = np.pad(out[:length], (0, max(0, length - len(out))))
        return np.round(np.clip(out, -1, 1) * 32767).astype(np.int16)

    onsets, classes = [], []
    for time, number in events:
        if not classes or classes[-1] != number:
            onsets.append(round(time * RATE))
            classes.append(number)
    if classes[-1] != SILENCE:
        onsets.append(len(samples) * RATE // source_rate)
        classes.append(SILENCE)
    return {
        "sound": at(RATE),
        "wide": at(TARGET_RATE) if wide else np.zeros(0, np.int16),
        "f0": praat_f0(samples, source_rate, frames * FRAME // PITCH_FRAME),
        "onsets": np.minimum(onsets, frames * FRAME - 1).astype(np.int64),
        "phonemes": np.array(classes, np.int8),
    }


def make(lines: list[Line], wide: bool) -> Corpus:
    """Speak `lines`, in worker processes."""
    speakers.prepare(line.voice for line in lines)
    context = multiprocessing.get_context("spawn")
    least, most = _BLOCKS
    block = max(least, min(most, len(lines) // 8))
    with context.Pool(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None, maxtasksperchild=1
    ) as pool:
        found = []
        for part in pool.imap(_speak, [(line, wide) for line in lines], chunksize=block):
            found.append(part)
            if len(found) % 250 == 0 or len(found) == len(lines):
                print(f"{len(found)} of {len(lines)} lines spoken", flush=True)
    lines = [line for line, part in zip(lines, found, strict=True) if part is not None]
    parts = [part for part in found if part is not None]
    print(f"{len(parts)} of {len(found)} lines have their phonemes", flush=True)
    starts = np.cumsum([0] + [len(p["sound"]) for p in parts])
    first = np.cumsum([0] + [len(p["phonemes"]) for p in parts])
    return Corpus(
        sound=np.concatenate([p["sound"] for p in parts]),
        wide=np.concatenate([p["wide"] for p in parts]),
        f0=np.concatenate([p["f0"] for p in parts]),
        starts=starts,
        onsets=np.concatenate([p["onsets"] + start for p, start in zip(parts, starts, strict=False)]),
        phonemes=np.concatenate([p["phonemes"] for p in parts]),
        first=first,
        text=np.array([line.text for line in lines]),
        voice=np.array([line.voice for line in lines]),
    )


def training_voices(plan: Plan) -> list[str]:
    """Return the variants of espeak-ng that speak in training, in a seeded order."""
    others = [v for v in espeak().variants() if not v.startswith(HELD_OUT + LEFT_OUT)]
    order = np.random.default_rng([plan.seed, 0]).permutation(others)
    return [str(v) for v in order][: plan.voices]


def _line(rng: np.random.Generator, text: str, voice: str, accent: str = "en-us") -> Line:
    return Line(
        text,
        voice if ":" in voice else f"{accent}+{voice}",
        int(rng.integers(130, 231)),
        int(rng.integers(15, 86)),
        int(rng.integers(20, 81)),
    )


def speech_lines(plan: Plan, stream: int) -> list[Line]:
    """Return what the encoder, the pitch model and (another stream) the recogniser learn from, beside the targets."""
    lines = []
    for number, variant in enumerate(training_voices(plan)):
        rng = np.random.default_rng([plan.seed, stream, number])
        accent = ACCENTS[int(rng.integers(len(ACCENTS)))]
        for i in range(plan.per_voice):
            accent = ACCENTS[int(rng.integers(len(ACCENTS)))] if i % 8 == 0 else accent
            lines.append(_line(rng, sentence(rng), variant, accent))
    for number, voice in enumerate(ALSO):
        rng = np.random.default_rng([plan.seed, stream, 1000 + number])
        lines += [_line(rng, sentence(rng), voice) for _ in range(plan.per_speaker)]
    return lines


def fluent_lines(plan: Plan) -> list[Line]:
    """Return sentences with small words, by every voice made from recordings: what people say is of that kind."""
    lines = []
    for number, voice in enumerate((*SPEAKERS.values(), *ALSO)):
        rng = np.random.default_rng([plan.seed, 7, number])
        lines += [_line(rng, fluent(rng), voice) for _ in range(plan.fluent)]
    return lines


def recorded_lines(plan: Plan) -> list[Line]:
    """Return sentences of both kinds by further voices made from recordings, for the encoder."""
    lines = []
    for number, voice in enumerate(RECORDED):
        rng = np.random.default_rng([plan.seed, 8, number])
        lines += [_line(rng, (sentence, fluent)[i % 2](rng), voice) for i in range(plan.recorded)]
    return lines


def mixed_lines(plan: Plan) -> list[Line]:
    """Return sentences of both kinds by kokoro, each by another person that its voices are mixed to."""
    rng = np.random.default_rng([plan.seed, 9])
    kinds = (sentence, fluent, fluent)
    return [_line(rng, kinds[i // 24 % 3](rng), f"kokoro:{i}") for i in range(plan.mixed)]


def target_lines(plan: Plan) -> list[Line]:
    """Return the targets' lines, speaker by speaker; three of ten have small words."""
    targets = []
    for number, voice in enumerate(SPEAKERS.values()):
        rng = np.random.default_rng([plan.seed, 2, number])
        kinds = (sentence if i % 10 < 7 else fluent for i in range(plan.per_speaker))
        targets += [_line(rng, kind(rng), voice) for kind in kinds]
    return targets


def rendering_lines(plan: Plan, targets: Corpus) -> list[Line]:
    """Return as many lines per target line as there are renderings: the same words by other voices, the first and
    every other one by a voice made from recordings."""
    variants, human = (
        training_voices(plan),
        [v for v in (*SPEAKERS.values(), *ALSO, *RECORDED) if v.startswith(("flite", "pico"))],
    )
    lines = []
    for number, (text, voice) in enumerate(zip(targets.text, targets.voice, strict=True)):
        rng = np.random.default_rng([plan.seed, 6, number])
        for k in range(plan.renderings):
            choices = [v for v in human if v != voice] if k % 2 == 0 else variants
            lines.append(_line(rng, str(text), str(rng.choice(choices))))
    return lines


def test_lines(plan: Plan, voices: tuple[str, ...]) -> list[Line]:
    """Return the evaluation's sentences by each of `voices`: the same words by all, never used in training."""
    lines = []
    for number, voice in enumerate(voices):
        words = np.random.default_rng([plan.seed, 3])
        rng = np.random.default_rng([plan.seed, 4, number])
        for _ in range(plan.test_sentences):
            text = sentence(words)
            lines.append(Line(text, voice, int(rng.integers(150, 200)), 50, 50))
    return lines


def build(plan: Plan, folder: Path, names: tuple[str, ...] = ()) -> dict[str, Corpus]:
    """Return the corpora of a plan, or those of `names`, made where they are not in `folder` yet."""
    folder.mkdir(parents=True, exist_ok=True)
    corpora: dict[str, Corpus] = {}
    # In this order: renderings say what the targets turned out to say.
    wanted: dict[str, tuple[Callable[[], list[Line]], bool]] = {
        "test": (lambda: test_lines(plan, tuple(f"en-us+{v}" for v in HELD_OUT)), False),
        "target": (lambda: target_lines(plan), True),
        "speech": (lambda: speech_lines(plan, 1), False),
        "recorded": (lambda: recorded_lines(plan), False),
        "fluent": (lambda: fluent_lines(plan), False),
        "mixed": (lambda: mixed_lines(plan), False),
        "renderings": (lambda: rendering_lines(plan, corpora["target"]), False),
        "recogniser": (lambda: speech_lines(plan, 5)[::2], False),
        "test_target": (lambda: test_lines(plan, tuple(SPEAKERS.values())), True),
    }
    for name, (lines, wide) in wanted.items():
        if names and name not in names:
            continue
        path = folder / f"{name}.npz"
        if not path.is_file():
            make(lines(), wide).save(path)
        corpora[name] = Corpus.load(path)
    return corpora
