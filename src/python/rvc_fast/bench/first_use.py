"""The check of a GPU's kernels, in a process of its own: `python -m rvc_fast.bench.first_use BACKEND DTYPE OP:BACKEND...`

Started and read by `ops/trust.py`. For each task it compares the op on that backend with the reference, computed in
float32 on the CPU: the small cases of the OpSpec, and the cheapest of the real shapes that between them launch every
variant of the kernels; these are timed too. It prints {} when it begins and before each case, and a JSON line per task.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np

from .. import device, env
from ..ops import gpu, registry
from ..ops.spec import HALF, Case, OpSpec, Tolerance, errors
from . import kernels

# In float32 the reference adds long sums one term after the other; `tests/ops` hold it to this against float64.
OF_REFERENCE = 4
# Rounding of long sums in another order, and Winograd's convolutions, in MLX's own kernels: 90 dB in float32.
OF_MLX = 32
# In 16 bits, and where MLX multiplies float32 in TF32, which has the mantissa of float16.
OF_NARROW = 4
# Share of the integers in a result, the rows of neighbours, that may differ: two vectors can be equally near.
ELSEWHERE = 1e-3
# Of a real shape, and queries of a search; more would take the CPU's reference too long.
MOST_FLOPS = 5e9
FEW = 50
# Runs of a real shape that are timed, and the seconds after which no other begins.
RUNS, ENOUGH = 7, 0.2


def real_shapes(spec: OpSpec) -> list[Case]:
    """Return an op's cases as conversions have them, the cheapest first, none of more than `MOST_FLOPS`."""
    cases = [case for case in spec.cases if case.benchmark]
    if spec.name == "resblock":  # but for its last stage they are too long for stock MLX
        cases += [
            dataclasses.replace(kernels.residual_stage(channels, length), name=f"{channels} channels, 0.1 s")
            for channels, length in ((256, 120), (128, 1200), (64, 2400))
        ]
    if spec.name == "knn":
        cases = [Case(f"{FEW} queries of {case.name}", _few(case), benchmark=True) for case in cases]
    flops = {case.name: spec.flops(**_make(case)) for case in cases}
    return sorted((c for c in cases if flops[c.name] <= MOST_FLOPS), key=lambda c: flops[c.name])


def _few(case: Case) -> Callable[[np.random.Generator], dict[str, Any]]:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        kwargs = case.make(rng)
        return {**kwargs, "queries": kwargs["queries"][:FEW]}

    return make


def _make(case: Case) -> dict[str, Any]:
    """Make a case's arguments on the CPU, which is trusted."""
    with device.on("cpu"):
        kwargs = case.make(np.random.default_rng(0))
        kernels.evaluate(kwargs)
    return kwargs


@contextlib.contextmanager
def _launches() -> Iterator[set[Any]]:
    """Collect what would be compiled by the ops that are called meanwhile; nothing is launched."""
    found: set[Any] = set()
    launch = gpu.launch

    def record(
        backend: str, op: str, kernel: str, inputs: Any, *, options: Any, threads: int, outputs: Any, **_: Any
    ) -> list[mx.array]:
        kinds = tuple((name, None if a is None else str(a.dtype)) for name, a in inputs.items())
        found.add((kernel, kinds, threads, tuple((name, str(value)) for name, value in options.items())))
        return [mx.zeros(shape, dtype) for shape, dtype in outputs]

    gpu.launch = record
    try:
        yield found
    finally:
        gpu.launch = launch


@functools.cache
def _specs() -> dict[str, OpSpec]:
    return {op: importlib.import_module(f"rvc_fast.ops.{op}").SPEC for op in registry.ops()}


@functools.lru_cache(maxsize=1)
def chosen(op: str, backend: str, dtype: str) -> list[Case]:
    """Return the cases to compare: all small ones, and a real shape for every variant of the GPU's kernels.

    MLX's own kernels do not tell their variants: of those the smallest and the largest real shape.
    """
    spec = _specs()[op]
    small = [case for case in spec.cases if not case.benchmark]
    shapes = real_shapes(spec)
    if registry.of_mlx(op, backend):
        return small + shapes[:1] + shapes[1:][-1:]
    seen: set[Any] = set()
    real: list[Case] = []
    with _backend(backend):
        for case in shapes:
            kwargs = kernels.rounded(_make(case), dtype)
            with _launches() as variants:
                spec.op(**kwargs)
            if variants - seen:
                real.append(case)
                seen |= variants
    return small + real


@contextlib.contextmanager
def _backend(name: str) -> Iterator[None]:
    before = os.environ["RVC_FAST_BACKEND"]
    os.environ["RVC_FAST_BACKEND"] = name
    try:
        yield
    finally:
        os.environ["RVC_FAST_BACKEND"] = before


@functools.cache
def _answer(op: str, case: Case, dtype: str) -> tuple[dict[str, Any], Any]:
    """Return a case's arguments, rounded to the dtype, and the reference's result for them, from the CPU."""
    spec = _specs()[op]
    kwargs = _make(case)
    with device.on("cpu"), _backend("reference"):
        kwargs = kernels.rounded(kwargs, dtype)
        want = spec.reference(**kernels.widened(kwargs))
        kernels.evaluate([kwargs, want])
    return kwargs, want


def tolerance(spec: OpSpec, backend: str, dtype: str) -> Tolerance:
    """Return what a result may be off: the spec's, and more where MLX's own kernels do the work.

    To that comes what the reference may be off itself, which stock MLX computes in float32.
    """
    single = spec.tolerance["float32"]
    if backend != "reference" and not registry.of_mlx(spec.name, backend):
        bar, slack = spec.tolerance.get(dtype, single), 1
    elif dtype == "float32" and not env.tf32():
        bar, slack = single, OF_MLX
    else:
        bar, slack = HALF["float16" if dtype == "float32" else dtype], OF_NARROW
    return Tolerance(
        slack * bar.max_abs + OF_REFERENCE * single.max_abs, slack * bar.rms + OF_REFERENCE * single.rms
    )


def wrong(got: Any, want: Any, allowed: Tolerance) -> str | None:
    """Return by how much a result is off if that is too much, or None."""
    if isinstance(want, tuple):
        return next((text for pair in zip(got, want, strict=True) if (text := wrong(*pair, allowed))), None)
    if mx.issubdtype(want.dtype, mx.integer):
        share = float(np.mean(np.array(got) != np.array(want)))
        return f"{share:.2%} of the rows are others" if share > ELSEWHERE else None
    max_abs, rms = errors(got, want)
    if max_abs <= allowed.max_abs and rms <= allowed.rms:
        return None
    return (
        f"it is off by {max_abs:.1e} (RMS {rms:.1e}), allowed are {allowed.max_abs:.1e} ({allowed.rms:.1e})"
    )


def seconds(run: Callable[[], object]) -> float:
    """Return the median seconds of a run that has been warmed up."""
    run()
    times: list[float] = []
    while len(times) < RUNS and sum(times) < ENOUGH:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _use(result: Any) -> None:
    """Use a result on the default device, so that one from elsewhere has to get there."""
    mx.eval([array + 0 for array in (result if isinstance(result, tuple) else (result,))])


def examine(
    op: str, backend: str, on: str, dtype: str, alive: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Compare `op` on `backend` with its reference and time its real shapes, which are those of the GPU's backend `on`.

    `alive` is called when the CPU's part of a case is done: it is the GPU that has a limit of time.

    Returns:
        error: what is wrong, or None.
        seconds: the sum of the times of the real shapes, or None.
    """
    spec = _specs()[op]
    total = 0.0
    name = ""
    try:
        for case in chosen(op, on, dtype):
            name = case.name
            kwargs, want = _answer(op, case, dtype)
            alive()
            with _backend(backend):
                got = spec.op(**kwargs)
                kernels.evaluate(got)
                if text := wrong(got, want, tolerance(spec, backend, dtype)):
                    return {"error": f"case {name!r}: {text}", "seconds": None}
                if case.benchmark:
                    given = kernels.packed(spec, kwargs, dtype)
                    total += seconds(lambda given=given: _use(spec.op(**given)))  # type: ignore[misc]
    except Exception as e:
        text = " ".join(f"{type(e).__name__}: {e}".split())[:300]
        return {"error": f"case {name!r}: {text}", "seconds": None}
    return {"error": None, "seconds": total}


def main() -> None:
    """Work through the tasks of the command line."""
    on, dtype, *tasks = sys.argv[1:]
    os.environ["RVC_FAST_BACKEND"] = on
    # Whatever libraries print must not come between the results.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def alive() -> None:
        print("{}", file=out, flush=True)

    alive()
    before = ""
    for task in tasks:
        op, backend = task.split(":")
        if op != before:
            _answer.cache_clear()
            before = op
        print(json.dumps(examine(op, backend, on, dtype, alive)), file=out, flush=True)


if __name__ == "__main__":
    main()
