"""OpSpec: what tests and benchmarks need to know about an op, written once beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from .packed import Weight


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed error against the reference: `max_abs` relative to the reference's largest value, and
    `rms` relative to its root mean square."""

    max_abs: float
    rms: float


# What rounding a result once to these dtypes costs, half a unit in the last place, and a little for what led to it.
HALF = {
    "float16": Tolerance(max_abs=6e-4, rms=4e-4),
    "bfloat16": Tolerance(max_abs=5e-3, rms=3e-3),
}


def normal(rng: np.random.Generator, *shape: int) -> mx.array:
    """Return normally distributed numbers, float32."""
    return mx.array(rng.standard_normal(shape, dtype=np.float32))


@dataclass(frozen=True)
class Case:
    """One set of shapes and options: `make(rng)` gives the keyword arguments of the op."""

    name: str
    make: Callable[[np.random.Generator], dict[str, Any]]
    benchmark: bool = False


def layer_case(
    name: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    shape: Callable[..., tuple[int, ...]],
    *,
    bias: bool = True,
    residual: bool = False,
    strided: bool = False,
    benchmark: bool = False,
    **options: Any,
) -> Case:
    """Return a case of a convolution or linear layer.

    Args:
        x, weight: their shapes, channels last; the weight's outputs first.
        shape: the result's, given the op's arguments.
        strided: x lies in memory channels first.
        options: the op's.
    """

    def make(rng: np.random.Generator) -> dict[str, Any]:
        kwargs: dict[str, Any] = {
            "x": normal(rng, x[0], x[-1], *x[1:-1]).moveaxis(1, -1) if strided else normal(rng, *x),
            "weight": normal(rng, *weight) * math.prod(weight[1:]) ** -0.5,
            **options,
        }
        if bias:
            kwargs["bias"] = normal(rng, weight[0])
        if residual:
            kwargs["residual"] = normal(rng, *shape(**kwargs))
        return kwargs

    return Case(name, make, benchmark)


def layer_bytes(x: mx.array, weight: Weight, shape: tuple[int, ...], residual: mx.array | None = None) -> int:
    """What a convolution or linear layer must at least move in float32: its operands, and the result of `shape`."""
    out = math.prod(shape)
    return 4 * (x.size + math.prod(weight.shape) + out + (0 if residual is None else out))


@dataclass(frozen=True)
class OpSpec:
    """An op's contract for tests and benchmarks.

    `flops(**kwargs)` counts multiplies and adds, `bytes(**kwargs)` what must at least move to and from
    memory in float32. `dims(**kwargs)` gives the letters in which the head of a GPU kernel's file states both.
    `tolerance` is by dtype of the inputs; other than float32 they are what remains after rounding them to it.
    """

    name: str
    op: Callable[..., Any]
    reference: Callable[..., Any]
    cases: tuple[Case, ...]
    flops: Callable[..., int]
    bytes: Callable[..., int]
    dims: Callable[..., dict[str, int]] | None = None
    tolerance: Mapping[str, Tolerance] = field(
        default_factory=lambda: {"float32": Tolerance(max_abs=2e-6, rms=1e-6)}
    )


def _double(x: Any) -> np.ndarray:
    """numpy cannot read bfloat16."""
    narrow = isinstance(x, mx.array) and x.dtype == mx.bfloat16
    return np.array(x.astype(mx.float32) if narrow else x, dtype=np.float64)


def errors(got: Any, want: Any) -> tuple[float, float]:
    """Return (max-abs error / max-abs of want, RMS error / RMS of want), in double.

    Of several results the worst; infinities must be where `want` has them.
    """
    if isinstance(want, tuple):
        each = [errors(a, b) for a, b in zip(got, want, strict=True)]
        return max(e[0] for e in each), max(e[1] for e in each)
    a, b = _double(got), _double(want)
    infinite = np.isinf(b)
    if a.shape != b.shape or not (a[infinite] == b[infinite]).all():
        return float("inf"), float("inf")
    a, b = a[~infinite], b[~infinite]
    if a.size == 0:
        return 0.0, 0.0
    d = a - b
    peak, rms = np.abs(b).max(), np.sqrt(np.mean(b * b))
    tiny = np.finfo(np.float32).tiny
    return float(np.abs(d).max() / max(peak, tiny)), float(np.sqrt(np.mean(d * d)) / max(rms, tiny))
