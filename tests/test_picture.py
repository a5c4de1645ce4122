"""The demo's picture: axes in seconds and hertz, and everything at its place."""

from __future__ import annotations

import numpy as np
import pytest

from rvc_fast.picture import Panel, draw, png

RATE = 16000
TONE = np.sin(2 * np.pi * 2000 * np.arange(2 * RATE) / RATE).astype(np.float32)


def test_a_tone_is_a_line_at_its_frequency() -> None:
    axes = draw([[Panel("tone", TONE, RATE)]]).axes[0]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("tone", "time (s)", "frequency (Hz)")
    assert axes.get_xlim() == pytest.approx((0, 2))
    assert axes.get_ylim() == pytest.approx((0, 8000))
    image = axes.images[0]
    level, (_, _, bottom, top) = image.get_array(), image.get_extent()
    row = level[:, level.shape[1] // 2].argmax()
    assert bottom + (top - bottom) * (row + 0.5) / len(level) == pytest.approx(2000, abs=20)
    assert image.get_clim() == pytest.approx((level.max() - 80, level.max()))


def test_the_pitch_has_an_axis_in_hertz_and_gaps_where_unvoiced() -> None:
    f0 = np.where(np.arange(200) < 100, 300.0, 0.0)
    right = draw([[Panel("x", TONE, RATE, f0)]]).axes[1]
    seconds, hertz = right.lines[0].get_data()
    np.testing.assert_allclose(hertz[:100], 300)
    assert np.isnan(hertz[100:]).all()
    assert seconds[-1] == pytest.approx(1.99)
    assert right.get_ylabel() == "pitch (Hz)"
    assert right.get_ylim() == (0, 600)


def test_a_high_pitch_stays_in_the_panel() -> None:
    right = draw([[Panel("x", TONE, RATE, np.full(200, 1000.0))]]).axes[1]
    assert right.get_ylim()[1] > 1000


def test_without_pitch_there_is_no_second_axis() -> None:
    assert len(draw([[Panel("x", TONE, RATE)]]).axes) == 1


@pytest.mark.parametrize("samples", [TONE[:1], np.zeros(5 * RATE), TONE.repeat(40)])
def test_any_length_and_silence_can_be_drawn(samples: np.ndarray) -> None:
    level = draw([[Panel("x", samples, RATE)]]).axes[0].images[0].get_array()
    assert level.shape[1] >= 1
    assert np.isfinite(level).all()


def test_a_slow_sound_ends_at_half_its_rate() -> None:
    assert draw([[Panel("x", TONE, 8000)]]).axes[0].get_ylim() == pytest.approx((0, 4000))


def test_a_grid_keeps_its_places() -> None:
    figure = draw([[Panel("a", TONE, RATE), Panel("b", TONE, RATE)], [None, Panel("c", TONE, RATE)]])
    assert [(axes.get_title(), axes.axison) for axes in figure.axes] == [
        ("a", True),
        ("b", True),
        ("", False),
        ("c", True),
    ]


def test_the_file_is_a_png() -> None:
    assert png([[Panel("x", TONE, RATE)]]).startswith(b"\x89PNG\r\n\x1a\n")
