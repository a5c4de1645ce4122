"""A kernel with a fault, found on first use: its op takes the reference, and conversions sound right.

The GPU is the emulator; the checker is the real one, in its own process. Executed in emulation, not measured on Apple
hardware.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator, checker

from fakes import voiced_sound
from rvc_fast import ops
from rvc_fast.converter import load
from rvc_fast.ops import dispatch, registry, trust
from rvc_fast.ops.wavenet_gate import SPEC
from rvc_fast.resources import demo_dir
from rvc_fast.settings import Chunking

# One with a fault, one without; the other ops are left without GPU kernels, which other tests execute.
FAULTY, SOUND = "wavenet_gate", "nsf_source"
SHORT = Chunking(0.1, 0.1, 1, 2)
FOUND = {
    "wrong numbers": "it is off by",
    "exception at compile": "Unable to build metal library",
    "exception at launch": "the threadgroup is too large",
    "crash": "its process ended with signal 11",
    "hang": "it did not finish in 30 s",
}


def _samples() -> np.ndarray:
    demo = demo_dir()
    converter = load(demo / "voice.pth", embedder=demo / "embedder", pitch_model=demo / "rmvpe.pt")
    return converter.convert(voiced_sound(0.3), sample_rate=16000, chunk=SHORT).samples


@pytest.fixture
def first_use(gpu: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that was never checked, under "auto"."""
    monkeypatch.setenv("RVC_FAST_BACKEND", "auto")
    monkeypatch.setenv("RVC_FAST_CACHE", str(tmp_path))
    monkeypatch.setattr(trust, "LIMIT", 30.0)
    monkeypatch.setattr(trust, "_checks", {})
    monkeypatch.setattr(trust, "_verdicts", {})
    kernels = {op: backends - {"metal", "cuda"} for op, backends in registry._KERNELS.items()}
    kernels |= {op: registry._KERNELS[op] for op in (FAULTY, SOUND)}
    monkeypatch.setattr(registry, "_KERNELS", kernels)


@pytest.mark.parametrize("gpu", ["metal"], indirect=True)
@pytest.mark.parametrize("fault", checker.FAULTS)
def test_a_fault_ends_in_the_reference_and_the_right_sound(
    fault: str, gpu: Emulator, first_use: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as plain:
        plain.setenv("RVC_FAST_BACKEND", "reference")
        wanted = _samples()
    command = (sys.executable, "-m", "emulator.checker", FAULTY, fault)
    monkeypatch.setattr(trust, "COMMAND", command)
    checker.plant(monkeypatch, gpu.language, FAULTY, fault, deadly=False)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = _samples()
    texts = [str(warning.message) for warning in told if "not trusted" in str(warning.message)]
    assert len(texts) == 1
    assert texts[0].startswith(f"rvc_fast: {FAULTY} on ")
    assert FOUND[fault] in texts[0]

    noise = np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2))
    assert -20 * np.log10(noise) > 80
    assert gpu.launches, "the other op runs its kernels"
    assert all("rvc_nsf_" in launch.name for launch in gpu.launches)
    assert dispatch.route(FAULTY).backend == "reference"
    assert dispatch.route(SOUND).backend == gpu.language

    # Asked for by name it does not fall back.
    monkeypatch.setenv("RVC_FAST_BACKEND", gpu.language)
    x, g = mx.ones((1, 9, 8)), mx.ones((1, 1, 8))
    if fault == "wrong numbers":
        assert not np.allclose(ops.wavenet_gate(x, g), SPEC.reference(x, g), atol=1e-3)
    else:
        with pytest.raises((RuntimeError, AssertionError)):
            ops.wavenet_gate(x, g)
