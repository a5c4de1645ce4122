"""Compare a kernel with its reference, and time both: python examples/check_kernel.py [OP]"""

import sys
import time
from collections.abc import Callable
from importlib import import_module

import mlx.core as mx
import numpy as np

from rvc_fast.ops import dispatch
from rvc_fast.ops.spec import OpSpec, errors


def milliseconds(call: Callable[[], mx.array]) -> float:
    mx.eval(call())  # the first call may compile or allocate
    start = time.perf_counter()
    mx.eval(call())
    return 1e3 * (time.perf_counter() - start)


def main(op: str = "wavenet_gate") -> None:
    spec: OpSpec = import_module(f"rvc_fast.ops.{op}").SPEC
    route = dispatch.route(op)
    print(f"{op} runs on: {route.backend} ({route.reason})")
    tolerance = spec.tolerance["float32"]
    for case in spec.cases:
        arguments = case.make(np.random.default_rng(0))
        largest, rms = errors(spec.op(**arguments), spec.reference(**arguments))
        ours = milliseconds(lambda: spec.op(**arguments))  # noqa: B023
        stock = milliseconds(lambda: spec.reference(**arguments))  # noqa: B023
        print(
            f"{case.name:24} largest error {largest:.1e}, RMS {rms:.1e}, {ours:.2f} ms, reference {stock:.2f} ms"
        )
        # The reference rounds too: it adds long sums one term after the other, which loses more than a kernel's blocks.
        if rms > 5 * tolerance.rms:
            raise SystemExit(f"FAILED: {case.name}: the RMS of the error is above {5 * tolerance.rms:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
