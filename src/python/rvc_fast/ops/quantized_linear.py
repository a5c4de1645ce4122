"""quantized_linear: (..., C) times a weight (O, C) of 4 or 8 bits a number -> (..., O), with fused neighbours.

y = activation(x @ w.T + bias) + residual, w[o, c] = code[o, c] * scales[o, c // group_size] + biases[o, c // group_size]

That is the affine convention of `mx.quantize` and `mlx.nn.QuantizedLinear`. 32 / bits codes lie in a word of 32 bits, the
first of them in its lowest bits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, gpu
from .epilogue import Activation, epilogue, fused_epilogue
from .op import Op
from .packed import Array
from .spec import HALF, Case, Tolerance, normal

BITS = (4, 8)
GROUP_SIZES = (32, 64, 128)


class Options(NamedTuple):
    """What a call states beside its arrays."""

    group_size: int
    bits: int
    activation: Activation | None


def _check(
    x: mx.array,
    weight: mx.array,
    scales: mx.array,
    biases: mx.array,
    bias: Array,
    residual: Array,
    o: Options,
) -> Options:
    op = "quantized_linear"
    checks.arrays(op, x=x, scales=scales, biases=biases, bias=bias, residual=residual)
    checks.words(op, weight=weight)
    checks.whole(op, group_size=o.group_size, bits=o.bits)
    checks.check(op, o.bits in BITS, "bits", "4 or 8", o.bits)
    checks.check(op, o.group_size in GROUP_SIZES, "group_size", "32, 64 or 128", o.group_size)
    checks.check(op, x.ndim >= 1, "x", "of shape (..., C)", tuple(x.shape))
    checks.rank(op, "weight", weight, f"(O, C * {o.bits} / 32)")
    outputs, words = weight.shape
    channels = words * 32 // o.bits
    wanted = f"of a multiple of {o.group_size} channels, as group_size says"
    checks.check(op, channels % o.group_size == 0, "weight", wanted, f"{channels} in {o.bits} bits")
    wanted = f"{channels} channels wide, as weight is in {o.bits} bits"
    checks.check(op, x.shape[-1] == channels, "x", wanted, x.shape[-1])
    checks.shape(op, "scales", scales, (outputs, channels // o.group_size))
    checks.shape(op, "biases", biases, (outputs, channels // o.group_size))
    checks.epilogue(op, _shape(x, weight), bias, residual, o.activation)
    return o


def _reference(
    x: mx.array,
    weight: mx.array,
    scales: mx.array,
    biases: mx.array,
    bias: Array,
    residual: Array,
    o: Options,
) -> mx.array:
    w = mx.dequantize(weight, scales, biases, group_size=o.group_size, bits=o.bits)
    return epilogue(x @ w.astype(x.dtype).T, bias, residual, o.activation)


def _cpu(
    x: mx.array,
    weight: mx.array,
    scales: mx.array,
    biases: mx.array,
    bias: Array,
    residual: Array,
    o: Options,
) -> mx.array:
    return native.compiled.quantized_linear(
        x, weight, scales, biases, bias, residual, o.group_size, o.bits, o.activation or ""
    )


def _gpu(
    x: mx.array,
    weight: mx.array,
    scales: mx.array,
    biases: mx.array,
    bias: Array,
    residual: Array,
    o: Options,
) -> mx.array:
    """MLX's own product reads the codes as they are. It computes in the widest dtype of x, scales and biases."""
    y = mx.quantized_matmul(x, weight, scales, biases, group_size=o.group_size, bits=o.bits)
    return fused_epilogue(y, bias, residual, o.activation).astype(x.dtype)


QUANTIZED_LINEAR = Op(
    "quantized_linear",
    Options,
    _check,
    _reference,
    {"cpu": _cpu},
    of_mlx=gpu.alike(_gpu),
    constants=("weight",),
)


def quantized_linear(
    x: mx.array,
    weight: mx.array,
    scales: mx.array,
    biases: mx.array,
    bias: mx.array | None = None,
    *,
    group_size: int = 64,
    bits: int = 8,
    activation: Activation | None = None,
    residual: mx.array | None = None,
) -> mx.array:
    """`linear` of a weight as `mx.quantize` makes it; see the module's formula.

    Args:
        x: (..., C).
        weight: (O, C * bits / 32) uint32, the codes. They have no gradient.
        scales: (O, C / group_size), the step of each group of neighbouring channels.
        biases: (O, C / group_size), the value of code 0 of each group.
        bias: (O,) or None.
        group_size: 32, 64 or 128; divides C.
        bits: of a code, 4 or 8.
        activation: what is applied after the bias, "relu", "gelu", "sigmoid" or "tanh".
        residual: (..., O) added after the activation.

    Returns:
        (..., O) in x's dtype.

    Raises:
        InputError: a shape or value that does not fit, named with the argument.
    """
    return QUANTIZED_LINEAR(x, weight, scales, biases, bias, residual, group_size, bits, activation)


def _shape(x: mx.array, weight: mx.array) -> tuple[int, ...]:
    return (*x.shape[:-1], weight.shape[0])


def _case(
    name: str,
    lead: tuple[int, ...],
    channels: int,
    outputs: int,
    *,
    bits: int = 8,
    group_size: int = 64,
    bias: bool = True,
    residual: bool = False,
    benchmark: bool = False,
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        w = normal(rng, outputs, channels) * channels**-0.5
        weight, scales, biases = mx.quantize(w, group_size=group_size, bits=bits)
        kwargs: dict[str, Any] = {
            "x": normal(rng, *lead, channels),
            "weight": weight,
            "scales": scales,
            "biases": biases,
            "group_size": group_size,
            "bits": bits,
            **options,
        }
        if bias:
            kwargs["bias"] = normal(rng, outputs)
        if residual:
            kwargs["residual"] = normal(rng, *lead, outputs)
        return kwargs

    return Case(name, make, benchmark)


def _bytes(x: mx.array, weight: mx.array, scales: mx.array, residual: Array = None, **_: Any) -> int:
    out = math.prod(_shape(x, weight))
    return 4 * (x.size + weight.size + 2 * scales.size + out + (0 if residual is None else out))


SPEC = QUANTIZED_LINEAR.describe(
    quantized_linear,
    cases=(
        _case("one group, one output", (1,), 32, 1, group_size=32, bias=False),
        _case("a vector of 4 bits", (), 64, 5, bits=4),
        _case("4 bits, groups within a vector", (3,), 96, 37, bits=4, group_size=32, activation="gelu"),
        _case("few rows", (7,), 192, 50, residual=True, activation="relu"),
        _case("few rows of 4 bits", (8,), 384, 33, bits=4, group_size=128, activation="sigmoid"),
        _case("primes", (3, 7), 160, 31, group_size=32, activation="gelu", residual=True),
        _case("primes of 4 bits", (2, 13), 192, 67, bits=4, activation="tanh"),
        _case("wide groups", (11,), 128, 113, group_size=128, bias=False),
        _case("long reduction in blocks", (13,), 3072, 70, residual=True),
        _case("more rows than at once", (600,), 32, 1030, group_size=32, residual=True),
        _case("many rows, few outputs", (2, 203), 64, 19, bits=4, activation="relu"),
        _case("one row, 8 bits", (1, 1), 4096, 4096, benchmark=True),
        _case("one row, 4 bits", (1, 1), 4096, 4096, bits=4, benchmark=True),
        _case("HuBERT feed-forward up", (1, 150), 768, 3072, activation="gelu", benchmark=True),
        _case("HuBERT feed-forward down, 4 bits", (1, 150), 3072, 768, bits=4, residual=True, benchmark=True),
    ),
    flops=lambda x, weight, **_: 2 * x.size * weight.shape[0],
    bytes=_bytes,
    tolerance={"float32": Tolerance(max_abs=2e-6, rms=1e-6), **HALF},
)
