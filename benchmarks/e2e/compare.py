"""rvc_fast against its peers in one run: same machine, inputs, weights, padding, chunks and number of threads.

    pip install '.[bench]'
    python -m benchmarks.e2e.compare --seconds 1,10,60 --against torch,onnxruntime --json results.jsonl

in the repository's root.

Full-size models with seeded weights (48 kHz v2 voice, HuBERT base, RMVPE) convert a synthetic sound; the peers are
our own PyTorch modules (benchmarks/peers), eager, compiled or in bfloat16, and ONNX Runtime on exports of them.
Every pair of outputs is compared before it is timed, and one that differs gets no number and status 1. Runs alternate:
ours, peer, ours, peer; a ratio is the peer's time by ours of the same pair. "direct" is ours with memory="low".
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from benchmarks.peers.sides import Arrays, Models, Ours, Side

SCHEMA = 1
TITLES = {
    "pitch": "mel + RMVPE",
    "features": "HuBERT",
    "latent": "text encoder + flow",
    "decoder": "decoder",
    "resblocks": "residual blocks (72 convolutions)",
    "convert": "whole conversion",
}
NETWORKS = ("pitch", "features", "latent", "decoder")
DEFAULT = ("torch", "onnxruntime", "direct")

# Idle threads of a runtime spin for a while after its work; the next run waits until they sleep.
PAUSE = 0.25


def synthetic_sound(seconds: float) -> np.ndarray:
    """Return something like a voice, (n,) float32 at 16 kHz: a gliding harmonic tone in syllables, and noise."""
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * 16000)) / 16000
    phase = 2 * np.pi * np.cumsum(160 + 40 * np.sin(2 * np.pi * 0.31 * t)) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 1.7 * t) + 0.4, 0, 1)
    return (0.2 * tone * syllables + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


class Work:
    """One sound as every stage sees it: the inputs of each chunk, from the stages before it run by us."""

    def __init__(self, seconds: float, ours: Ours):
        from rvc_fast import pipeline
        from rvc_fast.noise import SeededNoise
        from rvc_fast.pitch import f0 as pitch

        self.seconds, self._ours = seconds, ours
        self._sound = synthetic_sound(seconds)
        settings = pipeline.Settings()
        self._prepared = pipeline.prepare(self._sound, settings)
        features = pipeline.content_features(self._prepared, ours.hubert, ours.voice)
        contour = pipeline.estimate_pitch(self._prepared, ours.rmvpe, settings)
        bins, noise = pitch.coarse(contour), SeededNoise(0)
        self._latent: list[Arrays] = []
        self._f0: list[np.ndarray] = []
        for chunk, feats in zip(self._prepared.chunks, features, strict=True):
            frames = pipeline.chunk_frames(chunk, feats)
            phone = np.repeat(feats, 2, axis=0)[None, :frames]
            self._f0.append(contour[chunk.frames][None, :frames])
            drawn = noise.normal((1, ours.voice.config.inter_channels, frames))
            pitches = bins[chunk.frames][None, :frames].astype(np.int32)
            self._latent.append((phone, pitches, np.array([0]), np.array(drawn)))

    def inputs(self, stage: str) -> list[Arrays]:
        """The inputs of each chunk."""
        config = self._ours.voice.config
        if stage == "pitch":
            return [(self._prepared.padded,)]
        if stage == "features":
            return [(self._prepared.padded[chunk.samples],) for chunk in self._prepared.chunks]
        if stage == "latent":
            return self._latent
        if stage == "convert":
            return [(self._sound,)]
        rng = np.random.default_rng(1)
        frames = [f0.shape[1] for f0 in self._f0]
        if stage == "decoder":
            outputs = []
            for arrays, f0 in zip(self._latent, self._f0, strict=True):
                z = self._ours.outputs("latent", self._ours.prepare("latent", arrays)())[0]
                noise = rng.standard_normal((1, f0.shape[1] * config.hop, 1), dtype=np.float32)
                outputs.append((np.ascontiguousarray(z), arrays[2], f0, noise))
            return outputs
        stages, length, longest = [], 1, max(frames)
        for i, rate in enumerate(config.upsample_rates):
            length *= rate
            shape = (1, config.upsample_initial_channel >> (i + 1), longest * length)
            stages.append((length, rng.standard_normal(shape, dtype=np.float32)))
        return [tuple(np.ascontiguousarray(x[:, :, : n * up]) for up, x in stages) for n in frames]


def flops(models: Models, stage: str, chunks: list[Arrays]) -> int:
    """Count the work of a stage as PyTorch does it, convolutions by their taps, without doing it."""
    import copy

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    net = copy.deepcopy(models.stages[stage]).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for arrays in chunks:
            net(*(torch.from_numpy(a).to("meta") for a in arrays))
    return counter.get_total_flops()


def timed(runs: list[Callable[[], Any]]) -> float:
    """Return the seconds that all of `runs` take, one after the other."""
    import mlx.core as mx

    time.sleep(PAUSE)
    start = time.perf_counter()
    for run in runs:
        result = run()
        if isinstance(result, mx.array) or (isinstance(result, list) and isinstance(result[0], mx.array)):
            mx.eval(result)
        del result
    return time.perf_counter() - start


def percentiles(values: list[float]) -> list[float]:
    """Return p20, p50 and p80."""
    return [float(p) for p in np.percentile(values, (20, 50, 80))]


def in_ms(seconds: list[float]) -> dict[str, float]:
    low, middle, high = (round(1e3 * p, 3) for p in percentiles(seconds))
    return {"p20_ms": low, "p50_ms": middle, "p80_ms": high}


def fma_peak() -> float | None:
    """Return the GFLOP/s that this machine reaches in multiply-adds, the best of some tries."""
    from rvc_fast import native

    ext = native.ext()
    return None if ext is None else round(max(ext.fma_peak() for _ in range(5)) / 1e9, 1)


def agreement(stage: str, ours: Side, our_runs: list[Any], peer: Side, peer_runs: list[Any]) -> float:
    """Return the lowest SNR in dB of the peer's outputs against ours."""
    from rvc_fast.verify.golden import compare

    snr = []
    for our_run, peer_run in zip(our_runs, peer_runs, strict=True):
        got, want = ours.outputs(stage, our_run()), peer.outputs(stage, peer_run())
        snr += [compare(a, b)[0] for a, b in zip(got, want, strict=True)]
    return min(snr)


def measure(
    stage: str, work: Work, models: Models, ours: Ours, peers: list[Side], repeats: int
) -> dict[str, Any]:
    """Return the row of one stage: gate, then time."""
    from rvc_fast.ops import dispatch

    chunks = work.inputs(stage)
    our_runs = [ours.prepare(stage, arrays) for arrays in chunks]
    times: list[float] = []
    results: dict[str, Any] = {}
    for peer in peers:
        if stage not in peer.stages:
            continue
        progress(f"{work.seconds:g} s, {TITLES[stage]}, {peer.name}: comparing outputs")
        peer_runs = [peer.prepare(stage, arrays) for arrays in chunks]
        snr = agreement(stage, ours, our_runs, peer, peer_runs)
        bar = peer.bar(stage)
        result: dict[str, Any] = {"dtype": peer.dtype, "snr_db": round(snr, 1), "bar_db": bar}
        results[peer.name] = result
        if bar is not None and not snr >= bar:
            continue
        pairs = []
        for i in range(repeats):
            progress(f"{work.seconds:g} s, {TITLES[stage]}, {peer.name}: pair {i + 1} of {repeats}")
            pairs.append((timed(our_runs), timed(peer_runs)))
        times += [a for a, _ in pairs]
        low, middle, high = (round(p, 3) for p in percentiles([b / a for a, b in pairs]))
        result |= in_ms([b for _, b in pairs]) | {"ratio": middle, "ratio_p20": low, "ratio_p80": high}
        del peer_runs
    parts = [(name, work.inputs(name)) for name in NETWORKS] if stage == "convert" else [(stage, chunks)]
    row: dict[str, Any] = {
        "suite": "compare",
        "name": stage,
        "seconds": work.seconds,
        "dtype": ours.dtype,
        "backend": dispatch.route("conv1d").backend,
        "gflop": round(sum(flops(models, name, arrays) for name, arrays in parts) / 1e9, 1),
        "fma_peak_gflops": fma_peak(),
        "peers": results,
    }
    if times:
        row |= in_ms(times) | {"rtf": round(percentiles(times)[1] / work.seconds, 4)}
    return row


def progress(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def processor() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def machine(threads: int) -> dict[str, Any]:
    """What the numbers depend on."""
    from rvc_fast import native

    root = Path(__file__).parent
    git = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    commit = subprocess.run(git, cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    packages = ("rvc-fast", "mlx", "torch", "onnxruntime", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    ext = native.ext()
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "chip": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "isa": None if ext is None else ext.isa(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit or None,
    }


def print_row(row: dict[str, Any]) -> None:
    """Print ours, then every peer: seconds with their spread, share of the peak, ratio, agreement."""
    peak = row["fma_peak_gflops"]

    def line(name: str, times: dict[str, Any], rest: str) -> None:
        low, middle, high = (times[f"p{p}_ms"] / 1e3 for p in (20, 50, 80))
        share = f"{row['gflop'] / middle / peak:4.0%} of peak" if peak else ""
        print(f"  {name:14} {middle:7.3f} s ({low:.3f}-{high:.3f})  {share}  {rest}")

    about = [f"{TITLES[row['name']]}, {row['seconds']:g} s of sound", f"{row['gflop']:.0f} GFLOP"]
    about += [f"FMA peak {peak:.0f} GFLOP/s"] if peak else []
    print("\n" + ", ".join([*about, "load {} to {}".format(*row["load"])]))
    if "p50_ms" in row:
        line("rvc_fast", row, f"{1 / row['rtf']:.2f} x real time")
    for name, peer in row["peers"].items():
        bar = "not held to a bar" if peer["bar_db"] is None else f"bar {peer['bar_db']:.0f} dB"
        agreement = f"SNR {peer['snr_db']:.1f} dB, {bar}"
        if "p50_ms" not in peer:
            print(f"  {name:14} outputs differ, not timed: {agreement}")
            continue
        spread = f"({peer['ratio_p20']:.2f}-{peer['ratio_p80']:.2f})"
        line(name, peer, f"ratio {peer['ratio']:.2f} {spread}, {agreement}")
    sys.stdout.flush()


def names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """Parse a list with commas of known names."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return chosen

    return parse


def durations(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"not numbers: {text!r}") from None
    if not all(0.1 <= value <= 3600 for value in values):
        raise argparse.ArgumentTypeError(f"must be from 0.1 to 3600, got {text!r}")
    return values


def count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1024, got {text!r}")
    return int(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="rvc_fast against its peers in one run.")
    known = ("torch", "torch-bf16", "torch-compile", "onnxruntime", "direct")
    add = parser.add_argument
    add("--seconds", type=durations, default=[10.0], help="lengths of sound, such as 1,10,60 (default 10)")
    add(
        "--against",
        type=names(known),
        default=DEFAULT,
        help=f"of {', '.join(known)} (default {','.join(DEFAULT)})",
    )
    add("--stages", type=names(tuple(TITLES)), default=list(TITLES), help=f"of {', '.join(TITLES)}")
    add("--repeats", type=count, default=5, help="pairs of runs of each row (default 5)")
    add("--threads", type=count, help="of both sides (default: all usable cores)")
    add("--json", type=Path, metavar="FILE", help="append one JSON line per row")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    if args.threads is not None:
        os.environ["RVC_FAST_THREADS"] = str(args.threads)
    missing = [name for name in ("torch", "onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"compare: {', '.join(missing)} missing: pip install '.[bench]'", file=sys.stderr)
        return 2
    if args.json is not None:
        try:
            args.json.open("a").close()
        except OSError as e:
            print(f"compare: cannot write {args.json}: {e.strerror}", file=sys.stderr)
            return 2
    import torch
    from benchmarks.peers import sides

    from rvc_fast import native

    ext = native.ext()
    threads = ext.threads() if ext is not None else args.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    about = machine(threads)
    print(f"{about['chip']}, {threads} threads, {about['isa']}, {about['os']}, commit {about['commit']}")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()), flush=True)

    load = os.getloadavg()[0]
    if load > 0.3:
        print(f"the machine is busy (load {load:.1f}): these numbers are not to be quoted", flush=True)

    progress("making models")
    models = sides.Models()
    ours = sides.Ours(models)
    peers = [sides.PEERS[name](models) for name in args.against]
    red = False
    for seconds in args.seconds:
        work = Work(seconds, ours)
        for stage in args.stages:
            before = os.getloadavg()[0]
            row = measure(stage, work, models, ours, peers, args.repeats)
            row["load"] = [round(before, 2), round(os.getloadavg()[0], 2)]
            print_row(row)
            red = red or any("p50_ms" not in peer for peer in row["peers"].values())
            if args.json is not None:
                with args.json.open("a") as file:
                    file.write(json.dumps({**about, **row}) + "\n")
    return int(red)


if __name__ == "__main__":
    sys.exit(main())
