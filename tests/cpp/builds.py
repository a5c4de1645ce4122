"""Builds by the project's own CMake, kept in build/tests and brought up to date by each run."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILDS = ROOT / "build" / "tests"
# The instruction set that every CPU of this architecture has: the quickest to compile once more.
BASE = "neon" if platform.machine() in ("aarch64", "arm64") else "generic"


def run(
    *command: object, cwd: Path = ROOT, timeout: float | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command, its output caught, with more environment."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **env},
        cwd=cwd,
        timeout=timeout,
        check=False,
    )


def build(name: str, *options: str) -> Path:
    """Configure and build with CMake options; return the folder."""
    beside = Path(sys.executable).with_name("cmake")
    cmake = beside if beside.exists() else "cmake"
    folder = BUILDS / name
    level = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count()))
    for command in (
        (cmake, "-S", ROOT, "-B", folder, f"-DPython_EXECUTABLE={sys.executable}", *options),
        (cmake, "--build", folder),
    ):
        result = run(*command, CMAKE_BUILD_PARALLEL_LEVEL=level)
        if result.returncode != 0:
            pytest.fail(f"{name} does not build:\n{(result.stdout + result.stderr)[-4000:]}", pytrace=False)
    return folder


def passed(result: subprocess.CompletedProcess[str]) -> None:
    """Fail the test with the end of a program's output unless it exited with 0."""
    if result.returncode != 0:
        output = (result.stdout + result.stderr)[-6000:]
        pytest.fail(f"exit code {result.returncode}\n{output}", pytrace=False)
