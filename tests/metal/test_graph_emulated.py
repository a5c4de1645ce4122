"""Every model of the golden folder with every GPU kernel's text executed by the emulator, held to the CPU's bars."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulator import Emulator

from rvc_fast.verify.golden import Folder, verify_case

CASES = ("mel", "hubert_tiny", "rmvpe_tiny", "synth_tiny_32k", "synth_tiny_nof0_40k", "synth_tiny_mrf_40k")


@pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_model(case: str, gpu: Emulator, golden: Path) -> None:
    rows = list(verify_case(Folder(golden), case))
    assert rows
    assert gpu.launches
    for row in rows:
        assert row.passed, row
