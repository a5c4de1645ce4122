"""Who runs in a comparison: rvc_fast and its peers, behind one interface, with the same weights and inputs.

Stages and their inputs, NumPy arrays in PyTorch's layout (channels before time):
- pitch: sound (n,) at 16 kHz -> salience (n // 160 + 1, 360), mel spectrogram included
- features: sound (n,) -> HuBERT's features (frames, 768)
- latent: phone (1, T, 768), pitch (1, T), speaker (1,), noise (1, inter, T) -> z (1, inter, T)
- decoder: z, speaker, f0 (1, T), noise (1, T * hop, 1) -> waveform (T * hop,), source included
- resblocks: the input (1, C, n) of each stage's residual blocks -> their output
- convert: sound (n,) -> waveform, by rvc_fast.pipeline with the side's models in it
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import onnxruntime
import torch
from benchmarks.e2e.make_models import VOICE_48K_V2
from torch import nn

from rvc_fast import pipeline
from rvc_fast.features.hubert import HubertConfig, HubertModel
from rvc_fast.layers import Packing
from rvc_fast.noise import NoiseSource, SeededNoise
from rvc_fast.ops import resblock_stage
from rvc_fast.pitch.rmvpe import HOP, RmvpeConfig
from rvc_fast.pitch.rmvpe import Rmvpe as OurRmvpe
from rvc_fast.synthesizer import Synthesizer as OurSynthesizer
from rvc_fast.synthesizer import SynthesizerConfig
from rvc_fast.synthesizer.hifigan import SLOPE
from rvc_fast.synthesizer.model import TEMPERATURE
from rvc_fast.weights.checkpoint import Checkpoint

from . import weights
from .hubert import Hubert
from .rmvpe import Rmvpe
from .synthesizer import Blocks, Latent, Render, Synthesizer

Arrays = tuple[np.ndarray, ...]

STAGES = ("pitch", "features", "latent", "decoder", "resblocks", "convert")

CONFIG = SynthesizerConfig.from_dict(VOICE_48K_V2)


class Models:
    """The eager modules with seeded weights; `tensors` are those weights by their public names."""

    def __init__(self) -> None:
        self.hubert, self.rmvpe = Hubert(HubertConfig()), Rmvpe(RmvpeConfig())
        self.voice = Synthesizer(CONFIG)
        self.tensors: dict[str, dict[str, np.ndarray]] = {}
        for seed, (kind, module) in enumerate(
            (("voice", self.voice), ("hubert", self.hubert), ("rmvpe", self.rmvpe))
        ):
            self.tensors[kind] = weights.seeded(module, seed)
            weights.load(module, self.tensors[kind])
        self.stages: dict[str, nn.Module] = {
            "pitch": self.rmvpe,
            "features": self.hubert,
            "latent": Latent(self.voice).eval(),
            "decoder": Render(self.voice).eval(),
            "resblocks": Blocks(self.voice).eval(),
        }


class Replay:
    """Given noise in place of drawn noise; the random phase, which a lone fundamental does not use, is zero."""

    def __init__(self, array: np.ndarray):
        self._array = mx.array(array)

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        return self._array.reshape(shape)

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        return mx.zeros(shape)


class Side:
    """One contestant. `bar` is the SNR in dB that its outputs must reach against ours, by stage."""

    name: str
    dtype = "float32"
    stages: tuple[str, ...] = STAGES

    def bar(self, stage: str) -> float | None:
        """None: there is nothing that the outputs could be held to."""
        return 80.0

    def prepare(self, stage: str, arrays: Arrays) -> Callable[[], Any]:
        """Return what is timed: one run of the stage, its inputs converted beforehand."""
        raise NotImplementedError

    def outputs(self, stage: str, result: Any) -> list[np.ndarray]:
        """What a run returned, in PyTorch's layout and float32."""
        raise NotImplementedError


class Ours(Side):
    """rvc_fast itself."""

    name = "rvc_fast"
    packing = Packing()

    def __init__(self, models: Models):
        def checkpoint(kind: Any, config: dict[str, Any]) -> Checkpoint:
            return Checkpoint(kind, models.tensors[kind], config, {}, False, Path(f"seeded {kind}"))

        self.voice = OurSynthesizer.from_checkpoint(checkpoint("voice", VOICE_48K_V2), self.packing)
        self.hubert = HubertModel.from_checkpoint(checkpoint("hubert", asdict(HubertConfig())), self.packing)
        self.rmvpe = OurRmvpe.from_checkpoint(checkpoint("rmvpe", asdict(RmvpeConfig())), self.packing)

    def prepare(self, stage: str, arrays: Arrays) -> Callable[[], Any]:
        voice = self.voice
        if stage == "convert":
            return lambda: pipeline.run(
                arrays[0],
                voice=voice,
                embedder=self.hubert,
                pitch_model=self.rmvpe,
                noise=SeededNoise(0),
                settings=pipeline.Settings(),
            )
        if stage == "resblocks":
            x = [mx.contiguous(mx.array(a).swapaxes(1, 2)) for a in arrays]
            mx.eval(x)
            blocks = [block.block() for block in voice.dec.resblocks]
            each = len(blocks) // len(x)
            return lambda: [
                resblock_stage(y, blocks[i * each : (i + 1) * each], slope=SLOPE) for i, y in enumerate(x)
            ]
        given = [mx.array(a) for a in arrays]
        mx.eval(given)
        if stage == "pitch":
            return lambda: self.rmvpe.salience(given[0])
        if stage == "features":
            return lambda: self.hubert.features(given[0], "v2")
        if stage == "latent":
            phone, pitch, speaker, noise = given
            noise = mx.contiguous(noise.swapaxes(1, 2))

            def latent() -> mx.array:
                mean, log_deviation = voice.enc_p(phone, pitch)
                z_p = mean + mx.exp(log_deviation) * noise * TEMPERATURE
                return voice.flow.reverse(z_p, voice.emb_g(speaker[None]))

            return latent
        z, speaker, f0, _ = given
        z = mx.contiguous(z.swapaxes(1, 2))
        replay = Replay(arrays[3])

        def decoder() -> mx.array:
            source = voice.dec.source(f0, replay)
            return voice.dec(z, voice.emb_g(speaker[None]), source, replay)[0, :, 0]

        return decoder

    def outputs(self, stage: str, result: Any) -> list[np.ndarray]:
        if stage == "convert":
            return [result]
        if stage == "resblocks":
            return [np.array(y).swapaxes(1, 2) for y in result]
        return [np.array(result).swapaxes(1, 2) if stage == "latent" else np.array(result)]


class Direct(Ours):
    """rvc_fast with the direct algorithm in the residual blocks, which is what little memory means."""

    name = "direct"
    stages = ("decoder", "resblocks")
    packing = Packing(memory="low")


class Peer(Side):
    """A side that runs networks on NumPy arrays; the pipeline takes it as embedder, pitch model and voice."""

    config = CONFIG
    hop = CONFIG.hop
    sample_rate = CONFIG.sr

    def network(self, stage: str, arrays: Arrays) -> Callable[[], list[np.ndarray]]:
        raise NotImplementedError

    def prepare(self, stage: str, arrays: Arrays) -> Callable[[], Any]:
        if stage != "convert":
            return self.network(stage, arrays)
        return lambda: [
            pipeline.run(
                arrays[0],
                voice=self,
                embedder=self,
                pitch_model=self,
                noise=SeededNoise(0),
                settings=pipeline.Settings(),
            )
        ]

    def outputs(self, stage: str, result: Any) -> list[np.ndarray]:
        return result

    def features(self, audio: mx.array, version: str) -> mx.array:
        return mx.array(self.network("features", (np.array(audio),))()[0])

    def salience(self, audio: mx.array, pad: str = "reflect") -> mx.array:
        return mx.array(self.network("pitch", (np.array(audio),))()[0])

    def infer(
        self, phone: mx.array, pitch: mx.array | None, f0: mx.array | None, speaker: int, noise: NoiseSource
    ) -> mx.array:
        frames, number = phone.shape[1], np.array([speaker])
        latent = noise.normal((1, CONFIG.inter_channels, frames))
        given = (np.array(phone), np.array(pitch), number, np.array(latent))
        z = self.network("latent", given)()[0]
        noise.uniform((1, 1, 1))
        excitation = np.array(noise.normal((1, frames * self.hop, 1)))
        return mx.array(self.network("decoder", (z, number, np.array(f0), excitation))()[0])


class Eager(Peer):
    """PyTorch, eager, float32."""

    name = "torch"
    autocast = False

    def __init__(self, models: Models):
        self._nets: dict[str, Callable[..., Any]] = dict(models.stages)

    def network(self, stage: str, arrays: Arrays) -> Callable[[], list[np.ndarray]]:
        tensors = [torch.from_numpy(a) for a in arrays]
        net = self._nets[stage]

        def run() -> list[np.ndarray]:
            cast = torch.autocast("cpu", torch.bfloat16) if self.autocast else contextlib.nullcontext()
            with torch.inference_mode(), cast:
                y = net(*tensors)
            return [t.float().numpy() for t in (y if isinstance(y, tuple) else (y,))]

        return run


class Autocast(Eager):
    """PyTorch, eager, bfloat16 by autocast."""

    name = "torch-bf16"
    dtype = "bfloat16"
    autocast = True

    def bar(self, stage: str) -> float | None:
        # Rounded pitches drift out of phase, so that waveforms of whole conversions cannot be compared.
        return None if stage == "convert" else 20.0


class Compiled(Eager):
    """PyTorch by torch.compile, float32, for the exact shapes."""

    name = "torch-compile"

    def __init__(self, models: Models):
        super().__init__(models)
        self._nets = {stage: torch.compile(net, dynamic=False) for stage, net in models.stages.items()}


class OnnxRuntime(Peer):
    """ONNX Runtime's CPU provider, on exports made for the exact shapes. RMVPE's mel is PyTorch's."""

    name = "onnxruntime"

    def __init__(self, models: Models):
        self._models = models
        self._sessions: dict[tuple[Any, ...], onnxruntime.InferenceSession] = {}

    def _session(self, stage: str, arrays: Arrays) -> onnxruntime.InferenceSession:
        key = (stage, *(a.shape for a in arrays))
        if key not in self._sessions:
            net = Network(self._models.rmvpe) if stage == "pitch" else self._models.stages[stage]
            file = io.BytesIO()
            with warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    net.eval(),
                    tuple(torch.from_numpy(a) for a in arrays),
                    file,
                    dynamo=False,
                    opset_version=17,
                    input_names=[f"x{i}" for i in range(len(arrays))],
                )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            self._sessions[key] = onnxruntime.InferenceSession(
                file.getvalue(), options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[key]

    def network(self, stage: str, arrays: Arrays) -> Callable[[], list[np.ndarray]]:
        if stage == "pitch":
            return self._pitch(arrays[0])
        session = self._session(stage, arrays)
        feed = {f"x{i}": a for i, a in enumerate(arrays)}
        return lambda: session.run(None, feed)

    def _pitch(self, audio: np.ndarray) -> Callable[[], list[np.ndarray]]:
        rmvpe, sound = self._models.rmvpe, torch.from_numpy(audio)

        def mel() -> np.ndarray:
            with torch.inference_mode():
                return rmvpe.padded_mel(sound).numpy()

        session = self._session("pitch", (mel(),))
        frames = len(audio) // HOP + 1
        return lambda: [session.run(None, {"x0": mel()})[0][:frames]]


class Network(nn.Module):
    """RMVPE behind its mel spectrogram."""

    def __init__(self, rmvpe: Rmvpe):
        super().__init__()
        self.rmvpe = rmvpe

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        return self.rmvpe.network(mel)


PEERS: dict[str, Callable[[Models], Side]] = {
    side.name: side for side in (Eager, Autocast, Compiled, OnnxRuntime, Direct)
}
