"""Convert one file: python examples/convert_file.py [IN] [OUT]"""

import sys
from pathlib import Path

import rvc_fast

DEMO = Path(__file__).parents[1] / "models" / "demo"


def main(source: str = str(DEMO / "sounds" / "speech_male.wav"), target: str = "converted.wav") -> None:
    # With a voice of yours: its .pth here, and `index=` for its .index. Embedder and pitch model
    # may be left out after `rvc-fast models pull`.
    converter = rvc_fast.load(DEMO / "voice.pth", embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt")
    result = converter.convert(source, transpose=12)
    result.save(target)
    print(f"{target}: {result.duration:.1f} s of sound in {sum(result.timings.values()):.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
