"""What a file says of itself reaches a terminal and JSON without doing anything there."""

from __future__ import annotations

import io
import json
import sys

import pytest

from rvc_fast.cli import info, main
from rvc_fast.cli.common import print_json, tell
from rvc_fast.pitch.rmvpe import Rmvpe
from rvc_fast.weights import load_checkpoint, save_packed

from .voices import DEMO


def test_json_has_no_nan(capsys):
    print_json({"a": [float("nan"), {"b": (float("inf"), 1.5)}]})
    assert json.loads(capsys.readouterr().out) == {"a": [None, {"b": [None, 1.5]}]}


def test_messages_are_one_line_without_control_characters(capsys):
    tell("a\nb\x1b[2J\x07c \ud800")
    assert capsys.readouterr().err == "a b\\x1b[2J\\x07c \\ud800\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_info_prints_metadata_as_text(tmp_path, monkeypatch, encoding):
    checkpoint = load_checkpoint(DEMO / "rmvpe.pt")
    said = {"author": "\x1b]0;owned\x07\rkind: \u6b4c", "epoch": float("nan"), "deep": {"a": {"b": 1}}}
    path = tmp_path / "a.safetensors"
    save_packed(path, "rmvpe", Rmvpe.sanitize(checkpoint.tensors), checkpoint.config, said)
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["info", str(path)]) == 0
    out.flush()
    text = out.buffer.getvalue().decode(encoding)
    assert "owned" in text
    assert not set(text) & {"\x1b", "\x07", "\r"}
    assert info._file(str(path))["metadata"].keys() == {"author", "epoch"}
