"""Convert all sounds of a folder: python examples/convert_many.py [FOLDER] [FOLDER OF RESULTS]"""

import sys
from pathlib import Path

import rvc_fast
from rvc_fast.errors import RvcFastError

DEMO = Path(__file__).parents[1] / "models" / "demo"


def main(folder: str = str(DEMO / "sounds"), results: str = "converted") -> None:
    # Loading takes longer than a short sound: load once, convert as often as you like.
    converter = rvc_fast.load(DEMO / "voice.pth", embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt")
    Path(results).mkdir(parents=True, exist_ok=True)
    for source in sorted(Path(folder).glob("*.wav")):
        target = Path(results) / source.name
        try:
            result = converter.convert(source, proposed_pitch="female")
        except RvcFastError as error:  # a file that is no sound, for example
            print(f"{source}: {error}")
            continue
        result.save(target)
        print(f"{target}: {1 / result.realtime_factor:.1f} times as fast as real time")


if __name__ == "__main__":
    main(*sys.argv[1:])
