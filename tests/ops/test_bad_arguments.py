"""Every public op with arguments that do not fit: one clear error that names the op, the argument and the value,
on every route. It runs in another process, so that a crash is a failure here too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import routes

PROGRAM = Path(__file__).with_name("bad_arguments.py")


@pytest.mark.parametrize("route", [r for r in routes() if "/" not in r or r == routes()[1]])
def test_bad_arguments(route: str) -> None:
    backend = route.partition("/")[0]
    result = subprocess.run(
        [sys.executable, str(PROGRAM)],
        capture_output=True,
        text=True,
        env={**os.environ, "RVC_FAST_BACKEND": backend},
        check=False,
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
    count, word = result.stdout.split()
    assert word == "refused"
    assert int(count) > 400
