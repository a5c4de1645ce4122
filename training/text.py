"""What the voices say: random sentences of common words, and phonemes in the classes of ARPAbet.

ARPAbet is what flite's phones and pocketsphinx's dictionary are written in; espeak-ng's mnemonics are mapped onto it.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

WORDS = (Path(__file__).parent / "words.txt").read_text().split()

_NAMES = (
    "_ aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
)
CLASSES = _NAMES.split()
SILENCE = CLASSES.index("_")
_NUMBER = {name: i for i, name in enumerate(CLASSES)}

# ARPAbet beyond the 39: what flite, festival and pocketsphinx call pauses, reduced vowels and variants.
_ARPABET = {
    "pau": "_",
    "sil": "_",
    "+noise+": "_",
    "+spn+": "_",
    "ax": "ah",
    "axr": "er",
    "ix": "ih",
    "dx": "t",
    "h#": "_",
    "brth": "_",
    "el": "l",
    "em": "m",
    "en": "n",
    "nx": "n",
    "hv": "hh",
}

# espeak-ng's mnemonics after `_plain`: a vowel with an r or an l in it is two phonemes.
_ESPEAK = {
    "_": "_", "": "_", "?": "_", "@": "ah", "@n": "ah n", "@L": "ah l", "@l": "ah l", "L": "l", "V": "ah",
    "a": "ae", "aa": "ae", "A:": "aa", "A@": "aa r", "a@": "ae r", "0": "aa", "0:": "aa", "O:": "ao", "O": "ao", "oo": "ao",
    "O@": "ao r", "o@": "ao r", "E": "eh", "e": "eh", "e@": "eh r", "I": "ih", "I3": "ih", "i": "iy", "i:": "iy",
    "i@": "iy r", "i@3": "iy r", "I@": "ih r", "IR": "ih r", "VR": "er", "3": "er", "3:": "er", "U": "uh", "U@": "uh r",
    "u": "uw", "u:": "uw", "ju:": "uw", "o": "ow", "oU": "ow", "eI": "ey", "aI": "ay", "aI3": "ay er", "aI@": "ay er",
    "aU": "aw", "OI": "oy", "b": "b", "d": "d", "dZ": "jh", "D": "dh", "f": "f", "g": "g", "h": "hh", "j": "y",
    "k": "k", "l": "l", "m": "m", "n": "n", "N": "ng", "p": "p", "r": "r", "s": "s", "S": "sh", "t": "t", "tS": "ch",
    "T": "th", "v": "v", "w": "w", "w#": "w", "z": "z", "Z": "zh", "@5": "ah",
}  # fmt: skip


def _plain(mnemonic: str) -> str:
    """Drop what marks variants of a sound: tt becomes t, I2 becomes I."""
    return "_" if mnemonic.startswith("_") else re.sub(r"[#\-|;'2456]|\^|/.*", "", mnemonic)


def arpabet_class(name: str) -> int:
    """Return the class of a phone of flite or pocketsphinx; ValueError for one that the table does not know."""
    name = name.lower()
    name = _ARPABET.get(name, name)
    if name not in _NUMBER:
        raise ValueError(f"[training] phone {name!r} is in no class")
    return _NUMBER[name]


def espeak_classes(mnemonic: str) -> list[int]:
    """Return the classes, one or two, of an espeak-ng phoneme; ValueError for one that the table does not know."""
    plain = _plain(mnemonic)
    if plain not in _ESPEAK:
        raise ValueError(f"[training] phoneme {mnemonic!r} is in no class")
    return [_NUMBER[name] for name in _ESPEAK[plain].split()]


def sentence(rng: np.random.Generator) -> str:
    """Return 4 to 9 random words."""
    words = rng.choice(WORDS, rng.integers(4, 10))
    # A comma now and then: pauses belong to speech.
    return " ".join(w + ("," if rng.random() < 0.08 else "") for w in words[:-1]) + f" {words[-1]}."


# Parts of sentences by name, most of them the small words that every sentence has and no list of words often enough.
_PARTS = {
    name: parts.split("|")
    for name, parts in (
        line.split(": ") for line in (Path(__file__).parent / "parts.txt").read_text().splitlines()
    )
}
_SHAPES = [
    "he did it where",
    "he could do it",
    "he did it and he did it",
    "it was good where",
    "oh he did it",
    "he was good and he could do it",
    "oh could he do it where",
    "he did it and it was good",
    "he could do it and he was good",
    "please do it where",
    "do it and do it where",
    "there was it where and he did it",
    "oh he could do it and it was good",
    "what did he say and was it good",
]


def fluent(rng: np.random.Generator) -> str:
    """Return a sentence with its small words: of few shapes, but of very many fillings."""
    shape = _SHAPES[rng.integers(len(_SHAPES))].split()
    return " ".join(str(rng.choice(_PARTS[part])) if part in _PARTS else part for part in shape) + "."
