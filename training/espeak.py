"""espeak-ng through ctypes: text -> sound and the onset of every phoneme."""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

# speak_lib.h
_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CHARS_UTF8 = 1
_LIST_TERMINATED, _PHONEME = 0, 7


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Speech:
    """samples: float32 at `rate`. phonemes: (onset in seconds, mnemonic), in order."""

    samples: np.ndarray
    rate: int
    phonemes: list[tuple[float, str]]


class Espeak:
    """The library; one per process, as it is."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise RuntimeError("[training] libespeak-ng is missing (Debian: apt install libespeak-ng1)")
        self._library = ctypes.CDLL(name)
        self.rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 500, None, _PHONEME_EVENTS)
        if self.rate <= 0:
            raise RuntimeError(f"[training] espeak-ng does not start, it returns {self.rate}")
        self._library.espeak_Info.restype = ctypes.c_char_p
        self._samples: list[np.ndarray] = []
        self._phonemes: list[tuple[float, str]] = []
        self._callback = _Callback(self._receive)  # kept: the library calls it
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, wav, count: int, events) -> int:  # type: ignore[no-untyped-def]
        if wav and count > 0:
            self._samples.append(np.ctypeslib.as_array(wav, shape=(count,)).copy())
        for event in events:
            if event.type == _LIST_TERMINATED:
                break
            if event.type == _PHONEME:
                self._phonemes.append((event.sample / self.rate, event.id.string.decode("utf8", "replace")))
        return 0

    def variants(self) -> list[str]:
        """Return the names of the installed voice variants, in order."""
        path = ctypes.c_char_p()
        self._library.espeak_Info(ctypes.byref(path))
        folder = Path((path.value or b"").decode()) / "voices" / "!v"
        return sorted(file.name for file in folder.iterdir())

    def speak(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> Speech:
        """Speak `text`. `voice` is a language and a variant ("en-us+f2"); rate in words a minute, pitch and
        range from 0 to 99 (range 0 is monotone)."""
        self._samples.clear()
        self._phonemes.clear()
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"[training] espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range), (_VOLUME, 100)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._samples).astype(np.float32) / 32768
        return Speech(samples, self.rate, list(self._phonemes))


@cache
def espeak() -> Espeak:
    """Return the process's library."""
    return Espeak()
