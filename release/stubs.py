"""Write `_ext.pyi`, the types of the compiled extension, from the extension that is installed: `make stubs`.

It is kept in the repository, because a build for another system cannot import what it makes. A test compares it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlx.core  # noqa: F401  # the extension needs its types
from nanobind.stubgen import StubGen

from rvc_fast import _ext

FILE = Path(__file__).resolve().parents[1] / "src" / "python" / "rvc_fast" / "_ext.pyi"
HEAD = "from collections.abc import Callable\nfrom typing import Any\n"


def generate() -> str:
    """Return the text of `_ext.pyi`, formatted."""
    stub = StubGen(_ext)
    stub.put(_ext)
    command = [sys.executable, "-m", "ruff"]
    options = {"input": HEAD + stub.get(), "capture_output": True, "text": True, "check": True}
    sort = [
        *command,
        "check",
        "--quiet",
        "--select",
        "I,C408",
        "--fix",
        "--unsafe-fixes",
        "--stdin-filename",
        str(FILE),
        "-",
    ]
    text = subprocess.run(sort, **options).stdout
    return subprocess.run(
        [*command, "format", "--stdin-filename", str(FILE), "-"], **{**options, "input": text}
    ).stdout


if __name__ == "__main__":
    FILE.write_text(generate())
