"""The emulated GPU as a pytest fixture, and the count of what was executed on it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator, build, nvcc
from emulator.patch import installed

sys.path.append(str(Path(__file__).resolve().parents[1] / "ops"))

EXECUTED: Counter[str] = Counter()
LAST = "test_every_cuda_text_compiles"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """nvcc works behind the other tests; the one that waits for it comes last."""
    items.sort(key=lambda item: item.name == LAST)


@pytest.fixture(scope="session")
def compiler() -> nvcc.Compiler | None:
    """Compiles the CUDA texts that are executed; None where nvcc or MLX's headers are missing, but not in CI."""
    program = nvcc.find()
    if program is None or not nvcc.HEADERS.is_dir():
        if os.environ.get("CI"):
            pytest.fail("nvcc or MLX's CUDA headers are missing in CI; .ci/run must install them")
        return None
    return nvcc.Compiler(program)


@pytest.fixture
def gpu(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    need_tool: Any,
    compiler: nvcc.Compiler | None,
) -> Iterator[Emulator]:
    """The ops run their "metal" or "cuda" kernels (the test's parameter), executed by the emulator.

    Parametrize with `@pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)`; `gpu.launches` lists
    what was executed. A module of tests that sets `WHOLE_MODELS` executes every launch once.
    """
    need_tool(build.CLANG)
    emulator = Emulator(request.param, once=getattr(request.module, "WHOLE_MODELS", False))
    with installed(emulator, monkeypatch):
        yield emulator
    EXECUTED[request.param] += len(emulator.launches)
    if compiler and any(item.name == LAST for item in request.session.items):
        for text, threads in emulator.texts.items():
            if text.language == "cuda":
                compiler.add(text.name, text.source, threads)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for language in sorted(EXECUTED):
        count = EXECUTED[language]
        terminalreporter.write_line(f"emulated GPU: {count} launches of {language} kernels executed")
