"""Every case of every op, on every route and instruction set of this machine, against float64."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from exact import EXACT
from support import SPECS, routes

from rvc_fast.ops import registry
from rvc_fast.ops.spec import OpSpec, errors

ROOT = Path(__file__).resolve().parents[2]
CASES = [(op, index) for op, spec in SPECS.items() for index in range(len(spec.cases))]
PARAMS = [
    pytest.param(op, index, id=f"{op}-{case.name}", marks=[pytest.mark.slow] if case.benchmark else [])
    for op, index in CASES
    for case in [SPECS[op].cases[index]]
]


@functools.cache
def inputs_and_answer(op: str, index: int) -> tuple[dict[str, Any], Any]:
    """A case's arguments and the right result for them, computed once for all routes."""
    spec = SPECS[op]
    case = spec.cases[index]
    kwargs = case.make(np.random.default_rng(list(case.name.encode())))
    if op not in EXACT:
        return kwargs, spec.reference(**kwargs)
    double = {k: np.array(v, np.float64) if isinstance(v, mx.array) else v for k, v in kwargs.items()}
    return kwargs, EXACT[op](**double)


@pytest.mark.parametrize("route", routes(), indirect=True)
@pytest.mark.parametrize(("op", "index"), PARAMS)
def test_case(op: str, index: int, route: str) -> None:
    spec = SPECS[op]
    backend = route.partition("/")[0]
    if backend not in ("reference", *registry.backends(op)):
        pytest.skip(f"{op} has no {backend} kernel")
    if backend == "reference" and op in EXACT and spec.cases[index].benchmark:
        pytest.skip("stock MLX takes seconds for this one, and its small cases are checked")
    kwargs, want = inputs_and_answer(op, index)
    got = spec.op(**kwargs)
    max_abs, rms = errors(got, want)
    tolerance = spec.tolerance["float32"]
    # Stock MLX adds long sums one term after the other: its own error, not the op's.
    slack = 4 if backend == "reference" or registry.of_mlx(op, backend) else 1
    assert max_abs <= slack * tolerance.max_abs
    assert rms <= slack * tolerance.rms
    if backend == "reference":
        assert errors(spec.reference(**kwargs), got) == (0, 0)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_work_is_counted(spec: OpSpec) -> None:
    for case in spec.cases:
        kwargs = case.make(np.random.default_rng(0))
        assert spec.flops(**kwargs) > 0
        assert spec.bytes(**kwargs) > 0


def test_every_op_is_complete() -> None:
    """One slug everywhere: module, spec, benchmark, a C++ folder for a CPU kernel, a text for a GPU kernel."""
    assert set(SPECS) == set(registry.ops())
    for op, spec in SPECS.items():
        assert spec.name == op
        assert any(case.benchmark for case in spec.cases), op
        assert (ROOT / "benchmarks" / "ops" / f"bench_{op}.py").is_file()
        if "cpu" in registry.backends(op):
            assert (ROOT / "src" / "cpp" / op / f"{op}.cpp").is_file()
    for folder in (ROOT / "src" / "kernels").iterdir():
        assert folder.name == "common" or registry.backends(folder.name) >= {"metal", "cuda"}
