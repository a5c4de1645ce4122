"""Gradients, tangents and vmap of ops whose kernels run on a GPU: by the reference, while the kernel runs forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator

from rvc_fast import ops
from rvc_fast.errors import InputError
from rvc_fast.ops.op import OPS
from rvc_fast.ops.spec import errors
from rvc_fast.ops.transforms import leaves, with_leaves

pytestmark = pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)


def normal(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)) * 0.3


def reference(op: str) -> Callable[..., Any]:
    spec = OPS[op].spec
    assert spec is not None
    return spec.reference


# The ops with a kernel of ours.
KERNELS = sorted(name for name, op in OPS.items() if "metal" in op.backends)


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_is_transformed(gpu: Emulator, name: str) -> None:
    spec = OPS[name].spec
    assert spec is not None
    rng = np.random.default_rng(0)
    made = [case.make(rng) for case in spec.cases if not case.benchmark]
    kwargs = min((k for k in made if spec.flops(**k) > 200), key=lambda k: spec.flops(**k))
    free = {n: v for n, v in kwargs.items() if n not in OPS[name].constants}
    arrays = list(leaves(tuple(free.values())))

    def of_arrays(function: Callable[..., Any]) -> Callable[..., list[mx.array]]:
        def run(*given: mx.array) -> list[mx.array]:
            values = with_leaves(tuple(free.values()), iter(given))
            return [function(**{**kwargs, **dict(zip(free, values, strict=True))})]

        return run

    ours, stock = of_arrays(spec.op), of_arrays(spec.reference)
    like = [mx.array(rng.standard_normal(a.shape, dtype=np.float32)) for a in arrays]
    cotangent = mx.array(rng.standard_normal(stock(*arrays)[0].shape, dtype=np.float32))
    (y,), got = mx.vjp(ours, arrays, [cotangent])
    assert gpu.launches
    _, want = mx.vjp(stock, arrays, [cotangent])
    assert errors(y, ours(*arrays)[0])[0] == 0, "what runs forward is the kernel"
    for mine, theirs in zip(got, want, strict=True):
        assert errors(mine, theirs)[0] <= 2e-5
    # Of a matrix of derivatives J: u . (J t) = (J' u) . t; MLX's convolutions have no tangents to compare with.
    tangent = mx.jvp(ours, arrays, like)[1][0]
    left, right = (cotangent * tangent).sum(), sum((g * t).sum() for g, t in zip(want, like, strict=True))
    assert abs(float(left - right)) <= 2e-4 * float(mx.abs(cotangent * tangent).sum())
    gpu.placeholders = True
    pairs = [mx.stack([a, a * 0.5], axis=-1) for a in arrays]
    got = mx.vmap(ours, in_axes=-1)(*pairs)
    each = [ours(*arrays)[0], ours(*(a * 0.5 for a in arrays))[0]]
    assert errors(got[0], mx.stack(each))[0] == 0
    got = mx.vmap(ours, in_axes=(-1, *[None] * (len(arrays) - 1)))(pairs[0], *arrays[1:])
    assert errors(got[0][0], each[0])[0] == 0


def test_tangents_have_the_results_dtype(gpu: Emulator) -> None:
    x, w = normal(1, 9, 8).astype(mx.float16), normal(16, 3, 8)
    y, tangent = (a[0] for a in mx.jvp(lambda x: ops.conv1d(x, w), [x], [x]))
    assert y.dtype == tangent.dtype == mx.float16
    assert errors(tangent, y)[0] <= 2e-3, "it is linear"


def test_transformations_of_transformations(gpu: Emulator) -> None:
    gpu.placeholders = True
    many, w = normal(2, 1, 9, 8), normal(16, 3, 8)
    per_item = mx.vmap(mx.grad(lambda x: (ops.conv1d(x, w, activation="tanh") ** 2).sum()))
    want = [mx.grad(lambda x: (reference("conv1d")(x, w, activation="tanh") ** 2).sum())(x) for x in many]
    assert errors(per_item(many), mx.stack(want))[0] <= 1e-5


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
    with pytest.raises(InputError, match=r"\[conv1d\] weight must be plain to have a gradient"):
        mx.jvp(lambda data: [loss(data)], [packed.data], [packed.data])


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
