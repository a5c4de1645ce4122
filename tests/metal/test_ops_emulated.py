"""Every case of every op with GPU kernels, its text executed by the emulator, against exact answers."""

from __future__ import annotations

import functools
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator, build
from emulator.patch import compile_for
from exact import EXACT
from support import SPECS

from rvc_fast.ops import registry
from rvc_fast.ops.spec import errors

# Emulation does some tens of millions of these a second.
MOST_FLOPS = 200_000_000
# Of these MLX's CPU kernels, which stand in for its GPU kernels here, add up in 16 bits; those of a GPU do not.
SUMS_OF_16_BITS = ("quantized_linear",)


def _round(value: Any, dtype: mx.Dtype) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_round(v, dtype) for v in value))
    if isinstance(value, list):
        return [_round(v, dtype) for v in value]
    floating = isinstance(value, mx.array) and mx.issubdtype(value.dtype, mx.floating)
    return value.astype(dtype) if floating else value


@functools.cache
def arguments(op: str, index: int) -> dict[str, Any]:
    case = SPECS[op].cases[index]
    return case.make(np.random.default_rng(list(case.name.encode())))


def rounded(op: str, index: int, dtype: str) -> dict[str, Any]:
    return {k: _round(v, getattr(mx, dtype)) for k, v in arguments(op, index).items()}


@functools.lru_cache(maxsize=16)
def arguments_and_answer(op: str, index: int, dtype: str) -> tuple[dict[str, Any], Any]:
    """A case's arguments rounded to `dtype`, and the right result for them."""
    spec = SPECS[op]
    kwargs = rounded(op, index, dtype)
    single = {k: _round(v, mx.float32) for k, v in kwargs.items()}
    if op not in EXACT:
        return kwargs, spec.reference(**single)
    double = {k: np.array(v, np.float64) if isinstance(v, mx.array) else v for k, v in single.items()}
    return kwargs, EXACT[op](**double)


def _params() -> list[Any]:
    found = []
    for op, spec in SPECS.items():
        backends = sorted(registry.backends(op) & {"metal", "cuda"})
        for index, case in enumerate(spec.cases):
            if not backends or (case.benchmark and spec.flops(**arguments(op, index)) > MOST_FLOPS):
                continue
            for backend in backends:
                narrow = () if op in SUMS_OF_16_BITS else ("float16", "bfloat16")
                for dtype in ("float32", *(d for d in narrow if d in spec.tolerance)):
                    found.append(
                        pytest.param(backend, op, index, dtype, id=f"{op}-{case.name}-{dtype}-{backend}")
                    )
    return found


@pytest.fixture(scope="module", autouse=True)
def compiled_together(request: pytest.FixtureRequest, need_tool: Any) -> None:
    """Compile the kernels of all chosen cases in a few large units, each case rehearsed for its texts."""
    need_tool(build.CLANG)
    chosen = [i.callspec.params for i in request.session.items if getattr(i, "function", None) is test_case]

    def call(language: str) -> None:
        for c in chosen:
            if c["gpu"] == language:
                SPECS[c["op"]].op(**rounded(c["op"], c["index"], c["dtype"]))

    for language in sorted({c["gpu"] for c in chosen}):
        compile_for(language, lambda language=language: call(language))


@pytest.mark.parametrize(("gpu", "op", "index", "dtype"), _params(), indirect=["gpu"])
def test_case(gpu: Emulator, op: str, index: int, dtype: str) -> None:
    spec = SPECS[op]
    kwargs, want = arguments_and_answer(op, index, dtype)
    got = spec.op(**kwargs)
    mx.eval(got)
    assert gpu.launches or registry.of_mlx(op, gpu.language), f"{op} launched nothing"
    max_abs, rms = errors(got, want)
    tolerance = spec.tolerance[dtype]
    # Where MLX's own kernels serve, its CPU kernels ran here: they add long sums one term after the other.
    slack = 4 if registry.of_mlx(op, gpu.language) else 1
    assert max_abs <= slack * tolerance.max_abs
    assert rms <= slack * tolerance.rms
