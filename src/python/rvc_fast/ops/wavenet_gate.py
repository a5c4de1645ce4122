"""wavenet_gate: (B, T, 2H) and (B or 1, T or 1, 2H) -> (B, T, H), the gated activation of a WaveNet layer.

y = tanh(a) * sigmoid(b), where a and b are the two halves of the last axis of x + g.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, gpu
from .op import Op
from .spec import HALF, Case, Tolerance, normal

MOST_THREADS = 256


class Options(NamedTuple):
    """What a call states beside its arrays: nothing."""


def _check(x: mx.array, g: mx.array, o: Options) -> Options:
    op = "wavenet_gate"
    checks.arrays(op, x=x, g=g)
    checks.check(op, x.ndim == 3 and x.shape[2] % 2 == 0, "x", "of shape (B, T, 2H)", tuple(x.shape))
    fits = g.ndim == 3 and g.shape[2] == x.shape[2] and all(g.shape[i] in (1, x.shape[i]) for i in (0, 1))
    checks.check(op, fits, "g", f"broadcastable to {x.shape}", tuple(g.shape))
    return o


def _reference(x: mx.array, g: mx.array, _: Options) -> mx.array:
    a, b = mx.split(x + g, 2, axis=-1)
    return mx.tanh(a) * mx.sigmoid(b)


def _cpu(x: mx.array, g: mx.array, _: Options) -> mx.array:
    return native.compiled.wavenet_gate(x, g)


def _gpu(backend: str, x: mx.array, g: mx.array, _: Options) -> mx.array:
    batch, length, width = x.shape
    half_width = width // 2
    y = gpu.launch(
        backend,
        "wavenet_gate",
        "wavenet_gate",
        {"x": x, "g": g},
        sizes={
            "length": length,
            "half_width": half_width,
            "each_item": g.shape[0] > 1,
            "each_step": g.shape[1] > 1,
        },
        options={},
        groups=(batch * length, 1, 1),
        threads=min(-(-width // 64) * 32, MOST_THREADS),
        outputs=[((batch, length, half_width), x.dtype)],
    )
    return y[0]


WAVENET_GATE = Op("wavenet_gate", Options, _check, _reference, {"cpu": _cpu, **gpu.both(_gpu)})


def wavenet_gate(x: mx.array, g: mx.array) -> mx.array:
    """Gated activation of x + g; see the module's formula.

    Args:
        x: (B, T, 2H), the dilated convolution of a layer.
        g: (B, T, 2H) with B and T possibly 1, the layer's conditioning.

    Returns:
        (B, T, H) in x's dtype.

    Raises:
        InputError: an odd last axis, or a g that does not broadcast to x.
    """
    return WAVENET_GATE(x, g)


def _case(name: str, batch: int, length: int, hidden: int, per_frame: bool = False, **options: Any) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        g = (batch, length if per_frame else 1, 2 * hidden)
        return {"x": normal(rng, batch, length, 2 * hidden), "g": normal(rng, *g)}

    return Case(name, make, **options)


SPEC = WAVENET_GATE.describe(
    wavenet_gate,
    cases=(
        _case("length_1", 1, 1, 1),
        _case("primes", 1, 53, 37),
        _case("batch", 3, 17, 16),
        _case("batch_per_frame", 3, 17, 16, per_frame=True),
        _case("several_items", 2, 1001, 50, per_frame=True),
        _case("flow_10s", 1, 1000, 192, benchmark=True),
    ),
    dims=lambda x, g: dict(
        zip("BTH", (*x.shape[:2], x.shape[2] // 2), strict=True), G=g.shape[0] * g.shape[1]
    ),
    flops=lambda x, g: 4 * x.size,
    bytes=lambda x, g: 4 * (x.size + g.size + x.size // 2),
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
