"""Every program of `examples/` runs as its README says and does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile
import soxr

from rvc_fast.pitch.rmvpe import decode_salience, load_rmvpe

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SOUND = ROOT / "models" / "demo" / "sounds" / "speech_male.wav"


def run(folder: Path, name: str, *arguments: str | Path) -> str:
    """Run an example in a folder and return what it prints."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sound(path: Path) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(path)
    assert samples.std() > 0.01, "it is not silent"
    return samples, rate


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A second of the demo's sound."""
    samples, rate = soundfile.read(SOUND)
    soundfile.write(tmp_path / "short.wav", samples[:rate], rate)
    return tmp_path / "short.wav"


def test_every_example_is_tested_and_listed() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert len(names) == 5
    text, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    for name in names:
        assert f"[{name}.py]({name}.py)" in text
        assert f'"{name}"' in tests


def test_convert_file_without_arguments(tmp_path: Path) -> None:
    said = run(tmp_path, "convert_file")
    samples, rate = sound(tmp_path / "converted.wav")
    assert f"converted.wav: {len(samples) / rate:.1f} s of sound" in said


def test_convert_many_goes_on_after_a_bad_file(tmp_path: Path, short: Path) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    said = run(tmp_path, "convert_many", tmp_path, "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["short.wav"]
    sound(tmp_path / "out" / "short.wav")
    assert "bad.wav: " in said
    assert "times as fast as real time" in said


def test_own_f0_is_sung(tmp_path: Path) -> None:
    run(tmp_path, "own_f0", SOUND, "sung.wav")
    samples, rate = sound(tmp_path / "sung.wav")
    model = load_rmvpe(ROOT / "models" / "demo" / "rmvpe.pt")
    heard = decode_salience(model.salience(mx.array(soxr.resample(samples, rate, 16000).astype(np.float32))))
    half = len(heard) // 2
    early, late = (np.median(part[part > 0]) for part in (heard[:half], heard[half:]))
    # The curve is at 2^(1/4) * 150 Hz in the middle of the first half and at 2^(3/4) * 150 Hz in that of the second.
    assert late / early == pytest.approx(2**0.5, rel=0.12)
    assert early == pytest.approx(150 * 2**0.25, rel=0.12)


def test_op_in_your_model_agrees(tmp_path: Path) -> None:
    assert "largest difference: " in run(tmp_path, "op_in_your_model")


@pytest.mark.parametrize("op", [(), ("conv1d",)], ids=["default", "conv1d"])
def test_check_kernel_compares_every_case(tmp_path: Path, op: tuple[str, ...]) -> None:
    said = run(tmp_path, "check_kernel", *op)
    assert f"{op[0] if op else 'wavenet_gate'} runs on: " in said
    assert said.count("largest error") >= 5
