"""What all tests share: the golden folder, and tools that may be missing on a user's machine but not in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("MLX_ENABLE_TF32", "0")  # parity on a GPU; MLX looks when it is imported

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ci take minutes of compiling: they run in CI and by `make test-builds`.

    Those marked wheels run by `make test-builds` alone, which sets TEST_WHEELS: they compile what `make` has compiled.
    """
    if not os.environ.get("TEST_WHEELS"):
        for item in items:
            if item.get_closest_marker("wheels"):
                item.add_marker(pytest.mark.skip(reason="runs by make test-builds"))
    if not os.environ.get("CI"):
        for item in items:
            if item.get_closest_marker("ci"):
                item.add_marker(pytest.mark.skip(reason="runs in CI and by make test-builds"))


@pytest.fixture(scope="session")
def golden() -> Path:
    """The project's own golden cases."""
    return GOLDEN


@pytest.fixture(scope="session")
def need_tool():
    """Return a function that skips the test when a program is missing, and fails it in CI."""

    def need(program: str) -> str:
        path = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
        if path is None:
            if os.environ.get("CI"):
                pytest.fail(f"{program} is missing in CI; .ci/run must install it")
            pytest.skip(f"{program} is not installed")
        return path

    return need


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `code` in a new Python: `run_python(code, *arguments, NAME="value of a variable")`."""

    def run(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )

    return run


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """No test depends on which calls of ops another one made."""
    from rvc_fast.ops import dispatch

    dispatch.forget()
