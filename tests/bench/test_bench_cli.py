"""rvc-fast bench as a user meets it."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from bench_fakes import OURS_FACTS, Clock, Fake
from test_bench_results import row

from rvc_fast.bench import limits, models, results, session
from rvc_fast.cli import main


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Fakes in place of all contestants, and no measuring of the machine; returns those that were made."""
    made: dict[str, Any] = {"log": [], "ours": {}}

    def contestants(options: session.Options, threads: int, deadline: float) -> tuple[Fake, dict[str, Fake]]:
        clock = Clock()
        made["options"], made["threads"], made["deadline"] = options, threads, deadline
        made["side"] = Fake("ours", made["log"], clock, **{"facts": OURS_FACTS, **made["ours"]})
        return made["side"], {n: Fake(n, made["log"], clock, [2.0]) for n in options.against}

    monkeypatch.setattr(session, "contestants", contestants)
    monkeypatch.setattr(session, "padded_seconds", lambda seconds: seconds)
    monkeypatch.setattr(models, "present", lambda kind: True)
    monkeypatch.setattr(models, "path", lambda kind: None)
    monkeypatch.setattr(
        limits, "measure", lambda: {"fma_gflops": 100.0, "read_gbytes": 10.0, "copy_gbytes": None}
    )
    return made


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("rvc-fast: ")
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "suite must be one of kernels, stages, convert, got 'nonsense'"),
        (["--op", "conv3d"], "op must be one of attention, "),
        (["--stage", "conv1d"], "stage must be one of mel, "),
        (["stages", "--op", "conv1d"], "--op chooses kernels, not stages"),
        (["kernels", "--stage", "mel"], "--stage chooses stages, not kernels"),
        (["kernels", "--seconds", "1"], "--seconds is for stages and convert"),
        (
            ["--dtype", "int4"],
            "dtype must be one of float32, bfloat16, float16, int8, bfloat16x2, got 'int4'",
        ),
        (["kernels", "--op", "knn", "--dtype", "float16"], "knn has no float16 on the backend"),
        (["stages", "--dtype", "float16"], "here, got 'float16': only a GPU computes in float16"),
        (["--against", "jax"], "against must be of torch, "),
        (
            ["--backend", "cuda", "stages", "--against", "none"],
            "RVC_FAST_BACKEND is cuda, but MLX's default device is",
        ),
        (["--quick", "--minutes", "5"], "--quick chooses --minutes itself"),
        (["--quick", "--seconds", "1"], "--quick chooses --seconds itself"),
        (["--quick", "--batch", "2"], "--quick chooses --batch itself"),
        (["--quick", "--limit", "9"], "--quick chooses --limit itself"),
        (["--against", "cpu"], "cpu is for machines with a GPU: here ours runs on the CPU anyway"),
        (["--read", "nothing.jsonl"], "--read is for --report"),
        (["--read", "nothing.jsonl", "--report", "x.html"], "cannot read nothing.jsonl"),
        (["--compare", "a.jsonl"], "--compare takes two or more files"),
        (["--compare", "a.jsonl", "b.jsonl"], "cannot read a.jsonl"),
        (
            ["--compare", "a", "b", "--quick"],
            "--compare reads files and measures nothing, got --quick with it",
        ),
        (["convert", "--compare", "a", "b"], "got the suite 'convert' with it"),
        (["--compare", "a", "b", "--report", "x.html"], "got --report with it"),
        (
            ["--read", "a", "--report", "x.html", "--json"],
            "--read reads files and measures nothing, got --json",
        ),
        (["--read", "a", "--report", "x.html", "--out", "x"], "got --out with it"),
        (["stages", "--batch", "2"], "--batch is for kernels and convert, not stages"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RVC_FAST_BACKEND", "auto")
    assert main(["bench", *arguments]) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "bench_out").exists()


def test_a_missing_extra_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["bench", "--against", "torch"]) == 2
    assert "pip install 'rvc-fast[bench]'" in one_line(capsys)


def test_kernels_are_compared_with_what_has_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert main(["bench", "kernels", "--against", "mlx,torch"]) == 2
    assert "kernels are compared with mlx and direct, not torch" in one_line(capsys)


def test_rows_come_as_text_and_in_a_file(
    fakes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "stages", "--stage", "mel,decoder", "--seconds", "1,2", "--against", "direct"]
    assert main([*arguments, "-o", str(tmp_path), "--repeats", "3"]) == 0
    out, err = capsys.readouterr()
    (file,) = tmp_path.glob("*.jsonl")
    rows = results.read(file)
    assert [(r["name"], r["seconds"]) for r in rows] == [
        ("decoder", 2),
        ("mel", 2),
        ("decoder", 1),
        ("mel", 1),
    ]
    assert rows[0]["peers"]["direct"]["ratio"] == 2
    assert "direct" in out
    assert "2.00 times ours" in out
    assert "peaks: fma 100 GFLOP/s, read 10 GB/s" in out
    assert err.endswith(f"4 rows in {file}\n")
    assert fakes["side"].stopped


def test_json_is_all_there_is_on_stdout(
    fakes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "--stage", "mel", "--seconds", "1", "--against", "none", "--json"]
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    (file,) = tmp_path.glob("*.jsonl")
    assert [json.loads(line)] == results.read(file)
    assert set(results.REQUIRED) <= set(json.loads(line))


def test_options_arrive(fakes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_THREADS", "1")
    arguments = (
        "bench convert --seconds 1 --against mlx,direct --repeats 2 --batch 3 --minutes 99 --limit 7 --quiet"
    )
    assert main([*arguments.split(), "-o", str(tmp_path), "--threads", "1"]) == 0
    assert fakes["threads"] == 1
    assert fakes["options"] == session.Options(
        suites=("convert",),
        seconds=(1.0,),
        against=("mlx", "direct"),
        repeats=2,
        batch=3,
        minutes=99,
        limit=7,
    )


def test_quick_is_short_and_says_what_to_send(
    fakes: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = time.monotonic()
    assert main(["bench", "--quick", "--against", "mlx", "-o", str(tmp_path)]) == 0
    assert fakes["options"] == session.Options(
        suites=("stages", "convert"),
        seconds=(10.0,),
        against=("mlx",),
        fewest=1,
        batch=1,
        minutes=3.0,
        limit=45.0,
    )
    assert begun + 165 < fakes["deadline"] < time.monotonic() + 175
    out, err = capsys.readouterr()
    (file,) = tmp_path.glob("*.jsonl")
    assert out.splitlines()[-4] == f"Please send this file, whatever it shows: {file}"
    assert out.splitlines()[-1].endswith(f"rvc-fast bench --compare {file} OTHER.jsonl")
    first = results.read(file)[0]
    assert (first["suite"], first["name"], first["seconds"]) == ("convert", "warm", 10)
    assert "left out" not in err
    slow = {"fma_gflops": 1.0, "read_gbytes": 10.0, "copy_gbytes": None}
    monkeypatch.setattr(limits, "measure", lambda: slow)
    assert main(["bench", "--quick", "--against", "none", "-o", str(tmp_path)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert "; rvc-fast bench --seconds 10 --minutes " in line


def test_quick_keeps_json_clean_and_other_runs_have_no_deadline(
    fakes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "stages", "--quick", "--json", "--against", "none", "-o", str(tmp_path)]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert json.loads(line)["seconds"] == 10
    assert main(["bench", "--stage", "mel", "--seconds", "1", "--against", "none", "-o", str(tmp_path)]) == 0
    assert fakes["deadline"] == math.inf
    assert (fakes["options"].minutes, fakes["options"].batch, fakes["options"].limit) == (15, 4, 120)


def test_a_red_row_ends_with_1(
    fakes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes["ours"] = {"snr": 10.0}
    arguments = ["bench", "--stage", "mel", "--seconds", "1", "--against", "none", "-o", str(tmp_path)]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert "WRONG RESULT, not timed: 10.0 dB, must be 80 dB" in out
    assert "1 rows, 1 with a wrong or missing result" in err


def test_an_interrupt_keeps_the_rows(
    fakes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Once(list):
        """Time once, then the user's patience ends."""

        def __init__(self) -> None:
            super().__init__([1.0, 1.0])

        def pop(self, at: int = -1) -> float:
            super().pop(at)
            if len(self) == 1 and any(file.read_text() for file in tmp_path.glob("*.jsonl")):
                raise KeyboardInterrupt
            self.append(1.0)
            return 1.0

    real = Fake.__init__

    def patient(self: Fake, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        self.seconds = Once()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fake, "__init__", patient)
        arguments = [
            "bench",
            *["--stage", "mel", "--seconds", "1,2,3", "--against", "none"],
            "-o",
            str(tmp_path),
        ]
        assert main([*arguments, "--report", str(tmp_path / "r.html")]) == 130
    (file,) = tmp_path.glob("*.jsonl")
    assert [r["seconds"] for r in results.read(file)] == [3]
    assert f"interrupted: 1 rows in {file}" in capsys.readouterr().err
    assert "mel, 3 s" in (tmp_path / "r.html").read_text()
    assert fakes["side"].stopped


def test_what_does_not_fit_is_said(
    fakes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "--stage", "decoder", "--seconds", "1,600", "--against", "none", "--minutes", "2"]
    assert main([*arguments, "-o", str(tmp_path)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert line.startswith("left out: decoder of 600 s; --minutes ")


def test_compare_prints_a_table_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("a", row(100)), ("b", row(150)), ("c", row(30, chip="Fast chip"))):
        results.File(tmp_path / name).append(value)
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert main(["bench", "--compare", a, b, c]) == 1
    out = capsys.readouterr().out
    assert "Fast chip, 2 threads, cpu" in out
    assert "memory, GB/s, published" in out
    assert "stages decoder, 10 s  100 ms  150 ms   1.50  30 ms   0.30  SLOWER in 2" in out
    assert "more than 10% against a peer" in out
    assert main(["bench", "--compare", a, c]) == 0


def test_a_real_kernel_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        *["bench", "kernels", "--op", "wavenet_gate", "--repeats", "2", "--against", "mlx", "-o"],
        str(tmp_path),
    ]
    assert main([*arguments, "--report", str(tmp_path / "out.html")]) == 0
    (file,) = tmp_path.glob("*.jsonl")
    rows = results.read(file)
    assert {r["batch"] for r in rows} == {1, 4}
    for r in rows:
        assert r["p50_ms"] > 0
        assert r["snr_db"] >= 100
        assert r["peers"]["mlx"]["snr_db"] >= 90
        assert r["seconds"] is None
    assert main(["bench", "--compare", str(file), str(file)]) == 0
    assert "1.00" in capsys.readouterr().out
    assert "wavenet_gate" in (tmp_path / "out.html").read_text()
