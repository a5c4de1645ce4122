"""Every case of every op, on every route and instruction set of this machine, against float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import SPECS, routes
from exact import EXACT

from rvc_fast.ops import dispatch
from rvc_fast.ops.spec import Case, OpSpec, errors

ROOT = Path(__file__).resolve().parents[2]
CASES = [(spec, case) for spec in SPECS.values() for case in spec.cases]
IDS = [f"{spec.name}-{case.name}" for spec, case in CASES]

_exact: dict[tuple[str, str], tuple[dict[str, Any], np.ndarray]] = {}


def inputs_and_answer(spec: OpSpec, case: Case) -> tuple[dict[str, Any], np.ndarray]:
    """The case's arguments and the float64 result for them, computed once for all routes."""
    key = (spec.name, case.name)
    if key not in _exact:
        kwargs = case.make(np.random.default_rng(list(case.name.encode())))
        double = {k: np.array(v, np.float64) if isinstance(v, mx.array) else v for k, v in kwargs.items()}
        _exact[key] = kwargs, EXACT[spec.name](**double)
    return _exact[key]


@pytest.mark.parametrize("route", routes(), indirect=True)
@pytest.mark.parametrize(("spec", "case"), CASES, ids=IDS)
def test_case(spec: OpSpec, case: Case, route: str) -> None:
    if route == "reference" and case.benchmark:
        pytest.skip("stock MLX takes seconds for this one, and its small cases have been checked")
    kwargs, want = inputs_and_answer(spec, case)
    got = spec.op(**kwargs)
    tolerance = spec.tolerance["float32"]
    # Stock MLX adds long sums one term after the other: its own error, not the op's.
    slack = 4 if route == "reference" else 1
    max_abs, rms = errors(got, want)
    assert got.dtype == kwargs["x" if "x" in kwargs else "q"].dtype
    assert max_abs <= slack * tolerance.max_abs
    assert rms <= slack * tolerance.rms


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_work_is_counted(spec: OpSpec) -> None:
    for case in spec.cases:
        kwargs = case.make(np.random.default_rng(0))
        assert spec.flops(**kwargs) > 0
        assert spec.bytes(**kwargs) >= 4 * next(v.size for v in kwargs.values() if isinstance(v, mx.array))


def test_every_op_is_complete() -> None:
    """One slug everywhere: module, spec, test oracle, benchmark, and a C++ folder for a CPU kernel."""
    assert set(SPECS) == set(dispatch.ops())
    assert set(SPECS) == set(EXACT)
    for op, spec in SPECS.items():
        assert spec.name == op
        assert any(case.benchmark for case in spec.cases)
        assert (ROOT / "benchmarks" / "ops" / f"bench_{op}.py").is_file()
        if "cpu" in dispatch._KERNELS[op]:
            assert (ROOT / "src" / "cpp" / op / f"{op}.cpp").is_file()
