"""rvc-fast bench: numbers that can be trusted, reproduced and compared across chips."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..env import BACKENDS
from .common import note, number, progress_wanted, show, table

if TYPE_CHECKING:
    from ..bench.results import Row
    from ..bench.session import Options

# Beside the parser, because the modules that know them import MLX.
SUITES = ("kernels", "stages", "convert")
OUT = "bench_out"
DTYPES = ("float32", "bfloat16", "float16", "int8", "bfloat16x2")
# What the page's sounds take; the share of the processor that others may use.
REPORT_SECONDS, DISTURBED = 15.0, 0.1
# Of a run that says nothing else, and of --quick: minutes, seconds after which a peer is given up, at once in batch rows.
MINUTES, LIMIT, BATCH = 15.0, 120.0, 4
QUICK_MINUTES, QUICK_LIMIT, QUICK_SECONDS = 3.0, 45.0, (10.0,)
# What starting and ending the processes may take beside the time, on a busy machine.
LAST_SECONDS = 10.0
SEND = """
Please send this file, whatever it shows: {file}
It is text, one row a line: times, the chip, its cores and memory, power and heat, the versions of the system and of
packages. No name, no sound. If a row says WRONG, DIFFER or "no number", send what the terminal shows, too.
Side by side with another's: rvc-fast bench --compare {file} OTHER.jsonl"""


HELP = "measure this machine: kernels, stages, whole conversions, beside PyTorch, ONNX Runtime, OpenVINO"
DESCRIPTION = (
    "Measure every kernel, every stage of a conversion and whole conversions with full-size seeded "
    "models, each row checked for correctness before it is timed. Peers run in the same minutes, alternating, "
    "with the same threads, inputs and weights. On two cores, 15 minutes hold the stages and "
    "whole conversions of 10 and 1 s beside peers, the kernels, those of 60 s beside the peers that fit, and of 600 s "
    "what fits. Exit code 1 if a result is wrong or, with --compare, slower."
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("suite", nargs="?", metavar="SUITE", help=f"one of {', '.join(SUITES)} (all)")
    p.add_argument("-o", "--out", metavar="DIR", help=f"folder of results ({OUT})")
    p.add_argument("--json", action="store_true", help="print the rows as JSON lines on stdout, as they come")
    p.add_argument("--report", metavar="FILE", help="write one self-contained HTML page")
    p.add_argument(
        "--quick",
        action="store_true",
        help="at most 3 minutes: conversions and stages of 10 s of sound; ends with what to send to whom you compare with",
    )

    g = p.add_argument_group("what")
    g.add_argument("--op", type=_names, default=(), metavar="A,B", help="kernels of these ops (all)")
    g.add_argument("--stage", type=_names, default=(), metavar="A,B", help="these stages (all but resblocks)")
    g.add_argument(
        "--seconds", type=_seconds, default=(), metavar="A,B", help="lengths of sound (1,10,60,600)"
    )
    g.add_argument("--dtype", metavar="T", help=f"one of {', '.join(DTYPES)} (float32)")
    g.add_argument("--backend", choices=BACKENDS, help="run on this backend (sets RVC_FAST_BACKEND)")
    g.add_argument(
        "--against",
        type=_names,
        metavar="A,B",
        help="of torch (on the kind of device that ours runs on), torch-cpu, torch-compile, torch-bf16, onnxruntime (on "
        "the CPU), onnxruntime-coreml, openvino (on the CPU, float32), openvino-bf16, onnxruntime-int8 and openvino-int8 "
        "(of HuBERT alone), mlx (stock MLX, very slow on a CPU), cpu (ours on the CPU beside ours on a GPU), direct "
        "(ours on the CPU without fast convolution), none; default, of what is installed: "
        "torch,onnxruntime,openvino; on a GPU mlx,torch,cpu,onnxruntime-coreml,torch-cpu",
    )

    g = p.add_argument_group("how")
    g.add_argument(
        "--minutes",
        type=number(0.1, 10000),
        metavar="M",
        help=f"for everything: the most telling rows come first, what does not fit is left out ({MINUTES:g})",
    )
    g.add_argument(
        "--repeats",
        type=_count,
        metavar="N",
        help="pairs of runs of a row (5; 3 of long runs, 1 of runs over 20 s)",
    )
    g.add_argument("--batch", type=_count, metavar="N", help=f"how many at once in batch rows ({BATCH})")
    g.add_argument("--threads", type=_count, metavar="N", help="of every side (all usable cores)")
    g.add_argument(
        "--limit",
        type=number(1, 100000),
        metavar="S",
        help=f"seconds after which a peer is given up ({LIMIT:g})",
    )

    g = p.add_argument_group("instead of measuring")
    g.add_argument(
        "--compare", nargs="+", metavar="FILE", help="print the rows of results files side by side"
    )
    g.add_argument("--read", metavar="FILE", help="take the rows for --report from a results file")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in text.split(",") if name))


def _seconds(text: str) -> tuple[float, ...]:
    return tuple(number(0.1, 3600)(part) for part in text.split(","))


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1024, got {text!r}")
    return int(text)


class _Status:
    """One line on a terminal that is written over."""

    def __init__(self, shown: bool):
        self._shown = shown

    def __call__(self, text: str) -> None:
        if self._shown:
            print(
                f"\r\x1b[K{text[: os.get_terminal_size(2).columns - 1]}", end="", file=sys.stderr, flush=True
            )

    def clear(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> int:
    if args.compare:
        return _compare(args)
    if args.read:
        return _draw(args)
    return _measure(args)


# What says how to measure, which --compare and --read do not.
_MEASURING = (
    *(
        "suite",
        "out",
        "json",
        "quick",
        "op",
        "stage",
        "seconds",
        "dtype",
        "backend",
        "against",
        "minutes",
        "repeats",
    ),
    *("batch", "threads", "limit"),
)


def _alone(args: argparse.Namespace, option: str, *others: str) -> None:
    """InputError if anything was given that `option` would ignore: `others`, or how to measure."""
    from ..errors import InputError

    for name in (*_MEASURING, *others):
        if getattr(args, name):
            given = f"the suite {args.suite!r}" if name == "suite" else f"--{name}"
            raise InputError(f"[bench] {option} reads files and measures nothing, got {given} with it")


def _compare(args: argparse.Namespace) -> int:
    from ..bench import results
    from ..errors import InputError

    _alone(args, "--compare", "report", "read")
    if len(args.compare) < 2:
        raise InputError("[bench] --compare takes two or more files")
    files = [results.read(Path(name)) for name in args.compare]
    for count, (name, machine) in enumerate(zip(args.compare, results.machines(files), strict=True), 1):
        show(f"{count}: {name}: {machine}")
    show("\n" + table(*results.peaks(files)))
    header, lines, regressions = results.comparison(files)
    show("\n" + table(header, lines))
    print(
        f"\n{regressions} slower than in 1. On one machine a row counts as slower if it lost more than "
        f"{results.REGRESSION:.0%} against a peer of both files, or in time without one, and p20 to p80 do not touch."
    )
    return 1 if regressions else 0


def _draw(args: argparse.Namespace) -> int:
    from ..bench import report, results
    from ..errors import InputError

    _alone(args, "--read")
    if not args.report:
        raise InputError("[bench] --read is for --report: there is nothing else to do with it")
    report.write(Path(args.report), results.read(Path(args.read)))
    note(args, args.report)
    return 0


def _options(args: argparse.Namespace) -> Options:
    """Return what is asked for; InputError for what contradicts itself or cannot be had here."""
    from ..bench import session
    from ..bench.work import STAGES
    from ..errors import InputError

    # The first-use check of a GPU has compared and timed the kernels.
    suites: tuple[str, ...] = ("stages", "convert") if args.quick else SUITES
    if args.suite is not None:
        if args.suite not in SUITES:
            raise InputError(f"[bench] suite must be one of {', '.join(SUITES)}, got {args.suite!r}")
        suites = (args.suite,)
    elif args.op or args.stage:
        suites = tuple(s for s, chosen in (("kernels", args.op), ("stages", args.stage)) if chosen)
    for option, suite, chosen in (("--op", "kernels", args.op), ("--stage", "stages", args.stage)):
        if chosen and suite not in suites:
            raise InputError(f"[bench] {option} chooses {suite}, not {suites[0]}")
    for stage in args.stage:
        if stage not in STAGES:
            raise InputError(f"[bench] stage must be one of {', '.join(STAGES)}, got {stage!r}")
    dtype = args.dtype or "float32"
    if dtype not in DTYPES:
        raise InputError(f"[bench] dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    against = session.default_peers() if args.against is None else args.against
    if against == ("none",):
        against = ()
    session.check_peers(against)
    if args.against and suites == ("kernels",) and (wrong := set(against) - {"mlx", "direct"}):
        raise InputError(f"[bench] kernels are compared with mlx and direct, not {', '.join(sorted(wrong))}")
    for option, suite in (("seconds", "kernels"), ("batch", "stages")):
        if getattr(args, option) and suites == (suite,):
            others = " and ".join(s for s in SUITES if s != suite)
            raise InputError(f"[bench] --{option} is for {others}, not {suite}")
    if args.quick:
        for option in ("minutes", "seconds", "batch", "limit"):
            if getattr(args, option):
                raise InputError(f"[bench] --quick chooses --{option} itself")
        args.minutes, args.seconds, args.batch, args.limit = QUICK_MINUTES, QUICK_SECONDS, 1, QUICK_LIMIT
    return session.Options(
        suites=suites,
        ops=args.op,
        stages=args.stage or session.STAGES_ASKED,
        seconds=args.seconds or session.SECONDS,
        dtype=dtype,
        against=against,
        repeats=args.repeats,
        fewest=1 if args.quick else session.FEW,
        batch=args.batch or BATCH,
        minutes=args.minutes or MINUTES,
        limit=args.limit or LIMIT,
    )


def _measure(args: argparse.Namespace) -> int:
    begun = time.monotonic()
    # Before anything reads them, and for the processes to come.
    if args.backend:
        os.environ["RVC_FAST_BACKEND"] = args.backend
    if args.threads:
        os.environ["RVC_FAST_THREADS"] = str(args.threads)
    from .. import device, native
    from ..bench import limits, machine, models, report, results, session, sides
    from ..errors import InputError
    from ..ops import dispatch

    device.use_for_process()
    dispatch.check_backend("bench")
    options = _options(args)
    threads = session.threads(args.threads)
    groups = session.tasks_of(options)
    name = f"{time.strftime('%Y-%m-%dT%H%M%S')}-{platform.system()}-{platform.machine()}.jsonl".lower()
    file = results.File(Path(args.out or OUT) / name)
    if args.report:
        report.check(Path(args.report))
    if set(options.suites) != {"kernels"}:
        for kind in ("voice", "hubert", "rmvpe"):
            if not models.present(kind):
                note(args, f"making the seeded {kind} model in {models.folder()}, once")
            models.path(kind)

    ext = native.ext()
    facts = machine.facts(threads, None if ext is None else ext.isa())
    peaks = limits.measure()
    rows: list[Row] = []
    status = _Status(progress_wanted(args))

    def emit(row: Row) -> None:
        file.append(row)
        rows.append(row)
        status.clear()
        print(json.dumps(row) if args.json else "\n".join(results.text(row)), flush=True)

    if not args.json:
        print(_heading(facts, peaks), flush=True)
    deadline = begun + 60 * options.minutes - LAST_SECONDS if args.quick else math.inf
    ours, peers = session.contestants(options, threads, deadline)
    begun -= REPORT_SECONDS if args.report else 0
    going = session.Session(options, ours, peers, facts, peaks, emit, status, begun=begun)
    interrupted = False
    try:
        going.run(groups)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        for side in (ours, *peers.values()):
            side.stop()
        status.clear()
    advice = (
        "rvc-fast bench --seconds 10 --minutes {} measures all" if args.quick else "--minutes {} measures all"
    )
    if not interrupted and (missing := going.left_out(advice)):
        note(args, missing)
    if (share := results.disturbance(rows)) is not None and share > DISTURBED:
        note(args, f"others used {share:.0%} of the processor meanwhile: only ratios are worth something")
    if (
        args.against is None
        and not set(options.against) & set(sides.PYTORCH)
        and set(options.suites) != {"kernels"}
    ):
        note(
            args,
            "no PyTorch: pip install 'rvc-fast[bench]' has PyTorch, ONNX Runtime and OpenVINO measured beside",
        )
    if args.report and rows:
        report.write(Path(args.report), rows)
        note(args, args.report)
    red = f", {going.red} with a wrong or missing result" if going.red else ""
    note(args, f"{'interrupted: ' if interrupted else ''}{len(rows)} rows{red} in {file.path}")
    if interrupted:
        return 130
    if args.quick and rows and not args.json:
        print(SEND.format(file=file.path))
    if not rows:
        raise InputError(f"[bench] nothing fits in {options.minutes:g} minutes")
    return 1 if going.red else 0


def _heading(facts: dict[str, Any], peaks: dict[str, float | None]) -> str:
    """Return what the rows are of: the machine and its peaks."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    units = {"gflops": "GFLOP/s", "gops": "GOP/s", "gbytes": "GB/s"}
    measured = []
    for key, value in peaks.items():
        what, unit = key.split("_")
        if value is not None:
            measured.append(f"{what} {value:.0f} {units[unit]}")
    from ..bench import results

    gpu = f", {facts['gpu_cores']} GPU cores" if "gpu_cores" in facts else ""
    where = f"{facts['chip']}{gpu}, CPU cores {results.cores(facts)}, {facts['threads']} threads, "
    where += f"{facts['memory_gb']:g} GB, {facts['os']}"
    return f"{where}\n{versions}, commit {facts['commit']}\npeaks: {', '.join(measured)}\n"
