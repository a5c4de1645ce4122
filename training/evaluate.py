"""What a voice is worth, by ear-like measures: a table, for the demo voice or any other.

    python -m training.evaluate [--voice V --embedder E --pitch-model P] [--target SPEAKER.wav ...]

Held-out espeak-ng voices are converted to every speaker of the voice by the engine. Printed are: the
phoneme error of the result, by a recogniser that shares nothing with the encoder (and of the sources, for
comparison); at constant f0, the share of the voiced energy between 1.5 and 3 kHz on harmonics, and on the
100 Hz comb; correlation and median error of the result's f0 (Praat in two passes, the second from 3/4 of
the first one's lower quartile to 3/2 of its upper; for the result also in one pass from 60 to 600 Hz)
against the source's, transposed; the distance of the long-term spectra of result and target; size; and the
speed of a conversion of 10 s. Targets are the voices that the demo voice was trained on, or one
recording per speaker.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import soxr

import rvc_fast
from rvc_fast.audio import read_audio
from rvc_fast.resources import demo_dir

from . import content, measures, people, words
from .corpus import PITCH_FRAME, RATE, Corpus, build, praat_f0, praat_f0_twice
from .plan import FULL, HELD_OUT, PLANS, SPEAKERS, Plan

# Constant f0 of the harmonic test, Hz.
PROBE_HZ = (123.0, 137.0, 223.0)
BARS = {
    "phoneme error": "<= 0.12",
    "harmonic share": ">= 0.6",
    "comb share": "<= 0.2",
    "f0 correlation": ">= 0.95",
    "f0 error, cents": "<= 15",
    "spectrum distance, dB": "<= 1.5",
    "size, MB": "<= 20",
    "times real time": ">= 15",
}


def _semitones(source: float, target: float) -> int:
    return round(12 * np.log2(target / source))


def _median(f0: np.ndarray) -> float:
    return float(np.median(f0[f0 > 0]))


def _long_term(sounds: list[np.ndarray], rate: int) -> np.ndarray:
    return measures.long_term_spectrum(np.concatenate(sounds), rate)


def _agreement(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """`measures.pitch_agreement` of all sentences together."""
    want, got = (np.concatenate([pair[k][: min(map(len, pair))] for pair in pairs]) for k in (0, 1))
    return measures.pitch_agreement(want, got)


def targets(corpus: Corpus, recordings: list[Path]) -> list[tuple[str, np.ndarray]]:
    """Return (name, sound at 16 kHz) of every target."""
    if not recordings:
        return [
            (name, np.concatenate([corpus.utterance(int(i)) for i in np.flatnonzero(corpus.voice == voice)]))
            for name, voice in SPEAKERS.items()
        ]
    found = []
    for path in recordings:
        samples, rate = read_audio(path)
        found.append((path.stem, soxr.resample(samples.mean(axis=1), rate, RATE).astype(np.float32)))
    return found


def speed(converter: rvc_fast.Converter, sound: np.ndarray) -> float:
    """Return how many times faster than real time 10 s are converted: the best of five runs after one."""
    ten = np.resize(sound, 10 * RATE)
    times = []
    for _ in range(6):
        converter.forget()
        began = time.perf_counter()
        converter.convert(ten, sample_rate=RATE)
        times.append(time.perf_counter() - began)
    return 10 / min(times[1:])


def evaluate(
    converter: rvc_fast.Converter,
    recogniser: content.Recogniser,
    test: Corpus,
    wanted: list[tuple[str, np.ndarray]],
    files: list[Path],
) -> dict[str, Any]:
    """Return the table as {measure: value, or {speaker: value}}."""
    rate = converter.voice.sample_rate
    each = len(test) // len(HELD_OUT)
    sources = [test.utterance(i) for i in range(len(test))]
    pitches = [praat_f0_twice(s, RATE, len(s) // PITCH_FRAME) for s in sources]
    medians = [
        _median(np.concatenate(pitches[k * each : (k + 1) * each]))
        for k in range(len(HELD_OUT))
        for _ in range(each)
    ]
    rows: dict[str, dict[str, float]] = {}
    results: dict[str, list[np.ndarray]] = {}
    for speaker, (name, target) in enumerate(wanted):
        target_f0 = praat_f0(target, RATE, len(target) // PITCH_FRAME)
        results[name], contours, wide, shares = [], [], [], []
        for i, source in enumerate(sources):
            semitones = _semitones(medians[i], _median(target_f0))
            result = converter.convert(source, sample_rate=RATE, speaker=speaker, transpose=semitones, seed=i)
            results[name].append(soxr.resample(result.samples, rate, RATE).astype(np.float32))
            wanted_f0, frames = pitches[i] * 2 ** (semitones / 12), len(result.samples) * 100 // rate
            contours.append((wanted_f0, praat_f0_twice(result.samples, rate, frames)))
            wide.append((wanted_f0, praat_f0(result.samples, rate, frames)))
            if i % each == 0:
                for hertz in PROBE_HZ:
                    voiced = pitches[i] > 0
                    flat = np.where(voiced, hertz, 0).astype(np.float32)
                    sung = converter.convert(source, sample_rate=RATE, speaker=speaker, f0=flat, seed=i)
                    shares.append(measures.line_shares(sung.samples, rate, hertz, voiced))
            converter.forget()
        correlation, cents = _agreement(contours)
        harmonic, comb = np.nanmean(shares, axis=0)
        spectrum = _long_term([target], RATE)
        rows[name] = {
            "phoneme error": content.phoneme_error(recogniser, test, results[name]),
            "harmonic share": float(harmonic),
            "comb share": float(comb),
            "f0 correlation": correlation,
            "f0 correlation, results from 60 to 600 Hz": _agreement(wide)[0],
            "f0 error, cents": cents,
            "spectrum distance, dB": measures.spectrum_distance(_long_term(results[name], RATE), spectrum),
            "spectrum distance of the source, dB": measures.spectrum_distance(
                _long_term(sources, RATE), spectrum
            ),
        }
    return {
        "speakers": rows,
        "phoneme error": float(np.mean([row["phoneme error"] for row in rows.values()])),
        "phoneme error of the source": content.phoneme_error(recogniser, test),
        "size, MB": sum(f.stat().st_size for f in files) / 1e6,
        "times real time": speed(converter, np.concatenate(sources)),
    }


_worker: tuple[rvc_fast.Converter, dict[str, float]]


def _begin(models: tuple[Path, Path, Path], medians: dict[str, float]) -> None:
    """Set up a worker process: the models, and each speaker's median pitch."""
    global _worker
    _worker = rvc_fast.load(models[0], embedder=models[1], pitch_model=models[2]), medians


def _hear(task: tuple[int, people.Recording]) -> dict[str, tuple[list[str], np.ndarray, np.ndarray]]:
    """Return, for the source and every speaker, the words heard, the f0 that is wanted, and that of the result."""
    number, recording = task
    converter, medians = _worker
    source = people.sound(recording)
    f0 = praat_f0_twice(source, RATE, len(source) // PITCH_FRAME)
    found = {"source": (words.heard(source, RATE), f0, f0)}
    for speaker, (name, median) in enumerate(medians.items()):
        semitones = _semitones(_median(f0), median)
        result = converter.convert(
            source, sample_rate=RATE, speaker=speaker, transpose=semitones, seed=number
        )
        frames = len(result.samples) * 100 // result.sample_rate
        got = praat_f0_twice(result.samples, result.sample_rate, frames)
        found[name] = words.heard(result.samples, result.sample_rate), f0 * 2 ** (semitones / 12), got
    converter.forget()
    return found


def on_people(
    models: tuple[Path, Path, Path], wanted: list[tuple[str, np.ndarray]], recordings: list[people.Recording]
) -> dict[str, Any]:
    """Return word errors, and how well f0 is followed, on recordings of people; what is heard is printed.

    Word error is that of pocketsphinx over all recordings of a person, then the mean of the persons. `models`: voice,
    content encoder and pitch model.
    """
    medians = {name: _median(praat_f0(sound, RATE, len(sound) // PITCH_FRAME)) for name, sound in wanted}
    context = multiprocessing.get_context("spawn")
    with context.Pool(initializer=_begin, initargs=(models, medians)) as pool:
        found = []
        for recording, one in zip(recordings, pool.imap(_hear, list(enumerate(recordings))), strict=True):
            found.append(one)
            print(f"{recording.person}, {recording.path.stem}: {recording.text}", flush=True)
            for name, (heard, _, _) in one.items():
                print(f"  {name}: {' '.join(heard)}", flush=True)
    persons = list(dict.fromkeys(r.person for r in recordings))
    rows: dict[str, dict[str, float]] = {}
    for name in ["source", *medians]:
        wrong, total = dict.fromkeys(persons, 0), dict.fromkeys(persons, 0)
        for recording, one in zip(recordings, found, strict=True):
            want = words.plain(recording.text)
            wrong[recording.person] += words.errors(want, one[name][0])
            total[recording.person] += len(want)
        row = {person: wrong[person] / total[person] for person in persons}
        row["mean of the persons"] = float(np.mean(list(row.values())))
        row["all words"] = sum(wrong.values()) / sum(total.values())
        if name != "source":
            pairs = [one[name][1:] for one in found]
            row["f0 correlation"], row["f0 error, cents"] = _agreement(pairs)
        rows[name] = row
    return {"recordings": len(recordings), "words": sum(total.values()), "rows": rows}


def people_table(found: dict[str, Any]) -> str:
    """Return the result of `on_people` as a Markdown table."""
    rows = found["rows"]
    names = [name for name in rows if name != "source"]
    lines = [
        f"{found['recordings']} recordings, {found['words']} words",
        f"| word error on people | source | {' | '.join(names)} | mean of the speakers |",
        "|---" * (len(names) + 3) + "|",
    ]
    for what in rows[names[0]]:
        values = [rows[name][what] for name in names]
        own = f"{rows['source'][what]:.3f}" if what in rows["source"] else ""
        lines.append(f"| {what} | {own} | {' | '.join(f'{v:.3f}' for v in values)} | {np.mean(values):.3f} |")
    return "\n".join(lines)


def table(found: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    names = list(found["speakers"])
    lines = [f"| what | {' | '.join(names)} | bar |", "|---" * (len(names) + 2) + "|"]
    for what in next(iter(found["speakers"].values())):
        values = " | ".join(f"{found['speakers'][name][what]:.3f}" for name in names)
        lines.append(f"| {what} | {values} | {BARS.get(what, '')} |")
    for what, value in found.items():
        if what not in ("speakers", "people"):
            lines.append(f"| {what} | {value:.3f} |{' |' * (len(names) - 1)} {BARS.get(what, '')} |")
    return "\n".join(lines)


def files_of(*models: Path) -> list[Path]:
    """Return the files of models that are files or folders."""
    return [f for m in models for f in (sorted(m.iterdir()) if m.is_dir() else [m])]


def main() -> int:
    demo = demo_dir()
    parser = argparse.ArgumentParser(description="Measure a voice by ear-like measures.")
    parser.add_argument("--voice", type=Path, default=demo / "voice.pth")
    parser.add_argument("--embedder", type=Path, default=demo / "embedder")
    parser.add_argument("--pitch-model", type=Path, default=demo / "rmvpe.pt")
    parser.add_argument(
        "--target", type=Path, action="append", default=[], help="a recording per speaker, in order"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/training"), help="where the recogniser is, or is put"
    )
    parser.add_argument("--plan", choices=PLANS, default=FULL.name)
    parser.add_argument("--people", action="store_true", help="only the words and pitch of people")
    parser.add_argument("--sentences", type=int, help="of each held-out voice (all that the plan has)")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    plan: Plan = PLANS[args.plan]
    folder = args.work / plan.name
    needed = ("test_target",) if args.people else ("test_target", "test", "recogniser")
    corpora = build(plan, folder / "data", needed)
    if not args.people:
        recogniser = content.train_recogniser(plan, corpora["recogniser"], corpora["test"], folder)
    converter = rvc_fast.load(args.voice, embedder=args.embedder, pitch_model=args.pitch_model)
    files = files_of(args.voice, args.embedder, args.pitch_model)
    wanted = targets(corpora["test_target"], args.target)
    found = {
        "people": on_people(
            (args.voice, args.embedder, args.pitch_model), wanted, people.shortest(plan.people)
        )
    }
    print(people_table(found["people"]))
    if not args.people:
        test = corpora["test"]
        each = len(test) // len(HELD_OUT)
        if args.sentences:
            test = test.part([i for i in range(len(test)) if i % each < args.sentences])
        found |= evaluate(converter, recogniser, test, wanted, files)
        print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
