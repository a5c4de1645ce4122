"""The Linux arm64 wheel from end to end, under qemu: Debian's arm64 Python, MLX's aarch64 wheel, our NEON kernels."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made import arm64, arm64_site

Need = Callable[[str], str]
pytestmark = pytest.mark.ci


@pytest.fixture(autouse=True)
def tools(need_tool: Need) -> None:
    for program in ("aarch64-linux-gnu-g++", "qemu-aarch64", "dpkg-deb"):
        need_tool(program)


def test_import_and_self_test() -> None:
    code = "import platform; from rvc_fast import native; print(platform.machine(), native.load()[1])"
    result = arm64("-c", code, timeout=600)
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"aarch64 compiled kernels, neon_dot, \d+ threads\n", result.stdout)


def test_verify() -> None:
    """The golden cases that travel in the wheel."""
    golden = arm64_site() / "rvc_fast" / "golden"
    result = arm64("-m", "rvc_fast", "verify", golden, "--quiet", timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"(\d+) of (\d+) passed", result.stdout)
    assert passed is not None
    assert passed[1] == passed[2]
    assert int(passed[2]) >= 15


def test_half_a_second_of_sound(tmp_path: Path) -> None:
    t = np.arange(8000) / 16000
    soundfile.write(tmp_path / "in.wav", 0.3 * np.sin(2 * np.pi * 220 * t), 16000)
    result = arm64(
        "-m", "rvc_fast", "convert", tmp_path / "in.wav", "-o", tmp_path / "out.wav", "--quiet", timeout=600
    )
    assert result.returncode == 0, result.stderr
    sound, rate = soundfile.read(tmp_path / "out.wav")
    assert len(sound) / rate == pytest.approx(0.49, abs=0.011)  # a chunk loses 10 to 20 ms
    assert np.isfinite(sound).all()
    assert np.sqrt(np.mean(sound**2)) > 1e-3
