"""Sound files of every kind in and out, and those that are none."""

from __future__ import annotations

import io
import os
import resource
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from rvc_fast.audio import files, read_audio, read_mono, write_audio
from rvc_fast.errors import FileFormatError, InputError


def tone(n: int = 24000, rate: int = 24000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 300 * np.arange(n) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [(".wav", 1e-4), (".flac", 1e-4), (".ogg", 0.05), (".mp3", 0.05)]
)
def test_round_trip(tmp_path: Path, suffix: str, tolerance: float) -> None:
    path = tmp_path / f"x{suffix}"
    write_audio(path, tone(), 24000)
    samples, rate = read_audio(path)
    assert rate == 24000
    assert samples.dtype == np.float32
    assert samples.shape == (24000, 1)
    assert np.abs(samples[2000:-2000, 0] - tone()[2000:-2000]).max() < tolerance
    assert os.listdir(tmp_path) == [path.name]


def test_a_long_vorbis_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.ogg", np.tile(tone(48000, 48000), 60), 48000)
    assert len(read_mono(tmp_path / "x.ogg")[0]) == 60 * 48000


def test_float_samples_survive_exactly(tmp_path: Path) -> None:
    write_audio(tmp_path / "x.wav", tone() * 3, 24000, subtype="FLOAT")
    np.testing.assert_array_equal(read_mono(tmp_path / "x.wav")[0], tone() * 3)


@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (2, 44100), (8, 48000), (1, 192000)])
def test_channels_and_rates(tmp_path: Path, channels: int, rate: int) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (70000, channels)).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", x, rate, "FLOAT")
    samples, got = read_audio(tmp_path / "x.wav")
    assert got == rate
    np.testing.assert_array_equal(samples, x)
    np.testing.assert_allclose(read_mono(tmp_path / "x.wav")[0], x.mean(axis=1), atol=1e-6)


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", tone(), 24000)
    (tmp_path / "x.wav").rename(tmp_path / "x.raw")
    assert len(read_mono(tmp_path / "x.raw")[0]) == 24000


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "must not be NaN or infinite"),
        (np.inf, "must not be NaN or infinite"),
        (-np.inf, "must not be NaN or infinite"),
        (-3e38, r"full scale of 1\.0, got 3e\+38"),
    ],
)
def test_values_that_are_no_sound(tmp_path: Path, value: float, message: str) -> None:
    x = tone()
    x[20000] = value
    soundfile.write(tmp_path / "x.wav", x, 24000, "FLOAT")
    with pytest.raises(InputError, match=message):
        read_audio(tmp_path / "x.wav")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"just some text\n" * 100, "cannot read"),
        (b"RIFF\xff\xff\xff\xffWAVE", "cannot read|no samples"),
    ],
)
def test_no_sound(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_audio(tmp_path / "x.wav")


def test_no_samples_and_cut_short(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(0), 24000)
    with pytest.raises(InputError, match="no samples"):
        read_audio(tmp_path / "x.wav")
    soundfile.write(tmp_path / "y.wav", tone(), 24000)
    whole = (tmp_path / "y.wav").read_bytes()
    (tmp_path / "y.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="0.50 of its 1.00 s are missing"):
        assert 11000 < len(read_mono(tmp_path / "y.wav")[0]) < 12100


def test_a_header_that_claims_too_much(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", tone(100), 24000)
    data = bytearray((tmp_path / "x.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xf0\xff\xff\x7f"
    (tmp_path / "x.wav").write_bytes(data)
    with pytest.warns(UserWarning, match="does not say how long it is"):
        assert len(read_mono(tmp_path / "x.wav")[0]) == 100


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(InputError, match="directory"):
        read_audio(tmp_path)


def test_stdin_and_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out))
    write_audio("-", tone(), 24000)
    assert out.getvalue()[:4] == b"RIFF"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(out.getvalue())))
    samples, rate = read_audio("-")
    assert (samples.shape, rate) == ((24000, 1), 24000)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    with pytest.raises(FileFormatError, match="stdin is empty"):
        read_audio("-")


def test_unwritable_targets_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("/dev/zero")
    for path, message in [
        (tmp_path / "none" / "x.wav", "the folder .*none does not exist"),
        (tmp_path / "folder.wav", "folder"),
        (tmp_path / "x", "suffix"),
        (tmp_path / "link.wav" / "x.wav", "Not a directory"),
        (tmp_path / "x.mp3", "sample rates"),
    ]:
        with pytest.raises(InputError, match=message):
            write_audio(path, tone(), 40000)
    assert sorted(os.listdir(tmp_path)) == ["folder.wav", "link.wav"]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".aiff", ".au", ".caf", ".w64", ".m4a"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_full_disk_is_never_a_cut_sound(
    tmp_path: Path, suffix: str, share: float, need_tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the disk ends, up to the last bytes, which encoders write while they are closed."""
    if suffix == ".m4a":
        need_tool("ffmpeg")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48000).astype(np.float32)
    path = tmp_path / f"x{suffix}"
    write_audio(path, noise, 24000)
    whole = path.read_bytes()
    room = int(len(whole) * share)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The sound that ffmpeg is given lies in another place, which is not full.
    monkeypatch.setattr("rvc_fast.audio.files._ffmpeg", _with_limit(files._ffmpeg, room))
    if suffix != ".m4a":
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*(File too large|ffmpeg says)"):
            write_audio(path, noise, 24000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == [path.name]


def _with_limit(function: Callable[..., None], room: int) -> Callable[..., None]:
    def limited(*arguments: object) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            function(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(0, np.float32), "not empty"),
        (np.zeros((0, 2), np.float32), "not empty"),
        (np.zeros((5, 0), np.float32), "not empty"),
        (np.zeros((5, 2, 2), np.float32), "got shape"),
        (np.float32(0.5), "got shape"),
        (np.array([0.1, np.nan]), "NaN or infinite"),
        (np.array([0.1, -np.inf]), "NaN or infinite"),
        (np.array([0.1, 1e300]), "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_samples_that_are_no_sound(tmp_path: Path, samples: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_audio(tmp_path / "x.wav", samples, 24000)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8"])
def test_loud_samples_are_clipped_and_do_not_wrap(tmp_path: Path, subtype: str) -> None:
    write_audio(tmp_path / "x.wav", 3 * tone(), 24000, subtype=subtype)
    samples = read_mono(tmp_path / "x.wav")[0]
    np.testing.assert_allclose(samples, np.clip(3 * tone(), -1, 1), atol=0.01)


def test_16_bits_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    values = np.array([0.99, -0.99, 0.4, -0.4, 1.0, -1.0, 1e-5, -1e-5], np.float32)
    for suffix in (".wav", ".flac", ".aiff"):
        write_audio(tmp_path / f"x{suffix}", values, 24000)
        got = soundfile.read(tmp_path / f"x{suffix}", dtype="int16")[0]
        assert got.tolist() == [32440, -32440, 13107, -13107, 32767, -32768, 0, 0]


def test_an_interrupted_encoder_stops_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    write = soundfile.SoundFile.write

    def interrupted(self: soundfile.SoundFile, block: np.ndarray) -> None:
        written.append(len(block))
        write(self, block)
        if len(written) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # the main thread gets the signal

    monkeypatch.setattr(soundfile.SoundFile, "write", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            write_audio(tmp_path / "x.flac", np.tile(tone(), 200), 24000)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(written) < 70
    assert os.listdir(tmp_path) == []


def test_names_of_every_length_and_encoding(tmp_path: Path) -> None:
    for name in (
        "歌" * 83 + ".wav",
        "x" * 250 + ".flac",
        os.fsdecode(b"caf\xe9.ogg"),
        "\U0001f600" * 62 + ".mp3",
    ):
        try:
            (tmp_path / name).touch()
        except OSError:
            continue  # not allowed by this file system
        write_audio(tmp_path / name, tone(), 24000)
        assert len(read_mono(tmp_path / name)[0]) >= 24000


def test_an_old_file_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rvc_fast.audio.files._encode", full)
    with pytest.raises(InputError, match="No space left"):
        write_audio(path, tone(), 24000)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.wav"]


def test_replacing_keeps_links_and_gives_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "real.wav").write_bytes(b"old")
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    write_audio(tmp_path / "link.wav", tone(), 24000)
    assert (tmp_path / "link.wav").is_symlink()
    assert len(read_mono(tmp_path / "real.wav")[0]) == 24000
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "real.wav").stat().st_mode) == 0o666 & ~mask


def test_pipes_in_and_out(tmp_path: Path) -> None:
    import threading

    path = tmp_path / "pipe.wav"
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    write_audio(path, tone(), 24000)
    reader.join()
    assert stat.S_ISFIFO(path.stat().st_mode)
    writer = threading.Thread(target=lambda: path.write_bytes(got[0]))
    writer.start()
    assert len(read_mono(path)[0]) == 24000
    writer.join()


FFMPEG = """#!{python}
import shutil, sys
arguments = sys.argv[1:]
source = arguments[arguments.index("-i") + 1].removeprefix("file:")
target = arguments[-1].removeprefix("file:")
data = open(source, "rb").read()
if data.startswith(b"broken"):
    sys.exit("Error opening input file file:" + source + ": moov atom not found")
if target.endswith(".xyz"):
    sys.exit(target + ": Invalid argument")
# This stand-in "codes" m4a as a wav behind one line.
open(target, "wb").write(data[5:] if data.startswith(b"ftyp\\n") else b"ftyp\\n" + data)
"""


def test_other_formats_go_through_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.m4a"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(InputError, match="needs ffmpeg"):
        write_audio(path, tone(), 24000)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").write_text(FFMPEG.format(python=sys.executable))
    (tmp_path / "bin" / "ffmpeg").chmod(0o755)
    write_audio(path, tone(), 24000)
    assert path.read_bytes().startswith(b"ftyp")
    np.testing.assert_array_equal(read_mono(path)[0], tone())
    # What it says of our temporary files it says of the user's.
    bad, strange = tmp_path / "broken.aac", tmp_path / "x.xyz"
    bad.write_bytes(b"broken")
    with pytest.raises(FileFormatError) as read:
        read_audio(bad)
    said = f"[audio] cannot read {bad}: ffmpeg says Error opening input file {bad}: moov atom not found"
    assert str(read.value) == said
    with pytest.raises(FileFormatError) as written:
        write_audio(strange, tone(), 24000)
    assert str(written.value) == f"[audio] cannot write {strange}: ffmpeg says {strange}: Invalid argument"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileFormatError, match="install ffmpeg"):
        read_audio(path)
