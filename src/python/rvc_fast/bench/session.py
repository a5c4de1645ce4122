"""One run of the benchmark: what is measured, in which order, and what there is time for.

Every row is gated, then timed. Sides alternate: ours, a peer, ours, the peer; a ratio is the peer's time by ours of
the same pair. The most telling rows come first, each length of sound and the kernels with a share of the minutes
asked for; within a share, rows of ours go before peers. What does not fit is left out, and counted.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import native
from ..errors import BackendError, InputError
from ..ops import dispatch, precision, registry
from ..ops.op import specs
from . import chips, kernels, limits, machine, results, sides, worker
from .results import Row
from .work import CONVERT, STAGES, Task, padded_seconds
from .worker import Checked, Contestant, Lost, OutOfTime

OURS = "rvc_fast"
SUITES = ("kernels", "stages", "convert")
SECONDS = (1.0, 10.0, 60.0, 600.0)
# The residual blocks are the decoder's again.
STAGES_ASKED = tuple(stage for stage in STAGES if stage != "resblocks")
# Most of what is converted is as long, in chunks.
USUAL = 10.0
DEFAULT_PEERS = ("torch", "onnxruntime", "openvino")
# Beside a GPU: what the same device does without our kernels, then what else a machine with one could run.
DEFAULT_PEERS_ON_GPU = ("mlx", "torch", "cpu", "onnxruntime-coreml", "torch-cpu")
NEEDS = {
    "torch": ("torch",),
    "torch-cpu": ("torch",),
    "torch-compile": ("torch",),
    "torch-bf16": ("torch",),
    "onnxruntime": ("torch", "onnx", "onnxruntime"),
    "onnxruntime-int8": ("torch", "onnx", "onnxruntime"),
    "onnxruntime-coreml": ("torch", "onnx", "onnxruntime"),
    "openvino": ("torch", "onnx", "openvino"),
    "openvino-bf16": ("torch", "onnx", "openvino"),
    "openvino-int8": ("torch", "onnx", "onnxruntime", "openvino"),
}
# Runs of a side, or pairs, where no number was asked for: as many as PAIRS_SECONDS hold, but from FEW to REPEATS; of
# sounds longer than the usual one will do. Kernels beside other suites have FEW.
REPEATS, FEW, PAIRS_SECONDS = 5, 3, 12.0
# The first run of a row is not counted, unless it took longer than this many seconds.
LONG = 10.0
# Peers whose first run of a shape makes something else first.
COMPILE = tuple(peer for peer in NEEDS if peer.startswith(("onnxruntime", "openvino", "torch-compile")))
# Seconds that a row takes beside its runs, for preparing inputs, comparing outputs and pauses; and the seconds that a
# peer takes to compile, the first time.
OVERHEAD, COMPILING = 1.5, 6.0
# On a busy machine a row takes this many times as long as expected. Only this share of the time is planned, the rest is kept
# in reserve.
MARGIN, PLANNED = 1.2, 0.97
# The share of the remaining time that the peers of heavy rows leave to the peers of the lighter rows, which come later.
PEERS_TO_COME = 0.3
# A row of the first length counts as this many rows of another length.
FIRST = 3.5

# GFLOP per padded second of sound, and how much longer peers take: what a row is expected to take before anything
# like it was measured. Nothing but the order of the tasks and the estimate of what is left depends on them.
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
DECODING = ("warm", "batch", "cold start", "decoder", "resblocks")
LIGHTER = 2.0  # than ours, of what does not end in a decoder, whose convolutions are where we differ most
SLOWER = {"torch": 5, "torch-bf16": 5, "torch-compile": 15, "onnxruntime": 4, "onnxruntime-int8": 4, "onnxruntime-coreml": 4,
          "openvino": 3, "openvino-bf16": 3, "openvino-int8": 3, "mlx": 150, "direct": 3}  # fmt: skip
SLOWER_THAN_GPU = {"torch": 3, "torch-bf16": 3, "torch-compile": 15, "mlx": 3, "onnxruntime-coreml": 5,
                   "cpu": 8, "direct": 20, "torch-cpu": 30, "onnxruntime": 25, "onnxruntime-int8": 25,
                   "openvino": 20, "openvino-bf16": 20, "openvino-int8": 20}  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What is asked for; see `rvc-fast bench --help`."""

    suites: tuple[str, ...] = SUITES
    ops: tuple[str, ...] = ()
    stages: tuple[str, ...] = STAGES_ASKED
    seconds: tuple[float, ...] = SECONDS
    dtype: str = "float32"
    against: tuple[str, ...] = ()
    repeats: int | None = None
    fewest: int = FEW
    batch: int = 4
    minutes: float = 15.0
    limit: float = 120.0


def _lacking(name: str) -> str | None:
    """Say why there is no such peer here, or None."""
    missing = [p for p in NEEDS.get(name, ()) if importlib.util.find_spec(p) is None]
    if missing:
        return f"needs {', '.join(missing)}, not installed: pip install 'rvc-fast[bench]'"
    if name == "onnxruntime-coreml":
        # Known without an import, which costs a second; the side itself checks what ONNX Runtime took.
        return None if sys.platform == "darwin" else "needs Core ML, which only macOS has"
    if name in ("torch-cpu", "cpu") and not limits.on_gpu():
        return f"is for machines with a GPU: here {'torch' if name == 'torch-cpu' else 'ours'} runs on the CPU anyway"
    if name in ("cpu", "direct") and native.ext() is None:
        return f"needs the compiled kernels: {native.load()[1]}"
    return None


def check_peers(names: Sequence[str]) -> None:
    """InputError for a peer that there is not, or that this machine or installation lacks."""
    for name in names:
        if name not in sides.PEERS:
            raise InputError(f"[bench] against must be of {', '.join(sides.PEERS)}, got {name!r}")
        if lacking := _lacking(name):
            raise InputError(f"[bench] {name} {lacking}")


def default_peers() -> tuple[str, ...]:
    """Return the peers of a run that names none: those that this machine and installation have."""
    return tuple(p for p in (DEFAULT_PEERS_ON_GPU if limits.on_gpu() else DEFAULT_PEERS) if not _lacking(p))


def tasks_of(options: Options) -> list[list[Task]]:
    """Return what is measured, the most telling first, in groups that share the time.

    InputError for what cannot be measured here.
    """
    alone = set(options.suites) == {"kernels"}  # else batches of kernels would take minutes from the rest
    found: list[Task] = []
    if "kernels" in options.suites:
        for spec in kernels.choose(specs(), options.ops, options.dtype):
            for case in kernels.cases(spec):
                for batch in dict.fromkeys((1, options.batch)) if alone else (1,):
                    found.append(Task("kernels", f"{spec.name}/{case.name}", None, batch))
    if alone:
        return [found]
    precision.check("bench", options.dtype)
    try:
        for op in registry.ops():
            dispatch.route(op)
    except BackendError as e:
        raise InputError(str(e)) from e
    usual: list[list[Task]] = []
    longer: list[list[Task]] = []
    for seconds in sorted(options.seconds):
        tasks = []
        if "convert" in options.suites:
            tasks.append(Task("convert", "warm", seconds))
            if seconds == min(options.seconds):
                tasks.append(Task("convert", "cold start", min(seconds, CONVERT["cold start"].longest)))
                if options.batch > 1:
                    short = min(seconds, CONVERT["batch"].longest)
                    tasks.append(Task("convert", "batch", short, options.batch))
        if "stages" in options.suites:
            chosen = sorted(options.stages, key=lambda s: -GUESS[s])
            tasks += [Task("stages", s, seconds) for s in chosen if seconds <= STAGES[s].longest]
        if seconds > USUAL:
            longer.append(tasks)
        else:
            usual.insert(0, tasks)
    return [group for group in (*usual, found, *longer) if group]


@dataclass
class Session:
    """Measures tasks with the contestants it is given, and hands each row to `emit` before the next begins.

    `progress` gets a line about what is being done; `left_out` and `red` say at the end what has no number. The
    minutes began at `begun`, if not now, on `clock`; `others` is `machine.others`.
    """

    options: Options
    ours: Contestant
    peers: Mapping[str, Contestant]
    facts: Mapping[str, Any]
    peaks: Mapping[str, float | None]
    emit: Callable[[Row], None]
    progress: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    begun: float | None = None
    others: Callable[[], float | None] = machine.others
    red: int = 0

    def __post_init__(self) -> None:
        self._start = self.clock() if self.begun is None else self.begun
        self._end = self._deadline = self._start + PLANNED * 60 * self.options.minutes
        self._reserved = self._peers_reserved = 0.0  # for rows of the group to come: ours, and their peers
        self._costs: dict[tuple[str, str], float] = {}
        self._slower: dict[
            tuple[str, bool], float
        ] = {}  # than ours, in the task before, with a decoder or without
        self._making: dict[str, float] = {}  # seconds of a peer's last check beside its run
        self._run_before: set[tuple[str, str]] = set()
        self._lost: set[tuple[str, str]] = set()
        self._peer_facts: dict[str, dict[str, Any]] = {}
        self._late: list[Task] = []
        self._without: list[tuple[str, Task]] = []

    def run(self, groups: Sequence[Sequence[Task]]) -> None:
        """Measure all of them, in order; at the end, those that their group had no time for."""
        self._our_facts = self.ours.facts()
        self._count, self._number = sum(len(group) for group in groups), 0
        self._mixed = len({task.suite for group in groups for task in group}) > 1
        shares = [FIRST, *(1.0 for _ in groups[1:])]
        for i, group in enumerate(groups):
            now = self.clock()
            self._deadline = now + max(0.0, self._end - now) * shares[i] / sum(shares[i:])
            for j, task in enumerate(group):
                self._after = [*group[j + 1 :], *itertools.chain(*groups[i + 1 :])]
                self._reserved = sum(self._least(t) for t in group[j + 1 :])
                self._peers_reserved = sum(self._least_peers(t) for t in group[j + 1 :])
                if not self._attempt(task):
                    self._late.append(task)
        self._deadline, self._reserved, self._peers_reserved = self._end, 0.0, 0.0
        waiting, self._late = self._late, []
        for j, task in enumerate(waiting):
            self._after = waiting[j + 1 :]
            if not self._attempt(task):
                self._late.append(task)

    def left_out(self, advice: str = "--minutes {} measures all") -> str:
        """Return what there was no time for, in a few words, and the advice with the minutes needed; or nothing."""
        kinds: dict[float | None, list[str]] = {}
        for task in self._late:
            kinds.setdefault(task.seconds, []).append(task.name)
        parts = [
            f"{len(names)} kernels" if seconds is None else f"{', '.join(names)} of {seconds:g} s"
            for seconds, names in kinds.items()
        ]
        if self._without:
            parts.append(f"peers in {len({task for _, task in self._without})} rows")
        if not parts:
            return ""
        missing = sum(self._expected_row(task) for task in self._late)
        missing += sum(
            self._expected_peer(name, task, self._expected(OURS, task)) for name, task in self._without
        )
        minutes = math.ceil((self.clock() - self._start + MARGIN * missing) / 60)
        return f"left out: {'; '.join(parts)}; {advice.format(minutes)}"

    def _say(self, what: str) -> None:
        done, here = self.clock() - self._start, self.clock() - self._began
        ahead = max(0.0, self._expected_row(self._current) - here)
        ahead = min(ahead + sum(self._expected_row(t) for t in self._after), self._left(self._end))
        times = f"{_clock(done)}, about {_clock(ahead)} left"
        self.progress(f"[{self._number}/{self._count}, {times}] {self._current.title}: {what}")

    def _left(self, end: float | None = None) -> float:
        """Seconds until the group's time is over."""
        return max(0.0, (self._deadline if end is None else end) - self.clock())

    def _unit(self, task: Task) -> float:
        """What the time of a task is proportional to."""
        return task.batch * (1.0 if task.seconds is None else padded_seconds(task.seconds))

    def _expected(self, side: str, task: Task) -> float:
        """Return the seconds that one run is expected to take."""
        unit = self._unit(task)
        if (side, task.name) in self._costs:
            return self._costs[side, task.name] * unit
        if side == OURS:
            gflop = GUESS.get(task.name, 1.0)
            return gflop / (self.peaks.get("fma_gflops") or 100.0) * unit
        kind = side, task.name in DECODING
        if limits.on_gpu():
            guess: float = SLOWER_THAN_GPU[side]
        else:
            guess = SLOWER[side] if kind[1] or side not in DEFAULT_PEERS else LIGHTER
        return self._slower.get(kind, guess) * self._expected(OURS, task)

    def _wanted(self, task: Task, seconds: float) -> int:
        """How many times runs, or pairs of them, of so long are repeated."""
        if self.options.repeats is not None:
            return self.options.repeats
        most = FEW if task.suite == "kernels" and self._mixed else REPEATS
        least = self.options.fewest if (task.seconds or 0) <= USUAL else 1
        return max(least, min(most, int(PAIRS_SECONDS / max(seconds, 1e-6))))

    def _counts(self, side: str, task: Task, seconds: float) -> bool:
        """Whether a side's first run of a task is a time: it is long, and nothing was loaded or made in it."""
        return seconds > LONG and side not in COMPILE and (side, task.name) in self._run_before

    def _least(self, task: Task) -> float:
        """Return the seconds that a row of ours must have."""
        ours = self._expected(OURS, task)
        return MARGIN * (OVERHEAD + ours * (1 if ours > LONG else 2))

    def _expected_peer(self, name: str, task: Task, ours: float, fewest: bool = False) -> float:
        """Return the seconds that a peer's part of a row is expected to take, or must have."""
        theirs = self._expected(name, task)
        pairs = self._wanted(task, ours + theirs)
        pairs = min(pairs, self.options.fewest) if fewest else pairs
        first = OVERHEAD + theirs + (self._making.get(name, COMPILING) if name in COMPILE else 0)
        if self._counts(name, task, theirs):
            return first + (ours if ours <= LONG else 0) + (pairs - 1) * (ours + theirs)
        return first + pairs * (ours + theirs)

    def _least_peers(self, task: Task) -> float:
        """Return the seconds that the peers of a row must have."""
        ours = self._expected(OURS, task)
        return sum(self._expected_peer(name, task, ours, fewest=True) for name in self._taking_part(task))

    def _expected_row(self, task: Task) -> float:
        ours = self._expected(OURS, task)
        total = OVERHEAD + ours * (1 if ours > LONG else 1 + self._wanted(task, ours))
        for name in self._taking_part(task):
            if (name, task.name) not in self._lost and self._expected(name, task) <= self.options.limit:
                total += self._expected_peer(name, task, ours)
        return total

    def _taking_part(self, task: Task) -> list[str]:
        return [name for name in self.peers if sides.takes_part(name, task)]

    def _learn(self, side: str, task: Task, seconds: float) -> None:
        self._costs[side, task.name] = seconds / self._unit(task)
        if side != OURS:
            self._slower[side, task.name in DECODING] = seconds / self._expected(OURS, task)

    def _attempt(self, task: Task) -> bool:
        """Measure a task, or return False: there is no time."""
        if self._least(task) + self._reserved > self._left():
            return False
        self._number += 1
        self._current, self._began = task, self.clock()
        try:
            self._measure(task)
        except OutOfTime:
            return False
        return True

    def _measure(self, task: Task) -> None:
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
        before = self.others()
        try:
            self._say("correctness")
            snr, bar = self.ours.gate(task)
            row |= {"snr_db": round(snr, 1), "bar_db": bar}
            if bar is not None and not snr >= bar:
                row["note"] = f"WRONG RESULT, not timed: {snr:.1f} dB, must be {bar:.0f} dB"
            else:
                self._time(task, row)
        except OutOfTime:
            raise
        except Lost as e:
            row["note"] = f"no number: {e}"
        row["others"] = self._share(before, self.others())
        if row["p50_ms"] is None or any(p.get("red") for p in row["peers"].values()):
            self.red += 1
        self.emit(row)

    def _time(self, task: Task, row: Row) -> None:
        """Fill in the row's times, and those of every peer whose outputs agree."""
        names = self._taking_part(task)
        self._say("first run")
        dtype = self._our_facts["dtype"]
        checked = self.ours.check(task, bool(names))
        counts = checked.seconds > LONG  # whatever there is to load, the gate has loaded
        self._learn(OURS, task, checked.seconds)
        row["peak_mb"] = round(self.ours.peak_mb(), 1)
        peak = self.ours.fma_peak(dtype)
        ours: list[float] = []
        for name in names:
            row["peers"][name] = self._against(name, task, checked, ours)
        if not ours and counts:
            ours.append(checked.seconds)
        wanted = self._wanted(task, checked.seconds)
        while len(ours) < wanted and (not ours or self._left() > self._reserved + 2 * checked.seconds):
            self._say(f"run {len(ours) + 1} of {wanted}")
            ours.append(self.ours.time(worker.loops(checked.seconds)))
        peak = max((p for p in (peak, self.ours.fma_peak(dtype)) if p is not None), default=None)
        middle = results.quantiles(ours)[1]
        self._learn(OURS, task, middle)
        row |= results.times(ours) | {"runs": len(ours)}
        if task.seconds is not None:
            row["rtf"] = round(middle / (task.seconds * task.batch), 5)
        row |= {"flops": checked.flops, "bytes": checked.bytes, "peak_gflops": peak}
        bandwidth = max((self.peaks[k] or 0.0 for k in ("read_gbytes", "copy_gbytes")), default=0.0) or None
        work = checked.flops, checked.bytes, middle
        if checked.flops and (found := limits.roofline(*work, peak, bandwidth)) is not None:
            row |= {"of_limit": round(found[0], 4), "bound": found[1]}
        published = (
            chips.published(self.facts["chip"], self.facts.get("gpu_cores")) if limits.on_gpu() else None
        )
        if published is not None and dtype == "float32" and checked.flops:
            found = limits.roofline(*work, published.gflops, published.gbytes)
            row["published"] = round(found[0], 4) if found else None

    def _against(self, name: str, task: Task, checked: Checked, ours: list[float]) -> dict[str, Any]:
        """Return a peer's part of the row, and append our times of the pairs to `ours`."""
        peer, key = self.peers[name], (name, task.name)
        if key in self._lost:
            return {"note": "left out: it did not finish a shorter one"}
        expected = self._expected(name, task)
        if expected > self.options.limit:
            return {"note": f"left out: a run takes about {_clock(expected)}"}
        need = MARGIN * self._expected_peer(name, task, checked.seconds, fewest=True)
        left = self._left() - self._reserved
        if need > left - min(self._peers_reserved, PEERS_TO_COME * left):
            self._without.append((name, task))
            return {"note": f"left out: no time, about {_clock(need)}"}
        try:
            self._say(f"{name}, comparing outputs")
            facts = self._facts_of(name)
            if name not in sides.OWN_DEVICE and facts.get("device", limits.device()) != limits.device():
                return {"note": f"left out: it runs on {facts['device']}, ours on {limits.device()}"}
            least = sides.BARS[facts["dtype"]]
            if (golden := facts.get("golden_db", least)) < least:
                return facts | {
                    "red": True,
                    "note": f"WRONG MODEL, not timed: {golden:.1f} dB of the golden cases",
                }
            begun = self.clock()
            theirs = peer.check(task, True, checked.pitch)
            self._making[name] = max(0.0, self.clock() - begun - theirs.seconds)
        except Lost as e:
            self._lost.add(key)
            return {"note": str(e)}
        counts = self._counts(name, task, theirs.seconds)
        self._run_before.add(key)
        self._learn(name, task, theirs.seconds)
        assert checked.outputs is not None
        assert theirs.outputs is not None
        snr = sides.agreement(theirs.outputs, checked.outputs, sides.SWAPPED.get(task.name, 0.0))
        if checked.pitch is not None and theirs.pitch is not None:
            snr = min(snr, sides.agreement([theirs.pitch], [checked.pitch]))
        bar = sides.peer_bar(task, self._our_facts["dtype"], facts["dtype"])
        if bar is not None:
            bar = min(bar, facts.get("agrees_to", bar))
        found = {**facts, "snr_db": round(snr, 1), "bar_db": bar}
        if bar is not None and not snr >= bar:
            return found | {"red": True, "note": f"OUTPUTS DIFFER, not timed: must be {bar:.0f} dB"}
        pairs: list[tuple[float, float]] = []
        one = worker.loops(checked.seconds), worker.loops(theirs.seconds)
        both = checked.seconds + theirs.seconds
        wanted = self._wanted(task, both)
        try:
            if counts:
                self._say(f"{name}, pair 1 of {wanted}")
                before = checked.seconds if checked.seconds > LONG and not ours else self.ours.time(one[0])
                pairs.append((before, theirs.seconds))
            while len(pairs) < wanted:
                if (
                    len(pairs) >= min(wanted, self.options.fewest)
                    and self._left() - self._reserved < both + OVERHEAD
                ):
                    break
                self._say(f"{name}, pair {len(pairs) + 1} of {wanted}")
                pairs.append((self.ours.time(one[0]), peer.time(one[1])))
        except Lost as e:
            self._lost.add(key)
            return found | {"note": str(e)}
        ours += [a for a, _ in pairs]
        self._learn(
            name, task, results.quantiles([b for _, b in pairs])[1]
        )  # without what its first run made
        return found | results.times([b for _, b in pairs]) | {"runs": len(pairs)} | results.ratios(pairs)

    def _share(self, before: float | None, after: float | None) -> float | None:
        """Return the share of the processor in core-seconds since the task began."""
        cores = (self.clock() - self._began) * (self.facts.get("cores") or 1)
        if before is None or after is None or cores <= 0:
            return None
        return round(min(1.0, max(0.0, (after - before) / cores)), 3)

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


def contestants(
    options: Options, threads: int, deadline: float = math.inf
) -> tuple[worker.Remote, dict[str, worker.Remote]]:
    """Return rvc_fast and the peers asked for, each of which starts its process when it is first needed."""

    def remote(name: str, dtype: str, limit: float) -> worker.Remote:
        return worker.Remote(name, dtype, environment(name, threads), limit, deadline)

    peers = {
        n: remote(n, options.dtype if n == "direct" else "float32", options.limit) for n in options.against
    }
    return remote(OURS, options.dtype, 3600.0), peers


def threads(asked: int | None) -> int:
    """Return how many threads every side gets."""
    ext = native.ext()
    return asked or (int(ext.threads()) if ext is not None else os.cpu_count() or 1)
