"""`rvc-fast demo`: sounds, one picture, timings, and playing them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from matplotlib import image

from rvc_fast.cli import demo, main
from rvc_fast.resources import demo_dir

SOUNDS = ("person", "speech_male", "speech_female", "sung_glide")
NAMES = [speaker["name"] for speaker in json.loads((demo_dir() / "speakers.json").read_text())]


def player(folder: Path, exits: int) -> Path:
    """A player that notes what it is given, alone on the PATH."""
    folder.mkdir()
    path = folder / "aplay"
    path.write_text(f'#!/bin/sh\necho "$2" >>"{folder}/played"\necho no device >&2\nexit {exits}\n')
    path.chmod(0o755)
    return folder


def test_demo_converts_draws_and_plays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = player(tmp_path / "tools", 0)
    monkeypatch.setenv("PATH", str(tools))
    out = tmp_path / "out"
    assert main(["demo", "--output", str(out), "--play"]) == 0
    wanted = [f"{sound}_{name}" for sound in SOUNDS for name in NAMES]
    assert sorted(f.stem for f in out.glob("*.wav")) == sorted(wanted)
    for name in wanted:
        samples, rate = soundfile.read(out / f"{name}.wav")
        assert len(samples) > 3 * rate
        assert samples.std() > 0.01
    said = capsys.readouterr().out
    assert said.count("synthesis ") == len(wanted)
    # Columns: the source and the speakers. Rows: the sounds and the targets.
    height, width = image.imread(out / "demo.png").shape[:2]
    assert width == pytest.approx(100 * (1 + 3.4 * (1 + len(NAMES))), abs=1)
    assert height == pytest.approx(100 * (0.4 + 2.4 * (1 + len(SOUNDS))), abs=1)
    played = (tools / "played").read_text().splitlines()
    assert len(played) == len(SOUNDS) * (1 + len(NAMES))
    assert [Path(p).stem for p in played[:2]] == ["person", wanted[0]]


def test_demo_without_a_player_says_so_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert main(["demo", "-o", str(tmp_path / "out"), "--play"]) == 2
    assert "afplay, aplay" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_player_that_fails_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(player(tmp_path / "tools", 3)))
    command = demo.find_player()
    assert command == ["aplay", "-q"]
    with pytest.raises(demo.RvcFastError, match=r"aplay could not play a.wav \(exit 3\): no device"):
        demo.play(command, Path("a.wav"))


def test_without_matplotlib_one_line_says_how_to_get_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rvc_fast.extras.find_spec", lambda name: None)
    said = demo.draw(tmp_path / "demo.png", [])
    assert said == "no picture, because matplotlib is not installed: pip install 'rvc-fast[plot]'"
    assert not (tmp_path / "demo.png").exists()
