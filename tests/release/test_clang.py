"""src/cpp as Clang reads it, which is what a Mac compiles with: without a warning, and right when it runs.

For arm64-apple-macos14 test_wheels.py compiles it, with warnings as errors too.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from builds import build, passed, run

Need = Callable[[str], str]
pytestmark = pytest.mark.ci

CLANG = (
    "-DCMAKE_CXX_COMPILER=clang++-19",
    "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
    "-DRVC_FAST_STANDALONE_TESTS=ON",
)


@pytest.fixture(autouse=True)
def tools(need_tool: Need) -> None:
    for program in ("cmake", "clang++-19"):
        need_tool(program)


def test_x86_64() -> None:
    """Kernels of every instruction set, MLX primitives and bindings."""
    # MLX's encoder.h calls std::bind, where Clang finds what libstdc++ 12 itself calls deprecated.
    folder = build("clang", *CLANG, "-DCMAKE_CXX_FLAGS=-Wno-deprecated-declarations")
    assert list(folder.glob("_ext*.so"))
    result = run(folder / "kernels_test")
    passed(result)
    assert re.search(r"^\d{4,} passed, 0 failed$", result.stdout, re.M)


def test_neon_under_qemu(need_tool: Need) -> None:
    need_tool("aarch64-linux-gnu-g++")  # its C++ library
    qemu = need_tool("qemu-aarch64")
    folder = build(
        "clang-arm64",
        *CLANG,
        "-DRVC_FAST_EXTENSION=OFF",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        "-DCMAKE_CXX_COMPILER_TARGET=aarch64-linux-gnu",
        "-DCMAKE_EXE_LINKER_FLAGS=-static",
    )
    result = run(qemu, folder / "kernels_test")
    passed(result)
    assert "neon: " in result.stdout
    assert re.search(r"^\d{4,} passed, 0 failed$", result.stdout, re.M)
