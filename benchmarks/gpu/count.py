"""Launches and bytes of a graph on a GPU, counted from its trace: `python -m benchmarks.gpu.count`.

No GPU is needed and nothing is computed. A primitive counts as one launch that reads each of its inputs and writes
each of its outputs once; what only looks at memory differently costs nothing. Printed are the residual blocks of each
decoder stage, as ops/resblock launches them and op by op, and the models: as they run on a GPU, and with every op as its
reference in stock MLX.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import mlx.core as mx
import mlx.nn as nn

from rvc_fast.bench.models import HUBERT, RMVPE, VOICE
from rvc_fast.features.hubert import GroupNormConv, HubertModel
from rvc_fast.layers import PackedLayer, Packing, adapt
from rvc_fast.ops import Dtype, conv1d, conv_tiles, dispatch, epilogue, resblock_stage, transforms
from rvc_fast.ops.precision import choose, mlx_dtype
from rvc_fast.ops.resblock import Block, ResConv
from rvc_fast.pitch.rmvpe import Rmvpe, _mel_constants
from rvc_fast.synthesizer import Synthesizer
from rvc_fast.synthesizer.model import draw

VIEWS = {
    "AsStrided",
    "Broadcast",
    "BroadcastAxes",
    "Depends",
    "ExpandDims",
    "Flatten",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "StopGradient",
    "Transpose",
    "Unflatten",
}


class Counted(NamedTuple):
    """What a graph costs."""

    launches: int
    bytes: int


class Stage(NamedTuple):
    """One stage of a decoder: the width of its residual blocks, and its samples in a second."""

    channels: int
    rate: int


# The full-size voice of version 2 at 48 kHz: 100 frames a second, upsampled by 12, 10, 2 and 2.
STAGES = (Stage(256, 1200), Stage(128, 12000), Stage(64, 24000), Stage(32, 48000))
KERNELS = (3, 7, 11)
DILATIONS = (1, 3, 5)
SLOPE = 0.1


class Converted(NamedTuple):
    """An array that is converted from one dtype to another."""

    shape: tuple[int, ...]
    before: mx.Dtype
    after: mx.Dtype


def _nodes(fn: Callable[..., Any], inputs: Sequence[mx.array]) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    with transforms.without_rules():
        mx.export_function(nodes.append, fn, *inputs)
    return nodes


def conversions(fn: Callable[..., Any], *inputs: mx.array) -> list[Converted]:
    """Return what `fn(*inputs)` converts, each a launch of its own."""
    found = [n for n in _nodes(fn, inputs) if n["type"] == "primitive" and n["name"] == "AsType"]
    return [Converted(tuple(n["inputs"][0][1]), n["inputs"][0][2], n["outputs"][0][2]) for n in found]


def count(fn: Callable[..., Any], *inputs: mx.array) -> Counted:
    """Count what `fn(*inputs)` would launch and move; arrays that it closes over are read from memory."""
    nodes = _nodes(fn, inputs)
    # What reading an array costs: of a view no more than what it looks at.
    size: dict[str, int] = {}
    launches = total = 0
    for node in nodes:
        if node["type"] == "inputs":
            size |= {name: math.prod(shape) * dtype.size for name, shape, dtype in node["inputs"]}
        elif node["type"] == "constants":
            size |= {name: array.nbytes for name, array in node["constants"]}
        elif node["type"] == "primitive":
            read = sum(size[name] for name in {name for name, _, _ in node["inputs"]})
            made = {name: math.prod(shape) * dtype.size for name, shape, dtype in node["outputs"]}
            if node["name"] in VIEWS:
                size |= {name: min(read, own) for name, own in made.items()}
            else:
                size |= made
                launches += 1
                total += read + sum(made.values())
    return Counted(launches, total)


def op_by_op(x: mx.array, blocks: Sequence[Block]) -> mx.array:
    """The mean of residual blocks as a framework without fusion computes it."""
    total: mx.array | None = None
    for block in blocks:
        y = x
        for step in block:
            z = y
            for conv in step:
                padding = conv.dilation * (conv.weight.shape[1] - 1) // 2
                z = conv1d(z, conv.weight, conv.bias, padding=padding, dilation=conv.dilation, leaky=SLOPE)
            y = y + z
        total = y if total is None else total + y
    assert total is not None
    return total / len(blocks)


def count_stage(stage: Stage, seconds: float = 1.0, dtype: mx.Dtype = mx.float32) -> tuple[Counted, Counted]:
    """Count the residual blocks of a stage as they are launched on a GPU, and op by op."""
    x = mx.zeros((1, int(stage.rate * seconds), stage.channels), dtype)
    bias = mx.zeros((stage.channels,), dtype)
    weights = {k: mx.zeros((stage.channels, k, stage.channels), dtype) for k in KERNELS}
    laid = {k: conv_tiles.pack("metal", "resblock", w) for k, w in weights.items()}
    mx.eval(bias, list(weights.values()), [w.data for w in laid.values()])

    def blocks(of: dict[int, Any]) -> list[Block]:
        # Each convolution has a weight of its own, which the trace does not need.
        return [[[ResConv(of[k], bias, d), ResConv(of[k], bias, 1)] for d in DILATIONS] for k in KERNELS]

    with route("metal"):
        ours = count(lambda y: resblock_stage(y, blocks(laid), slope=SLOPE), x)
    with route("reference"):
        return ours, count(lambda y: op_by_op(y, blocks(weights)), x)


class Silence:
    """Noise that is no noise: only its shapes count."""

    def normal(self, shape: Sequence[int]) -> mx.array:
        return mx.zeros(shape)

    uniform = normal


def _one_launch(*inputs: mx.array | None) -> mx.array:
    """A stand-in for a kernel that the exporter would take apart: reads its inputs, writes one like the first."""
    arrays = [x for x in inputs if x is not None]
    kernel = mx.fast.metal_kernel(
        name="one", input_names=[f"x{i}" for i in range(len(arrays))], output_names=["y"], source=""
    )
    grid = {"grid": (1, 1, 1), "threadgroup": (1, 1, 1)}
    return kernel(inputs=arrays, output_shapes=[arrays[0].shape], output_dtypes=[arrays[0].dtype], **grid)[0]


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Let a model be traced as a GPU would launch it: MLX's fused kernels are one launch, what the CPU does is none."""
    with (
        mock.patch.object(GroupNormConv, "fold", _first),
        mock.patch.object(mx, "contiguous", _one_launch),
        mock.patch.object(mx.fast, "layer_norm", lambda x, weight, bias, eps: _one_launch(x, weight, bias)),
        mock.patch.object(
            mx.fast, "scaled_dot_product_attention", lambda q, k, v, scale: _one_launch(q, k, v)
        ),
        mock.patch.object(epilogue, "_fused", lambda y, bias, residual, act: _one_launch(y, bias, residual)),
    ):
        yield


@contextlib.contextmanager
def route(backend: str) -> Iterator[None]:
    """Make the ops believe that MLX has such a GPU, and take its kernels; or take none, for "reference"."""
    with mock.patch.dict(os.environ, RVC_FAST_BACKEND=backend), dispatch.pretending(backend):
        yield


def _ready(model: nn.Module, packing: Packing) -> Any:
    """A new model with its weights packed for the route taken."""
    layers = [m for m in model.modules() if isinstance(m, PackedLayer)]
    for layer in layers:
        layer.pack(packing)
    adapt(model, packing.precision)
    mx.eval(model.parameters(), [layer.packed for layer in layers])
    return model


def _first(self: GroupNormConv, audio: mx.array) -> Any:
    """The first convolution of HuBERT without the normalisation folded into it, which is computed on the CPU's stream."""
    return self.receive(self.weight), self.receive(self.norm_bias)


def count_models(
    backend: str,
    seconds: float = 1.0,
    dtype: Dtype = "float32",
    count: Callable[..., Any] = count,
) -> dict[str, Any]:
    """Count the full-size models with the ops of a backend, for so much sound, or apply another `count` to them."""
    samples, frames = int(16000 * seconds), int(100 * seconds)
    with route(backend):
        hubert, rmvpe, voice = (
            _ready(m, Packing(precision=choose("count", dtype)))
            for m in (HubertModel(HUBERT), Rmvpe(RMVPE), Synthesizer(VOICE))
        )
        sound, phone = mx.zeros((samples,)), mx.zeros((1, frames, VOICE.text_enc_hidden_dim))
        pitch, source = mx.ones((1, frames), mx.int32), mx.zeros((1, frames * voice.hop, 1))
        g = voice.emb_g(mx.array([[0]]))
        z = mx.zeros((1, frames, VOICE.inter_channels), mlx_dtype(dtype))
        _mel_constants(backend)
        mx.eval(sound, phone, pitch, source, g, z)

        def latent(phone: mx.array) -> mx.array:
            return voice.flow.reverse(draw(*voice.enc_p(phone, pitch), Silence()), g)

        def decode(z: mx.array, source: mx.array) -> mx.array:
            return voice.dec(z, g, source, Silence())

        with tracing():
            return {
                "HuBERT": count(lambda x: hubert.features(x, "v2"), sound),
                "mel + RMVPE": count(rmvpe.salience, sound),
                "text encoder + flow": count(latent, phone),
                "decoder": count(decode, z, source),
            }


def main() -> None:
    """Print both counts of every stage and every model for a second of sound."""
    for dtype in (mx.float32, mx.float16):
        print(f"\n{dtype}, residual blocks of 1 s:  launches and MB, op by op -> ours")
        for stage in STAGES:
            ours, plain = count_stage(stage, dtype=dtype)
            print(
                f"C = {stage.channels:3}: {plain.launches:4} -> {ours.launches:2}, "
                f"{plain.bytes / 1e6:6.1f} -> {ours.bytes / 1e6:6.1f} ({ours.bytes / plain.bytes:.0%})"
            )
    both: tuple[Dtype, ...] = ("float32", "float16")
    for number in both:
        ours, plain = (count_models(backend, dtype=number) for backend in ("metal", "reference"))
        print(f"\nmodels, 1 s, {number}: launches and MB, every op in stock MLX -> ours")
        for name, of in ours.items():
            print(
                f"{name}: {plain[name].launches} -> {of.launches}, "
                f"{plain[name].bytes / 1e6:.0f} -> {of.bytes / 1e6:.0f} ({of.bytes / plain[name].bytes:.0%})"
            )


if __name__ == "__main__":
    main()
