"""Pitch contours against independent formulas."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.pitch import f0 as pitch

hertz = st.lists(st.one_of(st.just(0.0), st.floats(1, 2000, width=32)), min_size=1, max_size=30)


@given(hertz, st.floats(-48, 48))
def test_transpose(values: list[float], semitones: float) -> None:
    f0 = np.array(values, np.float32)
    out = pitch.transpose(f0, semitones)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [v * 2 ** (semitones / 12) for v in values], rtol=1e-6)


@given(hertz)
def test_coarse(values: list[float]) -> None:
    def mel(f: float) -> float:
        return 1127 * math.log(1 + f / 700)

    def expected(f: float) -> int:
        m = mel(f)
        if m > 0:
            m = (m - mel(50)) * 254 / (mel(1100) - mel(50)) + 1
        return round(min(max(m, 1), 255))

    bins = pitch.coarse(np.array(values, np.float32))
    assert bins.dtype == np.int32
    assert [int(b) for b in bins] == [expected(float(np.float32(v))) for v in values]


def test_coarse_edges() -> None:
    assert pitch.coarse(np.array([0, 1, 50, 1100, 5000], np.float32)).tolist() == [1, 1, 1, 255, 255]


def test_notes() -> None:
    assert len(pitch.NOTES) == 54
    assert (pitch.NOTES[0], pitch.NOTES[1], pitch.NOTES[-1]) == (49.00, 51.91, 1046.50)
    assert 440.0 in pitch.NOTES


@given(hertz, st.floats(0, 1))
def test_autotune(values: list[float], strength: float) -> None:
    def expected(f: float) -> float:
        return f + (min(pitch.NOTES, key=lambda note: abs(note - f)) - f) * strength if f > 0 else 0.0

    f0 = np.array(values, np.float32)
    out = pitch.autotune(f0, strength)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [expected(float(v)) for v in f0], rtol=1e-6)


def test_autotune_on_a_midpoint_takes_the_lower_note() -> None:
    middle = (pitch.NOTES[10] + pitch.NOTES[11]) / 2
    assert pitch.autotune(np.array([middle]), 1.0)[0] == pitch.NOTES[10]


def test_proposed_semitones() -> None:
    def semitones(values: list[float], target: float) -> int:
        return pitch.proposed_semitones(np.array(values, np.float32), target)

    assert semitones([155.0] * 9, 155) == 0
    assert semitones([110.0] * 9, 220) == 12
    assert semitones([100.0] * 9, 155) == round(12 * math.log2(1.55))
    assert semitones([400.0] * 9, 155) == -12
    assert semitones([50.0] * 9, 255) == 12
    assert semitones([0.0, 0.0, 300.0], 155) == 0
    # Unvoiced frames are filled in between their neighbours before the median is taken.
    assert semitones([100, 0, 0, 0, 0, 200, 200], 155) == round(12 * math.log2(155 / 160))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "f0.csv"
    path.write_text(text)
    return path


def test_f0_file(tmp_path: Path) -> None:
    points = pitch.read_points(write(tmp_path, "0,100\n 0.5 , 200\r\n\n1.0,0\n"))
    np.testing.assert_array_equal(points, [[0, 100], [0.5, 200], [1, 0]])
    assert pitch.read_points(write(tmp_path, "\ufeff0.1,100"))[0, 1] == 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,100\n0.1;200\n", "line 2 must be"),
        ("0,100\ntime,hz\n", "line 2 must be"),
        ("time,hz\n", "no lines"),
        ("0,100\n\n-0.1,3\n", "line 3 must be of 0 to"),
        ("nan,100\n", "line 1 must be of 0 to"),
        ("0,inf\n", "line 1 must be of 0 to"),
        ("0,1e39\n", "line 1 must be .* at most 20000 Hz"),
        ("0,100\n1e307,100\n", "line 2 must be of 0 to"),
        ("0,100\n0.2,1\n0.2,1\n", "line 3: times must rise, got 0.2 after 0.2"),
        ("\n\n", "no lines"),
    ],
)
def test_f0_file_errors_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FileFormatError, match=message):
        pitch.read_points(write(tmp_path, text))


def test_f0_file_unreadable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        pitch.read_points(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="not text"):
        pitch.read_points(tmp_path / "x.csv")


def test_overlay_is_linear_and_only_where_the_file_is() -> None:
    f0 = np.full(60, 50, np.float32)
    points = np.array([[0.1, 100], [0.2, 200], [0.3, 0]])
    out = pitch.overlay(f0, points, offset=10)
    assert (f0 == 50).all()
    assert (out[:20] == 50).all()
    assert (out[41:] == 50).all()
    np.testing.assert_allclose(out[20:41], [*range(100, 200, 10), *range(200, -1, -20)], rtol=1e-6)


def test_overlay_beyond_the_end_is_cut() -> None:
    f0 = np.full(20, 50, np.float32)
    out = pitch.overlay(f0, np.array([[0.0, 100], [100.0, 100]]), offset=5)
    assert out.tolist() == [50] * 5 + [100] * 15
    assert pitch.overlay(f0, np.array([[3.0, 100]])) is f0


@pytest.mark.parametrize("bad", [[[1.0]], [np.nan], [np.inf], [-1.0]])
def test_check(bad: list) -> None:
    with pytest.raises(InputError, match="f0 must be"):
        pitch.check(np.array(bad), "test")
