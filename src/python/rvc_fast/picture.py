"""Spectrograms as PNG files, with nothing but numpy."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

# Values of an image: LEVELS shades from black to white, then these two.
LEVELS = 64
LINE, PAPER = LEVELS, LEVELS + 1
_STOPS = (0, 0.4, 0.75, 1)
_COLOURS = np.array(((0, 0, 4), (120, 28, 109), (250, 140, 20), (252, 255, 210)))
_LINE_COLOUR, _PAPER_COLOUR = (90, 240, 255), (255, 255, 255)

# Letters of 3 x 5 dots: five rows, each an octal digit, its highest bit to the left.
_FONT = {
    "a": 0o25755, "b": 0o65656, "c": 0o34443, "d": 0o65556, "e": 0o74647, "f": 0o74644, "g": 0o34553, "h": 0o55755,
    "i": 0o72227, "j": 0o11152, "k": 0o55655, "l": 0o44447, "m": 0o57755, "n": 0o65555, "o": 0o25552, "p": 0o65644,
    "q": 0o25563, "r": 0o65655, "s": 0o34216, "t": 0o72222, "u": 0o55557, "v": 0o55552, "w": 0o55775, "x": 0o55255,
    "y": 0o55222, "z": 0o71247, "0": 0o75557, "1": 0o26227, "2": 0o61247, "3": 0o61216, "4": 0o55711, "5": 0o74616,
    "6": 0o34757, "7": 0o71222, "8": 0o75757, "9": 0o75716, " ": 0, "_": 0o00007, "-": 0o00700, ".": 0o00002,
    ",": 0o00024, ":": 0o02020, "?": 0o71202,
}  # fmt: skip


def spectrogram(samples: np.ndarray, rate: int, top: int = 8000, width: int = 720) -> np.ndarray:
    """Return an image (height, about `width`) of `LEVELS` levels of (n,) samples: 0 Hz to `top` upwards, the
    loudest 80 dB."""
    size = 1 << round(math.log2(rate * 0.025))
    hop = max(1, len(samples) // width)
    padded = np.pad(np.asarray(samples, np.float32), (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[: len(samples) : hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32))) ** 2
    level = 10 * np.log10(np.maximum(power[:, : int(top * size / rate) + 1].T[::-1], 1e-12))
    shade = np.clip((level - level.max() + 80) / 80, 0, 1)
    return np.repeat(np.round(shade * (LEVELS - 1)).astype(np.uint8), max(1, 240 // len(shade)), axis=0)


def panel(
    samples: np.ndarray, rate: int, f0: np.ndarray | None, title: str, width: int = 360, f0_top: float = 600
) -> np.ndarray:
    """Return an image (height, width): a spectrogram to 8 kHz below its title, with f0 on top.

    f0: (frames,) Hz per 10 ms, 0 where unvoiced, drawn from 0 at the bottom to `f0_top` at the top; None for none.
    """
    image = spectrogram(samples, rate, width=width)
    image = image[np.linspace(0, len(image) - 1, 200).astype(int)]
    image = image[:, np.linspace(0, image.shape[1] - 1, width).astype(int)]
    if f0 is not None and len(f0):
        at = np.asarray(f0)[np.minimum(np.arange(width) * len(samples) * 100 // (rate * width), len(f0) - 1)]
        columns = np.flatnonzero(at > 0)
        rows = np.clip((len(image) - 1) * (1 - at[columns] / f0_top), 0, len(image) - 2).astype(int)
        image[rows, columns] = image[rows + 1, columns] = LINE
    return np.concatenate([label(title, width), image])


def label(text: str, width: int, scale: int = 2) -> np.ndarray:
    """Return `text` as dots on paper, (7 * scale, width), cut off where it is too long."""
    dots = np.zeros((7, 4 * len(text) + 2), bool)
    for i, letter in enumerate(text.lower()):
        rows = _FONT.get(letter, _FONT["?"])
        for y in range(5):
            for x in range(3):
                dots[y + 1, 4 * i + x + 1] = rows >> (3 * (4 - y) + 2 - x) & 1
    drawn = np.where(dots, 0, PAPER).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)[:, :width]
    return np.pad(drawn, ((0, 0), (0, width - drawn.shape[1])), constant_values=PAPER)


def grid(rows: list[list[np.ndarray | None]], gap: int = 6) -> np.ndarray:
    """Return panels of one size, None for an empty place, as one image."""
    like = next(p for row in rows for p in row if p is not None)
    empty = np.full(like.shape, PAPER, np.uint8)
    padded = [
        [np.pad(empty if p is None else p, gap // 2, constant_values=PAPER) for p in row] for row in rows
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in padded])


def png(image: np.ndarray) -> bytes:
    """Return (height, width) uint8 as a PNG file: `LEVELS` levels of black, violet, orange, white; LINE; PAPER."""
    height, width = image.shape
    at = np.linspace(0, 1, LEVELS)
    shades = np.stack([np.interp(at, _STOPS, _COLOURS[:, i]) for i in range(3)], -1)
    palette = np.concatenate([shades, [_LINE_COLOUR, _PAPER_COLOUR]]).astype(np.uint8)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, indexed
    lines = b"".join(b"\0" + line.tobytes() for line in image)
    parts = [
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)
