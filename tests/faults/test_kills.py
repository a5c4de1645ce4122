"""Processes that are ended at any moment: targets are whole or not there, and the next run leaves nothing behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes import hidden, run, start

import rvc_fast.converter
from demo import DEMO
from fakes import FakeEmbedder, FakePitch, FakeVoice
from rvc_fast.cli import main
from rvc_fast.converter import Converter
from rvc_fast.weights import load_checkpoint

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]


def sounds(folder: Path, count: int, bad: int = 0) -> Path:
    """Make `count` sounds of 0.1 s, `bad` of which are none."""
    folder.mkdir(parents=True)
    for i in range(count):
        path = folder / f"{i:04}.wav"
        if i % max(1, count // max(1, bad)) == 0 and i // max(1, count // max(1, bad)) < bad:
            path.write_bytes(b"no sound")
        else:
            soundfile.write(path, 0.2 * np.sin(np.arange(1600) * (0.02 + 1e-5 * i)), 16000)
    return folder


def end(process: subprocess.Popen[str], number: signal.Signals, when: float) -> None:
    """Send a signal after so many seconds, unless the process has come to its end before."""
    try:
        process.wait(when)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in (0, -number)


@pytest.mark.parametrize("number", SIGNALS)
def test_pack(tmp_path: Path, number: signal.Signals) -> None:
    target = tmp_path / "v.safetensors"
    command = ("pack", DEMO / "voice.pth", "-o", target, "--kernels", "--quiet")
    begin = time.monotonic()
    assert run(*command).returncode == 0
    took = time.monotonic() - begin
    whole = {name: (tmp_path / name).stat().st_size for name in os.listdir(tmp_path)}
    for file in tmp_path.iterdir():
        file.unlink()
    moments = random.Random(number)
    for _ in range(3):
        end(start(*command), number, took * moments.uniform(0.5, 1))
        for name in os.listdir(tmp_path):
            assert name.startswith(".") or whole[name] == (tmp_path / name).stat().st_size
        if number != signal.SIGKILL:
            assert hidden(tmp_path) == []
    assert run(*command).returncode == 0
    assert {name: (tmp_path / name).stat().st_size for name in os.listdir(tmp_path)} == whole
    assert load_checkpoint(target).packed


@pytest.mark.parametrize("number", SIGNALS)
def test_a_batch_that_is_ended_and_run_again(tmp_path: Path, number: signal.Signals) -> None:
    """5 % of the sounds are bad. Every good one is written once and whole, and the record is complete."""
    source, out = sounds(tmp_path / "in", 60, bad=3), tmp_path / "out"
    command = ("--fake", "convert", source, "-o", out, "--resume")
    process = start(*command)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.wav"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number
    # A line that was not finished, as a machine that stops leaves it.
    with (out / "rvc-fast.jsonl").open("ab") as file:
        file.write(b'{"input": "torn')
    recorded = [json.loads(line) for line in (out / "rvc-fast.jsonl").read_bytes().split(b"\n")[:-1]]
    before = {line["output"]: os.stat(line["output"]) for line in recorded if line["ok"]}
    assert 19 <= len(before) < 57

    result = run(*command, "--json")
    assert result.returncode == 2  # some are bad
    report = json.loads(result.stdout)
    assert (report["converted"], report["failed"]) == (57, 3)
    assert {f["output"] for f in report["files"] if f.get("before")} == before.keys()
    for name, stat in before.items():
        assert (os.stat(name).st_ino, os.stat(name).st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    assert len(list(out.glob("*.wav"))) == 57
    for file in out.glob("*.wav"):
        assert soundfile.info(file).frames == 2560  # whole frames of what the fake models see
    assert hidden(tmp_path) == []
    lines = [json.loads(line) for line in (out / "rvc-fast.jsonl").read_text().splitlines()]
    assert sorted(Path(line["input"]).name for line in lines) == sorted(os.listdir(source))
    for line in lines:
        assert line["ok"] == (int(Path(line["input"]).stem) % 20 != 0)
        assert bool(line["error"]) != line["ok"]


def test_what_is_done_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another sound, other settings, a result that is gone or not whole."""
    monkeypatch.setattr(
        rvc_fast.converter, "load", lambda **_: Converter(FakeVoice(), FakeEmbedder(), FakePitch())
    )
    source, out = sounds(tmp_path / "in", 5), tmp_path / "out"
    command = ["convert", str(source), "-o", str(out), "--resume", "--quiet"]

    def done(*options: str) -> list[str]:
        assert main([*command, "--json", *options]) == 0
        report = json.loads(capsys.readouterr().out)
        return [Path(f["input"]).stem for f in report["files"] if not f.get("before")]

    names = [f"{i:04}" for i in range(5)]
    assert done() == names
    assert done() == []
    soundfile.write(source / "0001.wav", 0.1 * np.ones(1600), 16000)
    (out / "0002.wav").unlink()
    os.truncate(out / "0003.wav", 100)
    assert done() == ["0001", "0002", "0003"]
    assert done("--transpose", "2") == names
    assert done("--transpose", "2") == []
    assert done() == names
    (out / "rvc-fast.jsonl").unlink()
    assert done() == names
    (out / "rvc-fast.jsonl").write_text("my notes")
    assert main(command) == 2
    assert "not a journal" in capsys.readouterr().err
    assert main(["convert", str(source / "0000.wav"), "-o", str(tmp_path / "one.wav"), "--resume"]) == 2
    assert "needs a folder" in capsys.readouterr().err


def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    source, out = sounds(tmp_path / "in", 30), tmp_path / "out"
    out.mkdir()
    both = [start("--fake", "convert", source, "-o", out, "--resume", "--json") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    done = [sum(not f.get("before") for f in json.loads(out)["files"]) for out, _ in said]
    assert sorted(done) == [0, 30]
    assert len((out / "rvc-fast.jsonl").read_text().splitlines()) == 30
    assert hidden(tmp_path) == []


def test_two_processes_pack_to_one_file(tmp_path: Path) -> None:
    target = tmp_path / "v.safetensors"
    both = [start("pack", DEMO / "voice.pth", "-o", target, "--kernels", "--quiet") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(os.listdir(tmp_path)) == ["v.float32.kernels", "v.safetensors"]
    assert load_checkpoint(target).packed
