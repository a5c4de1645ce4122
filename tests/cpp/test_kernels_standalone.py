"""kernels_test, the kernels without MLX and Python: on the instruction set that every CPU of this machine's kind has, and
on kernels that were broken on purpose, which it has to notice. tests/release/test_clang.py runs it on all others."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builds import BASE, ROOT, build, passed, run

Need = Callable[[str], str]

STANDALONE = ("-DRVC_FAST_EXTENSION=OFF", "-DRVC_FAST_STANDALONE_TESTS=ON", "-DRVC_FAST_BASE_ONLY=ON")

# Each fault: file, the right text, the wrong one, and the test that has to notice ("" is whichever comes first). All are
# compiled at once: `fault` is the number of the one that a run has.
FAULTS = {
    "a store too far": (
        "isa/simd.h",
        "for (int i = 0; i < n; ++i) p[i] = v[i];",
        "for (int i = 0; i < n + fault; ++i) p[i] = v[i % RVC_LANES];",
        "",
    ),
    "a load too far": (
        "isa/simd.h",
        "for (int i = 0; i < n; ++i) v[i] = p[i];",
        "for (int i = 0; i < n + fault; ++i) v[i % RVC_LANES] = p[i];",
        "",
    ),
    "the last channels left out": (
        "conv/block.h",
        "for (; c < s.channels; ++c) {",
        "for (; c < s.channels - fault; ++c) {",
        "copy_input",
    ),
    "one weight too many": (
        "conv/block.h",
        "for (int64_t c = s->length; c > 0; --c, ++p, w += step)",
        "for (int64_t c = s->length; c > -fault; --c, ++p, w += step)",
        "",
    ),
    "a wrong sign": (
        "bigru/scan.h",
        "V next = n + z * (load(h + j) - n);",
        "V next = n + (1.0f - 2 * fault) * z * (load(h + j) - n);",
        "gru",
    ),
    "a step of time left out": (
        "bigru/scan.h",
        "for (int64_t step = 0; step < s.steps; ++step)",
        "for (int64_t step = 0; step < s.steps - fault * (s.steps > 1); ++step)",
        "gru",
    ),
    "half of the scratch memory": (
        "mel_stft/frames.h",
        "return 2 * mel_half(n_fft, mels); }",
        "return (2 - fault) * mel_half(n_fft, mels); }",
        "mel_frames",
    ),
}


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


@pytest.fixture(scope="module")
def broken(native: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """kernels_test with every fault in it; the environment variable FAULT says which is there, 0 is none."""
    folder = tmp_path_factory.mktemp("broken")
    sources = folder / "cpp"
    shutil.copytree(ROOT / "src" / "cpp", sources)
    for number, (name, right, wrong, _) in enumerate(FAULTS.values(), 1):
        text = (sources / name).read_text()
        assert text.count(right) == 1
        # An int that is 1 if the fault is there, else 0.
        wrong = re.sub(r"\bfault\b", f"int(rvc_test_fault == {number})", wrong)
        (sources / name).write_text(text.replace(right, wrong))
    unit = folder / "broken.cpp"
    unit.write_text(
        "#include <cstdlib>\n"
        'static const int rvc_test_fault = std::atoi(std::getenv("FAULT"));\n'
        '#include "isa/generic.cpp"\n'
    )
    objects = sorted((native / "CMakeFiles" / "kernels_test.dir").rglob("*.o"))
    program = folder / "kernels_test"
    include = [f"-I{sources}", f"-I{native / 'generated'}"]
    parts = [unit, *objects, native / "librvc_kernels.a"]
    passed(run("g++", "-std=c++20", "-O0", "-pthread", "-w", *include, *parts, "-o", program))
    return program


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_noticed(broken: Path, fault: str) -> None:
    test = FAULTS[fault][3]
    passed(run(broken, BASE, FAULT="0", TEST=test or "copy_input"))
    result = run(broken, BASE, FAULT=str(1 + list(FAULTS).index(fault)), TEST=test)
    assert result.returncode != 0
    assert f"FAILED {test}" in result.stderr
