"""rvc-fast demo: hear the engine work, with nothing to download."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import table

if TYPE_CHECKING:
    import numpy as np

    from ..converter import ConversionResult


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    p = commands.add_parser(
        "demo",
        parents=[common],
        help="convert a bundled sound with the bundled demo voice",
        description="Convert a bundled spoken sound into each speaker of the bundled demo voice (small models "
        "trained on synthetic speech), print the time of each stage, and draw the spectrograms.",
    )
    p.add_argument("-o", "--output", default="demo_out", metavar="DIR", help="folder to write (demo_out)")
    p.set_defaults(run=run)


def _panel(axes: Any, samples: np.ndarray, rate: int, f0: np.ndarray | None, title: str) -> None:
    import numpy as np

    seconds = len(samples) / rate
    axes.specgram(samples, NFFT=1024, Fs=rate, noverlap=768, cmap="magma", vmin=-140, vmax=-30)
    axes.set(title=title, ylabel="Hz", ylim=(0, 8000), xlim=(0, seconds))
    if f0 is None:
        return
    contour = axes.twinx()
    contour.plot(np.arange(len(f0)) / 100, np.where(f0 > 0, f0, np.nan), color="cyan", linewidth=1.6)
    contour.set(ylabel="f0, Hz", ylim=(0, 600), xlim=(0, seconds))


def _draw(
    path: Path,
    source: tuple[np.ndarray, int],
    results: dict[str, ConversionResult],
    source_f0: np.ndarray | None,
) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.6 * (1 + len(results))), layout="constrained")
    axes = figure.subplots(1 + len(results), 1)
    _panel(axes[0], *source, source_f0, "input")
    for panel, (name, result) in zip(axes[1:], results.items(), strict=True):
        _panel(panel, result.samples, result.sample_rate, result.f0, f"converted to {name}")
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=110)


def run(args: argparse.Namespace) -> int:
    from ..audio import read_audio
    from ..converter import load
    from ..errors import InputError
    from ..resources import demo_dir

    out = Path(args.output)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"[demo] cannot write to {out}: {e.strerror}") from e
    demo = demo_dir()
    converter = load(demo / "voice.pth", embedder=demo / "embedder", pitch_model=demo / "rmvpe.pt")
    sound = demo / "sounds" / "speech_male.wav"
    samples, rate = read_audio(sound)
    speakers = range(converter.voice.config.spk_embed_dim)
    # The first conversion in a process also warms caches up; the sound is converted once before it is timed.
    converter.convert(samples, sample_rate=rate)
    converter.forget()

    results: dict[str, ConversionResult] = {}
    rows = []
    for speaker in speakers:
        name = f"speaker {speaker}"
        result = converter.convert(sound, speaker=speaker, proposed_pitch="female" if speaker != 1 else None)
        path = out / f"{sound.stem}_speaker{speaker}.wav"
        result.save(path)
        results[name] = result
        stages = "  ".join(f"{stage} {seconds * 1e3:.0f}" for stage, seconds in result.timings.items())
        rows.append((str(path), f"{1 / result.realtime_factor:.1f}x", stages))
        converter.forget()
    print(table(("file", "faster than real time", "stages, ms"), rows))
    try:
        _draw(out / "demo.png", (samples.mean(axis=1), rate), results, results["speaker 1"].f0)
        print(f"{out / 'demo.png'}: spectrograms and f0")
    except ImportError:
        print("no picture: matplotlib is not installed (pip install 'rvc-fast[demo]')")
    return 0
