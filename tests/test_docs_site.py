"""The site of `make docs`: a page per op, and no link that leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rvc_fast import ops
from rvc_fast.ops import registry

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built site, in a folder with its source."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, str(ROOT / "docs" / "build.py"), str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(autouse=True)
def _tool(need_tool: Callable[[str], str]) -> None:
    need_tool("zensical")


@pytest.mark.slow
def test_every_op_has_a_page_with_its_formula(site: Path) -> None:
    formulas = (ROOT / "docs" / "formulas.md").read_text()
    for name in registry.ops():
        assert (site / "site" / "ops" / name / "index.html").is_file()
        page = (site / "source" / "ops" / f"{name}.md").read_text()
        for section in ("## The definition", "## Where it runs", "## How exact it is", "## Cases"):
            assert section in page, (name, section)
        assert "def _reference(" in page
        assert f"\n## {name}\n" in formulas
    assert "leaky: float | None = None" in (site / "source" / "ops" / "conv1d.md").read_text()


@pytest.mark.slow
def test_every_public_name_is_described(site: Path) -> None:
    pages = "".join(path.read_text() for path in (site / "source" / "ops").glob("*.md"))
    for name in ops.__all__:
        if name.islower() or isinstance(getattr(ops, name), type):  # no alias of types
            assert f"\n## `{name}`\n" in pages, name


@pytest.mark.slow
def test_nothing_is_loaded_from_a_network(site: Path) -> None:
    for path in (site / "site").rglob("*.html"):
        if path.parent.name == "bench" and path.name != "index.html":
            continue  # tests/bench looks at these
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(https?://[^\" >]+)", path.read_text()
        )
        assert not [address for address in loaded if "canonical" not in address], path


@pytest.mark.slow
def test_results_have_their_reports(site: Path) -> None:
    results = list((ROOT / "benchmarks" / "results").glob("*.jsonl"))
    assert results
    for path in results:
        assert "rvc-fast bench" in (site / "site" / "bench" / f"{path.stem}.html").read_text()[:2000]


@pytest.mark.slow
@pytest.mark.parametrize("link", ["missing.md", "formulas.md#no-such-section"])
def test_a_broken_link_fails(site: Path, tmp_path: Path, link: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "formulas.md").write_text("# Formulas\n")
    (tmp_path / "source" / "README.md").write_text(f"# Home\n\n[a link]({link})\n")
    (tmp_path / "zensical.toml").write_text(
        '[project]\nsite_name = "x"\ndocs_dir = "source"\nsite_dir = "site"\n'
    )
    check = "import sys; sys.path.insert(0, sys.argv[1]); import build, pathlib; sys.exit(build.check(pathlib.Path(sys.argv[2])))"
    command = [sys.executable, "-c", check, str(ROOT / "docs"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "does not exist" in done.stdout
    (tmp_path / "source" / "README.md").write_text("# Home\n\n[a link](formulas.md)\n")
    assert subprocess.run(command, capture_output=True).returncode == 0
