"""How many samples a sound's header promises, so that a file that was cut short is noticed.

libsndfile takes what is there without a word, and nothing of a file whose writer died before it filled the header
in. Read here are WAV (RF64 too), AIFF, AU, and MP3 with the Xing or Info frame that nearly all encoders write.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase

_STREAMED = 0x7FFF0000
"""Bytes: sizes from here on are what writers put who cannot seek back."""

_CHUNKS = 1000
"""Of a file that has more, as one full of zeros seems to, the rest is not looked at."""


@dataclass(frozen=True)
class Claim:
    """What the header promises.

    frames: how many; None if it says nothing, or in a way that is not read here.
    open_end: whether it says nothing although its format has a place for it.
    patches: bytes to read instead at some places of the file, so that libsndfile reads to its end.
    """

    frames: int | None = None
    open_end: bool = False
    patches: dict[int, bytes] = field(default_factory=dict)


def read_claim(stream: BufferedIOBase) -> Claim:
    """Return what the header of a sound promises; the stream is left at its beginning."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    try:
        head = stream.read(12)
        if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
            return _wav(stream, size)
        if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
            return _aiff(stream, size)
        if head[:4] == b".snd":
            return _au(stream, size)
        return _mp3(stream, size)
    except struct.error:
        return Claim()  # it ends within its header: libsndfile says what is wrong
    finally:
        stream.seek(0)


def _chunks(stream: BufferedIOBase, size: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield (name, length, place of the content) of the chunks of a RIFF or FORM file."""
    at = 12
    for _ in range(_CHUNKS):
        if at + 8 > size:
            return
        stream.seek(at)
        name, length = struct.unpack(f"{order}4sI", stream.read(8))
        yield name, length, at + 8
        at += 8 + length + length % 2


def _wav(stream: BufferedIOBase, size: int) -> Claim:
    block, long_frames = 0, None
    for name, length, at in _chunks(stream, size, "<"):
        if name == b"ds64":
            stream.seek(at + 8)
            (long_frames,) = struct.unpack("<Q", stream.read(8))
        elif name == b"fmt ":
            stream.seek(at)
            kind, _, _, _, block = struct.unpack("<HHIIH", stream.read(14))
            if kind not in (1, 3, 6, 7, 0xFFFE):  # PCM, float, A-law, mu-law: a frame is a block
                return Claim()
        elif name == b"data" and block:
            if long_frames is not None and length >= _STREAMED:
                length = long_frames
            if length == 0 and at < size and not _is_chunk(stream, at, size):
                return Claim(None, True, {at - 4: b"\xff\xff\xff\xff"})
            return (
                Claim(None, True) if length >= _STREAMED and long_frames is None else Claim(length // block)
            )
    return Claim()


def _is_chunk(stream: BufferedIOBase, at: int, size: int) -> bool:
    """Whether a chunk of text-like name that ends within the file begins here."""
    stream.seek(at)
    head = stream.read(8)
    return (
        len(head) == 8
        and all(32 <= byte < 127 for byte in head[:4])
        and at + 8 + struct.unpack("<I", head[4:])[0] <= size
    )


def _aiff(stream: BufferedIOBase, size: int) -> Claim:
    frames = None
    for name, length, at in _chunks(stream, size, ">"):
        if name == b"COMM":
            stream.seek(at + 2)
            (frames,) = struct.unpack(">I", stream.read(4))
        elif name == b"SSND" and frames is not None:
            if frames == 0 and length <= 8 and at + 8 < size:
                return Claim(None, True, {at - 4: bytes(4)})
            return Claim(frames) if frames else Claim(None, True)
    return Claim()


def _au(stream: BufferedIOBase, size: int) -> Claim:
    stream.seek(4)
    start, length, encoding, _, channels = struct.unpack(">5I", stream.read(20))
    width = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding, 0) * channels
    if length == 0xFFFFFFFF or (length == 0 and start < size):
        return Claim(None, True, {8: b"\xff\xff\xff\xff"})
    return Claim(length // width) if width else Claim()


def _mp3(stream: BufferedIOBase, size: int) -> Claim:
    """The count of a Xing or Info header, the encoder's padding included."""
    stream.seek(0)
    head = stream.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    stream.seek(start)
    frame = stream.read(64)
    if len(frame) < 64 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # sync, layer III
        return Claim()
    for tag in (b"Xing", b"Info"):
        at = frame.find(tag, 4)
        if at >= 0 and at + 12 <= len(frame):
            flags, count = struct.unpack_from(">II", frame, at + 4)
            if not flags & 1:
                return Claim(None, True, {start + at: bytes(4)})
            if count == 0:  # libsndfile would stop there: no frame is smaller than 24 bytes
                return Claim(None, True, {start + at + 8: struct.pack(">I", size // 24 + 1)})
            return Claim(count * (1152 if frame[1] & 8 else 576))
    return Claim()
