"""One benchmark for every op: the cases of its spec that are marked for it, gated by correctness.

    pytest benchmarks/ops --benchmark-json=out.json -k conv1d

Each result carries GFLOP/s, GB/s, and the share of the FMA peak measured just before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast import native, ops
from rvc_fast.ops import dispatch
from rvc_fast.ops.spec import Case, OpSpec, errors

# The gate compares with a float32 reference, which has a rounding error of its own.
GATE_RMS = 1e-5

PACK: dict[str, Callable[[dict[str, Any]], ops.Weight]] = {
    "conv1d": lambda k: ops.pack_conv1d(k["weight"], groups=k.get("groups", 1)),
    "conv2d": lambda k: ops.pack_conv2d(k["weight"]),
    "conv_transpose1d": lambda k: ops.pack_conv_transpose1d(k["weight"], stride=k.get("stride", 1)),
    "conv_transpose2d": lambda k: ops.pack_conv_transpose2d(k["weight"], stride=k.get("stride", (1, 1))),
    "linear": lambda k: ops.pack_linear(k["weight"]),
}


def parametrize(spec: OpSpec) -> Callable[[Any], Any]:
    """Run a test for each benchmark case of `spec`."""
    cases = [case for case in spec.cases if case.benchmark]
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def run(spec: OpSpec, case: Case, benchmark: Any) -> None:
    """Check the case against the reference, then time it with its weights packed beforehand."""
    kwargs = case.make(np.random.default_rng(0))
    _, rms = errors(spec.op(**kwargs), spec.reference(**kwargs))
    assert rms <= GATE_RMS, f"wrong result, not timed: relative RMS error {rms:.2e}"

    flops, size = spec.flops(**kwargs), spec.bytes(**kwargs)
    if spec.name in PACK:
        kwargs["weight"] = PACK[spec.name](kwargs)
    packed = kwargs.get("weight")
    mx.eval([v for v in kwargs.values() if isinstance(v, mx.array)])
    if isinstance(packed, ops.PackedWeight):
        mx.eval(packed.data)

    ext = native.ext()

    def fma_peak() -> float:
        return ext.fma_peak() if ext is not None else float("nan")

    peak = fma_peak()
    benchmark.pedantic(
        lambda: mx.eval(spec.op(**kwargs)), rounds=max(5, min(200, int(2e10 / flops))), warmup_rounds=2
    )
    seconds = benchmark.stats.stats.min
    peak = max(peak, fma_peak())  # other work on the machine can only lower it
    benchmark.extra_info.update(
        op=spec.name,
        case=case.name,
        backend=dispatch.route(spec.name).backend,
        isa=ext.isa() if ext is not None else None,
        threads=ext.threads() if ext is not None else None,
        gflops=round(flops / seconds / 1e9, 1),
        gbytes=round(size / seconds / 1e9, 1),
        peak_gflops=round(peak / 1e9, 1),
        percent_of_peak=round(100 * flops / seconds / peak, 1),
        error_rms=rms,
    )
