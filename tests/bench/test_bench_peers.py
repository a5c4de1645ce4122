"""What the PyTorch and ONNX Runtime peers do on a Mac, as far as it can be shown without one."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rvc_fast.bench import limits, models
from rvc_fast.bench.worker import load_peers
from rvc_fast.errors import RvcFastError
from rvc_fast.verify.golden import compare

torch = pytest.importorskip("torch")


class OnMps(torch.Tensor):
    """A tensor that says it is on MPS and has no double precision, as there."""

    @property
    def device(self) -> Any:
        return torch.device("mps")

    def cpu(self) -> Any:
        return self.as_subclass(FromMps)

    def double(self) -> Any:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def to(self, *args: Any, **kwargs: Any) -> Any:
        if torch.float64 in args:
            self.double()
        return super().to(*args, **kwargs)


class FromMps(torch.Tensor):
    """A tensor on the CPU that can go back."""

    def to(self, device: Any, dtype: Any) -> Any:
        assert device == torch.device("mps")
        return super().to(dtype).as_subclass(OnMps)


def test_phase_on_mps_is_summed_in_double_on_the_cpu() -> None:
    """43 s, the longest chunk: summed in float32, sines of this phase are below the 90 dB that a peer must reach."""
    synthesizer = importlib.import_module(f"{load_peers().__package__}.synthesizer")
    hop, rate = models.VOICE.hop, models.VOICE.sr
    f0 = torch.from_numpy((140 + 5 * np.sin(np.arange(4300) / 50)).astype(np.float32))[None]
    advance = torch.fmod(f0 * hop / rate + 0.5, 1.0) - 0.5

    def sines(fractions: Any) -> np.ndarray:
        return np.sin(2 * np.pi * fractions.as_subclass(torch.Tensor).numpy().astype(np.float64))

    exact = sines(advance.double().cumsum(1))
    got = synthesizer.fractions(advance.as_subclass(OnMps))
    assert isinstance(got, OnMps)
    assert got.dtype == torch.float32
    assert compare(sines(got), exact)[0] > 110
    assert compare(sines(synthesizer.fractions(advance)), exact)[0] > 110
    assert compare(sines(advance.cumsum(1)), exact)[0] < 90, "the sound is long enough to tell"
    with pytest.raises(TypeError, match="float64"):
        advance.as_subclass(OnMps).double()


def test_where_torch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = load_peers()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(limits, "on_gpu", lambda: True)
    assert sides.Eager().device == "mps"
    assert sides.Cpu().device == "cpu"
    monkeypatch.setattr(limits, "on_gpu", lambda: False)
    assert sides.Eager().device == "cpu"


class Runtime:
    """In place of onnxruntime: it takes the providers that it `has`."""

    def __init__(self, *has: str):
        self.has, self.asked, self.falls_back = has, [], True

    SessionOptions = SimpleNamespace

    def InferenceSession(self, model: bytes, options: Any, providers: list[Any]) -> Any:
        self.asked = providers
        names = [p if isinstance(p, str) else p[0] for p in providers]
        return SimpleNamespace(
            disable_fallback=lambda: setattr(self, "falls_back", False),
            get_providers=lambda: [n for n in names if n in self.has],
        )


def side(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> Any:
    sides = load_peers()
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: None)
    return sides.CoreMl()


def test_core_ml_keeps_float32_and_nothing_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime("CoreMLExecutionProvider", "CPUExecutionProvider")
    side(monkeypatch, runtime)._export(torch.nn.Identity(), (np.zeros(1, np.float32),))
    (name, options), rest = runtime.asked
    assert (name, rest) == ("CoreMLExecutionProvider", "CPUExecutionProvider")
    assert (options["ModelFormat"], options["MLComputeUnits"]) == ("MLProgram", "CPUAndGPU")
    assert not runtime.falls_back
    with pytest.raises(RvcFastError, match=r"ONNX Runtime took \['CPUExecutionProvider'\] in place of"):
        side(monkeypatch, Runtime("CPUExecutionProvider"))._export(torch.nn.Identity(), (np.zeros(1),))
