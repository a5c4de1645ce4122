"""A disk that is full: one line, the old file as it was, nothing left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes import failed_in_one_line, hidden, run

from demo import DEMO


@pytest.fixture
def small_disk(tmp_path: Path, need_tool: Callable[[str], str]) -> Iterator[Callable[[int], Path]]:
    """Return a function that makes a file system of so many bytes."""
    mounted: list[Path] = []

    def make(size: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = [need_tool("mount"), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no tmpfs may be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "in.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(160000) * 0.05), 16000)
    return path


def test_convert_to_a_full_disk(sound: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(256 << 10)
    (disk / "out.wav").write_bytes(b"old")
    for name in ("out.wav", "new.wav"):
        failed_in_one_line(
            run("--fake", "convert", sound, "-o", disk / name, "--quiet", "--rate", "192000"), "No space left"
        )
    assert os.listdir(disk) == ["out.wav"]
    assert (disk / "out.wav").read_bytes() == b"old"
    assert run("--fake", "convert", sound, "-o", disk / "out.ogg", "--quiet").returncode == 0


def test_a_journal_on_a_full_disk(sound: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(64 << 10)
    (disk / "filler").write_bytes(bytes(60 << 10))
    result = run("--fake", "convert", sound.parent / "in.wav", "-o", disk, "--resume", "--quiet")
    assert result.returncode in (1, 2)
    assert "No space left" in result.stderr
    assert set(os.listdir(disk)) <= {"filler", "rvc-fast.jsonl"}


def test_pack_to_a_full_disk(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(1 << 20)
    for arguments in ([], ["--kernels"]):
        result = run("pack", DEMO / "voice.pth", "-o", disk / "voice.safetensors", "--quiet", *arguments)
        failed_in_one_line(result, "No space left")
    assert os.listdir(disk) == []


@pytest.mark.parametrize("most", [1000, 100_000])
def test_files_of_limited_size(sound: Path, tmp_path: Path, most: int) -> None:
    out = tmp_path / "out"
    out.mkdir()
    failed_in_one_line(
        run("--fake", "convert", sound, "-o", out / "a.wav", "--quiet", FSIZE=most), "too large"
    )
    failed_in_one_line(run("pack", DEMO / "voice.pth", "-o", out / "v.safetensors", FSIZE=most), "too large")
    assert os.listdir(out) == []
    assert hidden(tmp_path) == []
