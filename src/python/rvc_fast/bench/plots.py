"""The plots of the report, made by plotly: bars of stages, the roofline, times over the length of the sound.

plotly is in the extra `plot`, so `report` imports this module when it writes a page. Each plot is
a piece of HTML and works in a page that has `script` in its head.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from .results import Row, described, duration

OURS = "rvc_fast"
# Okabe and Ito's colours, which also colour-blind people can tell apart. Ours has the first.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c00", "#7f7f7f", "#5e3c99")
# Grey text on a clear background can be read in a light and in a dark browser.
_LAYOUT = {
    "template": "none",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": "#808080", "size": 12},
    "colorway": COLOURS,
    "margin": {"l": 60, "r": 70, "t": 10, "b": 50},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
}
_AXIS = {"gridcolor": "rgba(128,128,128,0.3)", "zeroline": False, "automargin": True}


def script() -> str:
    """Return plotly's own program, which the page carries so that it needs no network."""
    return f"<script>{get_plotlyjs()}</script>"


def _html(figure: go.Figure) -> str:
    """Return a figure as a piece of a page."""
    config = {"responsive": True, "displayModeBar": False}
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, config=config, default_height="100%")
    return f"<div class='plot' style='height:{figure.layout.height}px'>{text}</div>"


def sides(rows: Sequence[Row]) -> list[str]:
    """Return the names of what was measured: ours first, then the peers in the order of the rows."""
    return list(dict.fromkeys([OURS, *(peer for row in rows for peer in row["peers"])]))


def bars(rows: Sequence[Row]) -> str:
    """Draw the time of each stage and its peers, ours being 1. Empty if no stage was measured beside a peer."""
    chosen = [
        row
        for row in rows
        if row["suite"] != "kernels"
        and row["p50_ms"] is not None
        and any(peer.get("p50_ms") is not None for peer in row["peers"].values())
    ]
    if not chosen:
        return ""
    chosen.sort(key=lambda row: row["seconds"])
    figure = go.Figure()
    count = 0
    for name in sides(rows):
        lengths, places, texts, hovers = [], [], [], []
        for row in chosen:
            side = row if name == OURS else row["peers"].get(name, {})
            if side.get("p50_ms") is None:
                continue
            ratio = 1.0 if name == OURS else side.get("ratio", side["p50_ms"] / row["p50_ms"])
            lengths.append(ratio)
            places.append(described(row).removeprefix("stages "))
            texts.append(duration(side["p50_ms"]) + ("" if name == OURS else f", {ratio:.2f} x"))
            hovers.append(f"{name}: p20 to p80 {duration(side['p20_ms'])} to {duration(side['p80_ms'])}")
        count += len(lengths)
        figure.add_bar(
            name=name,
            x=lengths,
            y=places,
            text=texts,
            hovertext=hovers,
            hoverinfo="text",
            orientation="h",
            textposition="outside",
            cliponaxis=False,
        )
    figure.update_layout(**_LAYOUT, barmode="group", height=120 + 22 * count)
    figure.update_xaxes(**_AXIS, title="time, ours being 1", rangemode="tozero")
    figure.update_yaxes(**_AXIS, autorange="reversed")
    return _html(figure)


def roofline(rows: Sequence[Row]) -> str:
    """Draw the speed of each row below what this machine was measured to do. Empty without those measurements."""
    points: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        if row.get("flops") and row.get("bytes") and row["p50_ms"]:
            speed = row["flops"] / (row["p50_ms"] * 1e6)
            said = f"{described(row)}: {speed:.1f} GFLOP/s, {row.get('of_limit', 0):.0%} of the limit"
            points.setdefault(row["suite"], []).append((row["flops"] / row["bytes"], speed, said))
    limits = rows[0].get("limits", {})
    peak = max((row.get("peak_gflops") or 0.0 for row in rows), default=0.0)
    bandwidth = max(limits.get("read_gbytes") or 0.0, limits.get("copy_gbytes") or 0.0)
    if not points or not peak or not bandwidth:
        return ""
    ridge = peak / bandwidth
    intensities = [x for suite in points.values() for x, _, _ in suite]
    low, high = min(*intensities, ridge) / 2, max(*intensities, ridge) * 2
    figure = go.Figure()
    figure.add_scatter(
        x=[low, ridge, high],
        y=[low * bandwidth, peak, peak],
        name=f"measured limits: {peak:.0f} GFLOP/s, {bandwidth:.0f} GB/s",
        mode="lines",
        line={"color": "#808080"},
        hoverinfo="skip",
    )
    for number, suite in enumerate(points):
        x, y, hovers = zip(*points[suite], strict=True)
        marker = {"size": 9, "opacity": 0.8, "color": COLOURS[number % len(COLOURS)]}
        figure.add_scatter(
            x=x, y=y, hovertext=hovers, hoverinfo="text", name=suite, mode="markers", marker=marker
        )
    figure.update_layout(**_LAYOUT, height=460)
    figure.update_xaxes(**_AXIS, title="floating-point operations per byte", type="log", dtick=1)
    figure.update_yaxes(**_AXIS, title="GFLOP/s", type="log", dtick=1)
    return _html(figure)


def scaling(rows: Sequence[Row]) -> str:
    """Draw the time of each stage over the length of the sound. Empty if nothing was measured at two lengths."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        warm = row["name"] != "cold start" and row.get("batch", 1) == 1
        if row["seconds"] is not None and row["p50_ms"] and warm:
            lines.setdefault(row["name"], []).append((row["seconds"], row["p50_ms"] / 1e3))
    figure = go.Figure()
    for name, points in lines.items():
        if len(points) > 1:
            x, y = zip(*sorted(points), strict=True)
            figure.add_scatter(x=x, y=y, name=name, mode="lines+markers")
    if not figure.data:
        return ""
    figure.update_layout(**_LAYOUT, height=460, showlegend=True)
    figure.update_xaxes(**_AXIS, title="length of the sound (s)", type="log", dtick=1)
    figure.update_yaxes(**_AXIS, title="time (s)", type="log", dtick=1)
    return _html(figure)
