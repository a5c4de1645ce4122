"""The peers as sides of a comparison (rvc_fast.bench.sides): same weights, inputs, padding, chunks and threads.

Whole conversions run through rvc_fast.pipeline with the side's models in it, so that only the models differ.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np
import torch
from torch import nn

from rvc_fast import env, pipeline
from rvc_fast.bench import limits, models
from rvc_fast.bench.sides import Pitch, Side
from rvc_fast.bench.work import Arrays, Task, kept
from rvc_fast.errors import RvcFastError
from rvc_fast.noise import NoiseSource
from rvc_fast.ops.packed import Array
from rvc_fast.pitch.rmvpe import HOP
from rvc_fast.resources import golden_dir
from rvc_fast.settings import Settings
from rvc_fast.synthesizer.model import TEMPERATURE
from rvc_fast.verify.golden import Folder, compare

from . import check, weights
from .hubert import Hubert
from .part import Part
from .retrieval import Retrieval
from .rmvpe import Rmvpe
from .synthesizer import Synthesizer

CONFIG = models.VOICE

# Arrays in the order of the network's arguments -> its results.
Model = Callable[..., list[np.ndarray]]


class Peer(Side):
    """A side that runs networks on NumPy arrays; the pipeline takes it as embedder, pitch model and voice."""

    config = CONFIG
    hop = CONFIG.hop
    sample_rate = CONFIG.sr

    def __init__(self) -> None:
        torch.set_num_threads(env.threads() or torch.get_num_threads())

    def module(self, stage: str) -> nn.Module:
        """Return the network of a stage with its weights, made when it is first needed."""
        if stage in ("mel", "rmvpe"):
            return self._rmvpe if stage == "rmvpe" else Part(self._rmvpe.log_mel)
        if stage == "hubert":
            return self._hubert
        if stage == "retrieval":
            vectors = models.index().rows(slice(None))
            return Retrieval(torch.from_numpy(np.ascontiguousarray(vectors)), 0.75)
        methods = {"text_encoder": "prior", "flow": "reverse", "decoder": "render", "resblocks": "blocks"}
        return Part(getattr(self._voice, methods[stage]))

    @functools.cached_property
    def _voice(self) -> Synthesizer:
        return weights.load(Synthesizer(CONFIG), models.tensors("voice"))

    @functools.cached_property
    def _hubert(self) -> Hubert:
        return weights.load(Hubert(models.HUBERT), models.tensors("hubert"))

    @functools.cached_property
    def _rmvpe(self) -> Rmvpe:
        return weights.load(Rmvpe(models.RMVPE), models.tensors("rmvpe"))

    def network(self, stage: str, arrays: Arrays) -> Callable[[], list[np.ndarray]]:
        """Return one run of a stage on these arrays."""
        raise NotImplementedError

    def golden(self) -> float:
        """Return the lowest SNR in dB of this side's networks, at the golden cases' sizes, against them."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "device": "cpu", "golden_db": round(self.golden(), 1)}

    def prepare(self, stage: str, arrays: Arrays) -> Callable[[], Any]:
        if stage != "warm":
            return self.network(stage, arrays)
        self.pitch = pitch = Pitch(self)
        return lambda: [
            pipeline.run(
                arrays[0],
                voice=self,
                embedder=self,
                pitch_model=pitch,
                settings=Settings(),
            ).samples
        ]

    def outputs(self, task: Task, result: Any) -> list[np.ndarray]:
        if task.name == "decoder":  # all is rendered, as the public programs do, and a part is kept
            frames = [y.reshape(-1, self.hop) for y in result]
            return [y[kept(len(y))].reshape(-1) for y in frames]
        return [np.array(y) for y in result]

    def features(self, audio: mx.array, version: str, layer: int | None = None) -> mx.array:
        return mx.array(self.network("hubert", (np.array(audio),))()[0])

    def salience(self, audio: mx.array, pad: Literal["reflect", "zeros"] = "reflect") -> mx.array:
        return mx.array(self.network("rmvpe", (np.array(audio),))()[0])

    def infer(
        self, phone: mx.array, pitch: Array, f0: Array, speaker: int, noise: NoiseSource, part: slice
    ) -> mx.array:
        """Render everything, as the public programs do, and return what is kept."""
        frames, number = phone.shape[1], np.array([speaker])
        latent = np.array(noise.normal((1, CONFIG.inter_channels, frames)))
        mean, log_deviation = self.network("text_encoder", (np.array(phone), np.array(pitch)))()
        z = self.network("flow", (mean + np.exp(log_deviation) * latent * np.float32(TEMPERATURE), number))()[
            0
        ]
        noise.uniform((1, 1, 1))
        excitation = np.array(noise.normal((1, frames * self.hop, 1)))
        sound = self.network("decoder", (z, number, np.array(f0), excitation))()[0]
        return mx.array(sound.reshape(frames, self.hop)[part].reshape(1, -1))


class Eager(Peer):
    """PyTorch, eager, float32, on the kind of device that MLX uses if it can."""

    name = "torch"
    autocast = False

    def __init__(self) -> None:
        super().__init__()
        self.device = self.choose_device()
        self._networks: dict[str, Callable[..., Any]] = {}

    def choose_device(self) -> str:
        """Return PyTorch's name of the device to run on."""
        if limits.on_gpu() and torch.cuda.is_available():
            return "cuda"
        return "mps" if limits.on_gpu() and torch.backends.mps.is_available() else "cpu"

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "device": "cpu" if self.device == "cpu" else "gpu"}

    def ready(self, module: nn.Module) -> Callable[..., Any]:
        """What is called in place of a module."""
        return module

    def network(self, stage: str, arrays: Arrays) -> Callable[[], list[np.ndarray]]:
        if stage not in self._networks:
            self._networks[stage] = self.ready(self.module(stage).eval().to(self.device))
        net, tensors = self._networks[stage], [torch.from_numpy(a).to(self.device) for a in arrays]

        def run() -> list[np.ndarray]:
            cast = torch.autocast(self.device, torch.bfloat16) if self.autocast else contextlib.nullcontext()
            with torch.inference_mode(), cast:
                y = net(*tensors)
            return [t.float().cpu().numpy() for t in (y if isinstance(y, tuple) else (y,))]

        return run

    def golden(self) -> float:
        folder = Folder(golden_dir())
        with torch.inference_mode():
            return min(snr for _, _, snr in check.rows(folder))


class Cpu(Eager):
    """PyTorch, eager, float32, on the CPU beside whatever ours runs on."""

    name = "torch-cpu"

    def choose_device(self) -> str:
        return "cpu"


class Autocast(Eager):
    """PyTorch, eager, bfloat16 by autocast."""

    name = "torch-bf16"
    dtype = "bfloat16"
    autocast = True


class Compiled(Eager):
    """PyTorch by torch.compile, float32, for the exact shapes."""

    name = "torch-compile"

    def ready(self, module: nn.Module) -> Callable[..., Any]:
        return torch.compile(module, dynamic=False)


class OnnxRuntime(Peer):
    """ONNX Runtime's CPU provider, on exports made for the exact shapes. RMVPE's mel is PyTorch's."""

    name = "onnxruntime"
    providers: tuple[Any, ...] = ("CPUExecutionProvider",)

    def __init__(self) -> None:
        super().__init__()
        self._models: dict[tuple[Any, ...], Model] = {}

    def load(self, exported: bytes) -> Model:
        """Return what runs a model in ONNX's format."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(exported, options, providers=list(self.providers))
        session.disable_fallback()
        wanted = [p if isinstance(p, str) else p[0] for p in self.providers]
        if session.get_providers() != wanted:
            raise RvcFastError(f"[bench] ONNX Runtime took {session.get_providers()} in place of {wanted}")
        return lambda *arrays: session.run(None, {f"x{i}": a for i, a in enumerate(arrays)})

    def _export(self, module: nn.Module, arrays: Arrays) -> Model:
        file = io.BytesIO()
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                tuple(torch.from_numpy(a) for a in arrays),
                file,
                dynamo=False,
                opset_version=17,
                input_names=[f"x{i}" for i in range(len(arrays))],
            )
        return self.load(file.getvalue())

    def _call(
        self, key: tuple[Any, ...], module: Callable[[], nn.Module], arrays: Arrays
    ) -> Callable[[], list[np.ndarray]]:
        key = (*key, *(a.shape for a in arrays))
        if key not in self._models:
            self._models[key] = self._export(module(), arrays)
        return functools.partial(self._models[key], *arrays)

    def _salience(
        self, key: tuple[Any, ...], rmvpe: Rmvpe, audio: np.ndarray
    ) -> Callable[[], list[np.ndarray]]:
        sound = torch.from_numpy(audio)

        def mel() -> np.ndarray:
            with torch.inference_mode():
                return rmvpe.padded_mel(sound).numpy()

        key = (*key, len(audio))
        if key not in self._models:
            self._models[key] = self._export(Part(rmvpe.network), (mel(),))
        model, frames = self._models[key], len(audio) // HOP + 1
        return lambda: [model(mel())[0][:frames]]

    def network(self, stage: str, arrays: Arrays) -> Callable[[], list[np.ndarray]]:
        if stage == "rmvpe":
            return self._salience((stage,), self._rmvpe, arrays[0])
        return self._call((stage,), lambda: self.module(stage), arrays)

    def golden(self) -> float:
        lowest = math.inf
        for name, tensor, module, arrays, want in check.forwards(Folder(golden_dir())):
            if isinstance(module, Rmvpe):
                got = self._salience(("golden", name), module, arrays[0])()
            else:
                got = self._call(("golden", name, tensor), lambda module=module: module, arrays)()
            lowest = min(lowest, compare(got[0], want)[0])
        return lowest


class OpenVino(OnnxRuntime):
    """OpenVINO's CPU plugin, on the same exports: float32 is asked for, as it takes bfloat16 where the CPU has it."""

    name = "openvino"
    precision = "f32"

    def facts(self) -> dict[str, Any]:
        """With the SNR in dB that its outputs have to reach: its fast convolutions leave a decoder 83 to 84, and on AVX-512
        a whole conversion 75."""
        return {**super().facts(), "agrees_to": 70.0}

    def load(self, exported: bytes) -> Model:
        import openvino

        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = core.compile_model(core.read_model(exported), "CPU", options)
        taken = model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if taken != self.precision:
            raise RvcFastError(
                f"[bench] OpenVINO computes in {taken} on this machine, not in {self.precision}"
            )
        outputs = [port.get_any_name() for port in model.outputs]

        def run(*arrays: np.ndarray) -> list[np.ndarray]:
            feed = {f"x{i}": a for i, a in enumerate(arrays)}
            found = model(feed, share_inputs=True, share_outputs=True)  # nothing is copied
            return [found[name] for name in outputs]

        return run


class OpenVinoBf16(OpenVino):
    """OpenVINO in bfloat16, where the CPU has the instructions."""

    name = "openvino-bf16"
    dtype = "bfloat16"
    precision = "bf16"


def quantized(exported: bytes) -> bytes:
    """Return a model in ONNX's format whose matrix products are of whole numbers of 8 bits.

    By ONNX Runtime's dynamic quantisation: a scale for each output of a weight, and one for all of an input.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(exported)
        quantize_dynamic(
            source, result, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True
        )
        return result.read_bytes()


class OnnxRuntimeInt8(OnnxRuntime):
    """ONNX Runtime with the matrix products of the content encoder in int8."""

    name = "onnxruntime-int8"
    dtype = "int8"

    def load(self, exported: bytes) -> Model:
        return super().load(quantized(exported))


class OpenVinoInt8(OpenVino):
    """OpenVINO with the same quantised model; what is not quantised is float32."""

    name = "openvino-int8"
    dtype = "int8"

    def load(self, exported: bytes) -> Model:
        return super().load(quantized(exported))


class CoreMl(OnnxRuntime):
    """ONNX Runtime's Core ML provider; what Core ML does not take runs on the CPU provider.

    An ML program keeps float32, where the older format computes in float16, and so does the Neural Engine, which is
    left out: neither could agree to 90 dB. Options: onnxruntime.ai, "CoreML Execution Provider".
    """

    name = "onnxruntime-coreml"
    providers = (
        (
            "CoreMLExecutionProvider",
            {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU", "RequireStaticInputShapes": "1"},
        ),
        "CPUExecutionProvider",
    )

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "device": "gpu"}


SIDES: dict[str, Callable[[], Peer]] = {
    side.name: side
    for side in (
        Eager,
        Cpu,
        Autocast,
        Compiled,
        OnnxRuntime,
        OnnxRuntimeInt8,
        CoreMl,
        OpenVino,
        OpenVinoBf16,
        OpenVinoInt8,
    )
}
