"""The command line in surroundings as people have them: closed streams, no home, a full disk, files that lie."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from rvc_fast import env
from rvc_fast.cli import common, info
from rvc_fast.errors import InputError
from rvc_fast.notes import printable
from rvc_fast.resources import demo_dir

SOUND = demo_dir() / "sounds" / "speech_male.wav"


def run(command: str, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell command in which $R is rvc-fast."""
    environment = {**os.environ, "R": f"{sys.executable} -m rvc_fast", **variables}
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, cwd=tmp_path, env=environment, check=False, timeout=300
    )


@pytest.fixture
def short(tmp_path: Path) -> Path:
    samples, rate = soundfile.read(SOUND, dtype="float32")
    soundfile.write(tmp_path / "short.wav", samples[: int(0.3 * rate)], rate)
    return tmp_path / "short.wav"


def test_messages_do_not_go_into_a_sound_when_stderr_is_closed(short: Path, tmp_path: Path) -> None:
    done = run(f"$R convert {short} -o - 2>&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    samples, rate = soundfile.read(io.BytesIO(done.stdout))
    assert (rate, len(samples) > 3000) == (24000, True)


def test_no_stdin_and_no_stdout_are_one_line(short: Path, tmp_path: Path) -> None:
    for command, message in [
        ("$R convert - -o x.wav <&-", b"cannot read stdin"),
        (f"$R convert {short} -o - >&-", b"cannot write stdout"),
    ]:
        done = run(command, tmp_path)
        assert done.returncode == 2
        assert message in done.stderr.splitlines()[-1]
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_stdout_is_one_line(tmp_path: Path) -> None:
    done = run("$R models list > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == b"rvc-fast: No space left on device\n"


def test_no_home_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RVC_FAST_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without HOME and an entry in passwd
    with pytest.raises(InputError, match="set HOME or RVC_FAST_CACHE"):
        env.cache_dir()
    monkeypatch.setenv("RVC_FAST_CACHE", "models")
    assert env.cache_dir() == "models"


@pytest.mark.parametrize("value", ["x", "0", "-1", "1.5", "9999", ""])
def test_the_right_variable_is_blamed(short: Path, tmp_path: Path, value: str) -> None:
    done = run(f"$R convert {short} -o x.wav --quiet", tmp_path, RVC_FAST_THREADS=value)
    assert done.returncode == 2
    assert done.stderr.decode() == (
        f"rvc-fast: [env] RVC_FAST_THREADS must be a number from 1 to 1024, got {value!r}\n"
    )
    assert not (tmp_path / "x.wav").exists()


def test_a_missing_mlx_backend_names_the_remedy(short: Path, tmp_path: Path) -> None:
    (tmp_path / "fake" / "mlx").mkdir(parents=True)
    (tmp_path / "fake" / "mlx" / "__init__.py").touch()
    (tmp_path / "fake" / "mlx" / "core.py").write_text(
        "raise ImportError('libmlx.so: cannot open shared object file', name='mlx.core')"
    )
    path = os.pathsep.join([str(tmp_path / "fake"), os.environ.get("PYTHONPATH", "")])
    done = run(f"$R convert {short} -o x.wav --quiet", tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"libmlx.so" in done.stderr
    assert b"pip install '.[cpu]'" in done.stderr


EVIL = "\x1b]0;owned\x07\x1b[2J\rkind: safe\u202e\x9b31m"


def test_nothing_from_a_file_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("ä日本\n") == "ä日本\n"
    assert printable(EVIL).isprintable()
    info._show({"author": EVIL, EVIL: {"a\nkind: safe": EVIL}})
    common.tell(EVIL)
    said = capsys.readouterr()
    assert said.out.count("\n") == 3
    assert all(line.isprintable() for line in (said.out + said.err).splitlines())
    save_file({EVIL: np.zeros(1, np.float32)}, tmp_path / "x.safetensors")
    for command in ("info x.safetensors", "info \"$(printf 'a\\033[2J.pth')\""):
        done = run(f"$R {command}", tmp_path)
        assert done.returncode == 2
        assert done.stderr.decode().rstrip("\n").isprintable()


def test_metadata_of_every_kind_is_valid_json(capsys: pytest.CaptureFixture[str]) -> None:
    deep: object = 1
    for _ in range(5000):
        deep = {"a": deep}
    value = {"nan": float("nan"), "list": [float("inf"), 1.5, "\ud800", None], "deep": deep, "big": 10**4000}
    common.print_json(value)
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert found["nan"] is None
    assert found["list"] == [None, 1.5, "\ud800", None]
    assert found["big"] == 10**4000


def test_a_terminal_of_few_characters_gets_escapes(tmp_path: Path) -> None:
    done = run("$R info 日本.pth; $R --version", tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"\\u65e5\\u672c.pth" in done.stderr
    assert b"Traceback" not in done.stderr
