"""CUDA text against the compiler and headers that a GPU would meet. `test_every_cuda_text_compiles` runs last."""

from __future__ import annotations

import os
from typing import Any

import mlx.core as mx
import pytest
from emulator import nvcc, texts

BODY = "o[threadIdx.x] = T(float(x[threadIdx.x]) + x_shape[0]);"


def text(body: str = BODY) -> str:
    names = (("x",), ("o",))
    template = [("T", mx.float16), ("N", 4), ("FLAG", True)]
    return texts.cuda("k", names, body, "", [mx.zeros((8, 8))], [mx.float16], template).source


@pytest.fixture
def nvcc_path(compiler: nvcc.Compiler | None) -> str:
    if compiler is None:
        pytest.skip("nvcc or MLX's CUDA headers are missing: run tests/metal/emulator/nvcc.py")
    return compiler.nvcc


def test_text_is_made_of_mlx_own_fragments() -> None:
    """`nvcc.fetch` has found each of them in MLX's library."""
    made = text("o[0] = x_shape[0] + x_strides[0] + x_ndim;")
    fields = iter(["N", "4", "FLAG", "true", "T", "__half"])
    for fragment in nvcc.FRAGMENTS:
        while "{}" in fragment:
            fragment = fragment.replace("{}", next(fields), 1)
        assert fragment in made


def test_a_kernel_compiles_for_all_architectures(nvcc_path: str) -> None:
    found = nvcc.compile_text(nvcc_path, text())
    assert [r.architecture for r in found] == list(nvcc.ARCHITECTURES)
    assert all(0 < r.registers < 64 and r.problems(1024) == [] for r in found)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("o[threadIdx.x] = missing(x[0]);", "missing"),
        ("int unset; o[threadIdx.x] = T(float(unset));", "used before its value is set"),
        (
            "__shared__ float t[12289]; t[threadIdx.x] = x[0]; __syncthreads(); o[0] = T(t[1]);",
            "too much shared data",
        ),
    ],
)
def test_errors_and_warnings_are_refused(nvcc_path: str, body: str, message: str) -> None:
    with pytest.raises(nvcc.Refused, match=message):
        nvcc.compile_text(nvcc_path, text(body))


def named(name: str, body: str = BODY) -> str:
    return text(body).replace(" custom_kernel_k_", f" custom_kernel_{name}_")


def test_texts_of_one_head_are_compiled_together(nvcc_path: str) -> None:
    """Each has the resources that it has alone."""
    sources = [
        named("a"),
        named(
            "b", "__shared__ float t[64]; t[threadIdx.x] = x[0]; __syncthreads(); o[0] = t[1] + x_shape[0];"
        ),
    ]
    one = nvcc.ARCHITECTURES[:1]
    together = nvcc.compile_unit(nvcc_path, sources, one)
    assert together == [nvcc.compile_text(nvcc_path, s, one) for s in sources]
    assert [r.shared for r in together[1]] == [r.shared + 256 for r in together[0]]


def test_the_text_that_spoils_a_unit_is_named(nvcc_path: str) -> None:
    compiler = nvcc.Compiler(nvcc_path)
    for name, body in (("good", BODY), ("bad", "o[threadIdx.x] = missing(x[0]);")):
        compiler.add(name, named(name, body), 64)
    count, problems = compiler.problems()
    assert count == 2
    assert [p.partition(":")[0] for p in problems] == ["bad"]


def test_what_ptxas_reports_is_read() -> None:
    report = "".join(
        f"ptxas info : Compiling entry function 'k' for '{a}'\n"
        "0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info : Used 100 registers, used 1 barriers, 1024 bytes smem, 384 bytes cmem[0]\n"
        for a in nvcc.ARCHITECTURES
    )
    found = nvcc.read_report(report)
    assert found[0] == nvcc.Resources("sm_80", 100, 1024, 20)
    assert [p.split()[0] for p in found[0].problems(1024)] == ["100", "20"]
    assert nvcc.Resources("sm_80", 128, 49153, 0).problems(512) == [
        "49153 bytes of static shared memory: there are 49152"
    ]


def test_every_cuda_text_compiles(compiler: nvcc.Compiler | None, record_property: Any) -> None:
    """All that the tests before this one have executed."""
    if compiler is None:
        pytest.skip("nvcc or MLX's CUDA headers are missing: run tests/metal/emulator/nvcc.py")
    count, problems = compiler.problems()
    record_property("texts", count)
    assert not problems, "\n".join(problems)
    if not count:
        assert not os.environ.get("CI"), "no CUDA text was executed"
        pytest.skip("no CUDA text was executed in this run")
