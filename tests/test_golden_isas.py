"""The golden cases, whole conversions included, on every instruction set of this machine, at the same bars.

The best one is the default, which `tests/cli` verifies; bfloat16 has bars of its own (`test_bfloat16_golden.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rvc_fast import native

EXT = native.ext()
# With these float32 is computed by the kernels of avx512, avx2 and neon.
NARROW_ISAS = ("amx", "avx512_bf16", "avx512_vnni", "avx_vnni", "neon_dot")
ISAS = [] if EXT is None else [isa for isa in EXT.isas() if isa not in NARROW_ISAS]
VERIFY = """
import sys
from rvc_fast import native
from rvc_fast.cli import main
code = main(["verify", sys.argv[1], "--json", "--quiet"])
print(native.ext().isa(), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("isa", ISAS)
def test_golden_cases(isa: str, golden: Path, run_python: Callable[..., Any]) -> None:
    run = run_python(VERIFY, golden, RVC_FAST_ISA=isa)
    assert run.returncode == 0, run.stderr
    assert run.stderr.strip() == isa
    rows = json.loads(run.stdout)
    assert {"pipeline.full", "pipeline.plain", "synth_tiny_32k", "hubert_tiny", "rmvpe_tiny"} <= {
        row["case"] for row in rows
    }
    worst = min(rows, key=lambda row: row["snr_db"])
    assert worst["snr_db"] >= 90, worst  # measured: 105 dB on AVX-512, AVX2 and generic
    assert all(row["passed"] for row in rows)
