"""Packing never replaces what it must not, and several may pack at once."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rvc_fast.cli import main
from rvc_fast.resources import demo_dir
from rvc_fast.weights import load_checkpoint
from rvc_fast.weights.pack import pack_file

DEMO = demo_dir()


def test_a_source_is_never_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice = tmp_path / "voice.pth"
    shutil.copy(DEMO / "voice.pth", voice)
    (tmp_path / "link.safetensors").symlink_to("voice.pth")
    os.link(voice, tmp_path / "hard.safetensors")
    before = voice.read_bytes()
    for target, message in (
        ("voice.pth", "must have the suffix .safetensors"),
        ("link.safetensors", "overwritten by its own result"),
        ("hard.safetensors", "overwritten by its own result"),
    ):
        assert main(["pack", str(voice), "-o", str(tmp_path / target), "--quiet"]) == 2
        assert message in capsys.readouterr().err
    shutil.copytree(DEMO / "embedder", tmp_path / "embedder")
    inside = [str(f) for f in (tmp_path / "embedder").glob("*.safetensors")]
    assert inside
    for target in inside:
        assert main(["pack", str(tmp_path / "embedder"), "-o", target, "--quiet"]) == 2
        assert "overwritten by its own result" in capsys.readouterr().err
    assert voice.read_bytes() == before
    for target in inside:
        assert Path(target).read_bytes() == (DEMO / "embedder" / Path(target).name).read_bytes()


def test_pipes_and_links_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_bytes(b"mine")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "link.safetensors").symlink_to("elsewhere/mine")
    for name, message in [("pipe", "a device or a pipe"), ("link", "is a link to")]:
        assert main(["pack", str(DEMO / "voice.pth"), "-o", str(tmp_path / f"{name}.safetensors")]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "pipe.safetensors").is_fifo()
    assert (tmp_path / "elsewhere" / "mine").read_bytes() == b"mine"


def test_the_packed_weights_have_a_place_of_their_own_to_lose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rvc_fast.weights.kernels.require", lambda what: None)
    os.mkfifo(tmp_path / "x.float32.kernels")
    assert main(["pack", str(DEMO / "voice.pth"), "-o", str(tmp_path / "x.safetensors"), "--kernels"]) == 2
    assert "x.float32.kernels: it is a device or a pipe" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["x.float32.kernels"]  # found out before the work


def test_several_at_once_all_succeed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "x.safetensors"
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: pack_file(DEMO / "voice.pth", target), range(3)))
    assert len(made) == 3
    assert "waiting for another process or thread" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["x.safetensors"]
    assert load_checkpoint(target).kind == "voice"
