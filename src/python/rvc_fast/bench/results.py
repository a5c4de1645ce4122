"""Rows: what one is, files of them, one JSON line each, and the comparison of files.

A row holds the facts of its machine (`machine.facts`, `thermal`, `limits.measure`) and

- suite, name, seconds (of sound; null for kernels), batch, dtype, backend: what was measured (`work.Task`)
- p20_ms, p50_ms, p80_ms, runs: of one run; null where the gate was red
- peak_mb: the most memory that the process of rvc_fast held, in MB; rtf: seconds of work by seconds of sound
- snr_db, bar_db: the gate, `Ours.gate`
- flops, bytes: the work as the OpSpecs count it; peak_gflops: multiply-adds measured beside the row; of_limit, bound:
  `limits.roofline`; published: of_limit by what is published of an Apple GPU (`chips`), null where its
  arithmetic is not
- others: share of the processor that went to others meanwhile (`machine.others`); null where the system does not tell
- device: "cpu" or "gpu", of ours and of each peer
- peers: {name: {p20_ms, p50_ms, p80_ms, runs, ratio, ratio_p20, ratio_p80, snr_db, bar_db, dtype, device, golden_db,
  note}}; a ratio is the peer's time by ours of the same pair; note says why there is no number
- note: why the row itself has no number
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileFormatError, InputError
from .chips import published

SCHEMA = 2
REQUIRED = (
    "chip",
    "cores",
    "memory_gb",
    "os",
    "versions",
    "commit",
    "thermal",
    "suite",
    "name",
    "seconds",
    "dtype",
    "backend",
    "p20_ms",
    "p50_ms",
    "p80_ms",
    "peak_mb",
    "rtf",
    "snr_db",
    "peers",
)
# A row is slower than before if its median is by so much, and the ranges from p20 to p80 do not touch.
REGRESSION = 0.10

Row = dict[str, Any]
Identity = tuple[Any, ...]


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return p20, p50 and p80, interpolated."""
    low, middle, high = np.percentile(values, (20, 50, 80))
    return float(low), float(middle), float(high)


def times(seconds: Sequence[float]) -> dict[str, float]:
    """Return the row's three times."""
    return {f"p{p}_ms": round(1e3 * v, 4) for p, v in zip((20, 50, 80), quantiles(seconds), strict=True)}


def ratios(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return the quantiles of theirs / ours, pair by pair of (ours, theirs)."""
    low, middle, high = quantiles([theirs / ours for ours, theirs in pairs])
    return {"ratio": round(middle, 3), "ratio_p20": round(low, 3), "ratio_p80": round(high, 3)}


class File:
    """A file that rows are appended to, each on the disk before the next is measured."""

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
        except OSError as e:
            raise InputError(f"[bench] cannot write {path}: {e.strerror}") from e

    def append(self, row: Row) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")


def read(path: Path) -> list[Row]:
    """Return the rows of a file; FileFormatError for a line that is no row of this schema."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise FileFormatError(f"[bench] cannot read {path}: {e}") from e
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            raise FileFormatError(f"[bench] {path}, line {number}: not JSON") from None
        schema = row.get("schema") if isinstance(row, dict) else None
        if schema != SCHEMA:
            raise FileFormatError(
                f"[bench] {path}, line {number}: results of schema {schema}, this version reads {SCHEMA}"
            )
        missing = [key for key in REQUIRED if key not in row]
        if missing:
            raise FileFormatError(f"[bench] {path}, line {number}: the row has no {', '.join(missing)}")
        rows.append(row)
    if not rows:
        raise FileFormatError(f"[bench] {path} holds no results")
    return rows


def identity(row: Mapping[str, Any]) -> Identity:
    """Return what was measured: rows of other machines with the same are comparable."""
    return (row["suite"], row["name"], row["seconds"], row.get("batch", 1), row["dtype"])


def described(row: Mapping[str, Any]) -> str:
    """Return the identity in words."""
    seconds = "" if row["seconds"] is None else f", {row['seconds']:g} s"
    batch = f", {row['batch']} at once" if row.get("batch", 1) > 1 else ""
    dtype = "" if row["dtype"] == "float32" else f", {row['dtype']}"
    return f"{row['suite']} {row['name']}{seconds}{batch}{dtype}"


def machine_of(row: Mapping[str, Any]) -> str:
    """Return the machine as people tell them apart: the same chip is sold with more GPU cores and fewer."""
    gpu = f", {row['gpu_cores']} GPU cores" if row.get("gpu_cores") else ""
    return f"{row['chip']}{gpu}, {row.get('threads', row['cores'])} threads, {row['backend']}"


def duration(ms: float | None) -> str:
    """Return a time with three figures and its unit."""
    if ms is None:
        return "-"
    value, unit = (ms / 1e3, "s") if ms >= 1e3 else (ms, "ms") if ms >= 1 else (ms * 1e3, "us")
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def disturbance(rows: Iterable[Row]) -> float | None:
    """Return the share of the processor that others had in the middle of the rows, or None where nothing is known."""
    shares = [row["others"] for row in rows if row.get("others") is not None]
    return quantiles(shares)[1] if shares else None


def common_peer(a: Row, b: Row) -> str | None:
    """Return a peer that both rows were measured against, the first of b's."""
    return next(
        (p for p, peer in b["peers"].items() if "ratio" in peer and "ratio" in a["peers"].get(p, {})), None
    )


def slower(a: Row, b: Row) -> tuple[float, bool]:
    """Return (how many times slower b is than a, whether that is a regression).

    On one machine, the ratios to a peer are compared if both rows have it, because they do not move with the
    clock; else the times.
    """
    peer = common_peer(a, b) if machine_of(a) == machine_of(b) else None
    if peer is None:
        change = b["p50_ms"] / a["p50_ms"]
        apart = b["p20_ms"] > a["p80_ms"]
    else:
        before, after = a["peers"][peer], b["peers"][peer]
        change = before["ratio"] / after["ratio"]
        apart = after["ratio_p80"] < before["ratio_p20"]
    return change, machine_of(a) == machine_of(b) and change > 1 + REGRESSION and apart


def comparison(files: Sequence[Sequence[Row]]) -> tuple[list[str], list[list[str]], int]:
    """Return (header, lines, number of regressions): every row of the first file beside the same of the others."""
    tables = [{identity(row): row for row in rows} for rows in files]
    keys: dict[Identity, None] = {}
    for table in tables:
        keys.update(dict.fromkeys(table))
    lines, regressions = [], 0
    for key in keys:
        first = tables[0].get(key)
        cells, flags = [duration(first["p50_ms"] if first else None)], []
        for number, table in enumerate(tables[1:], 2):
            row = table.get(key)
            cells.append(duration(row["p50_ms"] if row else None))
            if not first or not row or None in (first["p50_ms"], row["p50_ms"]):
                cells.append("-")
                continue
            change, regressed = slower(first, row)
            cells.append(f"{change:.2f}")
            regressions += regressed
            if regressed:
                flags.append(f"SLOWER in {number}")
        found = first or next(table[key] for table in tables if key in table)
        lines.append([described(found), *cells, ", ".join(flags)])
    header = ["what", "1"] + [c for n in range(2, len(files) + 1) for c in (str(n), f"{n} / 1")] + [""]
    return header, lines, regressions


def cores(row: Mapping[str, Any]) -> str:
    """Return the processor's cores in words, by kind where the system tells."""
    return ", ".join(f"{n} {kind}" for kind, n in row.get("cpu_cores", {}).items()) or str(row["cores"])


def peaks(files: Sequence[Sequence[Row]]) -> tuple[list[str], list[list[str]]]:
    """Return (header, lines): the chips of the files side by side, what is published of them and what was measured."""

    def column(rows: Sequence[Row]) -> dict[str, str]:
        first, limits = rows[0], rows[0].get("limits", {})
        known = published(first["chip"], first.get("gpu_cores"))
        states = dict.fromkeys(", ".join(f"{k} {v}" for k, v in row["thermal"].items()) for row in rows)
        gigabytes = [limits[key] for key in ("read_gbytes", "copy_gbytes") if limits.get(key)]
        arithmetic, where = (
            limits.get("fma_gflops"),
            f" on the {first['device']}" if "device" in first else "",
        )
        unknown = "not in our table"
        flops = unknown if known is None else f"{known.gflops:.0f}" if known.gflops else "not published"
        return {
            "chip": first["chip"],
            "GPU cores": str(first.get("gpu_cores", "-")),
            "CPU cores": cores(first),
            "memory, GB": f"{first['memory_gb']:g}",
            "system": first["os"],
            "power and heat": "; ".join(filter(None, states)) or "-",
            "memory, GB/s, published": unknown if known is None else f"{known.gbytes:g}",
            "memory, GB/s, measured": f"{max(gigabytes):.0f}" if gigabytes else "-",
            "GPU float32, GFLOP/s, published": flops,
            "float32, GFLOP/s, measured": f"{arithmetic:.0f}{where}" if arithmetic else "-",
        }

    columns = [column(rows) for rows in files]
    names = dict.fromkeys(name for each in columns for name in each)
    lines = [[name, *(each.get(name, "-") for each in columns), ""] for name in names]
    return ["", *(str(n) for n in range(1, len(files) + 1)), ""], lines


def machines(files: Iterable[Sequence[Row]]) -> list[str]:
    """Return one line for each file: the machines its rows are from, and when."""
    lines = []
    for rows in files:
        names = dict.fromkeys(machine_of(row) for row in rows)
        lines.append(f"{' | '.join(names)}; {rows[0].get('date', '')}; commit {rows[0]['commit']}")
    return lines


def text(row: Row) -> list[str]:
    """Return what a terminal shows of a row: ours, then each peer."""

    def spread(side: Mapping[str, Any]) -> str:
        low, middle, high = (duration(side[f"p{p}_ms"]) for p in (20, 50, 80))
        return f"{middle:>8} ({'once' if side.get('runs') == 1 else f'{low} - {high}'})"

    title = described(row)
    if row["p50_ms"] is None:
        return [f"{title:60} {row['note']}"]
    parts = [f"{spread(row):30}"]
    if row["rtf"]:
        parts.append(f"{1 / row['rtf']:.3g} x real time")
    if row.get("of_limit") is not None:
        parts.append(f"{row['of_limit']:.0%} of {row['bound']}")
    if row.get("published") is not None:
        parts.append(f"{row['published']:.0%} of published")
    parts.append(f"{row['snr_db']:.0f} dB")
    lines = [f"{title:60} {', '.join(parts)}"]
    for name, peer in row["peers"].items():
        said = f"{peer['snr_db']:.0f} dB" if peer.get("snr_db") is not None else ""
        if "ratio" not in peer:
            lines.append(f"  {name:58} {', '.join(p for p in (peer['note'], said) if p)}")
            continue
        ratio = f"{peer['ratio']:.2f} times ours"
        if peer.get("runs") != 1:
            ratio += f" ({peer['ratio_p20']:.2f} - {peer['ratio_p80']:.2f})"
        lines.append(f"  {name:58} {spread(peer):30}, {ratio}, {said}")
    return lines
