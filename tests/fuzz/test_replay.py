"""Inputs that the fuzzer found are read in bounded time and memory, with success or one clear line."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rvc_fast.errors import InputError
from rvc_fast.retrieval import index
from rvc_fast.weights import unpickler

from .targets import CORPUS, KINDS, Failure, Kind, attempt, kept

ROOT = Path(__file__).parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "RVC_FAST_THREADS": "1"},  # the models are too small for more
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_kept_inputs_keep_the_limits() -> None:
    """In a process of its own: a hang or a crash ends it, and its memory is measured."""
    run = python("-m", "tests.fuzz.replay")
    assert run.returncode == 0, run.stdout[-4000:]


def test_every_kind_has_inputs_and_the_corpus_is_small() -> None:
    counts = {name: len(list(kept(name))) for name in KINDS}
    assert min(counts.values()) >= 10, counts
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < 1_000_000


def skip_blindly(reader: index._Reader, nbytes: int, what: str) -> int:
    begin, reader.at = reader.at, reader.at + nbytes
    return begin


def read_all(name: str, folder: Path) -> None:
    for _, data in kept(name):
        attempt(KINDS[name], folder, data)


@pytest.mark.parametrize(
    ("name", "guard", "without"),
    [
        ("pth", (unpickler.Machine, "pop"), lambda machine: machine.stack.pop()),
        ("index", (index._Reader, "skip"), skip_blindly),
    ],
)
def test_a_guard_that_is_removed_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, guard: tuple[type, str], without: Callable
) -> None:
    monkeypatch.setattr(*guard, without)
    with pytest.raises((IndexError, struct.error)):
        read_all(name, tmp_path)


def test_two_lines_and_other_errors_are_failures(tmp_path: Path) -> None:
    def two_lines(path: Path) -> None:
        raise InputError("a\nb")

    with pytest.raises(Failure, match="more than one line"):
        attempt(Kind(two_lines, "x", list), tmp_path, b"")
    with pytest.raises(UnicodeDecodeError):
        attempt(Kind(lambda path: path.read_text("utf-8"), "x", list), tmp_path, b"\xff")


PLANTED = """
import sys, tempfile, time
from pathlib import Path
import numpy as np
from tests.fuzz import targets
folder = Path(tempfile.mkdtemp())
targets.BYTES //= 10
try:
    targets.attempt(targets.Kind(lambda path: np.ones(8_000_000), "x", list), folder, b"")
except targets.Failure as e:
    print(e, flush=True)
targets.SECONDS = 0.5
targets.attempt(targets.Kind(lambda path: time.sleep(60), "x", list), folder, b"")
"""


def test_a_hang_and_much_memory_are_failures() -> None:
    run = python("-c", PLANTED)
    assert run.returncode == 1
    assert "it takes 6" in run.stdout
    assert "Timeout (0:00:00.500000)!" in run.stdout
