"""The compiled kernels as MLX citizens: lazy, compiled, on any stream, from any thread, and hard to misuse."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast import ops
from rvc_fast.errors import InputError
from rvc_fast.ops.conv1d import SPEC
from rvc_fast.ops.spec import errors

pytestmark = pytest.mark.usefixtures("ext")

RNG = np.random.default_rng(7)


def normal(*shape: int) -> mx.array:
    return mx.array(RNG.standard_normal(shape, dtype=np.float32))


X, WEIGHT, BIAS = normal(1, 700, 64), normal(64, 7, 64) / 20, normal(64)


def step(x: mx.array, weight: ops.Weight = WEIGHT) -> mx.array:
    return ops.conv1d(x, weight, BIAS, padding=3, leaky=0.1, residual=x)


def close(got: mx.array, want: mx.array) -> bool:
    return errors(got, want)[1] < 2e-6


def test_a_graph_runs_lazily_and_keeps_its_inputs() -> None:
    want = X
    for _ in range(3):
        want = SPEC.reference(want, WEIGHT, BIAS, padding=(3, 3), leaky=0.1, residual=want)
    y = X
    for _ in range(3):
        y = step(y)  # the residual's memory becomes the result's where nobody else holds it
    before = mx.array(np.array(X))
    assert close(y, want)
    assert mx.array_equal(X, before)


def test_residual_memory_is_not_taken_from_others() -> None:
    residual = X * 2
    y = ops.conv1d(X, WEIGHT, padding=3, residual=residual)
    total = y + residual
    assert close(total, SPEC.reference(X, WEIGHT, padding=(3, 3)) + 4 * X)
    assert mx.array_equal(residual, X * 2)


def test_compile() -> None:
    packed = ops.pack_conv1d(WEIGHT)
    compiled = mx.compile(lambda x: step(step(x, packed), packed) * 2)
    for _ in range(2):
        assert mx.array_equal(compiled(X), step(step(X)) * 2)


def test_compile_shapeless() -> None:
    compiled = mx.compile(lambda x: step(x) + 1, shapeless=True)
    for length in (700, 31, 1):
        assert mx.array_equal(compiled(X[:, :length]), step(X[:, :length]) + 1)


def test_compile_keeps_different_options_apart() -> None:
    both = mx.compile(lambda x: (ops.conv1d(x, WEIGHT, leaky=0.1), ops.conv1d(x, WEIGHT, leaky=0.2)))
    one, two = both(X)
    assert mx.array_equal(one, ops.conv1d(X, WEIGHT, leaky=0.1))
    assert mx.array_equal(two, ops.conv1d(X, WEIGHT, leaky=0.2))


def test_async_eval_and_streams() -> None:
    want = step(X)
    mx.eval(want)
    results = []
    for _ in range(4):
        with mx.stream(mx.new_stream(mx.cpu)):
            results.append(step(X))
    mx.async_eval(results)
    assert all(mx.array_equal(y, want) for y in results)


def test_python_threads_at_once() -> None:
    want = step(X)
    packed = ops.pack_conv1d(WEIGHT)
    mx.eval(want, packed.data)

    def work(_: int) -> None:
        with mx.stream(mx.new_stream(mx.cpu)):
            for _ in range(20):
                assert mx.array_equal(step(X, packed), want).item()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_results_do_not_depend_on_threads(ext: ModuleType, threads: int) -> None:
    want = step(X)
    mx.eval(want)
    ext.configure(threads=threads, isa=ext.isa())
    assert ext.threads() == threads
    assert mx.array_equal(step(X), want)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_weights_are_widened_exactly(dtype: mx.Dtype) -> None:
    for shape in ((33, 3, 70), (5, 1, 1)):
        weight = (normal(*shape) * 1e-3).astype(dtype)
        x = normal(1, 9, shape[2])
        assert mx.array_equal(ops.conv1d(x, weight), ops.conv1d(x, weight.astype(mx.float32)))


def test_special_half_values() -> None:
    values = [0.0, -0.0, 6e-8, -6e-8, 6.1e-5, 65504.0, float("inf"), float("-inf"), float("nan")]
    weight = mx.array(np.array(values, np.float16)).reshape(-1, 1)
    y = np.array(ops.linear(mx.ones((1,)), weight))
    np.testing.assert_array_equal(y, np.array(values, np.float16).astype(np.float32))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_input_gives_its_own_type(dtype: mx.Dtype) -> None:
    x = X.astype(dtype)
    y = ops.conv1d(x, WEIGHT, BIAS, padding=3, residual=x)
    assert y.dtype == dtype
    want = ops.conv1d(x.astype(mx.float32), WEIGHT, BIAS, padding=3, residual=x.astype(mx.float32))
    assert mx.array_equal(y, want.astype(dtype))


def test_views_of_every_operand() -> None:
    x, residual = normal(2, 16, 40), normal(2, 40, 24)
    weight, bias = normal(8, 3, 24), normal(16)
    got = ops.conv1d(
        x.swapaxes(1, 2),
        weight.transpose(2, 1, 0)[:8, :, :].swapaxes(0, 2)[:, :, :4].swapaxes(0, 0),
        bias[::2],
        groups=4,
        padding=1,
        residual=residual[:, :, ::3],
    )
    dense = [
        mx.array(np.array(a)) for a in (x.swapaxes(1, 2), weight[:, :, :4], bias[::2], residual[:, :, ::3])
    ]
    want = ops.conv1d(dense[0], dense[1], dense[2], groups=4, padding=1, residual=dense[3])
    assert mx.array_equal(got, want)


def test_non_finite_input_stays_where_it_is() -> None:
    x = mx.array(np.array(X))
    x[0, 350, 5] = float("nan")
    y = np.isnan(np.array(step(x)))[0].any(axis=1)
    assert y[347:354].all()
    assert y.sum() == 7


def test_gelu_over_its_range() -> None:
    from scipy.special import erf

    x = np.concatenate([np.linspace(-12, 12, 100_001), [0.0, 1e-30, -1e-30, 3e38, -3e38]]).astype(np.float32)
    y = ops.linear(mx.array(x)[:, None], mx.ones((1, 1)), activation="gelu")[:, 0]
    d = x.astype(np.float64)
    want = 0.5 * d * (1 + erf(d / np.sqrt(2)))
    # What float32 erf allows: its relative error, and near -5 the rounding of 1 + erf.
    assert (np.abs(np.array(y) - want) <= 6e-7 * np.abs(want) + 2.5e-7 * np.abs(d)).all()


def test_bad_arguments_are_one_clear_error() -> None:
    w = normal(8, 3, 4)
    cases: list[tuple[str, Any]] = [
        ("x must be 4 channels wide, got 5", lambda: ops.conv1d(normal(1, 9, 5), w)),
        ("x must be at least 3 steps long, got 2", lambda: ops.conv1d(normal(1, 2, 4), w)),
        ("x must be of shape", lambda: ops.conv1d(normal(9, 4), w)),
        ("bias must be of shape", lambda: ops.conv1d(normal(1, 9, 4), w, normal(7))),
        ("residual must be of shape", lambda: ops.conv1d(normal(1, 9, 4), w, residual=normal(1, 9, 8))),
        ("groups must be", lambda: ops.conv1d(normal(1, 9, 12), w, groups=3)),
        ("leaky must be from 0 to 1, got 2", lambda: ops.conv1d(normal(1, 9, 4), w, leaky=2)),
        ("activation must be", lambda: ops.conv1d(normal(1, 9, 4), w, activation="swish")),  # type: ignore[arg-type]
        ("stride must be at least 1, got 0", lambda: ops.conv1d(normal(1, 9, 4), w, stride=0)),
        ("x must be 3 channels wide", lambda: ops.linear(normal(2, 4), normal(5, 3))),
    ]
    for message, call in cases:
        with pytest.raises(InputError, match=message):
            call()


def test_bad_arguments_of_the_extension_itself(ext: ModuleType) -> None:
    packed = ext.conv1d_pack(normal(8, 3, 4))
    for arguments in (
        {"out_channels": 8, "kernel": 5},
        {"out_channels": 80, "kernel": 3},
        {"out_channels": 0, "kernel": 3},
        {"out_channels": 8, "kernel": 0},
        {"out_channels": 8, "kernel": 3, "stride": 0},
        {"out_channels": 8, "kernel": 3, "dilation": -1},
        {"out_channels": 8, "kernel": 3, "dilation": 1000},
        {"out_channels": 8, "kernel": 3, "groups": 3},
        {"out_channels": 8, "kernel": 3, "padding": (-1, 0)},
        {"out_channels": 8, "kernel": 3, "leaky": float("nan")},
        {"out_channels": 8, "kernel": 3, "activation": "swish"},
        {"out_channels": 8, "kernel": 3, "bias": normal(9)},
        {"out_channels": 8, "kernel": 3, "residual": normal(1, 9, 8)},
    ):
        with pytest.raises(ValueError, match=r"\[conv1d\]"):
            ext.conv1d(normal(1, 9, 4), packed, **{"bias": None, "residual": None, **arguments})
    with pytest.raises(ValueError, match="float32, float16 or bfloat16"):
        ext.conv1d(mx.zeros((1, 9, 4), mx.int32), packed, None, None, out_channels=8, kernel=3)
    with pytest.raises(ValueError, match="must not be empty"):
        ext.conv1d(mx.zeros((1, 0, 4)), packed, None, None, out_channels=8, kernel=3, padding=(5, 5))
    with pytest.raises(ValueError, match="must not be empty"):
        ext.conv1d_pack(mx.zeros((0, 3, 4)))
    with pytest.raises(ValueError, match="output_padding"):
        ext.conv_transpose1d(
            normal(1, 9, 4),
            ext.conv_transpose1d_pack(normal(8, 3, 4)),
            None,
            None,
            out_channels=8,
            kernel=3,
            output_padding=1,
        )


def test_configure_refuses_nonsense(ext: ModuleType) -> None:
    with pytest.raises(
        ValueError, match=r'isa must be one of (.*, )?(generic|neon) on this machine, got "sse9"'
    ):
        ext.configure(isa="sse9")
    with pytest.raises(ValueError, match="threads must be from 0 to 1024"):
        ext.configure(threads=-1)
    assert ext.isa() in ext.isas()


def test_a_forked_child_can_compute() -> None:
    code = """
import os, mlx.core as mx
from rvc_fast import native
ext = native.ext()
import ctypes
ext.configure(threads=2)
native.ext().fma_peak()
pid = os.fork()
if pid == 0:
    ext.fma_peak()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_attention_takes_any_strides_and_joins_its_heads_for_free() -> None:
    qkv = normal(2, 37, 3 * 40)
    q, k, v = (a.reshape(2, 37, 5, 8).swapaxes(1, 2) for a in mx.split(qkv, 3, axis=-1))
    y = ops.attention(q, k, v, scale=0.3)
    dense = ops.attention(*(mx.array(np.array(a)) for a in (q, k, v)), scale=0.3)
    reversed_keys = ops.attention(q, k[:, :, ::-1], v[:, :, ::-1], scale=0.3)
    assert mx.array_equal(y, dense)
    assert close(reversed_keys, y)
    joined = y.swapaxes(1, 2).reshape(2, 37, 40)
    assert np.array_equal(np.array(joined), np.array(y).swapaxes(1, 2).reshape(2, 37, 40))
    assert mx.array_equal(y + 1, dense + 1)


def test_attention_of_a_nan_is_nan_in_its_row_only() -> None:
    q, k, v = normal(1, 1, 60, 16), normal(1, 1, 70, 16), normal(1, 1, 70, 16)
    q[0, 0, 7, 3] = float("nan")
    bad = np.isnan(np.array(ops.attention(q, k, v, scale=0.25)))[0, 0]
    assert bad[7].all()
    assert bad.sum() == 16


def test_layer_norm_leaves_its_inputs_alone() -> None:
    x, r = normal(40, 33), normal(40, 33)
    a, b = x * 2, r * 2
    y = ops.layer_norm(a, residual=b)
    mx.eval(y, a, b)
    assert mx.array_equal(a, x * 2)
    assert mx.array_equal(b, r * 2)


def test_bad_arguments_of_attention_and_layer_norm(ext: ModuleType) -> None:
    q = normal(1, 2, 5, 4)
    for call in (
        lambda: ops.attention(q[0], q, q, scale=1.0),
        lambda: ops.attention(q, normal(1, 3, 5, 4), q, scale=1.0),
        lambda: ops.attention(q, q, normal(1, 2, 6, 4), scale=1.0),
        lambda: ops.attention(q, mx.zeros((1, 2, 0, 4)), mx.zeros((1, 2, 0, 4)), scale=1.0),
        lambda: ops.layer_norm(normal(3, 4), normal(5)),
        lambda: ops.layer_norm(normal(3, 4), residual=normal(4)),
        lambda: ops.layer_norm(normal(3, 4), eps=-1.0),
        lambda: ops.layer_norm(mx.zeros((0, 4))),
    ):
        with pytest.raises(InputError, match=r"\[(attention|layer_norm)\] "):
            call()
    with pytest.raises(ValueError, match=r"\[attention\] k must be"):
        ext.attention(q, q[0], q, scale=1.0)
    with pytest.raises(ValueError, match=r"\[layer_norm\] bias must be"):
        ext.layer_norm(q, None, normal(3))


def test_what_kernels_work_in_is_kept_once_however_many_threads_come_and_go(ext: ModuleType) -> None:
    def work() -> None:
        mx.eval(step(X))

    def in_threads(count: int) -> int:
        for _ in range(count):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return mx.get_active_memory()

    ext.release_scratch()
    nothing = mx.get_active_memory()
    some = in_threads(2)
    assert some - nothing > 4 * X.size  # the stages of a few rows
    assert in_threads(30) == some
    ext.release_scratch()
    assert mx.get_active_memory() == nothing


def linear(x: mx.array, weight: mx.array) -> mx.array:
    y = ops.linear(x, weight)
    mx.eval(y)
    return y


def test_subnormal_numbers_are_zeros_in_kernels_and_nowhere_else(ext: ModuleType) -> None:
    tiny = 2.0**-130
    x = mx.full((4, 16), tiny)
    assert not np.array(linear(x, mx.eye(16))).any()
    assert not np.array(ops.layer_norm(mx.random.normal((4, 16)), mx.full((16,), tiny), None)).any()
    assert not np.array(ops.wavenet_gate(x[None], mx.zeros((1, 1, 16)))).any()
    assert np.array(x * 1.0)[0, 0] == tiny  # MLX's own, on the same thread
    assert np.float32(tiny) * np.float32(1) == tiny
    np.testing.assert_array_equal(ext.iir(*map(np.array, ([1.0, 0.0], [1.0, 0.0], [1e-310], [0.0]))), 0)
    assert np.float64(1e-310) * np.float64(1) == 1e-310
