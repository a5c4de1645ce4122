"""One run of the benchmark: what is measured, in which order, and what there is time for.

Every row is gated, then timed. Sides alternate: ours, a peer, ours, the peer; a ratio is the peer's time by ours of
the same pair. What does not fit in the minutes asked for is left out and named.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BackendError, InputError
from ..ops import dispatch
from ..verify.golden import BAR_DB
from . import kernels, limits, machine, results, sides, worker
from .results import Row
from .work import CONVERT, STAGES, Task, padded_seconds
from .worker import Checked, Contestant, Lost

SUITES = ("kernels", "stages", "convert")
SECONDS = (1.0, 10.0, 60.0, 600.0)
DEFAULT_PEERS = ("torch", "onnxruntime")
NEEDS = {
    "torch": ("torch",),
    "torch-compile": ("torch",),
    "torch-bf16": ("torch",),
    "onnxruntime": ("torch", "onnx", "onnxruntime"),
}
# Fewer pairs make no ratio worth reading.
LEAST_PAIRS = 3
# A run this long needs no other before it, and one will do.
LONG = 20.0
# Seconds of a row beside its runs: preparing inputs, comparing outputs, pauses.
OVERHEAD = 1.5

# GFLOP per padded second of sound, and how much longer peers take: what a row is expected to take before anything
# like it was measured. Nothing but the order of the plan and the estimate of what is left depends on them.
GUESS = {
    "mel": 0.1,
    "hubert": 15,
    "rmvpe": 8,
    "text_encoder": 3,
    "flow": 3,
    "decoder": 110,
    "resblocks": 110,
    "retrieval": 4,
    "warm": 140,
    "batch": 140,
    "cold start": 300,
}
SLOWER = {"torch": 5, "torch-bf16": 5, "torch-compile": 15, "onnxruntime": 8, "mlx": 150, "direct": 3}


@dataclass(frozen=True)
class Options:
    """What is asked for; see `rvc-fast bench --help`."""

    suites: tuple[str, ...] = SUITES
    ops: tuple[str, ...] = ()
    stages: tuple[str, ...] = tuple(STAGES)
    seconds: tuple[float, ...] = SECONDS
    dtype: str = "float32"
    against: tuple[str, ...] = ()
    repeats: int = 5
    batch: int = 4
    minutes: float = 15.0
    limit: float = 120.0


def check_peers(names: Sequence[str]) -> None:
    """InputError for a peer that there is not, or whose packages are not installed."""
    for name in names:
        if name not in sides.PEERS:
            raise InputError(f"[bench] against must be of {', '.join(sides.PEERS)}, got {name!r}")
        missing = [p for p in NEEDS.get(name, ()) if importlib.util.find_spec(p) is None]
        if missing:
            raise InputError(
                f"[bench] {name} needs {', '.join(missing)}, not installed: pip install 'rvc-fast[bench]'"
            )


def default_peers() -> tuple[str, ...]:
    """Return the peers of a run that names none: those that are installed."""
    return tuple(p for p in DEFAULT_PEERS if all(importlib.util.find_spec(n) for n in NEEDS[p]))


def plan(options: Options) -> list[Task]:
    """Return what is measured, in order; InputError for what cannot be measured here."""
    tasks: list[Task] = []
    alone = set(options.suites) == {"kernels"}  # else batches of kernels would take minutes from the rest
    if "kernels" in options.suites:
        for spec in kernels.choose(sides.specs(), options.ops, options.dtype):
            for case in kernels.cases(spec):
                for batch in dict.fromkeys((1, options.batch)) if alone else (1,):
                    tasks.append(Task("kernels", f"{spec.name}/{case.name}", None, batch))
    if alone:
        return tasks
    if options.dtype not in sides.BARS:
        raise InputError(f"[bench] stages have the dtypes {', '.join(sides.BARS)}, got {options.dtype!r}")
    try:
        for op in dispatch.ops():
            dispatch.route(op)
    except BackendError as e:
        raise InputError(str(e)) from e
    shortest = min(options.seconds)
    if "convert" in options.suites:
        tasks.append(Task("convert", "cold start", min(shortest, CONVERT["cold start"].longest)))
        if options.batch > 1:
            tasks.append(Task("convert", "batch", min(shortest, CONVERT["batch"].longest), options.batch))
    for seconds in sorted(options.seconds):
        if "stages" in options.suites:
            tasks += [Task("stages", s, seconds) for s in options.stages if seconds <= STAGES[s].longest]
        if "convert" in options.suites:
            tasks.append(Task("convert", "warm", seconds))
    return tasks


@dataclass
class Session:
    """Measures tasks with the contestants it is given, and hands each row to `emit` before the next begins.

    `progress` gets a line about what is being done; `left_out` and `red` say at the end what has no number.
    """

    options: Options
    ours: Contestant
    peers: Mapping[str, Contestant]
    facts: Mapping[str, Any]
    peaks: Mapping[str, float | None]
    emit: Callable[[Row], None]
    progress: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    left_out: list[str] = field(default_factory=list)
    red: int = 0

    def __post_init__(self) -> None:
        self._start = self.clock()
        self._costs: dict[tuple[str, str], float] = {}
        self._lost: set[tuple[str, str]] = set()
        self._peer_facts: dict[str, dict[str, Any]] = {}

    def run(self, tasks: Sequence[Task]) -> None:
        """Measure all of them, in order."""
        self._our_facts = self.ours.facts()
        for number, task in enumerate(tasks):
            self._place, self._title = f"{number + 1}/{len(tasks)}", task.title
            self._after, self._current, self._began = tasks[number + 1 :], task, self.clock()
            self._measure(task)

    def _say(self, what: str) -> None:
        done, here = self.clock() - self._start, self.clock() - self._began
        ahead = max(0.0, self._expected_row(self._current) - here)
        ahead = min(ahead + sum(self._expected_row(t) for t in self._after), self._left())
        times = f"{_clock(done)}, about {_clock(ahead)} left"
        self.progress(f"[{self._place}, {times}] {self._title}: {what}")

    def _left(self) -> float:
        return max(0.0, 60 * self.options.minutes - (self.clock() - self._start))

    def _unit(self, task: Task) -> float:
        """What the time of a task is proportional to."""
        return task.batch * (1.0 if task.seconds is None else padded_seconds(task.seconds))

    def _expected(self, side: str, task: Task) -> float:
        """Return the seconds that one run is expected to take."""
        unit = self._unit(task)
        if (side, task.name) in self._costs:
            return self._costs[side, task.name] * unit
        if side == "rvc_fast":
            gflop = GUESS.get(task.name, 1.0)
            return gflop / (self.peaks.get("fma_gflops") or 100.0) * unit
        return SLOWER[side] * self._expected("rvc_fast", task)

    def _expected_row(self, task: Task) -> float:
        ours = self._expected("rvc_fast", task)
        total = OVERHEAD + ours * (1 if ours > LONG else 1 + self.options.repeats)
        for name in self._taking_part(task):
            if (name, task.name) not in self._lost:
                theirs = self._expected(name, task)
                total += OVERHEAD + theirs + self.options.repeats * (ours + theirs)
        return total

    def _taking_part(self, task: Task) -> list[str]:
        return [name for name in self.peers if sides.takes_part(name, task)]

    def _learn(self, side: str, task: Task, seconds: float) -> None:
        self._costs[side, task.name] = seconds / self._unit(task)

    def _measure(self, task: Task) -> None:
        expected = self._expected("rvc_fast", task)
        if (1 if expected > LONG else 2) * expected + OVERHEAD > self._left():
            self.left_out.append(f"{task.title} (about {_clock(expected)} a run)")
            return
        row: Row = {
            "schema": results.SCHEMA,
            **self.facts,
            "thermal": machine.thermal(),
            "limits": dict(self.peaks),
            "suite": task.suite,
            "name": task.name,
            "seconds": task.seconds,
            "batch": task.batch,
            **self._our_facts,
            **dict.fromkeys(("p20_ms", "p50_ms", "p80_ms", "peak_mb", "rtf", "snr_db", "bar_db")),
            "peers": {},
        }
        if task.suite == "kernels":
            row["backend"] = dispatch.route(task.name.partition("/")[0]).backend
        before = machine.load()
        try:
            self._say("correctness")
            snr, bar = self.ours.gate(task)
            row |= {"snr_db": round(snr, 1), "bar_db": bar}
            if bar is not None and not snr >= bar:
                row["note"] = f"WRONG RESULT, not timed: {snr:.1f} dB, must be {bar:.0f} dB"
            else:
                self._time(task, row)
        except Lost as e:
            row["note"] = f"no number: {e}"
        row["load"] = [before, machine.load()]
        if row["p50_ms"] is None or any(p.get("red") for p in row["peers"].values()):
            self.red += 1
        self.emit(row)

    def _time(self, task: Task, row: Row) -> None:
        """Fill in the row's times, and those of every peer whose outputs agree."""
        names = self._taking_part(task)
        self._say("first run")
        dtype = self._our_facts["dtype"]
        checked = self.ours.check(task, bool(names))
        self._learn("rvc_fast", task, checked.seconds)
        row["peak_mb"] = round(self.ours.peak_mb(), 1)
        peak = self.ours.fma_peak(dtype)
        ours: list[float] = []
        for name in names:
            row["peers"][name] = self._against(name, task, checked, ours)
        if not ours and checked.seconds > LONG:
            ours.append(checked.seconds)
        while len(ours) < self.options.repeats and (
            not ours or self._left() > 2 * checked.seconds + OVERHEAD
        ):
            if ours and checked.seconds > LONG:
                break
            self._say(f"run {len(ours) + 1} of {self.options.repeats}")
            ours.append(self.ours.time(worker.loops(checked.seconds)))
        peak = max((p for p in (peak, self.ours.fma_peak(dtype)) if p is not None), default=None)
        middle = results.quantiles(ours)[1]
        self._learn("rvc_fast", task, middle)
        row |= results.times(ours) | {"runs": len(ours)}
        if task.seconds is not None:
            row["rtf"] = round(middle / (task.seconds * task.batch), 5)
        row |= {"flops": checked.flops, "bytes": checked.bytes, "peak_gflops": peak}
        bandwidth = max((self.peaks[k] or 0.0 for k in ("read_gbytes", "copy_gbytes")), default=0.0) or None
        work = checked.flops, checked.bytes, middle
        if checked.flops and (found := limits.roofline(*work, peak, bandwidth)) is not None:
            row |= {"of_limit": round(found[0], 4), "bound": found[1]}
        published = limits.PUBLISHED.get(str(self.facts.get("chip"))) if limits.on_gpu() else None
        if published is not None and dtype == "float32" and checked.flops:
            found = limits.roofline(*work, published.gflops, published.gbytes)
            row |= {"published": round(found[0], 4) if found else None, "published_note": published.note}

    def _against(self, name: str, task: Task, checked: Checked, ours: list[float]) -> dict[str, Any]:
        """Return a peer's part of the row, and append our times of the pairs to `ours`."""
        peer, key = self.peers[name], (name, task.name)
        if key in self._lost:
            return {"note": "left out: it did not finish a shorter one"}
        expected = self._expected(name, task)
        need = expected + LEAST_PAIRS * (expected + checked.seconds) + OVERHEAD
        if need > self._left():
            self.left_out.append(f"{name} of {task.title} (about {_clock(need)})")
            return {
                "note": f"left out: about {_clock(need)}, more than is left of {self.options.minutes:g} minutes"
            }
        try:
            self._say(f"{name}, comparing outputs")
            facts = self._facts_of(name)
            if facts.get("device", limits.device()) != limits.device():
                return {"note": f"left out: it runs on {facts['device']}, ours on {limits.device()}"}
            if (golden := facts.get("golden_db", BAR_DB)) < BAR_DB:
                return facts | {
                    "red": True,
                    "note": f"WRONG MODEL, not timed: {golden:.1f} dB of the golden cases",
                }
            theirs = peer.check(task, True)
        except Lost as e:
            self._lost.add(key)
            return {"note": str(e)}
        self._learn(name, task, theirs.seconds)
        assert checked.outputs is not None
        assert theirs.outputs is not None
        snr = sides.agreement(theirs.outputs, checked.outputs)
        bar = sides.peer_bar(task, self._our_facts["dtype"], facts["dtype"])
        found = {**facts, "snr_db": round(snr, 1), "bar_db": bar}
        if bar is not None and not snr >= bar:
            return found | {"red": True, "note": f"OUTPUTS DIFFER, not timed: must be {bar:.0f} dB"}
        pairs: list[tuple[float, float]] = []
        one = worker.loops(checked.seconds), worker.loops(theirs.seconds)
        try:
            while len(pairs) < self.options.repeats:
                if len(pairs) >= LEAST_PAIRS and self._left() < theirs.seconds + checked.seconds + OVERHEAD:
                    break
                self._say(f"{name}, pair {len(pairs) + 1} of {self.options.repeats}")
                pairs.append((self.ours.time(one[0]), peer.time(one[1])))
        except Lost as e:
            self._lost.add(key)
            return found | {"note": str(e)}
        ours += [a for a, _ in pairs]
        return found | results.times([b for _, b in pairs]) | results.ratios(pairs)

    def _facts_of(self, name: str) -> dict[str, Any]:
        if name not in self._peer_facts:
            self._peer_facts[name] = self.peers[name].facts()
        return self._peer_facts[name]


def _clock(seconds: float) -> str:
    """Return minutes:seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def environment(name: str, threads: int) -> dict[str, str]:
    """Return what a side's process is started with: the same threads for everyone."""
    libraries = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    return {
        "RVC_FAST_THREADS": str(threads),
        **dict.fromkeys(libraries, str(threads)),
        **sides.ENVIRONMENT.get(name, {}),
    }


def contestants(options: Options, threads: int) -> tuple[worker.Remote, dict[str, worker.Remote]]:
    """Return rvc_fast and the peers asked for, each of which starts its process when it is first needed."""

    def remote(name: str, dtype: str, limit: float) -> worker.Remote:
        return worker.Remote(name, dtype, environment(name, threads), limit)

    peers = {
        n: remote(n, options.dtype if n == "direct" else "float32", options.limit) for n in options.against
    }
    return remote("rvc_fast", options.dtype, 3600.0), peers


def threads(asked: int | None) -> int:
    """Return how many threads every side gets."""
    from .. import native

    ext = native.ext()
    return asked or (int(ext.threads()) if ext is not None else os.cpu_count() or 1)
