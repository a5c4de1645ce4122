"""The page: complete, self-contained, and its pictures are pictures."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_bench_results import row

from rvc_fast import picture
from rvc_fast.bench import report
from rvc_fast.errors import InputError

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Every tag that is opened is closed, in order; texts and references are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def rows() -> list[dict[str, Any]]:
    work = {"flops": 10**11, "bytes": 10**9, "peak_gflops": 200.0, "of_limit": 0.5, "bound": "arithmetic"}
    limits = {"limits": {"fma_gflops": 200.0, "read_gbytes": 10.0, "copy_gbytes": None}}
    return [
        row(100, seconds=1.0, peers={"torch": 2.0}, **work, **limits),
        row(900, seconds=10.0, peers={"torch": 4.0, "onnxruntime": 3.0}, **work, **limits),
        row(None, name="flow", note="WRONG RESULT <b>, not timed", **limits),
        row(5, suite="kernels", name="linear/a & b", seconds=None, rtf=None, **work, **limits),
    ]


TONE = np.sin(2 * np.pi * 2000 * np.arange(16000) / 16000).astype(np.float32)


@pytest.fixture(scope="module")
def page() -> Checker:
    checker = Checker()
    text = report.page(rows(), [("tone", TONE, 16000)])
    checker.feed(text)
    assert not checker.open
    checker.source = text
    return checker


def test_it_needs_nothing_else(page: Checker) -> None:
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert "http" not in page.source
    assert "url(" not in page.source
    for _, attributes in page.tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert "href" not in attributes


def test_a_phone_can_read_it(page: Checker) -> None:
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    drawings = [a for tag, a in page.tags if tag == "svg"]
    assert len(drawings) == 3
    assert all(a["viewbox"].startswith("0 0 480 ") and "width" not in a for a in drawings)
    assert "max-width" in page.source


def test_it_says_everything(page: Checker) -> None:
    for text in (
        "Test chip, 2 threads, cpu",
        "decoder, 10 s",
        "900 ms",
        "WRONG RESULT <b>, not timed",
        "kernels linear/a & b",
        "200 GFLOP/s",
        "10 GB/s",
        "3.00 x",
        "against the golden cases",
        "tone, 1.0 s",
    ):
        assert text in page.text, text


def test_bars_are_as_long_as_the_times(page: Checker) -> None:
    widths = [float(a["width"]) for tag, a in page.tags if tag == "rect"]
    ours, torch = widths[:2]
    assert torch / ours == pytest.approx(2 / 100, abs=0.001)
    assert max(widths) == pytest.approx(480 - 92 - 112)


def test_of_repeated_rows_the_last_is_shown() -> None:
    text = report.page([row(100), row(333)], [])
    assert "333 ms" in text
    assert "100 ms" not in text


def test_rows_without_peaks_have_no_roofline() -> None:
    assert "Roofline" not in report.page([row()], [])


def pixels(data: bytes) -> np.ndarray:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found, size = 8, b"", (0, 0)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        found += body if kind == b"IDAT" else b""
        at += 12 + length
    lines = np.frombuffer(zlib.decompress(found), np.uint8).reshape(size[1], size[0] + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


def test_the_spectrogram_of_a_tone_is_a_line(page: Checker) -> None:
    encoded = re.search(r"base64,([^']+)'", page.source)
    image = pixels(base64.b64decode(encoded[1]))
    np.testing.assert_array_equal(image, report.spectrogram(TONE, 16000))
    brightest = image[:, image.shape[1] // 2].argmax()
    assert 8000 * (1 - brightest / image.shape[0]) == pytest.approx(2000, abs=80)
    assert image.max() == picture.LEVELS - 1
    assert image[0, image.shape[1] // 2] == 0, "silence above it"


def test_it_is_written_with_the_demo_sound(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.html"
    report.write(path, rows())
    text = path.read_text()
    assert text.count("data:image/png") == 2
    assert "demo sound" in text
    with pytest.raises(InputError, match="cannot write"):
        report.check(path / "below a file")
