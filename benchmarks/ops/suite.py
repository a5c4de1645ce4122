"""One benchmark for every op: the cases of `rvc-fast bench kernels`, gated by correctness, under pytest-benchmark.

    pytest benchmarks/ops --benchmark-json=out.json -k conv1d

Each result carries GFLOP/s, GB/s, and the share of the FMA peak measured just before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from rvc_fast import native
from rvc_fast.bench import kernels
from rvc_fast.ops import dispatch
from rvc_fast.ops.spec import Case, OpSpec, errors


def parametrize(spec: OpSpec) -> Callable[[Any], Any]:
    """Run a test for each benchmark case of `spec`."""
    cases = kernels.cases(spec)
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def run(spec: OpSpec, case: Case, benchmark: Any, algorithm: str = "auto") -> None:
    """Check the case against the reference, then time it with its weights packed beforehand."""
    kwargs = kernels.arguments(spec, case)
    given = kernels.packed(spec, kwargs, algorithm=algorithm)
    _, rms = errors(spec.op(**given), spec.reference(**kwargs))
    snr, bar = kernels.snr_db(rms), kernels.bar(spec, "float32")
    assert snr >= bar, f"wrong result, not timed: {snr:.1f} dB against the reference"

    flops, size = spec.flops(**kwargs), spec.bytes(**kwargs)
    ext = native.ext()

    def fma_peak() -> float:
        return ext.fma_peak() if ext is not None else float("nan")

    peak = fma_peak()
    benchmark.pedantic(
        lambda: mx.eval(spec.op(**given)), rounds=max(5, min(200, int(2e10 / flops))), warmup_rounds=2
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
        snr_db=round(snr, 1),
    )
