"""Rows as one self-contained page: no script, nothing from a network, readable on a phone.

Bars of each stage beside its peers, the roofline, times over the length of the sound, every row as a table, and what the
demo voice makes of the demo sound.
"""

from __future__ import annotations

import base64
import html
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import writing
from ..errors import InputError
from ..picture import png, spectrogram
from .results import Row, cores, described, disturbance, duration, identity, machine_of

OURS = "rvc_fast"
# Of ours and the peers in the order in which they appear; those of Okabe and Ito, which everyone can tell apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c00", "#7f7f7f", "#5e3c99")
# Of drawings, in their own units: on a phone a letter is then still 9 pixels high.
WIDTH = 480

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
svg { width: 100%; max-width: 45rem; height: auto; } svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; opacity: .8; } img { width: 100%; image-rendering: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; white-space: nowrap; }
td, th { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; white-space: normal; min-width: 8rem; } th { white-space: normal; }
.red { color: #d00000; font-weight: bold; }
"""


def check(path: Path) -> None:
    """InputError unless a page can be written here."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
    except OSError as e:
        raise InputError(f"[bench] cannot write {path}: {e.strerror}") from e


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the page of these rows."""
    check(path)
    with writing.replacing(path, "bench") as (file, _):
        file.write(page(rows).encode())


def page(rows: Sequence[Row], panels: Sequence[tuple[str, np.ndarray, int]] | None = None) -> str:
    """Return the page as text. `panels` are (title, samples (n,), Hz) of its spectrograms, else the demo's."""
    rows = list(
        {(*identity(row), machine_of(row)): row for row in rows}.values()
    )  # of repeated ones the last
    first = rows[0]
    sections = [_machine(rows), _bars(rows), _roofline(rows), _scaling(rows), _peers(rows), _table(rows)]
    sections.append(_spectrograms(_demo() if panels is None else panels))
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>rvc-fast bench, {_text(first['chip'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>rvc-fast bench</h1>{''.join(sections)}</body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, body: str, note: str = "") -> str:
    caption = f"<figcaption>{note}</figcaption>" if note else ""
    return f"<h2>{_text(title)}</h2><figure>{body}{caption}</figure>"


def _svg(height: float, shapes: Sequence[str], label: str) -> str:
    return f"<svg viewBox='0 0 {WIDTH} {height:.0f}' role='img' aria-label='{_text(label)}'>{''.join(shapes)}</svg>"


def _words(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{_text(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "var(--line)", width: float = 1) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' stroke-width='{width}'/>"


def _machine(rows: Sequence[Row]) -> str:
    first = rows[0]
    facts = {
        "machine": ", ".join(dict.fromkeys(machine_of(row) for row in rows)),
        "cores, memory": f"{cores(first)}, {first['memory_gb']} GB",
        "system": first["os"],
        "versions": ", ".join(f"{k} {v}" for k, v in first["versions"].items()),
        "commit": first["commit"] or "an installed package",
        "date": first.get("date", ""),
        "instructions": first.get("isa") or "",
        "throttling": ", ".join(f"{k}: {v}" for k, v in first["thermal"].items())
        or "the system does not tell",
        "used by others": "" if (share := disturbance(rows)) is None else f"{share:.0%} of the processor",
        "measured peaks": ", ".join(
            f"{k.replace('_', ' ')} {v:g}" for k, v in first.get("limits", {}).items() if v is not None
        ),
    }
    cells = "".join(f"<tr><td>{k}</td><td style='text-align:left;white-space:normal'>{_text(v)}</td></tr>"
                    for k, v in facts.items() if v)  # fmt: skip
    return f"<table>{cells}</table>"


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    names = dict.fromkeys([OURS, *(peer for row in rows for peer in row["peers"])])
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def _bars(rows: Sequence[Row]) -> str:
    """For each stage and length, times as bars whose longest fills the width."""
    colours = _colours(rows)
    chosen = sorted((row for row in rows if row["suite"] != "kernels"), key=lambda row: row["seconds"])
    if not chosen:
        return ""
    shapes, y = [], 8.0
    left, right = 92, 112
    for row in chosen:
        peers = [(n, p) for n, p in row["peers"].items() if not p.get("note", "").startswith("left out")]
        sides: list[tuple[str, Any]] = [(OURS, row), *peers]
        longest = max((side.get("p50_ms") or 0.0 for _, side in sides), default=0.0)
        y += 18
        shapes.append(_words(0, y, described(row).removeprefix("stages ")))
        for name, side in sides:
            y += 20
            shapes.append(_words(8, y, name))
            if side.get("p50_ms") is None:
                shapes.append(_words(left, y, str(side.get("note", "no number"))[:60]))
                continue
            width = max(1.0, (WIDTH - left - right) * side["p50_ms"] / longest)
            title = f"<title>{_text(name)}: p20 to p80 {duration(side['p20_ms'])} to {duration(side['p80_ms'])}</title>"
            shapes.append(
                f"<rect x='{left}' y='{y - 12:.1f}' width='{width:.1f}' height='14' fill='{colours[name]}'>{title}</rect>"
            )
            ratio = f", {side['ratio']:.2f} x" if "ratio" in side else ""
            shapes.append(_words(left + width + 6, y, f"{duration(side['p50_ms'])}{ratio}"))
        y += 14
    note = "Medians; a peer's number is its time by ours, the median of pairs of runs one after the other."
    return _section("Stages", _svg(y, shapes, "times of each stage and its peers"), note)


class _Log:
    """A logarithmic axis from data to pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float):
        self.low = math.floor(math.log10(min(values)))
        self.high = max(self.low + 1, math.ceil(math.log10(max(values))))
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    @property
    def ticks(self) -> list[float]:
        return [10.0**e for e in range(self.low, self.high + 1)]


def _plot(
    x_values: Sequence[float],
    y_values: Sequence[float],
    x_name: str,
    y_name: str,
    draw: Callable[[_Log, _Log], list[str]],
    label: str,
    margin: float = 24,
) -> str:
    height, left, right, top, bottom = 340, 54, WIDTH - margin, 34, 44
    x, y = _Log(x_values, left, right), _Log(y_values, height - bottom, top)
    shapes = [_words(0, 14, y_name), _words(right, height - 6, x_name, "end")]
    for tick in x.ticks:
        shapes.append(_line(x(tick), top, x(tick), height - bottom))
        shapes.append(_words(x(tick), height - 26, f"{tick:g}", "middle"))
    for tick in y.ticks:
        shapes.append(_line(left, y(tick), right, y(tick)))
        shapes.append(_words(left - 6, y(tick) + 4, f"{tick:g}", "end"))
    return _svg(height, [*shapes, *draw(x, y)], label)


def _dot(x: float, y: float, colour: str, title: str) -> str:
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5' fill='{colour}' fill-opacity='.8'><title>{_text(title)}</title></circle>"


def _roofline(rows: Sequence[Row]) -> str:
    points = []
    for row in rows:
        if row.get("flops") and row.get("bytes") and row["p50_ms"]:
            speed = row["flops"] / (row["p50_ms"] * 1e6)
            points.append((row["flops"] / row["bytes"], speed, row))
    limits = rows[0].get("limits", {})
    peak = max((row.get("peak_gflops") or 0.0 for row in rows), default=0.0)
    bandwidth = max(limits.get("read_gbytes") or 0.0, limits.get("copy_gbytes") or 0.0)
    if not points or not peak or not bandwidth:
        return ""
    xs = [p[0] for p in points] + [peak / bandwidth]

    def draw(x: _Log, y: _Log) -> list[str]:
        low, high = 10.0**x.low, 10.0**x.high
        start = max(low, 10.0**y.low / bandwidth)
        ridge = min(max(peak / bandwidth, start), high)
        roof = [
            _line(x(start), y(start * bandwidth), x(ridge), y(ridge * bandwidth), "currentColor", 2),
            _line(x(ridge), y(peak), x(high), y(peak), "currentColor", 2),
            _words(x(ridge) - 8, y(peak) + 4, f"{peak:.0f} GFLOP/s", "end"),
            _words(x(start) + 8, y(start * bandwidth) - 8, f"{bandwidth:.0f} GB/s"),
        ]
        colours = dict(zip(("kernels", "stages", "convert"), COLOURS, strict=False))
        return roof + [
            _dot(
                x(a),
                y(b),
                colours[row["suite"]],
                f"{described(row)}: {b:.1f} GFLOP/s, {row.get('of_limit', 0):.0%}",
            )
            for a, b, row in points
        ]

    svg = _plot(
        xs,
        [p[1] for p in points] + [peak],
        "flops per byte",
        "GFLOP/s",
        draw,
        "roofline of kernels and stages",
    )
    note = (
        "Lines are what was measured on this machine: multiply-adds and memory. Flops and bytes are what defines the "
        "work: a dot above the line has its data in a cache, or an algorithm that needs fewer operations. "
        "Kernels blue, stages orange, conversions green."
    )
    return _section("Roofline", svg, note)


def _scaling(rows: Sequence[Row]) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if (
            row["seconds"] is not None
            and row["p50_ms"]
            and row.get("batch", 1) == 1
            and row["name"] != "cold start"
        ):
            lines.setdefault(row["name"], []).append((row["seconds"], row["p50_ms"] / 1e3))
    lines = {name: sorted(points) for name, points in lines.items() if len(points) > 1}
    if not lines:
        return ""
    every = [point for points in lines.values() for point in points]

    def draw(x: _Log, y: _Log) -> list[str]:
        shapes, labels = [], []
        for i, (name, points) in enumerate(lines.items()):
            colour = COLOURS[i % len(COLOURS)]
            for (a, b), (c, d) in itertools.pairwise(points):
                shapes.append(_line(x(a), y(b), x(c), y(d), colour, 2))
            shapes += [_dot(x(a), y(b), colour, f"{name}, {a:g} s: {b:.3g} s") for a, b in points]
            labels.append((y(points[-1][1]) + 4, x(points[-1][0]) + 8, name))
        lowest = math.inf
        for height, right, name in sorted(labels, reverse=True):
            lowest = min(height, lowest - 12)  # not over the one below
            shapes.append(_words(right, lowest, name))
        return shapes

    svg = _plot(
        [p[0] for p in every],
        [p[1] for p in every],
        "seconds of sound",
        "seconds of work",
        draw,
        "time over the length of the sound",
        margin=84,
    )
    return _section("Over the length of the sound", svg)


def _peers(rows: Sequence[Row]) -> str:
    """What the peers' own checks gave."""
    found: dict[str, float] = {}
    agreement: dict[str, list[float]] = {}
    for row in rows:
        for name, peer in row["peers"].items():
            if peer.get("golden_db") is not None:
                found[name] = peer["golden_db"]
            if peer.get("snr_db") is not None:
                agreement.setdefault(name, []).append(peer["snr_db"])
    if not agreement:
        return ""
    cells = "".join(
        f"<tr><td>{_text(name)}</td><td>{f'{found[name]:.0f} dB' if name in found else '-'}</td>"
        f"<td>{min(values):.0f} dB</td></tr>"
        for name, values in agreement.items()
    )
    head = "<tr><th>peer</th><th>against the golden cases (at least 90)</th><th>against ours, the lowest</th></tr>"
    note = (
        "The first is of each network, at the sizes of the golden cases. The second is of what was timed, whole conversions "
        "given the same pitch: one that differs by a thousandth of a cent, in float32's last bits, would move the phase."
    )
    return _section("Is it the same work?", f"<div class='wide'><table>{head}{cells}</table></div>", note)


def _table(rows: Sequence[Row]) -> str:
    names = list(_colours(rows))[1:]
    heads = [
        "what",
        "p20",
        "p50",
        "p80",
        "x real time",
        "of limit",
        "MB",
        "SNR, dB",
        *(f"{n}, ratio" for n in names),
    ]
    lines = []
    for row in rows:
        cells = [_text(described(row))]
        if row["p50_ms"] is None:
            cells.append(f"<span class='red'>{_text(row.get('note', ''))}</span>")
        else:
            cells += [duration(row[f"p{p}_ms"]) for p in (20, 50, 80)]
            cells.append(f"{1 / row['rtf']:.3g}" if row["rtf"] else "")
            cells.append(f"{row['of_limit']:.0%}" if row.get("of_limit") is not None else "")
            cells += [f"{row['peak_mb']:.0f}", f"{row['snr_db']:.0f}"]
            for name in names:
                peer = row["peers"].get(name, {})
                colour = " class='red'" if peer.get("red") else ""
                said = f"{peer['ratio']:.2f}" if "ratio" in peer else peer.get("note", "")[:40]
                cells.append(f"<span{colour}>{_text(said)}</span>")
        lines.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    head = "".join(f"<th>{_text(h)}</th>" for h in heads)
    return _section("Every row", f"<div class='wide'><table><tr>{head}</tr>{''.join(lines)}</table></div>")


def _demo() -> list[tuple[str, np.ndarray, int]]:
    """The bundled sound, and what the bundled voice makes of it."""
    from ..audio import read_audio
    from ..converter import load
    from ..resources import demo_dir

    folder = demo_dir()
    sound = folder / "sounds" / "speech_male.wav"
    samples, rate = read_audio(sound)
    converter = load(folder / "voice.pth", embedder=folder / "embedder", pitch_model=folder / "rmvpe.pt")
    result = converter.convert(sound, speaker=0, proposed_pitch="female")
    return [("demo sound", samples.mean(axis=1), rate), ("converted", result.samples, result.sample_rate)]


def _spectrograms(panels: Sequence[tuple[str, np.ndarray, int]]) -> str:
    figures = ""
    for title, samples, rate in panels:
        image = base64.b64encode(png(spectrogram(samples, rate))).decode()
        figures += (
            f"<figure><img alt='spectrogram of the {_text(title)}' src='data:image/png;base64,{image}'>"
            f"<figcaption>{_text(title)}, {len(samples) / rate:.1f} s, 0 to 8 kHz</figcaption></figure>"
        )
    return f"<h2>How it sounds</h2>{figures}"
