"""The page: complete, self-contained, and its plots show the rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_bench_results import row

from rvc_fast.bench import plots, report
from rvc_fast.errors import InputError
from rvc_fast.picture import Panel

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
    text = report.page(rows(), [Panel("tone", TONE, 16000)])
    checker.feed(text)
    assert not checker.open
    checker.source = text
    return checker


def test_it_needs_nothing_else(page: Checker) -> None:
    """Nothing is loaded from elsewhere: plotly's program is in the page, and no tag refers to another file."""
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert plots.script() in page.source
    own = page.source.replace(plots.script(), "")
    assert "http" not in own
    assert "url(" not in own
    for _, attributes in page.tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert "href" not in attributes


def test_a_phone_can_read_it(page: Checker) -> None:
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert [attributes.get("class") for tag, attributes in page.tags if tag == "div"].count("plot") == 3
    assert page.source.count('"responsive": true') == 3


def test_it_says_everything(page: Checker) -> None:
    for text in (
        "Test chip, 2 threads, cpu",
        "decoder, 10 s",
        "900 ms",
        "WRONG RESULT <b>, not timed",
        "kernels linear/a & b",
        "3.00 x",
        "against the golden cases",
        "The line is the pitch.",
    ):
        assert text in page.text, text
    assert any("tone" in attributes.get("alt", "") for _, attributes in page.tags)


def figures(draw: Callable[[list[dict[str, Any]]], str], data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The traces of a plot, as its page has them."""
    text = draw(data)
    return json.JSONDecoder().raw_decode(text[text.index("[{") :])[0]


def test_bars_are_as_long_as_the_ratios() -> None:
    ours, torch, onnxruntime = figures(plots.bars, rows())
    assert (ours["name"], ours["x"]) == ("rvc_fast", [1, 1])
    assert (torch["name"], torch["x"]) == ("torch", [2, 4])
    assert (onnxruntime["y"], onnxruntime["x"]) == (["decoder, 10 s"], [3])
    assert ours["text"] == ["100 ms", "900 ms"]
    assert torch["text"] == ["2 ms, 2.00 x", "2 ms, 4.00 x"]


def test_rows_without_peers_have_no_bars() -> None:
    assert plots.bars([row()]) == ""
    assert "Beside the peers" not in report.page([row()], [])


def test_the_roof_is_what_was_measured() -> None:
    roof, *suites = figures(plots.roofline, rows())
    assert roof["name"] == "measured limits: 200 GFLOP/s, 10 GB/s"
    assert roof["y"][1:] == [200, 200]
    assert roof["x"][1] == 20
    assert roof["y"][0] == pytest.approx(10 * roof["x"][0])
    assert [trace["name"] for trace in suites] == ["stages", "kernels"]
    assert suites[0]["x"] == [100, 100]
    assert suites[0]["y"] == pytest.approx([1000, 1e11 / 900e6])


def test_times_over_the_length_are_in_order() -> None:
    (decoder,) = figures(plots.scaling, rows()[1::-1])
    assert (decoder["name"], decoder["x"], decoder["y"]) == ("decoder", [1, 10], [0.1, 0.9])
    assert plots.scaling([row()]) == ""


def test_of_repeated_rows_the_last_is_shown() -> None:
    text = report.page([row(100), row(333)], [])
    assert "333 ms" in text
    assert "100 ms" not in text


def test_rows_without_peaks_have_no_roofline() -> None:
    assert "Roofline" not in report.page([row()], [])


def test_it_is_written_with_the_demo_sound(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.html"
    report.write(path, rows())
    text = path.read_text()
    assert text.count("src='data:image/png") == 1
    assert "demo sound and converted" in text
    with pytest.raises(InputError, match="cannot write"):
        report.check(path / "below a file")


def test_without_the_libraries_it_is_said_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rvc_fast.extras.find_spec", lambda name: None if name == "plotly" else 1)
    with pytest.raises(InputError, match=r"plotly is not installed: pip install 'rvc-fast\[plot\]'"):
        report.check(tmp_path / "out.html")
