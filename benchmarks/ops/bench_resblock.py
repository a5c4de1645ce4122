"""The residual stages of a 48 kHz voice, one second each, by the direct and by the fast algorithm."""

from __future__ import annotations

import dataclasses
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import suite

from rvc_fast import native, ops
from rvc_fast.ops.resblock import SPEC, ResConv, resblock_stage
from rvc_fast.ops.spec import Case


def stage(channels: int, length: int) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        def conv(kernel: int, dilation: int) -> ResConv:
            weight = rng.standard_normal((channels, kernel, channels), dtype=np.float32)
            weight *= np.float32(0.5 / np.sqrt(channels * kernel))
            return ResConv(
                mx.array(weight), mx.array(rng.standard_normal(channels, dtype=np.float32)), dilation
            )

        blocks = [[[conv(k, d), conv(k, 1)] for d in (1, 3, 5)] for k in (3, 7, 11)]
        x = mx.array(rng.standard_normal((1, length, channels), dtype=np.float32))
        return {"x": x, "blocks": blocks, "slope": 0.1}

    return Case(f"channels_{channels}", make, benchmark=True)


STAGES = [stage(256, 1200), stage(128, 12000), stage(64, 24000), stage(32, 48000)]


@pytest.mark.parametrize("algorithm", ["direct", "auto"])
@pytest.mark.parametrize("case", STAGES, ids=[case.name for case in STAGES])
def test_resblock(case: Case, algorithm: str, benchmark: Any) -> None:
    if native.ext() is None:
        pytest.skip(native.load()[1])
    packed: list[Any] = []

    def run(x: mx.array, blocks: Any, slope: float) -> mx.array:
        if not packed:
            packed.extend(
                [
                    [
                        [c._replace(weight=ops.pack_resblock(c.weight, algorithm=algorithm)) for c in s]
                        for s in b
                    ]
                    for b in blocks
                ]
            )
            mx.eval([c.weight.data for b in packed for s in b for c in s])
        return resblock_stage(x, packed, slope=slope)

    # The direct kernel of conv1d is the gate: stock MLX would take minutes.
    suite.run(dataclasses.replace(SPEC, op=run), case, benchmark)
