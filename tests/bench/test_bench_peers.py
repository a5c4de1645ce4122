"""What the peers do where something is missing: a Mac, an instruction set, the package itself."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast.bench import limits, models
from rvc_fast.bench.worker import load_peers
from rvc_fast.errors import RvcFastError
from rvc_fast.noise import SeededNoise
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


class Core:
    """In place of openvino's: a CPU that computes in `computes` whatever is asked for."""

    def __init__(self, computes: str):
        self.computes, self.options = computes, {}

    def read_model(self, exported: bytes) -> bytes:
        return exported

    def compile_model(self, model: bytes, device: str, options: dict[str, Any]) -> Any:
        assert device == "CPU"
        self.options = options
        names = "second", "first"
        return Compiled(names, self.computes)


class Compiled:
    """A model whose outputs come by name, in any order."""

    def __init__(self, names: tuple[str, ...], computes: str):
        self.outputs = [SimpleNamespace(get_any_name=lambda name=name: name) for name in names]
        self._computes = computes

    def get_property(self, name: str) -> Any:
        assert name == "INFERENCE_PRECISION_HINT"
        return SimpleNamespace(get_type_name=lambda: self._computes)

    def __call__(self, feed: dict[str, np.ndarray], **shared: bool) -> dict[str, np.ndarray]:
        return {"first": feed["x0"], "second": feed["x1"]}


def test_openvino_computes_in_what_its_name_says_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = load_peers()
    core = Core("f32")
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    run = sides.OpenVino().load(b"")
    assert core.options["INFERENCE_PRECISION_HINT"] == "f32"
    assert core.options["INFERENCE_NUM_THREADS"] == torch.get_num_threads()
    one, two = np.ones(1, np.float32), np.zeros(2, np.float32)
    assert [len(y) for y in run(one, two)] == [2, 1]
    with pytest.raises(RvcFastError, match="computes in f32 on this machine, not in bf16"):
        sides.OpenVinoBf16().load(b"")


def test_a_peer_speaks_and_hears_as_the_pipeline_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`features` and `infer` take what `pipeline` gives; of the sound the part that is kept is returned."""
    peer = load_peers().Eager()
    hop, width = peer.hop, peer.config.inter_channels
    given = {
        "hubert": lambda sound: [np.zeros((len(sound) // 320, 768), np.float32)],
        "text_encoder": lambda phone, _: [np.zeros((1, width, phone.shape[1]), np.float32)] * 2,
        "flow": lambda z, _: [z],
        "decoder": lambda z, *_: [np.repeat(np.arange(z.shape[2], dtype=np.float32), hop)],
    }
    monkeypatch.setattr(peer, "network", lambda stage, arrays: lambda: given[stage](*arrays))
    assert peer.features(mx.zeros((3200,)), "v2", None).shape == (10, 768)
    phone, pitch, f0 = mx.zeros((1, 9, 768)), mx.zeros((1, 9), mx.int32), mx.zeros((1, 9))
    sound = peer.infer(phone, pitch, f0, 0, SeededNoise(0), slice(2, 5))
    assert np.array(sound).tolist() == [[2.0] * hop + [3.0] * hop + [4.0] * hop]
