"""What the voices say: random sentences of common words, and the phoneme classes of espeak-ng's mnemonics."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

WORDS = (Path(__file__).parent / "words.txt").read_text().split()

# Mnemonics that sound alike, by what is left of them after `_plain`.
_ALIKE = {
    "": "_", "?": "_", "@L": "@l", "L": "l", "@5": "@", "@n": "@n", "a": "a", "aa": "a", "a@": "a", "I#": "I",
    "i@3": "i@", "i@": "i@", "I@": "i@", "e@": "e@", "U@": "U@", "O@": "O:", "o@": "O:", "oo": "O:", "A@": "A:",
    "3": "3:", "IR": "3:", "VR": "3:", "I3": "I", "aI3": "aI@", "0:": "0", "O": "O:", "o": "oU", "i": "i:", "u": "u:",
    "ju:": "u:", "w#": "w", "E": "E", "e": "E",
}  # fmt: skip

_NAMES = "_ @ @l A: D E I N O: OI S T U U@ V Z a aI aI@ aU b d dZ e@ eI f g h i: i@ 0 3: j k l m n oU p r s t tS u: v w z"
CLASSES = _NAMES.split()
SILENCE = CLASSES.index("_")
_NUMBER = {name: i for i, name in enumerate(CLASSES)}


def _plain(mnemonic: str) -> str:
    """Drop what marks variants of a sound: tt becomes t, I2 becomes I."""
    return "_" if mnemonic.startswith("_") else re.sub(r"[#\-|;'2456]|\^|/.*", "", mnemonic)


def phoneme_class(mnemonic: str) -> int:
    """Return the class of an espeak-ng phoneme; ValueError for one that the table does not know."""
    plain = _plain(mnemonic)
    plain = _ALIKE.get(plain, plain)
    if plain not in _NUMBER:
        raise ValueError(f"[training] phoneme {mnemonic!r} is in no class")
    return _NUMBER[plain]


def sentence(rng: np.random.Generator) -> str:
    """Return 4 to 9 random words."""
    words = rng.choice(WORDS, rng.integers(4, 10))
    # A comma now and then: pauses belong to speech.
    return " ".join(w + ("," if rng.random() < 0.08 else "") for w in words[:-1]) + f" {words[-1]}."
