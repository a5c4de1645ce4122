"""Batches: what is an input, what is not overwritten, and that nothing one sound does ends the others."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

import rvc_fast.converter
from fakes import FakeEmbedder, FakePitch, FakeVoice, voiced_sound
from rvc_fast.cli import main
from rvc_fast.converter import Converter
from rvc_fast.errors import InputError


@pytest.fixture(autouse=True)
def fake_models(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Conversions by models that take no time; `loaded` counts."""
    seen = SimpleNamespace(loaded=0)

    def load(**_: object) -> Converter:
        seen.loaded += 1
        return Converter(FakeVoice(), FakeEmbedder(), FakePitch())

    monkeypatch.setattr(rvc_fast.converter, "load", load)
    return seen


def sound(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, voiced_sound(0.3), 16000, format="WAV")
    return path


def files(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if not f.is_dir())


def test_results_hidden_files_and_temporaries_are_no_inputs(tmp_path: Path) -> None:
    root = tmp_path / "in"
    sound(root / "a.wav")
    sound(root / "sub" / "b.wav")
    sound(root / ".rvc_fast-0123456789abcdef.wav")
    (root / "._a.wav").write_bytes(b"what macOS keeps beside a file")
    sound(root / ".trash" / "c.wav")
    for out in (root / "out", root / "sub" / "deep" / "out"):
        for _ in range(2):
            assert main(["convert", str(root), "-o", str(out), "--quiet"]) == 0
            assert files(out) == ["a.wav", "sub/b.wav"]
        shutil.rmtree(out)


def test_a_sound_whose_name_is_not_utf_8_or_very_long(tmp_path: Path) -> None:
    data = sound(tmp_path / "plain.wav").read_bytes()
    (tmp_path / "in").mkdir()
    names = []
    for name in (os.fsdecode(b"caf\xe9.wav"), "歌" * 83 + ".wav", "new\nline\x1b[2J.wav"):
        try:
            (tmp_path / "in" / name).write_bytes(data)
        except OSError:
            continue  # not allowed by this file system
        names.append(name)
    assert names
    assert main(["convert", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    assert set(os.listdir(tmp_path / "out")) == set(names)


def test_what_cannot_be_looked_into_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound(tmp_path / "in" / "a.wav")
    (tmp_path / "in" / "lost.wav").symlink_to("/none")
    os.mkfifo(tmp_path / "in" / "pipe.wav")
    out = tmp_path / "out"
    assert main(["convert", str(tmp_path / "in"), "-o", str(out), "--json", "--quiet"]) == 2
    said = capsys.readouterr()
    assert "lost.wav" in said.err
    assert "No such file" in said.err
    assert [(Path(f["input"]).name, f["ok"]) for f in json.loads(said.out)["files"]] == [
        ("a.wav", True),
        ("lost.wav", False),
    ]
    assert os.listdir(out) == ["a.wav"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound(tmp_path / "in" / "a.wav")
    sound(tmp_path / "in" / "closed" / "b.wav").parent.chmod(0)
    try:
        assert main(["convert", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--quiet"]) == 2
    finally:
        (tmp_path / "in" / "closed").chmod(0o755)
    assert "closed: [convert] cannot read it: Permission denied" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == ["a.wav"]


def test_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fake_models: SimpleNamespace
) -> None:
    a, b, c = (str(sound(tmp_path / name)) for name in ("a.wav", "b.flac", "c.wav"))
    (tmp_path / "b.wav").symlink_to("c.wav")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "a.wav").symlink_to("c.wav")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.wav").symlink_to(tmp_path / "precious")
    pipes = tmp_path / "pipes"
    pipes.mkdir()
    os.mkfifo(pipes / "a.wav")
    folder = sound(tmp_path / "in" / "sub" / "a.wav").parents[1]
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "sub").symlink_to(elsewhere)
    before = files(tmp_path)
    for inputs, out, message in [
        ([a], a, "overwritten by its own result"),
        ([a, c], tmp_path, "overwritten by its own result"),
        ([b, str(tmp_path / "in")], tmp_path, "c.wav would be overwritten by the result of .*b.flac"),
        ([a, c], linked, "would both be written"),
        ([a, c], elsewhere, "is a link to .*precious"),
        ([a, c], pipes, "a device or a pipe"),
        ([str(folder)], tmp_path / "strange", "a link to a folder outside"),
        ([a], tmp_path / "none" / "x.wav", "the folder .*none does not exist"),
        ([a, c], a, "must be a folder"),
    ]:
        assert main(["convert", *inputs, "-m", c, "-o", str(out)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert re.search(message, err), err
    for option in ("-m", "--embedder", "--pitch-model", "--index", "--f0-file"):
        assert main(["convert", a, "-m", c, option, c, "-o", c]) == 2
        assert "c.wav would be overwritten by the result of" in capsys.readouterr().err
    assert fake_models.loaded == 0
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (MemoryError(), "not enough memory", 1),
        (MemoryError("[malloc] Unable to allocate 99 bytes"), "not enough memory: [malloc] Unable", 1),
        (RuntimeError("something\nodd \x1b[2J"), "internal error: RuntimeError: something odd", 1),
        (RecursionError("too deep"), "internal error: RecursionError", 1),
        (AssertionError(), "internal error: AssertionError", 1),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), "internal error: UnicodeDecodeError", 1),
        (OSError(28, "No space left on device"), "No space left on device", 2),
        (OSError(5, "Input/output error", "x.wav"), "x.wav: Input/output error", 2),
        (InputError("[convert] no"), "[convert] no", 2),
    ],
)
def test_nothing_that_one_sound_does_ends_the_others(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    message: str,
    code: int,
) -> None:
    names = [str(sound(tmp_path / f"{n}.wav")) for n in range(4)]
    convert, forgotten = Converter.convert, []

    def failing(self: Converter, source: str, **options: object) -> object:
        if source == names[1]:
            raise error
        return convert(self, source, **options)

    monkeypatch.setattr(Converter, "convert", failing)
    monkeypatch.setattr(Converter, "forget", lambda self: forgotten.append(1))
    arguments = ["convert", *names, "-m", "voice", "-o", str(tmp_path / "out"), "--json"]
    assert main([*arguments, "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err
    assert files(tmp_path / "out") == ["0.wav", "2.wav", "3.wav"]
    assert main(arguments) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    (line,) = [line for line in said.err.splitlines() if line.startswith("rvc-fast: ")]
    assert line.startswith(f"rvc-fast: {names[1]}: {message}")
    assert "\x1b" not in said.err
    report = json.loads(said.out)
    assert (report["converted"], report["failed"]) == (3, 1)
    assert [f["ok"] for f in report["files"]] == [True, False, True, True]
    assert report["files"][1]["error"].startswith(message)
    assert files(tmp_path / "out") == ["0.wav", "2.wav", "3.wav"]
    assert forgotten, "what is kept of a sound that took too much memory must be freed"


def test_a_result_of_no_samples_is_one_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = str(sound(tmp_path / "a.wav")), str(sound(tmp_path / "b.wav"))
    features = FakeEmbedder.features
    monkeypatch.setattr(FakeEmbedder, "features", lambda self, *given: features(self, *given)[:1])
    assert main(["convert", a, b, "-o", str(tmp_path / "out")]) == 2
    assert "0 of 2 converted" in capsys.readouterr().err
    assert files(tmp_path / "out") == []
