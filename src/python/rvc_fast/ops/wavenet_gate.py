"""wavenet_gate: (B, T, 2H) and (B or 1, T or 1, 2H) -> (B, T, H), the gated activation of a WaveNet layer.

y = tanh(a) * sigmoid(b), where a and b are the two halves of the last axis of x + g.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from . import dispatch, gpu
from .spec import HALF, Case, OpSpec, Tolerance

dispatch.register("wavenet_gate", "cpu", "metal", "cuda")

MOST_THREADS = 256


def wavenet_gate_reference(x: mx.array, g: mx.array) -> mx.array:
    """The definition, in stock MLX."""
    a, b = mx.split(x + g, 2, axis=-1)
    return mx.tanh(a) * mx.sigmoid(b)


def _wavenet_gate_cpu(x: mx.array, g: mx.array) -> mx.array:
    from .. import native

    return native.ext().wavenet_gate(x, g)


def _wavenet_gate_gpu(backend: str, x: mx.array, g: mx.array) -> mx.array:
    batch, length, width = x.shape
    shape = (batch, length, width // 2)
    y = gpu.launch(
        backend,
        "wavenet_gate",
        "wavenet_gate",
        {"x": x, "g": g},
        sizes=(*shape, g.shape[0] > 1, g.shape[1] > 1),
        options={},
        groups=(batch * length, 1, 1),
        threads=min(-(-width // 64) * 32, MOST_THREADS),
        outputs=[(shape, x.dtype)],
    )
    return y[0]


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
    check = dispatch.check
    dispatch.check_arrays("wavenet_gate", x=x, g=g)
    fits = x.ndim == 3 and x.size > 0 and x.shape[2] % 2 == 0
    check("wavenet_gate", fits, "x", "of shape (B, T, 2H)", tuple(x.shape))
    fits = g.ndim == 3 and all(n in (1, m) for n, m in zip(g.shape, x.shape, strict=True))
    check(
        "wavenet_gate", fits and g.shape[2] == x.shape[2], "g", f"broadcastable to {x.shape}", tuple(g.shape)
    )
    backends = {"cpu": _wavenet_gate_cpu, "reference": wavenet_gate_reference, **gpu.both(_wavenet_gate_gpu)}
    return dispatch.select("wavenet_gate", backends, dtype=x.dtype)(x, g)


def _case(name: str, batch: int, length: int, hidden: int, per_frame: bool = False, **options: Any) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        x = rng.standard_normal((batch, length, 2 * hidden), dtype=np.float32)
        g = rng.standard_normal((batch, length if per_frame else 1, 2 * hidden), dtype=np.float32)
        return {"x": mx.array(x), "g": mx.array(g)}

    return Case(name, make, **options)


SPEC = OpSpec(
    name="wavenet_gate",
    op=wavenet_gate,
    reference=wavenet_gate_reference,
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
