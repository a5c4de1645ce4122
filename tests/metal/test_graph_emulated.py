"""Every model of the golden folder with every GPU kernel's text executed by the emulator, held to the CPU's bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator, build
from emulator.patch import compile_for

from rvc_fast.verify.golden import Folder, verify_case

WHOLE_MODELS = True
CASES = ("mel", "hubert_tiny", "rmvpe_tiny", "synth_tiny_32k", "synth_tiny_nof0_40k", "synth_tiny_mrf_40k")


@pytest.fixture(scope="module", autouse=True)
def compiled_together(request: pytest.FixtureRequest, need_tool: Any, golden: Path) -> None:
    """Compile the kernels of all chosen cases in a few large units."""
    need_tool(build.CLANG)
    chosen = [i.callspec.params for i in request.session.items if getattr(i, "function", None) is test_model]

    def verify(language: str) -> None:
        for c in chosen:
            if c["gpu"] == language:
                list(verify_case(Folder(golden), c["case"]))

    for language in sorted({c["gpu"] for c in chosen}):
        compile_for(language, lambda language=language: verify(language))


@pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_model(case: str, gpu: Emulator, golden: Path) -> None:
    rows = list(verify_case(Folder(golden), case))
    assert rows
    assert gpu.launches
    for row in rows:
        assert row.passed, row
