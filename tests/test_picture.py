"""Panels of the demo's picture, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from rvc_fast import picture

RATE = 16000
TONE = np.sin(2 * np.pi * 2000 * np.arange(2 * RATE) / RATE).astype(np.float32)


def test_f0_is_drawn_at_its_place_and_nowhere_else() -> None:
    f0 = np.where(np.arange(200) < 100, 300.0, 0.0)
    title = picture.label("x", 100)
    image = picture.panel(TONE, RATE, f0, "x", width=100)[len(title) :]
    rows, columns = np.nonzero(image == picture.LINE)
    assert sorted(set(columns)) == list(range(50))  # voiced: the first half
    assert 600 * (1 - rows.mean() / len(image)) == pytest.approx(300, abs=5)
    assert not (picture.panel(TONE, RATE, None, "x", width=100) == picture.LINE).any()


def test_labels_are_letters_on_paper() -> None:
    label = picture.label("L", 20, scale=1)
    assert (label == np.where(np.isin(label, picture.PAPER), picture.PAPER, 0)).all()
    np.testing.assert_array_equal(
        label[1:6, 1:4] == 0, [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]]
    )
    assert picture.label("a long title", 10).shape == (14, 10)
    assert (picture.label("~", 20) == picture.label("?", 20)).all()


def test_a_grid_keeps_its_places() -> None:
    a, b = np.zeros((4, 6), np.uint8), np.full((4, 6), 9, np.uint8)
    image = picture.grid([[a, b], [None, a]], gap=2)
    assert image.shape == (12, 16)
    assert image[3, 3] == 0
    assert image[3, 11] == 9
    assert (image[6:, :8] == picture.PAPER).all()
