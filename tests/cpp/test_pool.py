"""The thread pool on its own, plain and under ThreadSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("sanitizer", ["", "thread", "address,undefined"])
def test_pool(tmp_path: Path, sanitizer: str) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = tmp_path / "pool_test"
    flags = ["-std=c++20", "-O1", "-g", "-pthread", f"-I{ROOT / 'src/cpp'}"]
    if sanitizer:
        flags.append(f"-fsanitize={sanitizer}")
    sources = [str(Path(__file__).with_name("pool_test.cpp")), str(ROOT / "src/cpp/core/pool.cpp")]
    subprocess.run([compiler, *flags, *sources, "-o", str(program)], check=True)
    subprocess.run([str(program), *(["sanitized"] if sanitizer else [])], check=True, timeout=120)
