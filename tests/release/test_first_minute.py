"""What somebody is told whose machine lacks something: one line that says what to do, wherever it is met first.

A Mac is played by programs of its names on PATH, and by a sitecustomize that answers for the system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from made import ROOT

SITE = """
import os, platform, sys
system, machine, version = os.environ["FAKE_MACHINE"].split()
platform.system = lambda: system
platform.machine = lambda: machine
platform.mac_ver = lambda *_: ("15.1", ("", "", ""), machine)
if version != "-":
    platform.python_version = lambda: version
    sys.version_info = (*map(int, version.split(".")), "final", 0)
"""


@dataclass(frozen=True)
class Machine:
    """One that we play: `programs` are what its programs print, None where they fail."""

    name: str  # system, processor, Python's version or - for the true one
    programs: dict[str, str | None]
    said: str | None
    build_only: bool = False


APPLE = {
    "sw_vers": "15.1",
    "sysctl": "0",
    "xcode-select": "/Library/Developer/CommandLineTools",
    "uname": "Darwin",
}
MACHINES = {
    "good": Machine("Darwin arm64 -", APPLE, None),
    "macOS 26": Machine("Darwin arm64 -", {**APPLE, "sw_vers": "26.0.1"}, None),
    "Apple's own Python": Machine("Darwin arm64 3.9.6", APPLE, r"needs Python 3\.10 or newer, and .* is 3\.9\.6: .*PYTHON="),
    "no Xcode tools": Machine("Darwin arm64 -", {**APPLE, "xcode-select": None}, r"run `xcode-select --install`, or", True),
    "Rosetta": Machine("Darwin x86_64 -", {**APPLE, "sysctl": "1"}, r"Rosetta translates.*use a Python for Apple silicon"),
    "Intel": Machine("Darwin x86_64 -", {**APPLE, "sysctl": None}, r"needs a Mac with Apple silicon, or Linux"),
    "old macOS": Machine("Darwin arm64 -", {**APPLE, "sw_vers": "13.6"}, r"needs macOS 14 or newer, this is macOS 13\.6"),
    "no compiler on Linux": Machine("Linux x86_64 -", {"uname": "Linux"}, r"no C\+\+ compiler.*apt install g\+\+", True),
}  # fmt: skip
# The tools of a shell and of make; no compiler.
TOOLS = ("sh", "env", "test", "find", "getconf", "make", "rm", "touch", "mkdir", "cat")


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Machine:
    return MACHINES[request.param]


@pytest.fixture
def environment(machine: Machine, tmp_path: Path) -> dict[str, str]:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, prints in machine.programs.items():
        (programs / name).write_text(f"#!/bin/sh\necho {prints}\n" if prints else "#!/bin/sh\nexit 2\n")
    for name in TOOLS:
        (programs / name).symlink_to(shutil.which(name) or pytest.fail(name))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    (programs / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for file in programs.iterdir():
        if not file.is_symlink():
            file.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if k not in ("CXX", "CC")}
    return {**kept, "PATH": str(programs), "PYTHONPATH": str(tmp_path / "site"), "FAKE_MACHINE": machine.name}


def one_line(text: str, machine: Machine) -> None:
    """Exactly one line says it."""
    assert machine.said is not None
    assert len(re.findall(rf"^.*{machine.said}.*$", text, re.M)) == 1, text
    assert "Traceback" not in text


def test_make(machine: Machine, environment: dict[str, str], tmp_path: Path) -> None:
    for target in ("demo", "test"):
        # Nothing must run: a good machine would make a .venv, so that it's only shown.
        show = ["--dry-run"] if machine.said is None else []
        command = ["make", *show, target, f"VENV={tmp_path / 'venv'}"]
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if machine.said is None:
            assert result.returncode == 0, result.stderr
            continue
        assert result.returncode != 0
        one_line(result.stderr, machine)
        assert not (tmp_path / "venv").exists()


def test_pip(machine: Machine, environment: dict[str, str]) -> None:
    """The first hook that pip calls; whatever it prints is in pip's message."""
    code = "import backend; print(*backend.get_requires_for_build_wheel(), sep='\\n')"
    environment["PYTHONPATH"] += os.pathsep + str(ROOT / "release")
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if machine.said is None:
        assert result.returncode == 0, result.stderr
        assert re.search(r"^mlx==", result.stdout, re.M)
    else:
        assert result.returncode == 1
        one_line(result.stderr, machine)


def test_command_line_and_import(machine: Machine, environment: dict[str, str]) -> None:
    said = None if machine.build_only else machine.said
    command = [sys.executable, "-m", "rvc_fast", "models", "where"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    code = "import rvc_fast\ntry: rvc_fast.load\nexcept ImportError as e: print(e)"
    imported = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert imported.returncode == 0, imported.stderr
    if said is None:
        assert result.returncode == 0, result.stderr
        assert imported.stdout == ""
    else:
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1
        one_line(result.stderr, machine)
        one_line(imported.stdout, machine)


def test_pip_shows_it(tmp_path: Path) -> None:
    """Through pip itself, on this machine, with no compiler to be found."""
    kept = {k: v for k, v in os.environ.items() if k not in ("CXX", "CC")}
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        ROOT,
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
    ]
    result = subprocess.run(
        command, env={**kept, "PATH": "/nowhere"}, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert (
        len(re.findall(r"^.*there is no C\+\+ compiler: install one.*$", result.stdout + result.stderr, re.M))
        == 1
    )
    assert list(tmp_path.iterdir()) == []


def test_pure_needs_no_compiler(tmp_path: Path) -> None:
    code = "import backend; print(backend.get_requires_for_build_wheel({'pure': 'true'}))"
    environment = {**os.environ, "PATH": "/nowhere", "PYTHONPATH": str(ROOT / "release")}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "mlx" not in result.stdout


def test_the_makefile_is_within_make_3_81() -> None:
    """Apple's make; what newer ones added, and what BSD's find and sed lack."""
    text = (ROOT / "Makefile").read_text()
    newer = r"\.ONESHELL|\.SHELLFLAGS|::=|!=|\$\(file |\bundefine\b|\bprivate\b|--output-sync|\.EXTRA_PREREQS|\.WAIT|&:|\$\(let "
    gnu = r"-printf|-print0|xargs (-r|-d|--)|sed -i|\bnproc\b|readlink -f|cp --|grep -P|find -"
    for pattern in (newer, gnu):
        assert re.search(pattern, text) is None
