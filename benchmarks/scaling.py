"""How conversions would scale with more threads than this machine has: `python -m benchmarks.scaling`.

For every number of threads the work is divided as it would be for that many, and then done on one thread, while the time of
each item is noted (`core/trace.h`). From these times a schedule is computed: threads take the items in order as the
pool's do, the first helper begins `--wake` microseconds after its job and each other one `--handoff` later than the one
before, and what is between jobs stays with one thread. Memory and clocks that more threads would have to share are not
in it, so a real machine is slower. Work that is divided into more items can also be quicker on one thread, so a
speed-up may be above the number of threads.

The column "measured, 2" is the speed-up of two real threads, to compare with the computed column "2". Two threads that
share one core, as on many virtual machines, gain less. The lines below the table say which ops lose most.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import mlx.core as mx

from rvc_fast import native
from rvc_fast.bench import machine
from rvc_fast.bench.sides import Ours
from rvc_fast.bench.work import Task

# RMVPE has the mel spectrogram in it.
STAGES = ("hubert", "rmvpe", "text_encoder", "flow", "decoder")
THREADS = (1, 2, 4, 8, 16, 32, 64, 128)


class Op(NamedTuple):
    """An op that ran: the seconds between its jobs, and of each job those of its items."""

    name: str
    between: float
    jobs: list[list[float]]


class Trace(NamedTuple):
    """A run on one thread: its ops, and the seconds outside of them (Python, and MLX's own ops)."""

    ops: list[Op]
    outside: float


class Costs(NamedTuple):
    """Of a job, in seconds: until the first helper begins, and from one helper to the next."""

    wake: float
    handoff: float


def job_seconds(items: Sequence[float], threads: int, costs: Costs) -> float:
    """Return how long a job takes whose items so many threads take in order, each the next one when it is free."""
    free = [0.0, *(costs.wake + i * costs.handoff for i in range(min(threads, len(items)) - 1))]
    heapq.heapify(free)
    end = 0.0
    for item in items:
        done = heapq.heappop(free) + item
        end = max(end, done)
        heapq.heappush(free, done)
    return end


def op_seconds(op: Op, threads: int, costs: Costs) -> float:
    return op.between + sum(job_seconds(items, threads, costs) for items in op.jobs)


def seconds(trace: Trace, threads: int, costs: Costs) -> float:
    """Return how long the run takes on so many threads."""
    return trace.outside + sum(op_seconds(op, threads, costs) for op in trace.ops)


@contextmanager
def divided(threads: int) -> Iterator[None]:
    """Have work divided for so many threads."""
    ext = native.compiled
    before, isa = ext.threads(), ext.isa()
    ext.configure(threads=threads, isa=isa)
    try:
        yield
    finally:
        ext.configure(threads=before, isa=isa)


def run(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    mx.eval(work())
    return time.perf_counter() - start


def record(work: Callable[[], Any], threads: int, repeats: int) -> Trace:
    """Return the trace of `work` divided for so many threads, of each time the smallest of `repeats` runs."""
    traces, outside = [], []
    with divided(threads):
        run(work)
        for _ in range(repeats):
            native.compiled.start_trace()
            try:
                whole = run(work)
            finally:
                found = native.compiled.end_trace()
            traces.append(found)
            outside.append(whole - sum(op_whole for _, op_whole, _ in found))
    ops = []
    for same in zip(*traces, strict=True):
        name, _, jobs = same[0]
        between = min(whole - sum(map(sum, jobs)) for _, whole, jobs in same)
        times = [
            [min(times) for times in zip(*(jobs[job] for _, _, jobs in same), strict=True)]
            for job in range(len(jobs))
        ]
        ops.append(Op(name, max(0.0, between), times))
    return Trace(ops, max(0.0, min(outside)))


def measured(work: Callable[[], Any], repeats: int) -> float:
    """Return the speed-up of 2 threads as this machine has it: the median of alternating runs."""
    ratios = []
    for _ in range(repeats):
        times = []
        for threads in (1, 2):
            with divided(threads):
                run(work)
                times.append(run(work))
        ratios.append(times[0] / times[1])
    return statistics.median(ratios)


def lost(trace: Trace, threads: int, costs: Costs) -> Counter[str]:
    """Return by op the seconds beyond those of perfect sharing, what is outside of ops included."""
    found: Counter[str] = Counter({"outside of ops": trace.outside * (1 - 1 / threads)})
    for op in trace.ops:
        whole = op.between + sum(map(sum, op.jobs))
        found[op.name] += op_seconds(op, threads, costs) - whole / threads
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Compute how conversions scale with threads.")
    parser.add_argument("--seconds", type=float, default=10, help="of sound (default: 10)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each trace (default: 3)")
    parser.add_argument("--stage", default=",".join(STAGES), help=f"of {','.join(STAGES)} (default: all)")
    parser.add_argument(
        "--wake", type=float, default=5, help="microseconds until a helper begins (default: 5)"
    )
    parser.add_argument(
        "--handoff", type=float, default=0.5, help="microseconds between helpers (default: 0.5)"
    )
    args = parser.parse_args()
    stages = args.stage.split(",")
    if unknown := set(stages) - set(STAGES):
        parser.error(f"--stage must be of {','.join(STAGES)}, got {', '.join(sorted(unknown))}")
    if native.ext() is None:
        parser.error("the compiled CPU kernels do not run here")
    mx.set_default_device(mx.cpu)
    costs, side = Costs(args.wake * 1e-6, args.handoff * 1e-6), Ours()
    facts = machine.facts(native.compiled.threads(), native.compiled.isa())
    print(f"{facts['chip']}, {native.compiled.isa()}, commit {facts['commit']}")
    print(f"{args.seconds:g} s of sound, full-size seeded models, float32")
    print(f"a helper begins {args.wake:g} us after its job, the next ones {args.handoff:g} us apart\n")
    print(f"| stage | one thread, ms | measured, 2 | {' | '.join(map(str, THREADS[1:]))} |")
    print("|---|---|---|" + "---|" * len(THREADS[1:]))
    worst: dict[int, Counter[str]] = {16: Counter(), 64: Counter()}
    whole: Counter[int] = Counter()
    for stage in stages:
        work = side.runs(Task("stages", stage, args.seconds))
        at = {}
        for threads in THREADS:
            traces = [record(w, threads, args.repeats) for w in work]
            at[threads] = sum(seconds(trace, threads, costs) for trace in traces)
            for trace in traces:
                if threads in worst:
                    worst[threads].update(
                        {f"{stage}: {k}": v for k, v in lost(trace, threads, costs).items()}
                    )
        whole.update(at)
        two = statistics.mean(measured(w, args.repeats) for w in work)
        print(line(stage, at, f"{two:.2f}"), flush=True)
    print(line("all of these", whole, ""))
    for threads, ops in worst.items():
        print(f"\nLost on {threads} threads, of {whole[threads] * 1e3:.0f} ms: ", end="")
        print(", ".join(f"{name} {1e3 * time:.1f} ms" for name, time in ops.most_common(10)))
    return 0


def line(name: str, at: dict[int, float], two: str) -> str:
    ups = " | ".join(f"{at[1] / at[threads]:.1f}" for threads in THREADS[1:])
    return f"| {name} | {at[1] * 1e3:.0f} | {two} | {ups} |"


if __name__ == "__main__":
    raise SystemExit(main())
