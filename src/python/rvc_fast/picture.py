"""Spectrograms of sounds, drawn by matplotlib.

matplotlib is in the extra `plot`. It is imported when something is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The highest frequency that a panel shows and where the axis of the pitch ends unless the pitch is higher, both in Hz.
TOP_HZ, TOP_F0_HZ = 8000, 600
# What is so much less loud than the loudest point is black, in dB.
RANGE_DB = 80
# Columns of a spectrogram, and the length of its windows in seconds.
COLUMNS = 720
WINDOW_SECONDS = 0.025


@dataclass(frozen=True)
class Panel:
    """One sound of a picture.

    samples: (n,), at least one.
    rate: Hz.
    f0: (frames,) Hz, one value per 10 ms and 0 where unvoiced. None draws no pitch.
    """

    title: str
    samples: np.ndarray
    rate: int
    f0: np.ndarray | None = None


def draw(rows: Sequence[Sequence[Panel | None]]) -> Figure:
    """Return a figure with a grid of panels. None leaves a place empty; short rows end early."""
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(1 + 3.4 * columns, 0.4 + 2.4 * len(rows)), dpi=100, layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, places in zip(rows, grid, strict=True):
        for panel, axes in zip([*row, *[None] * (columns - len(row))], places, strict=True):
            if panel is None:
                axes.set_axis_off()
            else:
                _spectrogram(axes, panel)
                if panel.f0 is not None:
                    _pitch(axes, panel.f0)
    return figure


def png(rows: Sequence[Sequence[Panel | None]]) -> bytes:
    """Return the figure of `draw` as a PNG file."""
    file = io.BytesIO()
    draw(rows).savefig(file, format="png")
    return file.getvalue()


def _spectrogram(axes: Axes, panel: Panel) -> None:
    """Draw how loud each frequency is at each moment."""
    from matplotlib.mlab import specgram

    size = 1 << round(np.log2(panel.rate * WINDOW_SECONDS))
    hop = min(size, max(1, len(panel.samples) // COLUMNS))
    padded = np.pad(np.asarray(panel.samples, np.float64), size // 2)  # windows are centred on their moment
    found = specgram(padded, size, panel.rate, noverlap=size - hop)
    power, hertz = np.asarray(found[0]), np.asarray(found[1])
    shown = hertz <= TOP_HZ
    level = 10 * np.log10(np.maximum(power[shown], np.finfo(np.float64).tiny))
    seconds, half = len(panel.samples) / panel.rate, panel.rate / size / 2
    axes.imshow(
        level,
        cmap="magma",
        vmin=level.max() - RANGE_DB,
        vmax=level.max(),
        extent=(0, seconds, -half, float(hertz[shown][-1]) + half),
        origin="lower",
        aspect="auto",
    )
    axes.set(
        title=panel.title, xlabel="time (s)", ylabel="frequency (Hz)", ylim=(0, min(TOP_HZ, panel.rate / 2))
    )


def _pitch(axes: Axes, f0: np.ndarray) -> None:
    """Draw the pitch as a line with an axis of its own on the right."""
    right = axes.twinx()
    right.plot(np.arange(len(f0)) / 100, np.where(f0 > 0, f0, np.nan), color="cyan", linewidth=1.5)
    right.set_ylim(0, max(TOP_F0_HZ, 1.1 * float(f0.max())))
    right.set_ylabel("pitch (Hz)", color="darkcyan")
    right.tick_params(axis="y", colors="darkcyan")
