"""Where memory is limited a conversion succeeds or fails in one line: no signal, no hang, no half file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes import failed_in_one_line, hidden, run, said

from demo import MODELS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce RLIMIT_AS")


def test_success_or_one_line(tmp_path: Path) -> None:
    sound, out = tmp_path / "in.wav", tmp_path / "out.wav"
    soundfile.write(
        sound, 0.3 * np.sin(np.arange(48000) * 0.05 + 20 * np.sin(np.arange(48000) / 9000)), 16000
    )
    free = run("convert", sound, "-o", out, "--quiet", *MODELS)
    assert free.returncode == 0, free.stderr
    peak = int(free.stderr.split()[-1]) * 1024
    outcomes = []
    for share in (0.5, 0.65, 0.75, 0.82, 0.88, 0.92, 0.96, 0.98, 1.3):
        out.unlink(missing_ok=True)
        result = run("convert", sound, "-o", out, "--quiet", *MODELS, AS=int(peak * share))
        outcomes.append(result.returncode)
        if result.returncode == 0:
            assert soundfile.info(out).duration == pytest.approx(3, abs=0.1)
        elif said(result) and "import" not in result.stderr.lower():
            failed_in_one_line(result)
        assert result.returncode >= 0, result.stderr
        assert out.exists() == (result.returncode == 0)
        assert hidden(tmp_path) == []
    assert outcomes[-1] == 0
    assert {1} & set(outcomes)
