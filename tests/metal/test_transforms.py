"""Gradients of ops whose kernels run on a GPU: those of the reference, while the kernel runs forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator

from rvc_fast import ops
from rvc_fast.ops.op import OPS
from rvc_fast.ops.spec import errors

pytestmark = pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)


def normal(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)) * 0.3


def reference(op: str) -> Callable[..., Any]:
    spec = OPS[op].spec
    assert spec is not None
    return spec.reference


def test_gradients_of_plain_weights(gpu: Emulator) -> None:
    x, w, b = normal(1, 9, 8), normal(16, 3, 8), normal(16)
    got = mx.grad(lambda *a: (ops.conv1d(*a, activation="tanh") ** 2).sum(), argnums=(0, 1, 2))(x, w, b)
    assert gpu.launches
    of_reference = mx.grad(
        lambda *a: (reference("conv1d")(*a, activation="tanh") ** 2).sum(), argnums=(0, 1, 2)
    )
    for mine, theirs in zip(got, of_reference(x, w, b), strict=True):
        assert errors(mine, theirs)[0] <= 1e-5


def test_a_packed_weight_is_unpacked_by_the_kernel_itself(gpu: Emulator) -> None:
    x, plain = normal(1, 9, 12), normal(18, 3, 4)
    packed = ops.pack_conv1d(plain, groups=3)
    assert isinstance(packed, ops.PackedWeight)
    got = mx.grad(lambda x: (ops.conv1d(x, packed, groups=3) ** 2).sum())(x)
    want = mx.grad(lambda x: (reference("conv1d")(x, plain, groups=3) ** 2).sum())(x)
    assert errors(got, want)[0] <= 1e-5

    def loss(data: mx.array) -> mx.array:
        form = ops.PackedWeight("conv1d", data, packed.shape, 3, dtype=packed.dtype, backend=packed.backend)
        return ops.conv1d(x, form, groups=3).sum()

    assert mx.isnan(mx.grad(loss)(packed.data)).all(), "a packed weight has no gradient"


def test_recurrent_weights_are_unpacked(gpu: Emulator) -> None:
    for hidden in (3, 20, 37):
        weight = normal(2, 3 * hidden, hidden)
        packed = ops.pack_bigru(weight)
        assert isinstance(packed, ops.PackedWeight)
        unpack = OPS["bigru"].unpack
        assert unpack is not None
        assert mx.array_equal(unpack(packed), weight)


def test_filters_are_unpacked(gpu: Emulator) -> None:
    filters = mx.maximum(normal(5, 33), 0)
    packed = ops.pack_mel_stft(filters)
    unpack = OPS["mel_stft"].unpack
    assert isinstance(packed, ops.PackedWeight)
    assert unpack is not None
    assert mx.array_equal(unpack(packed), filters)


def test_what_is_made_of_mlxs_own_kernels_has_all(gpu: Emulator) -> None:
    x, w = normal(3, 5, 8), normal(6, 8)
    assert ops.linear(x, w).shape == (3, 5, 6)
    vmapped = mx.vmap(lambda x: ops.linear(x, w, activation="tanh"))(x)
    assert errors(vmapped, reference("linear")(x, w, activation="tanh"))[0] <= 1e-5
