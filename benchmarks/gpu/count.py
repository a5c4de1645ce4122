"""Launches and bytes of a graph on a GPU, counted from its trace: `python -m benchmarks.gpu.count`.

No GPU is needed and nothing is computed. A primitive counts as one launch that reads each of its inputs and writes
each of its outputs once; what only looks at memory differently costs nothing. Printed are the residual blocks of each
decoder stage, as ops/resblock launches them and op by op.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from rvc_fast.ops import conv_tiles
from rvc_fast.ops.conv1d import conv1d_reference
from rvc_fast.ops.resblock import Block, ResConv, _resblock_stage_gpu

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


def count(fn: Callable[..., Any], *inputs: mx.array) -> Counted:
    """Count what `fn(*inputs)` would launch and move; arrays that it closes over are read from memory."""
    nodes: list[dict[str, Any]] = []
    mx.export_function(nodes.append, fn, *inputs)
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
                assert isinstance(conv.weight, mx.array)
                z = conv1d_reference(
                    z, conv.weight, conv.bias, padding=padding, dilation=conv.dilation, leaky=SLOPE
                )
            y = y + z
        total = y if total is None else total + y
    assert total is not None
    return total / len(blocks)


def count_stage(stage: Stage, seconds: float = 1.0, dtype: mx.Dtype = mx.float32) -> tuple[Counted, Counted]:
    """Count the residual blocks of a stage as they are launched on a GPU, and op by op."""
    x = mx.zeros((1, int(stage.rate * seconds), stage.channels), dtype)
    bias = mx.zeros((stage.channels,), dtype)
    weights = {k: mx.zeros((stage.channels, k, stage.channels), dtype) for k in KERNELS}
    packed = {k: conv_tiles.pack("metal", "resblock", w) for k, w in weights.items()}
    mx.eval(bias, list(weights.values()), [w.data for w in packed.values()])

    def blocks(of: dict[int, Any]) -> list[Block]:
        # Each convolution has a weight of its own, which the trace does not need.
        return [[[ResConv(of[k], bias, d), ResConv(of[k], bias, 1)] for d in DILATIONS] for k in KERNELS]

    return (
        count(lambda y: _resblock_stage_gpu("metal", y, blocks(packed), slope=SLOPE), x),
        count(lambda y: op_by_op(y, blocks(weights)), x),
    )


def main() -> None:
    """Print both counts of every stage for a second of sound."""
    for dtype in (mx.float32, mx.float16):
        print(f"\n{dtype}, residual blocks of 1 s:  launches and MB, op by op -> ours")
        for stage in STAGES:
            ours, plain = count_stage(stage, dtype=dtype)
            print(
                f"C = {stage.channels:3}: {plain.launches:4} -> {ours.launches:2}, "
                f"{plain.bytes / 1e6:6.1f} -> {ours.bytes / 1e6:6.1f} ({ours.bytes / plain.bytes:.0%})"
            )


if __name__ == "__main__":
    main()
