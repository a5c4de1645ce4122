"""Rows as one self-contained page: it needs nothing from a network and can be read on a phone.

It shows each stage beside its peers, the roofline, times over the length of the sound, every row as a table, and what
the demo voice makes of the demo sound. The plots and the picture need the extra `plot`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from .. import writing
from ..errors import InputError
from ..extras import missing
from ..picture import Panel, png
from .results import Row, cores, described, disturbance, duration, identity, machine_of

BARS = (
    "Medians. The number beside a peer's time is the median of pairs of runs one after the other, its time by ours. "
    "Everything else is in the table below."
)
ROOFLINE = (
    "The lines are what was measured on this machine: multiply-adds and memory. Flops and bytes are those that define "
    "the work. A dot above the line has its data in a cache, or an algorithm that needs fewer operations."
)

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; opacity: .8; } img, .plot { width: 100%; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; white-space: nowrap; }
td, th { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; white-space: normal; min-width: 8rem; } th { white-space: normal; }
.red { color: #d00000; font-weight: bold; }
"""


def check(path: Path) -> None:
    """Raise InputError unless a page can be drawn and written here."""
    why = missing("plot", "matplotlib", "plotly")
    if why is not None:
        raise InputError(f"[bench] cannot draw the report: {why}")
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


def page(rows: Sequence[Row], panels: Sequence[Panel] | None = None) -> str:
    """Return the page as text. `panels` are its spectrograms, None takes the demo's."""
    from . import plots

    # Of rows that were measured more than once, the last counts.
    rows = list({(*identity(row), machine_of(row)): row for row in rows}.values())
    first = rows[0]
    sections = [
        _machine(rows),
        _plot("Beside the peers", plots.bars(rows), BARS),
        _plot("Roofline", plots.roofline(rows), ROOFLINE),
        _plot("Over the length of the sound", plots.scaling(rows), "Both axes are logarithmic."),
        _peers(rows),
        _table(rows, plots.sides(rows)[1:]),
        _spectrograms(_demo() if panels is None else panels),
    ]
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>rvc-fast bench, {_text(first['chip'])}</title><style>{_STYLE}</style>{plots.script()}</head><body>"
        f"<h1>rvc-fast bench</h1>{''.join(sections)}</body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, body: str, note: str = "") -> str:
    caption = f"<figcaption>{note}</figcaption>" if note else ""
    return f"<h2>{_text(title)}</h2><figure>{body}{caption}</figure>"


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


def _plot(title: str, plot: str, note: str) -> str:
    return _section(title, plot, note) if plot else ""


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


def _table(rows: Sequence[Row], names: Sequence[str]) -> str:
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


def _demo() -> list[Panel]:
    """Return the bundled sound, and what the bundled voice makes of it."""
    from ..audio import read_audio
    from ..converter import load
    from ..resources import demo_dir

    folder = demo_dir()
    sound = folder / "sounds" / "speech_male.wav"
    samples, rate = read_audio(sound)
    converter = load(folder / "voice.pth", embedder=folder / "embedder", pitch_model=folder / "rmvpe.pt")
    own = converter.convert(sound).f0
    result = converter.convert(sound, speaker=0, proposed_pitch="female")
    return [
        Panel("demo sound", samples.mean(axis=1), rate, own),
        Panel("converted", result.samples, result.sample_rate, result.f0),
    ]


def _spectrograms(panels: Sequence[Panel]) -> str:
    if not panels:
        return ""
    image = base64.b64encode(png([[panel] for panel in panels])).decode()
    titles = " and ".join(panel.title for panel in panels)
    picture = f"<img alt='spectrograms: {_text(titles)}' src='data:image/png;base64,{image}'>"
    return _section("How it sounds", picture, "The line is the pitch.")
