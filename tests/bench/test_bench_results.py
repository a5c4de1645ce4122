"""Rows, files of them, and their comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench_fakes import FACTS

from rvc_fast.bench import results
from rvc_fast.errors import FileFormatError, InputError


def row(p50: float | None = 100.0, spread: float = 0.01, **changes: Any) -> dict[str, Any]:
    """A row of the decoder; `peers` as {name: ratio}."""
    peers = {
        name: {
            "p20_ms": 1.0,
            "p50_ms": 2.0,
            "p80_ms": 3.0,
            "ratio": ratio,
            "ratio_p20": ratio * (1 - spread),
            "ratio_p80": ratio * (1 + spread),
            "snr_db": 100.0,
        }
        for name, ratio in changes.pop("peers", {}).items()
    }
    times = {
        f"p{p}_ms": None if p50 is None else p50 * f for p, f in ((20, 1 - spread), (50, 1), (80, 1 + spread))
    }
    return {
        "schema": results.SCHEMA,
        **FACTS,
        "thermal": {},
        "suite": "stages",
        "name": "decoder",
        "seconds": 10.0,
        "batch": 1,
        "dtype": "float32",
        "backend": "cpu",
        **times,
        "peak_mb": 1.0,
        "rtf": 0.01,
        "snr_db": 100.0,
        "peers": peers,
        **changes,
    }


def test_quantiles() -> None:
    assert results.quantiles([5, 1, 4, 2, 3]) == pytest.approx((1.8, 3, 4.2))
    assert results.quantiles([7]) == (7, 7, 7)
    assert results.times([0.001, 0.002, 0.003]) == {"p20_ms": 1.4, "p50_ms": 2.0, "p80_ms": 2.6}
    assert results.ratios([(1, 2), (10, 30)])["ratio"] == 2.5


def test_durations_have_three_figures() -> None:
    given = (None, 0.0123, 1.0, 12.345, 999.7, 1234.5, 123456)
    assert [results.duration(ms) for ms in given] == [
        "-",
        "12.3 us",
        "1 ms",
        "12.3 ms",
        "1e+03 ms",
        "1.23 s",
        "123 s",
    ]


def test_rows_are_on_the_disk_at_once(tmp_path: Path) -> None:
    file = results.File(tmp_path / "new" / "a.jsonl")
    file.append(row())
    assert results.read(file.path) == [row()]
    file.append(row(50.0))
    assert [r["p50_ms"] for r in results.read(file.path)] == [100, 50]


def test_a_place_that_cannot_be_written_is_said_before_measuring(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        results.File(tmp_path / "file" / "a.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no results"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: results of schema None, this version reads 2"),
        (json.dumps({**row(), "schema": 1}), "line 1: results of schema 1, this version reads 2"),
        (json.dumps(row()) + "\n" + json.dumps({**row(), "schema": 99}), "line 2: results of schema 99"),
        (json.dumps({k: v for k, v in row().items() if k != "rtf"}), "line 1: the row has no rtf"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=message) as error:
        results.read(path)
    assert "\n" not in str(error.value)


def flags(a: dict[str, Any], b: dict[str, Any]) -> int:
    return results.comparison([[a], [b]])[2]


def test_a_slower_row_on_the_same_machine_is_flagged() -> None:
    header, lines, regressions = results.comparison([[row(100)], [row(125)]])
    assert header == ["what", "1", "2", "2 / 1", ""]
    assert lines == [["stages decoder, 10 s", "100 ms", "125 ms", "1.25", "SLOWER in 2"]]
    assert regressions == 1
    assert flags(row(100), row(109)) == 0
    assert flags(row(100), row(80)) == 0
    assert flags(row(100), row(125, spread=0.3)) == 0, "the ranges touch"


def test_machines_are_compared_but_not_flagged() -> None:
    other = row(300, chip="Another chip")
    _, lines, regressions = results.comparison([[row(100)], [other]])
    assert lines[0][3] == "3.00"
    assert regressions == 0
    assert flags(row(100), row(300, threads=1)) == 0


def test_the_same_chip_with_fewer_gpu_cores_is_another_machine() -> None:
    """Sold as one chip: an M3 Max with 30 GPU cores is not a slower one with 40."""
    chip = {"chip": "Apple M3 Max"}
    assert flags(row(100, gpu_cores=40, **chip), row(130, gpu_cores=30, **chip)) == 0
    assert flags(row(100, gpu_cores=40, **chip), row(130, gpu_cores=40, **chip)) == 1
    assert results.machine_of(row(gpu_cores=40, **chip)).startswith("Apple M3 Max, 40 GPU cores, ")


def test_chips_side_by_side_with_what_is_published() -> None:
    def said(header: list[str], lines: list[list[str]], of: str) -> list[str]:
        return next(line[1:-1] for line in lines if line[0].startswith(of))

    m3 = row(
        chip="Apple M3 Max",
        gpu_cores=40,
        cpu_cores={"Performance": 12, "Efficiency": 4},
        thermal={"pressure": "nominal"},
        limits={"fma_gflops": 123.4, "read_gbytes": 56.7, "copy_gbytes": 50.0},
        device="gpu",
    )
    hot = {**m3, "thermal": {"pressure": "heavy"}}
    m1, other = row(chip="Apple M1", gpu_cores=7, device="gpu"), row(chip="Some CPU")
    table = results.peaks([[m3, hot], [m1], [other]])
    assert table[0] == ["", "1", "2", "3", ""]
    assert said(*table, "chip") == ["Apple M3 Max", "Apple M1", "Some CPU"]
    assert said(*table, "GPU cores") == ["40", "7", "-"]
    assert said(*table, "CPU cores") == ["12 Performance, 4 Efficiency", "2", "2"]
    assert said(*table, "power and heat") == ["pressure nominal; pressure heavy", "-", "-"]
    assert said(*table, "memory, GB/s, published") == ["400", "68", "not in our table"]
    assert said(*table, "memory, GB/s, measured") == ["57", "-", "-"]
    assert said(*table, "GPU float32, GFLOP/s, published") == ["not published", "2290", "not in our table"]
    assert said(*table, "float32, GFLOP/s, measured") == ["123 on the gpu", "-", "-"]


def test_a_common_peer_takes_the_clock_out() -> None:
    """Everything took twice as long, the peer too: nothing got slower. And the other way round."""
    assert flags(row(100, peers={"torch": 5.0}), row(200, peers={"torch": 5.0})) == 0
    assert flags(row(100, peers={"torch": 5.0}), row(100, peers={"torch": 4.0})) == 1
    assert flags(row(100, peers={"torch": 5.0}), row(200, peers={"direct": 5.0})) == 1


def test_rows_that_only_one_file_has() -> None:
    a, b = [row(), row(None, name="flow", note="red")], [row(name="mel"), row(name="flow")]
    _, lines, regressions = results.comparison([a, b])
    assert [line[:4] for line in lines] == [
        ["stages decoder, 10 s", "100 ms", "-", "-"],
        ["stages flow, 10 s", "-", "100 ms", "-"],
        ["stages mel, 10 s", "-", "100 ms", "-"],
    ]
    assert regressions == 0


def test_the_text_of_a_row() -> None:
    lines = results.text(row(1500, peers={"torch": 7.1}, of_limit=1.83, bound="arithmetic", rtf=0.15))
    assert lines[0].startswith("stages decoder, 10 s  ")
    assert "1.5 s (1.49 s - 1.51 s)" in lines[0]
    assert "6.67 x real time, 183% of arithmetic, 100 dB" in lines[0]
    assert "7.10 times ours (7.03 - 7.17), 100 dB" in lines[1]
