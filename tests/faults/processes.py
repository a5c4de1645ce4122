"""Commands in processes of their own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")


def start(*arguments: object, **limits: int) -> subprocess.Popen[str]:
    """Start a command in a process of its own. `limits` are those of `resource`, as AS=bytes."""

    def limit() -> None:
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

    return subprocess.Popen(
        [sys.executable, CHILD, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        preexec_fn=limit if limits else None,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


def run(*arguments: object, **limits: int) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = start(*arguments, **limits)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def said(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines on stderr, without warnings and the line of the test's own."""
    lines = result.stderr.splitlines()
    return [line for line in lines if not line.startswith(("rvc-fast: warning:", "peak "))]


def failed_in_one_line(result: subprocess.CompletedProcess[str], words: str = "") -> None:
    assert result.returncode in (1, 2), (result.returncode, result.stderr)
    assert len(said(result)) == 1, result.stderr
    assert said(result)[0].startswith("rvc-fast: ")
    assert words in said(result)[0]


def hidden(folder: Path) -> list[str]:
    """Return the temporary files in a folder and below."""
    return [str(file) for file in folder.rglob(".*")]
