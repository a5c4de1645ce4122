"""What CONTRIBUTING.md, `make help` and the hooks of git promise is there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
# Where CONTRIBUTING.md's short names are: the package, the compiled extension, the kernels' text.
PLACES = ("", "src/python/rvc_fast", "src/cpp", "src/kernels")


def test_every_file_that_contributing_names_exists() -> None:
    named = {
        name
        for name in re.findall(r"`([\w./-]*(?:/|\.(?:py|pyi|md|h|cpp|json|txt)))`", TEXT)
        if "my_op" not in name
    }
    assert len(named) > 20
    for name in named:
        found = [place for place in PLACES if (ROOT / place / name).exists()]
        assert found, name


def test_every_name_that_contributing_uses_exists() -> None:
    code = "".join(path.read_text() for path in (ROOT / "src" / "python").rglob("*.py"))
    code += "".join(path.read_text() for path in (ROOT / "tests").rglob("conftest.py"))
    code += "".join(path.read_text() for path in (ROOT / "src" / "cpp").rglob("*.h"))
    names = set(re.findall(r"`(?:\w+\.)*([A-Za-z_]{4,})(?:\(\))?`", TEXT)) - {"my_op", "pack_"}
    assert {"PitchModel", "DECODERS", "faster_dtype"} <= names
    for name in names:
        assert re.search(rf"\b{name}\b", code), name


@pytest.mark.parametrize("command", re.findall(r"make ([a-z-]+)  ", TEXT))
def test_make_help_lists_what_contributing_uses(command: str) -> None:
    said = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"make {command} " in said


def test_make_help_lists_every_target() -> None:
    said = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony
    assert re.findall(r"^make ([a-z-]+) +\S", said, re.M) == phony[1].split()


def test_hooks_run_the_versions_that_pyproject_pins(need_tool: Callable[[str], str]) -> None:
    path = ROOT / ".pre-commit-config.yaml"
    subprocess.run([need_tool("pre-commit"), "validate-config", str(path)], check=True)
    text = path.read_text()
    assert re.findall(r"repo: (\S+)", text) == ["local"]
    assert set(re.findall(r"language: (\S+)", text)) == {"system"}
    pinned = re.findall(r'"([\w-]+)==', (ROOT / "pyproject.toml").read_text())
    programs = re.findall(r"entry: \.venv/bin/(\S+)", text)
    assert len(programs) == text.count("entry:")
    assert set(programs) <= set(pinned)
