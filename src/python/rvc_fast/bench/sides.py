"""Who is measured: rvc_fast, in some ways of running it, behind the interface that its peers have too."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import mlx.core as mx
import numpy as np
import soundfile
from safetensors.numpy import load_file

from .. import ops, pipeline
from ..errors import RvcFastError
from ..features.hubert import load_hubert
from ..layers import Packing
from ..ops import dispatch, precision, registry
from ..ops.op import Op, specs, watching
from ..ops.spec import Case, OpSpec, errors
from ..pitch.f0 import PitchModel
from ..pitch.rmvpe import load_rmvpe, log_mel
from ..resources import peers_dir
from ..retrieval import blend
from ..retrieval.index import Index
from ..settings import Settings
from ..synthesizer import load_voice
from ..synthesizer.hifigan import SLOPE
from ..verify.golden import compare
from . import kernels, limits, models
from .work import RATE, Arrays, Task, inputs, kept, synthetic_sound

# SNR in dB that outputs must reach, by what is multiplied in: ours against the recorded outputs of the public code's
# models, a peer's against ours.
BARS = {"float32": 90.0, "float16": 35.0, "bfloat16": 20.0, "int8": 20.0, "bfloat16x2": 80.0}
# Of our whole conversions, which find their own pitch: one that differs by a thousandth of a cent moves the phase of
# every harmonic to come.
CONVERT_BAR = 80.0
# A file of 16 bits cannot come nearer.
FILE_BAR = 60.0
# Seconds of sound of the recorded outputs, and how many numbers of each are kept.
RECORDED_SECONDS, POINTS = 1.0, 2048


def bar(task: Task, *dtypes: str) -> float | None:
    """Return what outputs of these precisions must agree to, or None: there is nothing to hold them to.

    A pitch that is rounded to 16 bits drifts out of phase, so that waveforms of whole conversions cannot be
    compared; all their parts can.
    """
    lowest = min(BARS[dtype] for dtype in dtypes)
    if task.suite == "convert":
        return CONVERT_BAR if lowest == BARS["float32"] else None
    return lowest


def peer_bar(task: Task, ours: str, theirs: str) -> float | None:
    """Return what a peer's outputs must agree to with ours; a whole conversion's are given our pitch, see `Pitch`."""
    if task.suite == "kernels":
        return min(kernels.PEER_BARS[ours], kernels.PEER_BARS[theirs])
    return None if bar(task, ours, theirs) is None else min(BARS[ours], BARS[theirs])


def sample(outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return `POINTS` numbers of each output, always from the same places."""
    return [x.reshape(-1)[np.random.default_rng(0).integers(0, x.size, POINTS)] for x in outputs]


def recorded(stage: str) -> list[np.ndarray]:
    """Return `sample` of what a stage gives for `RECORDED_SECONDS`, by PyTorch models that match the public code's.

    benchmarks/peers/record.py compares those with the golden cases and writes the file.
    """
    tensors = load_file(peers_dir() / "recorded.safetensors")
    return [tensors[f"{stage}.{i}"] for i in range(sum(name.startswith(f"{stage}.") for name in tensors))]


def agreement(got: Sequence[np.ndarray], want: Sequence[np.ndarray], swapped: float = 0.0) -> float:
    """Return the lowest SNR in dB of a task's outputs, the share `swapped` of each that differs most left out."""
    found = []
    for a, b in zip(got, want, strict=True):
        if swapped:
            order = np.argsort(np.abs(a - b), axis=None)[: round(a.size * (1 - swapped))]
            a, b = a.reshape(-1)[order], b.reshape(-1)[order]
        found.append(compare(a, b)[0])
    return min(found)


class Pitch:
    """A pitch model that remembers what it found, and returns `instead` in its place if there is any.

    The pitches of two sides differ in their last bits, which moves the phase of all that follows: waveforms are
    compared of the same pitch, and the pitches by themselves.
    """

    def __init__(self, model: PitchModel):
        self._model = model
        self.found: np.ndarray | None = None
        self.instead: np.ndarray | None = None

    def salience(self, audio: mx.array, pad: Literal["reflect", "zeros"] = "reflect") -> mx.array:
        """As the model's; the work is the same."""
        y = self._model.salience(audio, pad)
        self.found = np.array(y.astype(mx.float32))
        return y if self.instead is None else mx.array(self.instead)


class Side:
    """One contestant, in a process of its own."""

    name: str
    dtype = "float32"
    pitch: Pitch | None = None  # of the conversion that was prepared last

    def prepare(self, stage: str, arrays: Arrays) -> Callable[[], Any]:
        """Return what is timed of a stage: one run of a chunk, its inputs converted beforehand."""
        raise NotImplementedError

    def runs(self, task: Task) -> list[Callable[[], Any]]:
        """Return what is timed of a task, one call after the other."""
        assert task.seconds is not None
        if task.name == "warm":
            return [self.prepare("warm", (synthetic_sound(task.seconds),))]
        return [self.prepare(task.name, arrays) for arrays in inputs(task.name, task.seconds)]

    def outputs(self, task: Task, result: Any) -> list[np.ndarray]:
        """What a run returned, in PyTorch's layout and float32."""
        raise NotImplementedError

    def finish(self, result: Any) -> None:
        """Wait until a run's result is there."""

    def facts(self) -> dict[str, Any]:
        """What a row says of this side: dtype and backend, or the SNR of its check against the golden cases."""
        return {"dtype": self.dtype}


class Replay:
    """Given noise in place of drawn noise; the random phase, which a lone fundamental does not use, is zero."""

    def __init__(self, array: np.ndarray):
        self._array = mx.array(array)

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        return self._array.reshape(shape)

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        return mx.zeros(shape)


def backends() -> str:
    """Return the backends that the ops take now, joined by "+"."""
    return "+".join(sorted({dispatch.route(op).backend for op in registry.ops()}))


def op_and_case(task: Task) -> tuple[OpSpec, Case]:
    """Return what a task of the suite "kernels" names."""
    op, _, name = task.name.partition("/")
    spec = specs()[op]
    return spec, next(case for case in kernels.cases(spec) if case.name == name)


class Ours(Side):
    """rvc_fast itself, in `dtype`."""

    name = "rvc_fast"
    memory: Literal["normal", "low"] = "normal"
    algorithm = "auto"

    def __init__(self, dtype: str = "float32"):
        self.dtype = dtype
        self._gates: dict[str, float] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="rvc_fast_bench_")

    @functools.cached_property
    def _packing(self) -> Packing:
        return Packing(self.memory, precision.choose("bench", self.dtype))

    @functools.cached_property
    def _voice(self) -> Any:
        return load_voice(models.path("voice"), self._packing)

    @functools.cached_property
    def _hubert(self) -> Any:
        return load_hubert(models.path("hubert"), self._packing)

    @functools.cached_property
    def _rmvpe(self) -> Any:
        return load_rmvpe(models.path("rmvpe"), self._packing)

    @functools.cached_property
    def _index(self) -> Index:
        return models.index()

    def facts(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "backend": backends(), "device": limits.device()}

    def _convert(self, sound: np.ndarray, pitch: Pitch | None = None) -> np.ndarray:
        return pipeline.run(
            sound,
            voice=self._voice,
            embedder=self._hubert,
            pitch_model=pitch or self._rmvpe,
            settings=Settings(),
        ).samples

    def prepare(self, stage: str, arrays: Arrays) -> Callable[[], Any]:
        if stage == "warm":
            self.pitch = Pitch(self._rmvpe)
            return functools.partial(self._convert, arrays[0], self.pitch)
        if stage == "retrieval":
            return functools.partial(blend, arrays[0], self._index, 0.75, exact=True)
        given = [mx.array(a) for a in arrays]
        if stage in ("flow", "decoder"):
            given[0] = mx.contiguous(given[0].swapaxes(1, 2))
        if stage == "resblocks":
            dtype = precision.mlx_dtype(self._packing.precision.activations)
            given = [mx.contiguous(x.swapaxes(1, 2)).astype(dtype) for x in given]
        mx.eval(given)
        if stage == "mel":
            return lambda: log_mel(given[0])
        if stage == "hubert":
            return lambda: self._hubert.features(given[0], "v2")
        if stage == "rmvpe":
            return lambda: self._rmvpe.salience(given[0])
        voice = self._voice
        if stage == "text_encoder":
            return lambda: voice.enc_p(given[0], given[1])
        if stage == "flow":
            return lambda: voice.flow.reverse(given[0], voice.emb_g(given[1][None]))
        if stage == "decoder":
            replay, frames = Replay(arrays[3]), given[0].shape[1]
            part = kept(frames)

            def decoder() -> mx.array:
                z, speaker, f0, _ = given
                z, source = z[:, voice.window(part, frames)], voice.source(f0, replay)
                return voice.decode(z, voice.emb_g(speaker[None]), source, replay, part, frames)[0]

            return decoder
        blocks = [block.block() for block in voice.dec.resblocks]
        each = len(blocks) // len(given)
        return lambda: [
            ops.resblock_stage(x, blocks[i * each : (i + 1) * each], slope=SLOPE) for i, x in enumerate(given)
        ]

    def _kernel(self, task: Task) -> Callable[[], Any]:
        spec, case = op_and_case(task)
        kwargs = kernels.arguments(spec, case, self.dtype)
        given = kernels.packed(spec, kwargs, self.dtype, self.algorithm)
        return lambda: [spec.op(**given) for _ in range(task.batch)]

    def _sounds(self, task: Task) -> list[np.ndarray]:
        assert task.seconds is not None
        sound = synthetic_sound(task.seconds)
        return [np.roll(sound, i * len(sound) // task.batch) for i in range(task.batch)]

    def runs(self, task: Task) -> list[Callable[[], Any]]:
        if task.suite == "kernels":
            return [self._kernel(task)]
        if task.name == "batch":
            sounds = self._sounds(task)

            def batch() -> list[np.ndarray]:
                with ThreadPoolExecutor(task.batch) as threads:
                    return list(threads.map(self._convert, sounds))

            return [batch]
        return [functools.partial(self._cold, task)] if task.name == "cold start" else super().runs(task)

    def _cold(self, task: Task) -> np.ndarray:
        """`rvc-fast convert` in a new process, from its start to its end; the files are in the system's cache."""
        folder = Path(self._folder.name)
        given, out = folder / "in.wav", folder / "out.wav"
        if not given.is_file():
            soundfile.write(given, self._sounds(task)[0], RATE, subtype="FLOAT")
        command = [sys.executable, "-m", "rvc_fast", "convert", str(given), "-o", str(out), "--quiet"]
        for option, kind in (("--voice", "voice"), ("--embedder", "hubert"), ("--pitch-model", "rmvpe")):
            command += [option, str(models.path(kind))]
        command += ["--dtype", self.dtype, "--memory", self.memory]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RvcFastError(f"[bench] {' '.join(command)} failed: {done.stderr.strip()}")
        return soundfile.read(out, dtype="float32")[0]

    def finish(self, result: Any) -> None:
        if isinstance(result, mx.array | tuple | list):
            kernels.evaluate(result)

    def outputs(self, task: Task, result: Any) -> list[np.ndarray]:
        if task.suite == "kernels":
            result = result[0]
        each = [
            np.array(y.astype(mx.float32) if isinstance(y, mx.array) else y)
            for y in (result if isinstance(result, list | tuple) else [result])
        ]
        if task.name == "mel":
            return [y.T for y in each]
        if task.name in ("text_encoder", "flow", "resblocks"):
            return [y.swapaxes(1, 2) for y in each]
        return each

    def gate(self, task: Task) -> tuple[float, float | None]:
        """Return (SNR in dB, what it must reach) of the check that comes before a task is timed.

        Kernels are compared with the op's reference in float32, stages and a warm conversion with recorded outputs
        of PyTorch models, a cold start and a batch with a warm conversion of the same sounds.
        """
        if task.suite == "kernels":
            spec, case = op_and_case(task)
            kwargs = kernels.arguments(spec, case, self.dtype)
            given = kernels.packed(spec, kwargs, self.dtype, self.algorithm)
            _, rms = errors(spec.op(**given), spec.reference(**kernels.widened(kwargs)))
            return kernels.snr_db(rms), kernels.bar(spec, self.dtype)
        if task.name in ("cold start", "batch"):
            want = [self._convert(sound) for sound in self._sounds(task)]
            got = self.outputs(task, self.runs(task)[0]())
            return agreement(got, want), FILE_BAR if task.name == "cold start" else CONVERT_BAR
        if task.name not in self._gates:
            short = Task(task.suite, task.name, RECORDED_SECONDS)
            got = [y for run in self.runs(short) for y in self.outputs(short, run())]
            self._gates[task.name] = agreement(sample(got), recorded(task.name))
        return self._gates[task.name], bar(task, self.dtype)


class Cpu(Ours):
    """rvc_fast on the CPU, beside ours on a GPU; its process is started with RVC_FAST_BACKEND=cpu."""

    name = "cpu"


class Direct(Cpu):
    """rvc_fast on the CPU with the direct algorithm in every convolution, which is what little memory means."""

    name = "direct"
    memory = "low"
    algorithm = "direct"


class Mlx(Ours):
    """rvc_fast on stock MLX, without kernels of ours; its process is started with RVC_FAST_BACKEND=reference."""

    name = "mlx"

    def _kernel(self, task: Task) -> Callable[[], Any]:
        spec, case = op_and_case(task)
        kwargs = kernels.arguments(spec, case, self.dtype)
        kernels.evaluate(kwargs)
        return lambda: [spec.reference(**kwargs) for _ in range(task.batch)]


OWN: dict[str, type[Ours]] = {side.name: side for side in (Ours, Cpu, Direct, Mlx)}
# Those in benchmarks/peers/sides.py, which needs the packages of the extra `bench`.
PYTORCH = (
    "torch",
    "torch-cpu",
    "torch-compile",
    "torch-bf16",
    "onnxruntime",
    "onnxruntime-int8",
    "onnxruntime-coreml",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
)
PEERS = (*PYTORCH, "mlx", "cpu", "direct")
# Peers whose device is part of their name. The others are measured on the kind of device that ours runs on, or not.
OWN_DEVICE = (
    "torch-cpu",
    *(peer for peer in PYTORCH if peer.startswith(("onnxruntime", "openvino"))),
    "cpu",
    "direct",
)
# What has no matrix products, which alone are quantised, or too few of them.
_UNQUANTISED = ("mel", "rmvpe", "retrieval", "text_encoder", "flow", "decoder", "resblocks")
# What a peer leaves out: ONNX has no complex numbers, and distances that are rounded to bfloat16 are not those of the
# nearest vectors.
WITHOUT = {
    "onnxruntime": ("mel",),
    "onnxruntime-int8": _UNQUANTISED,
    "onnxruntime-coreml": ("mel",),
    "openvino": ("mel",),
    "openvino-bf16": ("mel", "retrieval"),
    "openvino-int8": _UNQUANTISED,
    "torch-bf16": ("retrieval",),
}
# Of two vectors that are as near as rounding tells, each side takes one: of retrieved numbers so many may differ.
SWAPPED = {"retrieval": 1e-3}
# What "direct" differs in.
DIRECT = ("decoder", "resblocks", "resblock", "rmvpe", "conv2d")
# What a process of a side is started with.
ENVIRONMENT = {
    "mlx": {"RVC_FAST_BACKEND": "reference"},
    "cpu": {"RVC_FAST_BACKEND": "cpu"},
    "direct": {"RVC_FAST_BACKEND": "cpu"},
}


def takes_part(peer: str, task: Task) -> bool:
    """Whether a peer is measured in a task."""
    name = task.name.partition("/")[0]
    if peer == "direct":
        return name in DIRECT
    if task.suite == "kernels":
        return peer in ("mlx", "cpu")
    return name not in ("cold start", "batch", *WITHOUT.get(peer, ()))


@dataclass
class Work:
    """Multiplies and adds, and bytes that must at least move."""

    flops: int = 0
    bytes: int = 0


def _sized(value: Any) -> Any:
    """What an OpSpec may ask of an operand, its shape and size, of a packed one or a pair of them."""
    if isinstance(value, ops.PackedWeight):
        return SimpleNamespace(shape=value.shape, size=int(np.prod(value.shape)))
    if isinstance(value, tuple) and all(isinstance(v, ops.PackedWeight | mx.array) for v in value):
        shape = (len(value), *value[0].shape)
        return SimpleNamespace(shape=shape, size=int(np.prod(shape)))
    return value


@contextmanager
def counted() -> Iterator[Work]:
    """Add up the flops and bytes that the OpSpecs state of every op that is called inside.

    Of an op that calls others only its own numbers count; what is not an op (pooling, additions between ops) does not.
    """
    work = Work()

    def add(op: Op, arguments: dict[str, Any]) -> None:
        given = {name: _sized(value) for name, value in arguments.items()}
        assert op.spec is not None
        work.flops += op.spec.flops(**given)
        work.bytes += op.spec.bytes(**given)

    with watching(add):
        yield work
