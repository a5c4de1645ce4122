"""bigru: (B, T, I) -> (B, T, 2H), a bidirectional GRU as PyTorch defines it; direction 0 runs forward.

r, z = sigmoid(W_i x + b_i + W_h h + b_h) of their rows, n = tanh(W_in x + b_in + r * (W_hn h + b_hn)),
h' = (1 - z) * n + z * h, from h = 0. Rows of the weights are those of r, z, n in that order.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from . import dispatch
from .blocks import after, blocks
from .linear import linear
from .packed import Weight
from .spec import Case, OpSpec, Tolerance

dispatch.register("bigru", "cpu")

# Steps whose gates are projected at a time: 6H numbers each.
BLOCK = 1024

Pair = tuple[Weight, Weight]


def _scan_reference(
    forward: mx.array, backward: mx.array, w_hh: mx.array, b_hh: mx.array, h: mx.array
) -> tuple[mx.array, mx.array]:
    """The recurrence alone, in stock MLX.

    Takes the projected gates (B, T, 3H) of both directions, the second one's to be read from the end, and the
    states h (2, B, H) before; returns both directions' states (B, T, H), all in order of time.
    """
    gates = mx.stack([forward, backward[:, ::-1]]).transpose(2, 0, 1, 3)
    w, b = w_hh.swapaxes(1, 2), b_hh[:, None]
    hidden = w_hh.shape[2]
    states = []
    for gate in gates:
        inner = h @ w + b
        r, z = mx.split(mx.sigmoid(gate[..., : 2 * hidden] + inner[..., : 2 * hidden]), 2, axis=-1)
        n = mx.tanh(gate[..., 2 * hidden :] + r * inner[..., 2 * hidden :])
        h = n + z * (h - n)
        states.append(h)
    y = mx.stack(states, axis=2)
    return y[0], y[1][:, ::-1]


def _scan_cpu(
    forward: mx.array, backward: mx.array, w_hh: mx.array, b_hh: mx.array, h: mx.array
) -> tuple[mx.array, mx.array]:
    from .. import native

    return native.ext().bigru(forward, backward, w_hh, b_hh, h)


def bigru_reference(x: mx.array, w_ih: mx.array, w_hh: mx.array, b_ih: mx.array, b_hh: mx.array) -> mx.array:
    """The definition, in stock MLX."""
    forward, backward = (x @ w_ih[d].T + b_ih[d] for d in (0, 1))
    h = mx.zeros((2, x.shape[0], w_hh.shape[2]))
    return mx.concatenate([*_scan_reference(forward, backward, w_hh, b_hh, h)], axis=-1)


def bigru(
    x: mx.array,
    w_ih: mx.array | Pair,
    w_hh: mx.array,
    b_ih: mx.array | tuple[mx.array | None, mx.array | None],
    b_hh: mx.array,
) -> mx.array:
    """Bidirectional GRU; see the module's formula.

    The gates are projected in blocks from both ends, so memory beyond the result does not grow with T; with
    more than one block the result is evaluated before it returns.

    Args:
        x: (B, T, I).
        w_ih: (2, 3H, I), or the two directions' weights as `pack_linear` made them.
        w_hh: (2, 3H, H).
        b_ih: (2, 3H), or a pair, of which None is 0.
        b_hh: (2, 3H).

    Returns:
        (B, T, 2H), forward states then backward states.
    """
    check = dispatch.check
    dispatch.check_arrays("bigru", x=x, w_hh=w_hh, b_hh=b_hh)
    for argument, value in (("w_ih", w_ih), ("b_ih", b_ih)):
        if isinstance(value, tuple | list):
            count = len(value)
        else:
            dispatch.check_arrays("bigru", **{argument: value})
            count = value.shape[0] if value.ndim else 0
        check("bigru", count == 2, argument, "two, one per direction", count)
        dispatch.check_arrays("bigru", **{f"{argument}[{d}]": value[d] for d in (0, 1)})
    check("bigru", x.ndim == 3 and min(x.shape) >= 1, "x", "of shape (B, T, I), none 0", tuple(x.shape))
    fits = w_hh.ndim == 3 and w_hh.shape[0] == 2 and w_hh.shape[1] == 3 * w_hh.shape[2]
    check("bigru", fits, "w_hh", "of shape (2, 3H, H)", tuple(w_hh.shape))
    batch, length, width = x.shape
    hidden = w_hh.shape[2]
    dispatch.check_shape("bigru", "b_hh", b_hh, (2, 3 * hidden))
    for d in (0, 1):
        dispatch.check_packed("bigru", w_ih[d], "linear")
        shape = tuple(w_ih[d].shape)
        check("bigru", shape == (3 * hidden, width), f"w_ih[{d}]", f"of shape {(3 * hidden, width)}", shape)
        dispatch.check_shape("bigru", f"b_ih[{d}]", b_ih[d], (3 * hidden,))
    scan = dispatch.select("bigru", {"cpu": _scan_cpu, "reference": _scan_reference})
    h = mx.zeros((2, batch, hidden))
    ahead: list[mx.array] = []
    back: list[mx.array] = []
    for start, end in blocks(length, BLOCK):
        mirrored = slice(length - end, length - start)
        forward = linear(after(x[:, start:end], ahead), w_ih[0], b_ih[0])
        backward = linear(after(x[:, mirrored], back), w_ih[1], b_ih[1])
        states = scan(forward, backward, w_hh, b_hh, h)
        ahead.append(states[0])
        back.append(states[1])
        h = mx.stack([states[0][:, -1], states[1][:, 0]])
        if length > BLOCK:
            mx.eval(states, h)
    return mx.concatenate([mx.concatenate(ahead, axis=1), mx.concatenate(back[::-1], axis=1)], axis=-1)


def _case(name: str, batch: int, length: int, width: int, hidden: int, benchmark: bool = False) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        def normal(*shape: int, scale: float = 1.0) -> mx.array:
            return mx.array(rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

        return {
            "x": normal(batch, length, width),
            "w_ih": normal(2, 3 * hidden, width, scale=width**-0.5),
            "w_hh": normal(2, 3 * hidden, hidden, scale=hidden**-0.5),
            "b_ih": normal(2, 3 * hidden, scale=0.1),
            "b_hh": normal(2, 3 * hidden, scale=0.1),
        }

    return Case(name, make, benchmark)


def _flops(x: mx.array, w_ih: mx.array, w_hh: mx.array, b_ih: mx.array, b_hh: mx.array) -> int:
    return 2 * x.shape[0] * x.shape[1] * (w_ih.size + w_hh.size)


def _bytes(x: mx.array, w_ih: mx.array, w_hh: mx.array, b_ih: mx.array, b_hh: mx.array) -> int:
    out = x.shape[0] * x.shape[1] * 2 * w_hh.shape[2]
    return 4 * (x.size + w_ih.size + w_hh.size + b_ih.size + b_hh.size + out)


SPEC = OpSpec(
    name="bigru",
    op=bigru,
    reference=bigru_reference,
    cases=(
        _case("one step", 1, 1, 5, 3),
        _case("primes", 2, 13, 7, 11),
        _case("a batch, no multiple of a vector", 3, 29, 33, 37),
        _case("rmvpe, odd length", 1, 101, 384, 256),
        _case("several blocks", 1, BLOCK * 2 + 17, 9, 5),
        _case("rmvpe, 10 s", 1, 1024, 384, 256, benchmark=True),
    ),
    flops=_flops,
    bytes=_bytes,
    # States stay within [-1, 1], but a step's rounding is carried on to the next.
    tolerance={"float32": Tolerance(max_abs=5e-6, rms=1e-6)},
)
