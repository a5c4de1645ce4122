"""The extension's absence: everything still works, on stock MLX, with one warning and a reason in `info`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rvc_fast import native
from rvc_fast.errors import BackendError, InputError
from rvc_fast.ops import conv1d, dispatch

BLOCK = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "rvc_fast._ext":
            raise ImportError("blocked by a test")
sys.meta_path.insert(0, Blocker())
"""


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


def test_without_the_extension_everything_works_with_one_warning(golden: Path, tmp_path: Path) -> None:
    for name in ("hubert_tiny", "synth_tiny_32k", "synth_tiny_mrf_40k"):
        for suffix in (".json", ".safetensors"):
            shutil.copy(golden / (name + suffix), tmp_path)
    shutil.copy(golden / "cases.json", tmp_path)
    shutil.copy(golden / "mel.safetensors", tmp_path)
    result = run(f"from rvc_fast.cli import main; sys.exit(main(['verify', {str(tmp_path)!r}, '--quiet']))")
    assert result.returncode == 0, result.stderr
    assert "17 of 17 passed" in result.stdout
    assert result.stderr.count("warning: ") == 1
    assert "blocked by a test" in result.stderr


def test_info_says_why_without_the_extension() -> None:
    result = run("from rvc_fast.cli import main; sys.exit(main(['info', '--json']))")
    facts = json.loads(result.stdout)
    assert facts["ops"]["conv1d"]["backend"] == "reference"
    assert "blocked by a test" in facts["ops"]["conv1d"]["reason"]


def test_an_explicit_backend_does_not_fall_back() -> None:
    result = run(
        "import mlx.core as mx; from rvc_fast.ops import linear; linear(mx.ones((1, 2)), mx.ones((3, 2)))",
        RVC_FAST_BACKEND="cpu",
    )
    assert result.returncode != 0
    assert "BackendError: [linear] backend 'cpu' was asked for" in result.stderr


def test_a_command_that_asks_for_the_extension_is_one_mistake(golden: Path) -> None:
    result = run(
        f"from rvc_fast.cli import main; sys.exit(main(['verify', {str(golden)!r}]))", RVC_FAST_BACKEND="cpu"
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "rvc-fast: [verify] RVC_FAST_BACKEND is cpu, but the compiled CPU kernels cannot be used (blocked by a test)\n"
    )


def test_the_extension_is_here() -> None:
    assert native.ext() is not None, native.load()[1]
    assert dispatch.route("conv1d").backend == "cpu"


def test_a_backend_that_is_not_here_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", "metal")
    with pytest.raises(BackendError, match=r"\[conv1d\] backend 'metal' was asked for"):
        dispatch.route("conv1d")
    monkeypatch.setenv("RVC_FAST_BACKEND", "fpga")
    with pytest.raises(InputError, match="fpga"):
        dispatch.route("conv1d")


def test_reference_backend_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlx.core as mx

    rng = np.random.default_rng(0)
    x = mx.array(rng.standard_normal((2, 31, 20), dtype=np.float32))
    w = mx.array(rng.standard_normal((13, 5, 20), dtype=np.float32))
    ours = np.array(conv1d(x, w, padding=2, leaky=0.1))
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    stock = np.array(conv1d(x, w, padding=2, leaky=0.1))
    assert not np.array_equal(ours, stock), "the reference route ran the compiled kernel"
    np.testing.assert_allclose(ours, stock, rtol=1e-4, atol=1e-4)


def test_an_unknown_instruction_set_is_an_error() -> None:
    command = [sys.executable, "-m", "rvc_fast", "info"]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "RVC_FAST_ISA": "avx1024"}, check=False
    )
    assert result.returncode == 2
    assert "RVC_FAST_ISA" in result.stderr
    assert "avx1024" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(native.ext() is None, reason="there is no extension here")
def test_the_stub_is_what_the_extension_is() -> None:
    """`make stubs` writes it anew."""
    import stubs

    assert stubs.FILE.read_text() == stubs.generate()
