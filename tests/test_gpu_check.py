"""benchmarks/gpu/check.py without a GPU: what it says, and that no failure is lost."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "benchmarks" / "gpu" / "check.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_prints_the_plan_and_writes_nothing(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "gpu", lambda: None)
    assert check.main(["--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "nothing was run" in out
    for word in ("first-use check", "op tests", "verify", "memcheck", "racecheck", "benchmark"):
        assert word in out
    assert not [*tmp_path.iterdir()]


def test_every_step_is_reported_and_one_failure_fails_the_run(check: ModuleType) -> None:
    python = sys.executable
    chosen = [
        check.Step("good", (python, "-c", "print('fine')")),
        check.Step("bad", (python, "-c", "raise SystemExit(3)")),
        check.Step("no tool", ("no-such-program",), "no-such-program"),
        check.Step("slow", (python, "-c", "import time; time.sleep(60)")),
    ]
    rows: list[dict[str, Any]] = []
    assert not check.run(chosen, {"gpu": "x"}, rows.append, limit=2)
    results = ["passed", "exit code 3", "not run", "not finished in 2 s"]
    assert [row["result"] for row in rows] == results
    assert rows[0]["last_line"] == "fine"
    assert rows[0]["command"].startswith("python -c")
    assert check.run(chosen[:1], {}, rows.append, limit=20)


def test_results_are_kept_by_machine(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "gpu", lambda: ("cuda", "Some GPU 80GB"))
    monkeypatch.setattr(
        check,
        "steps",
        lambda backend, out: [check.Step("bad", (sys.executable, "-c", "raise SystemExit(1)"))],
    )
    assert check.main(["--out", str(tmp_path)]) == 1
    (file,) = tmp_path.iterdir()
    assert file.name.endswith("-cuda-some-gpu-80gb-check.jsonl")
    assert '"exit code 1"' in file.read_text()
