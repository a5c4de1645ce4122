"""kernels_test, the kernels without MLX and Python: on this machine, and on kernels that were broken on purpose, which
it has to notice. tests/release/test_clang.py runs it as NEON code."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import BASE, ROOT, build, passed, run

Need = Callable[[str], str]

STANDALONE = ("-DRVC_FAST_EXTENSION=OFF", "-DRVC_FAST_STANDALONE_TESTS=ON")

# file, text, replacement, the test that has to notice ("" is whichever comes first)
FAULTS = {
    "a store too far": (
        "isa/simd.h",
        "for (int i = 0; i < n; ++i) p[i] = v[i];",
        "for (int i = 0; i <= n; ++i) p[i] = v[i % RVC_LANES];",
        "",
    ),
    "a load too far": (
        "isa/simd.h",
        "for (int i = 0; i < n; ++i) v[i] = p[i];",
        "for (int i = 0; i <= n; ++i) v[i % RVC_LANES] = p[i];",
        "",
    ),
    "the last channels left out": (
        "conv/block.h",
        "for (; c < s.channels; ++c) {",
        "for (; c < s.channels - 1; ++c) {",
        "stage",
    ),
    "one weight too many": (
        "conv/block.h",
        "for (int64_t c = s->length; c > 0; --c, ++p, w += step)",
        "for (int64_t c = s->length; c >= 0; --c, ++p, w += step)",
        "",
    ),
    "a wrong sign": ("bigru/scan.h", "V next = n + z * (load(h + j) - n);", "V next = n - z * (load(h + j) - n);", "gru"),
    "a step of time left out": (
        "bigru/scan.h",
        "for (int64_t step = 0; step < s.steps; ++step)",
        "for (int64_t step = 0; step < s.steps - (s.steps > 1); ++step)",
        "gru",
    ),
    "half of the scratch memory": (
        "mel_stft/frames.h",
        "return 2 * mel_half(n_fft, mels); }",
        "return mel_half(n_fft, mels); }",
        "mel_frames",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def native(request: pytest.FixtureRequest) -> Path:
    """The folder of this machine's build."""
    return build("kernels", *STANDALONE)


@pytest.fixture(autouse=True)
def tools(need_tool: Need) -> None:
    for program in ("cmake", "g++"):
        need_tool(program)


def test_native(native: Path) -> None:
    result = run(native / "kernels_test")
    passed(result)
    assert f"{BASE}: " in result.stdout
    assert re.search(r"^\d{4,} passed, 0 failed$", result.stdout, re.M)


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_noticed(native: Path, tmp_path: Path, fault: str) -> None:
    name, text, replacement, test = FAULTS[fault]
    sources = tmp_path / "cpp"
    shutil.copytree(ROOT / "src" / "cpp", sources)
    file = sources / name
    assert file.read_text().count(text) == 1
    file.write_text(file.read_text().replace(text, replacement))
    objects = sorted((native / "CMakeFiles" / "kernels_test.dir").rglob("*.o"))
    program = tmp_path / "kernels_test"
    include = [f"-I{sources}", f"-I{native / 'generated'}"]
    broken = [sources / "isa" / "generic.cpp", *objects, native / "librvc_kernels.a"]
    passed(run("g++", "-std=c++20", "-O0", "-pthread", "-w", *include, *broken, "-o", program))
    result = run(program, BASE)
    assert result.returncode != 0
    assert f"FAILED {test}" in result.stderr
