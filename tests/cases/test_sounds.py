"""Sounds that are cut short or whose header claims nothing or too much."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from rvc_fast.audio import files, read_audio, read_mono
from rvc_fast.audio.claims import Claim, read_claim
from rvc_fast.errors import FileFormatError, InputError

from .voices import DEMO

TONE = (0.3 * np.sin(np.arange(32000) * 0.08)).astype(np.float32)


def encoded(kind: str, rate: int = 16000, channels: int = 1) -> bytearray:
    out = io.BytesIO()
    soundfile.write(out, np.tile(TONE[:, None], channels), rate, format=kind)
    return bytearray(out.getvalue())


def heard(path, **options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        samples = read_mono(path, **options)[0]
    return samples, [str(w.message) for w in said]


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "MP3", "RF64", "FLAC", "OGG", "W64", "CAF"])
def test_whole_sounds_are_taken_without_a_word(tmp_path, kind):
    for rate, channels in ((16000, 1), (44100, 2)):
        (tmp_path / "a").write_bytes(encoded(kind, rate, channels))
        samples, said = heard(tmp_path / "a", strict=True)
        assert (len(samples), said) == (len(TONE), [])


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "MP3", "RF64"])
def test_half_a_sound(tmp_path, kind):
    data = encoded(kind)
    (tmp_path / "a").write_bytes(data[: len(data) // 2])
    samples, said = heard(tmp_path / "a")
    assert 0.35 < len(samples) / len(TONE) < 0.6
    assert len(said) == 1
    missing = (len(TONE) - len(samples)) / 16000
    assert f"a is cut short: {missing:.2f} of its 2.00 s are missing" in said[0]
    with pytest.raises(FileFormatError, match="cut short"):
        read_audio(tmp_path / "a", strict=True)


def patched(kind: str, *changes: tuple[bytes, int, bytes]) -> bytearray:
    data = encoded(kind)
    for mark, offset, new in changes:
        at = data.index(mark) + offset
        data[at : at + len(new)] = new
    return data


NOTHING = [
    patched("WAV", (b"data", 4, bytes(4))),
    patched("WAV", (b"data", 4, bytes(4)), (b"RIFF", 4, bytes(4))),
    patched("WAV", (b"data", 4, b"\xff" * 4), (b"RIFF", 4, b"\xff" * 4)),
    patched("WAV", (b"data", 4, b"\xff\xff\xff\x7f")),
    patched("AIFF", (b"SSND", 4, b"\0\0\0\x08"), (b"COMM", 10, bytes(4))),
    patched("AIFF", (b"SSND", 4, bytes(4)), (b"COMM", 10, bytes(4))),
    patched("AU", (b".snd", 8, b"\xff" * 4)),
    patched("AU", (b".snd", 8, bytes(4))),
    patched("MP3", (b"Xing", 8, bytes(4))),
]


@pytest.mark.parametrize("data", NOTHING, ids=range(len(NOTHING)))
def test_a_header_that_claims_nothing(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    samples, said = heard(tmp_path / "a")
    assert len(TONE) <= len(samples) <= len(TONE) + 2304
    assert len(said) == 1
    assert "does not say how long it is: how much is missing after its 2." in said[0]
    with pytest.raises(FileFormatError, match="does not say how long it is"):
        read_audio(tmp_path / "a", strict=True)


def test_a_pipe_cannot_say_how_long_it_is(monkeypatch):
    data = bytes(NOTHING[2])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    samples, said = heard("-", strict=True)
    assert (len(samples), said) == (len(TONE), [])


def test_an_empty_sound_with_tags_is_empty(tmp_path):
    data = encoded("WAV")
    at = data.index(b"data")
    empty = data[: at + 4] + bytes(4) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    (tmp_path / "a").write_bytes(empty)
    with pytest.raises(ValueError, match="no samples"):
        read_mono(tmp_path / "a")


@pytest.mark.parametrize("rate", [1, 8, 999, 768001, 2**31 - 1])
def test_rates_that_no_sound_has(tmp_path, rate):
    data = encoded("WAV")
    data[24:28] = struct.pack("<I", rate)
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(
        FileFormatError, match=f"a.wav must have a sample rate from 1000 to 768000 Hz, got {rate}"
    ):
        read_mono(tmp_path / "a.wav")


def test_the_command_line_warns_once_and_refuses_if_strict(tmp_path):
    data = (DEMO / "sounds" / "speech_male.wav").read_bytes()
    (tmp_path / "half.wav").write_bytes(data[: len(data) // 2])
    command = [sys.executable, "-m", "rvc_fast", "convert", "half.wav", "-o", "out.wav", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("rvc-fast: warning: ")
    assert "(50 %)" in done.stderr
    (tmp_path / "out.wav").unlink()
    done = subprocess.run([*command, "--strict"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("good", [0, 60, 40_000])
def test_a_disk_that_fails_is_said_and_prints_no_traceback(tmp_path, monkeypatch, good):
    class Failing(io.BytesIO):
        def read(self, n=-1):
            if self.tell() >= good:
                raise OSError(5, "Input/output error")
            return super().read(n)

        def readinto(self, buffer):
            data = self.read(len(buffer))
            buffer[: len(data)] = data
            return len(data)

    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    monkeypatch.setattr(files, "_stream", lambda path: Failing(encoded("WAV")))
    with pytest.raises(InputError, match=r"cannot read a\.wav: Input/output error"):
        read_mono("a.wav")
    assert not lost


def test_a_header_that_ends_early_leads_before_the_beginning(tmp_path, monkeypatch):
    """libsndfile seeks there, and Python would print the traceback of it."""
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    (tmp_path / "a.aiff").write_bytes(b"FORM\0\0\0\0AIFFCOMM\0\0\0\x12\0\x02")
    with pytest.raises(InputError):
        read_mono(tmp_path / "a.aiff")
    assert not lost


def test_a_damaged_mp3_is_damaged(tmp_path, monkeypatch):
    """libsndfile says of this one that it does not exist."""
    monkeypatch.setenv("PATH", "")
    (tmp_path / "a.mp3").write_bytes(b"\xff\xf3\x88\xc4" + bytes(3000))
    with pytest.raises(FileFormatError, match=r"cannot read .*a.mp3: it is damaged"):
        read_mono(tmp_path / "a.mp3")


def test_a_header_of_endless_empty_chunks_is_not_searched_to_its_end():
    """A file of zeros behind a good beginning is a million chunks of length 0."""

    class Counted(io.BytesIO):
        reads = 0

        def read(self, n=-1):
            self.reads += 1
            return super().read(n)

    stream = Counted(b"RIFF\xff\xff\xff\x7fWAVE" + bytes(8_000_000))
    assert read_claim(stream) == Claim()
    assert stream.reads < 2000
