"""What a call costs in Python, native and ours: `python -m benchmarks.overhead`.

For every op with a kernel in the extension, on the smallest inputs of its OpSpec, weights packed as loading a model packs
them: microseconds of this thread until the lazy result is there. "native" calls the extension's functions with the
very arguments that the op hands them, "ours" is the public function. Nothing is evaluated. Each number is the
smallest mean of many rounds; native and ours alternate, so that both see the same machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import mlx.core as mx
import numpy as np

from rvc_fast import native, ops
from rvc_fast.bench import kernels
from rvc_fast.ops.op import specs
from rvc_fast.ops.spec import OpSpec


class Overhead(NamedTuple):
    """Microseconds of a call."""

    native: float
    ours: float

    @property
    def ratio(self) -> float:
        return self.ours / self.native


class Recorder:
    """The extension, which notes how its functions are called."""

    def __init__(self, ext: Any):
        self._ext = ext
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._ext, name)

        def noted(*args: Any) -> Any:
            self.calls.append((function, args))
            return function(*args)

        return noted


def arguments(spec: OpSpec) -> dict[str, Any]:
    """Return the smallest arguments of an op's cases that have all their options, everything evaluated."""
    cases = [case.make(np.random.default_rng(0)) for case in spec.cases if not case.benchmark]
    kwargs = min(cases, key=lambda kwargs: spec.flops(**kwargs))
    if spec.name == "bigru":  # as the pitch network calls it
        pairs = {name: tuple(kwargs[name]) for name in ("w_ih", "b_ih")}
        kwargs = {**kwargs, **pairs, "w_ih": tuple(ops.pack_linear(w) for w in kwargs["w_ih"])}
    return kernels.packed(spec, kwargs)


def measure(spec: OpSpec, rounds: int = 200, calls: int = 100) -> Overhead:
    """Time one op."""
    kwargs = arguments(spec)
    run = spec.op
    run(**kwargs)  # checks the arguments, once
    recorder = Recorder(native.compiled)
    with mock.patch.object(native, "compiled", recorder):
        run(**kwargs)
    noted = recorder.calls
    best = [float("inf"), float("inf")]
    for _ in range(rounds):
        start = time.thread_time_ns()
        for _ in range(calls):
            for function, args in noted:
                function(*args)
        middle = time.thread_time_ns()
        for _ in range(calls):
            run(**kwargs)
        end = time.thread_time_ns()
        best = [min(best[0], middle - start), min(best[1], end - middle)]
    return Overhead(*(ns / calls / 1000 for ns in best))


def main() -> int:
    """Print the table; 1 if an op costs more than `--at-most` times its native call."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--at-most", type=float, default=2.0, metavar="RATIO", help="that ours may be")
    parser.add_argument("--rounds", type=int, default=200, help="of 100 calls of each")
    options = parser.parse_args()
    if native.ext() is None:
        raise SystemExit(native.load()[1])
    slow = []
    print(f"{'op':18} {'native':>8} {'ours':>8} {'ratio':>6}   microseconds a call")
    with mx.stream(mx.cpu):
        for name, spec in specs().items():
            found = measure(spec, options.rounds)
            print(f"{name:18} {found.native:8.2f} {found.ours:8.2f} {found.ratio:6.2f}")
            slow += [name] if found.ratio > options.at_most else []
    if slow:
        print(f"more than {options.at_most:g} times the native call: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
