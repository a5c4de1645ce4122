"""The kernels and the extension under AddressSanitizer with UndefinedBehaviorSanitizer, and ThreadSanitizer.

Python and MLX are not instrumented: the extension finds the sanitizer's runtime because it is preloaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import ROOT, build, passed, run

Need = Callable[[str], str]
pytestmark = pytest.mark.ci

HERE = Path(__file__).resolve().parent
RUNTIME = {"address": "libasan.so", "thread": "libtsan.so"}


@pytest.fixture(autouse=True)
def tools(need_tool: Need) -> None:
    for program in ("cmake", "g++"):
        need_tool(program)


def instrumented(sanitizer: str) -> Path:
    """The folder of the extension and of kernels_test, built with `sanitizer`."""
    # One instruction set: neither who touches what nor how a buffer is sized depends on it but by the width of a
    # vector, and kernels_test has guard pages around every buffer on all of them.
    options = f"-DRVC_FAST_SANITIZE={sanitizer}", "-DRVC_FAST_STANDALONE_TESTS=ON", "-DRVC_FAST_BASE_ONLY=ON"
    return build(sanitizer, *options)


def environment(sanitizer: str) -> dict[str, str]:
    """What a Python needs in order to load the extension built with `sanitizer`."""
    (extension,) = instrumented(sanitizer).glob("_ext*.so")
    # libstdc++ too: the runtime looks for its functions before the extension would load it.
    libraries = [
        run("g++", f"-print-file-name={name}").stdout.strip() for name in (RUNTIME[sanitizer], "libstdc++.so")
    ]
    return {
        "RVC_TEST_EXTENSION": str(extension),
        "PYTHONPATH": os.pathsep.join([str(HERE / "sanitized"), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "LD_PRELOAD": " ".join(libraries),
        # So that every array is a block of its own, with guards around it.
        "PYTHONMALLOC": "malloc",
        # NumPy without threads of its own.
        "OPENBLAS_NUM_THREADS": "1",
        # What Python leaves behind at its end is not ours.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": f"suppressions={HERE / 'sanitized' / 'thread.supp'}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sanitizer", "test"),
    # Threads meet in what `conv_work`, `resblock_work` and `parallel_for` do. A kernel alone has one thread.
    [
        ("address", ""),
        *(("thread", test) for test in ("conv_work", "resblock_work", "parallel_for", "scratch")),
    ],
)
def test_kernels(sanitizer: str, test: str) -> None:
    """kernels_test, or those of its tests whose names begin with `test`."""
    passed(run(instrumented(sanitizer) / "kernels_test", TEST=test))


@pytest.mark.parametrize(
    ("sanitizer", "fault", "report"),
    [
        ("address", "read_beyond(mx.ones((5,)))", "heap-buffer-overflow"),
        ("thread", "race()", "data race"),
    ],
)
def test_planted_faults_are_noticed(sanitizer: str, fault: str, report: str) -> None:
    code = f"""
import mlx.core as mx
from rvc_fast import native
native.ext().configure(threads=4)
native.ext().{fault}
"""
    result = run(sys.executable, "-c", code, **environment(sanitizer))
    assert result.returncode != 0
    assert report in result.stderr


@pytest.mark.parametrize("sanitizer", RUNTIME)
def test_ops(sanitizer: str) -> None:
    """Every op on the instruction set that was built, several Python threads included; not the long benchmark cases."""
    # The reference is MLX alone, and ThreadSanitizer does not follow a fork.
    chosen = "not reference and not forked" if sanitizer == "thread" else "not reference"
    options = ["-x", "-m", "not slow", "-p", "no:cacheprovider", "-k", chosen]
    # The others start Pythons of their own or look at what is in Python.
    files = [ROOT / "tests" / "ops" / f"test_{name}.py" for name in ("specs", "native", "winograd", "op")]
    command = [sys.executable, "-m", "pytest", *options, *files]
    passed(run(*command, **environment(sanitizer)))
