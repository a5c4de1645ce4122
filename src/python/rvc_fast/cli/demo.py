"""rvc-fast demo: hear the engine work, with nothing to download."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, RvcFastError
from ..extras import missing
from .common import show, table

if TYPE_CHECKING:
    from ..converter import ConversionResult
    from ..picture import Panel

# Programs that play a wav and return when it is over.
PLAYERS = (
    ("afplay",),
    ("aplay", "-q"),
    ("paplay",),
    ("pw-play",),
    ("ffplay", "-v", "error", "-nodisp", "-autoexit"),
    ("play", "-q"),
)


HELP = "convert bundled sounds with the bundled demo voice"
DESCRIPTION = (
    "Convert the bundled sounds (a person, a male and a female synthetic speaker, a sung glide) into each "
    "speaker of the bundled demo voice (small models), print the time of each stage, and write "
    "the sounds and one picture: spectrograms of sources, results and targets, with the pitch on top. "
    "The picture needs matplotlib (the extra plot)."
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("-o", "--output", default="demo_out", metavar="DIR", help="folder to write (demo_out)")
    p.add_argument(
        "--play",
        action="store_true",
        help="play each sound and what becomes of it, with a player of the system",
    )


def find_player() -> list[str]:
    """Return the command that plays a file; InputError if there is none."""
    for command in PLAYERS:
        if shutil.which(command[0]):
            return list(command)
    names = ", ".join(command[0] for command in PLAYERS)
    raise InputError(f"[demo] --play needs one of these programs, and none is on the PATH: {names}")


def play(player: list[str], path: Path) -> None:
    """Play a file to its end; RvcFastError says what the player said."""
    print(f"playing {path}", flush=True)
    done = subprocess.run([*player, str(path)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[:200]
        raise RvcFastError(f"[demo] {player[0]} could not play {path} (exit {done.returncode}): {said}")


def draw(path: Path, rows: list[list[Panel | None]]) -> str:
    """Write the picture of these rows of panels and return a line that says so, or says why there is none."""
    why = missing("plot", "matplotlib")
    if why is not None:
        return f"no picture, because {why}"
    from .. import writing
    from ..picture import png

    with writing.replacing(path, "demo") as (file, _):
        file.write(png(rows))
    return f"{path}: spectrograms, and the pitch as a line"


def run(args: argparse.Namespace) -> int:
    from ..audio import read_audio
    from ..converter import load
    from ..picture import Panel
    from ..resources import demo_dir

    player = find_player() if args.play else None
    out = Path(args.output)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"[demo] cannot write to {out}: {e.strerror}") from e
    demo = demo_dir()
    sounds = [
        demo / "sounds" / f"{name}.wav" for name in ("person", "speech_male", "speech_female", "sung_glide")
    ]
    speakers = json.loads((demo / "speakers.json").read_text())
    converter = load(demo / "voice.pth", embedder=demo / "embedder", pitch_model=demo / "rmvpe.pt")

    def heard(path: Path, title: str) -> Panel:
        """A sound of the demo with its own pitch."""
        samples, rate = read_audio(path)
        return Panel(title, samples.mean(axis=1), rate, converter.convert(path).f0)

    rows, order = [], []
    panels: list[list[Panel | None]] = []
    for sound in sounds:
        # This first conversion fills the caches of the processor, so that the timed ones below are like each other.
        line: list[Panel | None] = [heard(sound, f"source {sound.stem}")]
        order.append(sound)
        for number, speaker in enumerate(speakers):
            converter.forget()
            result: ConversionResult = converter.convert(
                sound, speaker=number, proposed_pitch=speaker["pitch_hz"]
            )
            path = out / f"{sound.stem}_{speaker['name']}.wav"
            result.save(path)
            stages = "  ".join(f"{stage} {seconds * 1e3:.0f}" for stage, seconds in result.timings.items())
            rows.append((str(path), f"{1 / result.realtime_factor:.1f}x", stages))
            line.append(Panel(f"result {speaker['name']}", result.samples, result.sample_rate, result.f0))
            order.append(path)
        panels.append(line)
    targets = [heard(demo / "sounds" / f"target_{s['name']}.wav", f"target {s['name']}") for s in speakers]
    show(table(("file", "faster than real time", "stages, ms"), rows))
    show(draw(out / "demo.png", [*panels, [None, *targets]]))
    if player is not None:
        for path in order:
            play(player, path)
    return 0
