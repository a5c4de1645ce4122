"""The C++ below MLX on its own, plain and under sanitizers: the thread pool, the convolution engine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import mlx
import pytest

ROOT = Path(__file__).resolve().parents[2]
CPP = ROOT / "src" / "cpp"
AVX512 = ["-mavx2", "-mfma", "-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"]
ISA_FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": AVX512,
    "avx512_bf16": [*AVX512, "-mavx512bf16"],
    "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
}


@pytest.fixture
def compiler() -> str:
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler")
    return found


def flags(sanitizer: str) -> list[str]:
    include = [f"-I{CPP}", *(f"-isystem{path}/include" for path in mlx.__path__)]
    common = ["-std=c++20", "-O1", "-g", "-pthread", "-w", "-ffp-contract=fast", *include]
    return [*common, f"-fsanitize={sanitizer}"] if sanitizer else common


@pytest.mark.parametrize("sanitizer", ["", "thread", "address,undefined"])
def test_pool(tmp_path: Path, compiler: str, sanitizer: str) -> None:
    program = tmp_path / "pool_test"
    sources = [str(Path(__file__).with_name("pool_test.cpp")), str(CPP / "core" / "pool.cpp")]
    subprocess.run([compiler, *flags(sanitizer), *sources, "-o", str(program)], check=True)
    subprocess.run([str(program), *(["sanitized"] if sanitizer else [])], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_convolutions(tmp_path: Path, compiler: str, sanitizer: str) -> None:
    isas = ["generic", *(ISA_FLAGS if platform.machine() in ("x86_64", "AMD64") else [])]
    objects = []
    for isa in isas:
        objects.append(str(tmp_path / f"{isa}.o"))
        options = [*flags(sanitizer), *ISA_FLAGS.get(isa, [])]
        subprocess.run(
            [compiler, *options, "-c", str(CPP / "isa" / f"{isa}.cpp"), "-o", objects[-1]], check=True
        )
    sources = [
        str(Path(__file__).with_name("conv_test.cpp")),
        *(str(CPP / name) for name in ("conv/run.cpp", "core/pool.cpp", "isa/kernels.cpp")),
    ]
    program = tmp_path / "conv_test"
    subprocess.run([compiler, *flags(sanitizer), *sources, *objects, "-o", str(program)], check=True)
    subprocess.run([str(program)], check=True, timeout=300)
