"""The emulated GPU as a pytest fixture, and the count of what was executed on it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator import Emulator
from emulator.patch import install

sys.path.append(str(Path(__file__).resolve().parents[1] / "ops"))

EXECUTED: Counter[str] = Counter()


@pytest.fixture
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, need_tool) -> Iterator[Emulator]:
    """The ops run their "metal" or "cuda" kernels (the test's parameter), executed by the emulator.

    Parametrize with `@pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)`; `gpu.launches` lists
    what was executed.
    """
    need_tool("clang++-19")
    emulator = Emulator(request.param)
    install(emulator, monkeypatch)
    yield emulator
    EXECUTED[request.param] += len(emulator.launches)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for language in sorted(EXECUTED):
        terminalreporter.write_line(
            f"emulated GPU: {EXECUTED[language]} launches of {language} kernels executed"
        )
