"""Word error by pocketsphinx with the English model that its wheel carries: a listener that no training knows."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import soxr

RATE = 16000
LEVEL = 0.1


@cache
def _decoder():  # type: ignore[no-untyped-def]
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise RuntimeError("[training] pocketsphinx is missing (pip install pocketsphinx)") from None
    return Decoder(samprate=float(RATE), loglevel="FATAL")


def plain(text: str) -> list[str]:
    """Return the words of a text, small letters without anything else than apostrophes."""
    return re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split()


def heard(sound: np.ndarray, rate: int) -> list[str]:
    """Return the words that pocketsphinx hears in a sound (n,)."""
    samples = soxr.resample(sound.astype(np.float32), rate, RATE) if rate != RATE else sound
    samples = samples * min(LEVEL / max(samples.std(), 1e-5), 0.95 / max(np.abs(samples).max(), 1e-5))
    samples = np.pad(samples, RATE // 5)
    decoder = _decoder()
    # Its cepstral means go on from one utterance to the next otherwise, and results would depend on the order.
    decoder.reinit_feat()
    decoder.start_utt()
    decoder.process_raw(np.round(samples * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return [] if found is None else plain(re.sub(r"\(\d+\)", "", found.hypstr))


def errors(want: list[str], got: list[str]) -> int:
    """Return how many insertions, deletions and substitutions make `got` of `want`."""
    row = list(range(len(want) + 1))
    for i, g in enumerate(got, 1):
        last, row[0] = row[0], i
        for j, w in enumerate(want, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (g != w))
    return row[-1]
