"""Sing a sound with a pitch of your own: python examples/own_f0.py [IN] [OUT]"""

import sys
from pathlib import Path

import numpy as np

import rvc_fast

DEMO = Path(__file__).parents[1] / "models" / "demo"


def main(source: str = str(DEMO / "sounds" / "speech_male.wav"), target: str = "sung.wav") -> None:
    converter = rvc_fast.load(DEMO / "voice.pth", embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt")
    spoken = converter.convert(source).f0  # Hz, one value per 10 ms, 0 where there is no pitch
    assert spoken is not None
    seconds = np.arange(len(spoken)) / 100

    # A slow rise over one octave, with a vibrato of half a semitone six times a second.
    octaves = seconds / seconds[-1] + 0.5 / 12 * np.sin(2 * np.pi * 6 * seconds)
    melody = 150 * 2**octaves
    f0 = np.where(spoken > 0, melody, 0)  # unvoiced sounds such as s stay unvoiced

    result = converter.convert(source, f0=f0)  # the features of the sound are kept from the first call
    result.save(target)
    voiced = f0[f0 > 0]
    print(f"{target}: sung from {voiced[0]:.0f} Hz to {voiced[-1]:.0f} Hz")


if __name__ == "__main__":
    main(*sys.argv[1:])
