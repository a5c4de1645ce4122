"""Pitch files as other programs write them: understood, or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

import rvc_fast
from rvc_fast.cli import main
from rvc_fast.errors import InputError
from rvc_fast.pitch.f0 import read_points

from .voices import DEMO

PITCH = 200 + 20 * np.sin(np.arange(300) / 20)


@pytest.fixture(scope="module")
def converter() -> rvc_fast.Converter:
    return rvc_fast.load(DEMO / "voice.pth", embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt")


@pytest.fixture
def write(tmp_path):
    def write(rows):
        path = tmp_path / "f0.csv"
        path.write_text("".join(rows))
        return path

    return write


def sound(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(np.arange(round(seconds * 16000)) * 0.08)).astype(np.float32)


@pytest.mark.parametrize(
    "rows",
    [
        [f"{i * 44100 / 160},{v}\n" for i, v in enumerate(PITCH)],
        [f"{i * 10},{v}\n" for i, v in enumerate(PITCH)],
        [f"{i},{v}\n" for i, v in enumerate(PITCH)],
        ["50,210\n", "60,220\n"],
        ["2.5,210\n"],
    ],
    ids=["samples", "milliseconds", "frames", "after the end", "just after the end"],
)
def test_times_that_are_no_seconds_of_this_sound(converter, write, rows):
    path = write(rows)
    with pytest.raises(InputError, match=r"f0\.csv spans .* s, the sound 2\.00 s: its times must be seconds"):
        converter.convert(sound(2), sample_rate=16000, f0_file=path)


def test_the_command_line_says_it_in_one_line(write, tmp_path, capfd):
    path = write(f"{i * 10},{v}\n" for i, v in enumerate(PITCH))
    source = str(DEMO / "sounds" / "speech_male.wav")
    arguments = ["convert", source, "-o", str(tmp_path / "o.wav"), "--f0-file", str(path), "--quiet"]
    assert main(arguments) == 2
    assert capfd.readouterr().err.count("\n") == 1
    assert not (tmp_path / "o.wav").exists()


@pytest.mark.parametrize("seconds", [1, 2.9, 3, 10])
def test_a_file_that_ends_near_the_sound(converter, write, seconds):
    path = write(f"{i / 100},{v}\n" for i, v in enumerate(PITCH))
    result = converter.convert(sound(seconds), sample_rate=16000, f0_file=path)
    n = min(len(result.f0), len(PITCH))
    np.testing.assert_allclose(result.f0[:n], PITCH[:n], rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "time,frequency,confidence\n0,100,0.9\n0.01,200,0.1\n0.02,0,0\n",
        "time\tf0\n0\t100\n0.01\t200\n0.02\t0\n",
        "0;100\n0.01;200\n0.02;0\n",
        "0 100\n0.01  200\n 0.02 0\n",
        "0,100\n0.01,200\n0.02,nan\n",
        "0,100\n0.01,200\n0.02,NaN,1\n",
        "0,100\n0.01,200\n0.02,-1\n",
        "0\t100\n0.01\t200\n0.02\t--undefined--\n",
        "\ufeff\nTime (s), F0 (Hz)\n\n0,100\n\n0.01,200\n0.02,-inf\n",
    ],
)
def test_spellings(write, text):
    np.testing.assert_array_equal(read_points(write([text])), [[0, 100], [0.01, 200], [0.02, 0]])


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, 1e30, 3e38, 20001.0])
def test_a_pitch_that_none_has_is_blamed_on_the_caller(converter, value):
    with pytest.raises(InputError, match=r"f0 must be from 0 \(unvoiced\) to 20000 Hz"):
        converter.convert(sound(0.3), sample_rate=16000, f0=[100.0] * 29 + [value])


@pytest.mark.parametrize("f0", [["a"] * 30, [1 + 1j] * 30, [[1.0]] * 30, 100.0, [None] * 30])
def test_what_is_no_contour(converter, f0):
    with pytest.raises(InputError, match="f0 must be"):
        converter.convert(sound(0.3), sample_rate=16000, f0=f0)


@pytest.mark.parametrize("path", ["/nope", ".", "a\0b", b"\xff", "/dev/null"])
def test_files_that_are_none(converter, path):
    with pytest.raises(InputError, match=r"\[f0 file\]"):
        converter.convert(sound(0.3), sample_rate=16000, f0_file=path)
