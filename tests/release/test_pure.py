"""The wheel that compiles nothing, the sdist, and an extension built for another MLX: the rest works, one line says why."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import mlx.core as mx
import pytest
from made import ROOT, beside, dist, run


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pure-Python wheel installed in it."""
    (wheel,) = dist("pure").glob("*.whl")
    assert wheel.stem.endswith("-py3-none-any")
    folder = tmp_path_factory.mktemp("pure")
    with zipfile.ZipFile(wheel) as z:
        z.extractall(folder)
    return folder


@pytest.mark.ci
class TestPure:
    """The pure-Python wheel."""

    def test_nothing_in_it_is_compiled(self, pure: Path) -> None:
        assert list(pure.rglob("*.so")) == []
        (dist_info,) = pure.glob("*.dist-info")
        text = (dist_info / "WHEEL").read_text()
        assert "Root-Is-Purelib: true" in text
        assert "Tag: py3-none-any" in text

    @pytest.mark.wheels
    def test_it_holds_all_else(self, pure: Path, tmp_path: Path) -> None:
        (wheel,) = dist("linux-x86_64", f"{sys.version_info.major}.{sys.version_info.minor}").glob("*.whl")
        with zipfile.ZipFile(wheel) as z:
            compiled = {n for n in z.namelist() if n.startswith("rvc_fast/") and not n.endswith("/")}
        here = {str(p.relative_to(pure)) for p in (pure / "rvc_fast").rglob("*") if p.is_file()}
        assert {n for n in compiled - here if not n.startswith("rvc_fast/_ext.")} == {"rvc_fast/_built.py"}

    def test_it_verifies_and_says_why_it_is_slow(self, pure: Path) -> None:
        info = beside(pure, "-m", "rvc_fast", "info", "--json")
        facts = json.loads(info.stdout)
        assert "pure-Python wheel" in facts["cpu_kernels"]
        assert facts["ops"]["conv1d"]["backend"] == "reference"
        golden = pure / "rvc_fast" / "golden"
        result = beside(pure, "-m", "rvc_fast", "verify", golden, "--quiet")
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stderr.count("warning: ") == 1


@pytest.mark.ci
def test_the_sdist_builds_without_git(tmp_path: Path) -> None:
    (archive,) = dist("sdist").glob("*.tar.gz")
    with tarfile.open(archive) as t:
        t.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for name in (
        "src/cpp/bindings.cpp",
        "src/kernels/common/metal.h",
        "release/backend.py",
        "models/manifest.json",
    ):
        assert (source / name).is_file(), name
    # Compiling is the same as from a checkout: the pure wheel shows that nothing else is missing.
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        source,
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-C",
        "pure=true",
    ]
    no_git = tmp_path / "bin"
    no_git.mkdir()
    (no_git / "git").write_text("#!/bin/sh\nexit 1\n")
    (no_git / "git").chmod(0o755)
    result = run(*command, "-w", tmp_path / "out", PATH=f"{no_git}{os.pathsep}{os.environ['PATH']}")
    assert result.returncode == 0, result.stderr
    (wheel,) = (tmp_path / "out").glob("*.whl")
    (made,) = dist("pure").glob("*.whl")
    with zipfile.ZipFile(wheel) as a, zipfile.ZipFile(made) as b:
        ours = {n for n in b.namelist() if n.startswith("rvc_fast/")}
        assert {n for n in a.namelist() if n.startswith("rvc_fast/")} == ours


class TestAnotherMlx:
    """An extension that was built for an MLX that is not the one installed."""

    @pytest.fixture
    def planted(self, tmp_path: Path) -> Path:
        """The package with an extension that says so, and would end the process if it were loaded."""
        source = ROOT / "src" / "python" / "rvc_fast"
        shutil.copytree(
            source, tmp_path / "rvc_fast", ignore=shutil.ignore_patterns("*.so", "__pycache__", "_built.py")
        )
        for inside, checkout in (("kernels", "src/kernels"), ("models", "models")):
            (tmp_path / "rvc_fast" / inside).symlink_to(ROOT / checkout)
        (tmp_path / "rvc_fast" / "_built.py").write_text('MLX = "0.1.2"\n')
        (tmp_path / "rvc_fast" / "_ext.py").write_text("import os\nos.abort()\n")
        return tmp_path

    def run(self, planted: Path, *arguments: object):
        # Without the finder of an editable installation, which knows only the checkout.
        code = (
            "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__]; "
            "from rvc_fast.cli import main; sys.exit(main(sys.argv[1:]))"
        )
        return run(sys.executable, "-c", code, *arguments, cwd=planted, PYTHONPATH=str(planted))

    def test_one_line_says_so_and_the_rest_works(self, planted: Path, golden: Path, tmp_path: Path) -> None:
        cases = tmp_path / "cases"
        cases.mkdir()
        for name in ("cases.json", "synth_tiny_32k.json", "synth_tiny_32k.safetensors"):
            shutil.copy(golden / name, cases)
        result = self.run(planted, "verify", cases, "--quiet")
        assert result.returncode == 0, result.stdout + result.stderr
        assert re.search(r"(\d+) of \1 passed", result.stdout)
        said = [line for line in result.stderr.splitlines() if "built for MLX" in line]
        assert len(said) == 1
        assert f"built for MLX 0.1.2, and {mx.__version__} is installed" in said[0]
        assert "pip install mlx==0.1.2" in said[0]

    def test_info_says_so(self, planted: Path) -> None:
        result = self.run(planted, "info", "--json")
        facts = json.loads(result.stdout)
        assert "built for MLX 0.1.2" in facts["cpu_kernels"]
        assert {op["backend"] for op in facts["ops"].values()} == {"reference"}
