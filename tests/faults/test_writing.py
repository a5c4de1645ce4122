"""Files of ours appear whole or not at all, and never in the place of what must not be replaced."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rvc_fast import writing
from rvc_fast.errors import InputError


def put(path: Path, content: bytes = b"new", **options) -> None:
    with writing.replacing(path, "test", **options) as (file, _):
        file.write(content)


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as a disk that is full does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with writing.replacing(tmp_path / "x", "test", suffix=".wav") as (file, name):
        file.write(b"new")
        assert (tmp_path / "x").read_bytes() == b"old"
        assert name.name.startswith(".")
        assert name.suffix == ".wav"
        assert len(name.name) < 48
    assert (tmp_path / "x").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize(
    "name", ["a" * 255, "歌" * 85, "😀" * 63, os.fsdecode(b"caf\xe9"), os.fsdecode(b"\xff" * 255), "a\nb"]
)
def test_every_name_that_the_system_allows(tmp_path: Path, name: str) -> None:
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("not allowed by this file system")
    put(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize("written", [10, 4096, 1 << 20])
def test_a_full_disk_is_an_error_and_keeps_the_old_file(tmp_path: Path, written: int) -> None:
    """Whether it shows while writing or only at the end, when a buffer of bytes is left."""
    put(tmp_path / "x", b"old")
    with (
        full_after(written - 1),
        pytest.raises(InputError, match=r"\[test\] cannot write .*x: File too large"),
    ):
        put(tmp_path / "x", bytes(written))
    assert (tmp_path / "x").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_an_error_at_closing_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system may say that the disk is full only then."""

    def full(handle: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "dup", full)
    with pytest.raises(InputError, match="No space left"):
        put(tmp_path / "x")
    assert os.listdir(tmp_path) == []


def test_targets_that_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real").write_bytes(b"mine")
    (tmp_path / "here").mkdir()
    here = tmp_path / "here"
    (here / "link").symlink_to(tmp_path / "elsewhere" / "real")
    (here / "dangling").symlink_to(tmp_path / "elsewhere" / "none")
    (here / "round").symlink_to(here / "round")
    (here / "folder").mkdir()
    os.mkfifo(here / "pipe")
    (here / "device").symlink_to("/dev/null")
    before = sorted(os.listdir(here))
    for name, message in [
        ("link", "is a link to .*elsewhere/real"),
        ("dangling", "is a link to .*elsewhere/none"),
        ("round", "symbolic links"),
        ("folder", "is a folder"),
        ("pipe", "a device or a pipe"),
        ("device", "is a link to /dev/null"),
        ("no/x", "the folder .*no does not exist"),
        ("a" * 256, "too long"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(InputError, match=rf"^\[test\] cannot write .*{message}"):
            put(here / name)
    with pytest.raises(InputError, match="a device or a pipe"):
        put(Path("/dev/null"))
    assert sorted(os.listdir(here)) == before
    assert os.listdir(tmp_path / "elsewhere") == ["real"]
    assert (tmp_path / "elsewhere" / "real").read_bytes() == b"mine"


def test_a_link_beside_its_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    put(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_source_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    source = tmp_path / "model" / "source"
    source.write_bytes(b"mine")
    os.link(source, tmp_path / "same")
    (tmp_path / "link").symlink_to("same")
    for name, given in [
        ("model/source", source),
        ("same", source),
        ("link", source),
        ("same", source.parent),
    ]:
        with pytest.raises(InputError, match="overwritten by its own result"):
            put(tmp_path / name, sources=[tmp_path / "missing", given])
    put(tmp_path / "other", sources=[source])
    assert source.read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_is_write_protected(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"mine")
    (tmp_path / "x").chmod(0o444)
    with pytest.raises(InputError, match="Permission denied"):
        put(tmp_path / "x")


CHILD = """
import signal, sys, time
# Whoever runs the tests may ignore signals, and children inherit that.
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from pathlib import Path
from rvc_fast import writing
how, path = sys.argv[1:]
if how == "file":
    with writing.replacing(path, "test") as (file, _):
        file.write(bytes(100000)); file.flush(); print("ready", flush=True); time.sleep(60)
if how == "folder":
    with writing.scratch() as folder:
        (folder / "x").write_bytes(b"x"); print("ready", flush=True); time.sleep(60)
if how == "alone":
    with writing.alone(path, "test"):
        print("ready", flush=True); time.sleep(60)
"""


@contextmanager
def child(how: str, folder: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """A process that uses a hidden file of the folder, and its name; it is killed in the end."""
    before = set(os.listdir(folder))
    run = subprocess.Popen(
        [sys.executable, "-c", CHILD, how, str(folder / "x")],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    try:
        assert run.stdout.readline() == b"ready\n"
        (left,) = set(os.listdir(folder)) - before
        yield run, left
    finally:
        run.kill()
        run.wait()
        run.stdout.close()


@pytest.mark.parametrize("how", ["file", "folder", "alone"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing(tmp_path: Path, how: str, number: signal.Signals) -> None:
    with child(how, tmp_path) as (run, _):
        run.send_signal(number)
        assert run.wait(10) == -number  # ended by the signal, as its parent expects
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", ["file", "folder", "alone"])
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_needs_is_not(
    tmp_path: Path, how: str
) -> None:
    (tmp_path / ".rvc_fast-notes.txt").write_text("mine")
    with child(how, tmp_path) as (_, left):
        writing._swept.clear()
        put(tmp_path / "y")
        assert set(os.listdir(tmp_path)) == {".rvc_fast-notes.txt", "y", left}
    writing._swept.clear()
    put(tmp_path / "y")
    assert set(os.listdir(tmp_path)) == {".rvc_fast-notes.txt", "y"}


@pytest.mark.parametrize("when", ["before it is opened", "before it is locked"])
def test_a_file_that_is_swept_at_once_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Another process that begins to write in the folder takes a file that is not locked yet for a left one."""
    swept: list[Path] = []
    opened, lock = os.open, writing._lock

    def sweep() -> None:
        if not swept:
            swept.extend(tmp_path.glob(".rvc_fast-*"))
            swept[0].unlink()

    def open_swept(name: Path, flags: int, *mode: int) -> int:
        if not flags & os.O_CREAT:
            sweep()
        return opened(name, flags, *mode)

    def lock_swept(handle: int) -> bool:
        sweep()
        return lock(handle)

    if when == "before it is opened":
        monkeypatch.setattr(os, "open", open_swept)
    else:
        monkeypatch.setattr(writing, "_lock", lock_swept)
    put(tmp_path / "x", b"new")
    assert len(swept) == 1
    assert (tmp_path / "x").read_bytes() == b"new"
    assert [f.name for f in tmp_path.iterdir()] == ["x"]


def test_threads_write_one_file_and_one_after_the_other_makes_it(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def make(number: int) -> None:
        put(tmp_path / "x", bytes([number]) * 100000)
        with writing.alone(tmp_path / "x", "test"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    threads = [threading.Thread(target=make, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert len(set((tmp_path / "x").read_bytes())) == 1
    assert os.listdir(tmp_path) == ["x"]


def test_who_waits_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with child("alone", tmp_path) as (run, _):
        threading.Timer(0.5, run.kill).start()
        with writing.alone(tmp_path / "x", "test"):
            pass
    assert f"waiting for another process or thread that makes {tmp_path / 'x'}" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_no_locks_on_a_file_system_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / ".rvc_fast-0123456789abcdef").touch()
    monkeypatch.setattr("fcntl.flock", none)
    put(tmp_path / "x")
    with writing.alone(tmp_path / "x", "test"):
        pass
    # Whether somebody uses it cannot be told, so it stays.
    assert sorted(os.listdir(tmp_path)) == [".rvc_fast-0123456789abcdef", "x"]
