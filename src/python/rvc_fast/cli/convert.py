"""rvc-fast convert: sounds in, converted sounds out."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..journal import Journal
from ..notes import printable
from ..settings import ABOUT, About, options
from ..workers import workers
from .common import describe, note, peak_memory_mb, print_json, progress_wanted, show_traceback, tell

if TYPE_CHECKING:
    from ..converter import ConversionResult, Converter

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".aac", ".opus", ".aif", ".aiff")

JOURNAL = "rvc-fast.jsonl"

HELP = "convert sounds into another voice"
DESCRIPTION = (
    "Convert one or more sounds, or every sound of a folder, into another voice. The models are "
    "loaded once; a sound that fails does not stop the others."
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("inputs", nargs="+", metavar="IN", help="sound files or folders; - for WAV on stdin")
    p.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a file, a folder (several inputs), or - for WAV on stdout",
    )
    p.add_argument(
        "--format",
        choices=("wav", "flac", "ogg", "mp3"),
        help="kind of file written into a folder (default: wav)",
    )
    p.add_argument(
        "--strict",
        action="store_true",
        help="refuse a sound that ends before its header says so, instead of a warning",
    )
    p.add_argument(
        "--resume",
        action="store_true",
        help="into a folder: leave out what an earlier run with --resume has done there, of the same sounds, models "
        f"and settings; OUT/{JOURNAL} says of every sound what became of it",
    )
    p.add_argument("--json", action="store_true", help="print results, timings and peak memory as JSON")

    g = p.add_argument_group("models")
    g.add_argument("-m", "--voice", metavar="FILE", help="voice .pth or packed; default: the demo voice")
    g.add_argument("--embedder", metavar="FILE", help="HuBERT/ContentVec; default: the pulled contentvec")
    g.add_argument("--pitch-model", metavar="FILE", help="RMVPE; default: the pulled rmvpe")
    g.add_argument("--index", metavar="FILE", help="faiss .index of the voice")
    g.add_argument(
        "--memory",
        choices=("normal", "low"),
        default="normal",
        help="low: keep no second copy of the weights in the kernels' layout, which is slower (default: normal)",
    )
    g.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "int8", "bfloat16x2"),
        default="float32",
        help="float16, bfloat16: half the memory and less accurate, on a GPU; bfloat16x2, bfloat16, "
        "int8: faster and less accurate, on CPUs that have the instructions; bfloat16x2 by far the least (default: float32)",
    )
    g.add_argument(
        "--device", choices=("cpu", "gpu"), help="where to work (MLX's default: the GPU if there is one)"
    )

    groups = {"voice": g, "pitch": p.add_argument_group("pitch"), "sound": p.add_argument_group("sound")}
    for name, about in ABOUT.items():
        _add_setting(groups[about.group], name, about)
    groups["pitch"].add_argument(
        "--f0-file",
        metavar="FILE",
        help="pitch contour to use: lines of seconds,hertz (README: what it reads)",
    )


def _add_setting(group: argparse._ArgumentGroup, name: str, about: About) -> None:
    """Add the option of a setting; it is None if it is not given."""
    flags = options(name)
    if about.value is False:
        group.add_argument(*flags, dest=name, action="store_true", default=None, help=about.help)
        return

    def parse(text: str) -> str | int | float:
        try:
            return about.parse(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {about.expected}, got {text!r}") from None

    shown = about.metavar or "{" + ",".join(about.choices) + "}"
    text = about.help if about.value is None else f"{about.help} (default: {about.default})"
    group.add_argument(*flags, dest=name, type=parse, metavar=shown, help=text)


def _into_folder(inputs: list[str], output: str) -> bool:
    named = output.endswith(("/", os.sep)) or os.path.isdir(output)
    return named or len(inputs) > 1 or os.path.isdir(inputs[0])


def _sounds(root: str, output: str) -> tuple[list[Path], list[tuple[str, str]]]:
    """Return the sounds below a folder, and (path, why) of what cannot be looked into.

    Hidden files are none (among them are those that somebody is just writing), nor is what lies in the output folder.
    """
    from ..writing import reason

    ours = os.path.realpath(output)
    found: list[Path] = []
    errors: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=errors.append):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(folder, name)) != ours
        ]
        for file in (Path(folder, name) for name in names if not name.startswith(".")):
            # A link that leads nowhere is a sound that cannot be read, and is said to be one.
            if file.suffix.lower() in SUFFIXES and (os.path.isfile(file) or not os.path.exists(file)):
                found.append(file)
    broken = [(os.fsdecode(error.filename), f"[convert] cannot read it: {reason(error)}") for error in errors]
    return sorted(found), broken


def _jobs(inputs: list[str], output: str, suffix: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pair every input sound with its output, and say what cannot be looked into (path, why).

    InputError for a mistake that is found before anything runs.
    """
    from ..errors import InputError
    from ..writing import shown

    if not _into_folder(inputs, output):
        if output != "-" and not Path(output).suffix:
            raise InputError(
                f"[convert] OUT must be a file with a suffix such as .wav, a folder that exists, or a new one with a / at "
                f"its end, got {shown(output)}"
            )
        return [(inputs[0], output)], []
    if output == "-" or "-" in inputs:
        raise InputError("[convert] - stands for one sound: give one input and one output with it")
    must = "[convert] OUT must be a folder for several inputs, for a folder, and with a / at its end"
    if os.path.exists(output) and not os.path.isdir(output):
        raise InputError(f"{must}, got the file {shown(output)}")
    if Path(output).suffix.lower() in SUFFIXES and not os.path.isdir(output):
        raise InputError(f"{must}, got a sound's name, {shown(output)}")
    jobs: list[tuple[str, str]] = []
    broken: list[tuple[str, str]] = []
    for name in inputs:
        root = Path(name)
        if root.is_dir():
            found, unread = _sounds(name, output)
            if not found and not unread:
                raise InputError(f"[convert] folder {shown(name)} holds no sound ({', '.join(SUFFIXES)})")
            broken += unread
            pairs = [(f, f.relative_to(root)) for f in found]
        else:
            pairs = [(root, Path(root.name))]
        jobs += [(str(f), str(Path(output) / to.with_suffix("." + suffix))) for f, to in pairs]
    return jobs, broken


def _check_targets(jobs: list[tuple[str, str]], output: str | None, models: list[str]) -> None:
    """Find out before the work what would go wrong after it.

    Args:
        jobs: (source, target) of every sound.
        output: the folder that all targets lie in, made if need be; None if the one target was named itself.
        models: the other files that the work reads.
    """
    from ..audio.files import check_writable
    from ..writing import identities, identity

    read = identities([*models, *(source for source, _ in jobs if source != "-")])
    _check_apart(jobs, os.path.normpath)  # by their names, before a folder is made for them
    if output is not None:
        for folder in dict.fromkeys(os.path.dirname(target) for _, target in jobs):
            _make_folder(folder, output)
    _check_apart(jobs, identity)
    for source, target in jobs:
        check_writable(target, read, result_of=source, named=output is None)


def _check_apart(jobs: list[tuple[str, str]], place: Callable[[str], object]) -> None:
    """InputError if two sounds have one target, by what `place` says of it."""
    from ..errors import InputError
    from ..writing import shown

    sources: dict[object, str] = {}
    for source, target in jobs:
        there = place(target)
        if there in sources:
            raise InputError(
                f"[convert] {shown(sources[there])} and {shown(source)} would both be written to {shown(target)}: "
                "rename one of them, or convert them one by one"
            )
        sources[there] = source


def _make_folder(folder: str, output: str) -> None:
    """Make a folder for results, which must lie in `output`, not behind a link."""
    from ..errors import InputError
    from ..writing import reason, shown

    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as e:
        raise InputError(f"[convert] cannot write to {shown(folder)}: {reason(e)}") from e
    inside = os.path.commonpath([os.path.realpath(output), os.path.realpath(folder)])
    if inside != os.path.realpath(output):
        raise InputError(f"[convert] {shown(folder)} is a link to a folder outside {shown(output)}")


def _models(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `load`: the user's files, or the bundled demo models for all three."""
    if args.voice is not None:
        return {
            "voice": args.voice,
            "embedder": args.embedder,
            "pitch_model": args.pitch_model,
            "index": args.index,
        }
    from ..resources import demo_dir

    demo = demo_dir()
    return {
        "voice": demo / "voice.pth",
        "embedder": args.embedder or demo / "embedder",
        "pitch_model": args.pitch_model or demo / "rmvpe.pt",
        "index": args.index,
    }


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of `Converter.convert`, of the same names."""
    given = {name: getattr(args, name) for name in ABOUT}
    settings = {name: about.value if given[name] is None else given[name] for name, about in ABOUT.items()}
    return {**settings, "f0_file": args.f0_file, "strict": args.strict}


# Options that nothing would come of without a folder to write to, an index, a voice that follows the pitch.
_OF_FOLDERS = ("format", "resume")
_OF_INDEXES = ("index_rate", "exact_search", "protect")
_OF_PITCH = (
    *(name for name, about in ABOUT.items() if about.group == "pitch"),
    "f0_file",
    "pitch_model",
    "protect",
)


def _refuse(args: argparse.Namespace, names: tuple[str, ...], needed: str) -> None:
    """InputError if one of these options was given, which `needed` is missing for."""
    from ..errors import InputError

    for name in names:
        if getattr(args, name) is not None and getattr(args, name) is not False:
            flag = options(name)[-1] if name in ABOUT else f"--{name.replace('_', '-')}"
            raise InputError(f"[convert] {flag} needs {needed}")


class _Bar:
    """A progress bar over the stages of one conversion; `pipeline.Progress`."""

    def __init__(self, title: str):
        from tqdm import tqdm

        self._bar = tqdm(total=1, desc=title, leave=False, bar_format="{desc} |{bar}| {postfix} {elapsed}")
        self._title = title

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.n = done
        self._bar.set_postfix_str(stage)

    def close(self) -> None:
        self._bar.close()


# What an MP3 can be sampled at; the 40 kHz of many voices is not among it.
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def _convert(
    converter: Converter, source: str, target: str, options: dict[str, Any], show_bar: bool
) -> ConversionResult:
    rate = options["output_rate"] or converter.voice.sample_rate
    if target.lower().endswith(".mp3") and options["output_rate"] is None and rate not in _MP3_RATES:
        options = {**options, "output_rate": 44100}
    bar = _Bar("stdin" if source == "-" else printable(Path(source).name)) if show_bar else None
    try:
        result = converter.convert(source, progress=bar, **options)
    finally:
        if bar is not None:
            bar.close()
    result.save(target)
    return result


def _report(source: str, target: str, result: ConversionResult, seconds: float) -> dict[str, Any]:
    return {
        "input": source,
        "output": target,
        "ok": True,
        "sample_rate": result.sample_rate,
        "sound_seconds": round(result.duration, 3),
        "seconds": round(seconds, 4),
        "times_realtime": round(result.duration / seconds, 2),
        "stages": {stage: round(s, 4) for stage, s in result.timings.items()},
    }


def _kernels(converter: Converter) -> dict[str, str | None]:
    """Return the files that the models' packed weights came from, None for those packed while loading."""
    models = {"voice": converter.voice, "embedder": converter.embedder, "pitch_model": converter.pitch_model}
    files = {name: getattr(model, "kernels", None) for name, model in models.items()}
    return {name: None if file is None else str(file) for name, file in files.items()}


def run(args: argparse.Namespace) -> int:
    from ..errors import InputError
    from ..writing import shown

    if args.json and args.output == "-":
        raise InputError("[convert] --json and -o - would both write to stdout")
    folder = args.output if _into_folder(args.inputs, args.output) else None
    if folder is None:
        _refuse(args, _OF_FOLDERS, f"a folder as OUT, got {shown(args.output)}")
    if args.index is None:
        _refuse(args, _OF_INDEXES, "an index: give --index with it")
    wanted = _options(args)
    jobs, broken = _jobs(args.inputs, args.output, args.format or "wav")
    models = _models(args)
    read = [str(f) for f in (*models.values(), args.f0_file) if f is not None]
    _check_targets(jobs, folder, read)

    from ..converter import load

    start = time.perf_counter()
    converter = load(**models, memory=args.memory, dtype=args.dtype, device=args.device)
    load_seconds = time.perf_counter() - start
    if not converter.voice.config.use_f0:
        _refuse(args, _OF_PITCH, "a voice that follows the pitch of its input, which this one does not")
    if args.voice is None:
        note(args, "rvc-fast: no -m VOICE given, using the demo voice that comes with rvc_fast")

    with contextlib.ExitStack() as stack:
        journal = None
        if args.resume:
            journal = stack.enter_context(Journal(Path(args.output, JOURNAL), (wanted, args.dtype), read))
        # The first sound is read while a GPU's kernels are compiled.
        worker = stack.enter_context(workers(1))
        warming = worker.submit(converter.warm)
        reports, code = _convert_all(args, converter, jobs, broken, wanted, journal)
    failed = [r for r in reports if not r["ok"]]
    if len(reports) > 1:
        before = sum("before" in r for r in reports)
        earlier = f", {before} of them before" if before else ""
        note(args, f"{len(reports) - len(failed)} of {len(reports)} converted{earlier}")
    if args.json:
        print_json(
            {
                "files": reports,
                "converted": len(reports) - len(failed),
                "failed": len(failed),
                "device": converter.device,
                "load_seconds": round(load_seconds, 4),
                "kernels": _kernels(converter),
                "peak_memory_mb": round(peak_memory_mb(), 1),
            }
        )
    warming.result()  # raises what was raised there, once the reports are out
    return code


def _convert_all(
    args: argparse.Namespace,
    converter: Converter,
    jobs: list[tuple[str, str]],
    broken: list[tuple[str, str]],
    options: dict[str, Any],
    journal: Journal | None,
) -> tuple[list[dict[str, Any]], int]:
    """Convert every job and return a report of each and the exit code; a sound that fails does not stop the others.

    broken: (path, reason) of inputs that cannot even be tried.
    """
    from ..errors import InputError

    reports: list[dict[str, Any]] = []
    code = 0

    def fail(source: str, target: str | None, error: str, failed_with: int, seconds: float = 0.0) -> None:
        nonlocal code
        code = max(code, failed_with)
        reports.append({"input": source, "output": target, "ok": False, "error": " ".join(error.split())})
        tell(f"rvc-fast: {source}: {reports[-1]['error']}")
        if journal is not None:
            journal.add(source, target, seconds, reports[-1]["error"])

    for path, why in broken:
        fail(path, None, why, 2)
    for source, target in jobs:
        if journal is not None and journal.has(source, target):
            reports.append({"input": source, "output": target, "ok": True, "before": True})
            continue
        start = time.perf_counter()
        try:
            result = _convert(converter, source, target, options, progress_wanted(args))
        except Exception as e:  # whatever it is, it must not end the others
            if args.debug:
                show_traceback()
            code_of_it = 2 if isinstance(e, InputError | OSError) else 1
            fail(source, target, describe(e), code_of_it, time.perf_counter() - start)
            converter.forget()
            continue
        reports.append(_report(source, target, result, time.perf_counter() - start))
        if journal is not None:
            journal.add(source, target, time.perf_counter() - start)
        r = reports[-1]
        note(
            args,
            f"{source} -> {target}: {r['sound_seconds']:.1f} s of sound in {r['seconds']:.2f} s "
            f"({r['times_realtime']:.1f} times real time)",
        )
    return reports, code
