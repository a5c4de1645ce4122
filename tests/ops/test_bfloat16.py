"""The convolutions in bfloat16: every case of theirs, on every instruction set that multiplies in it.

Tight against float64 of operands rounded to bfloat16, which is all that may be lost; loose against the exact
result.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from exact import EXACT
from support import SPECS

import rvc_fast
from rvc_fast import ops
from rvc_fast.errors import InputError
from rvc_fast.ops.spec import errors

CONVOLUTIONS = ("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "linear")
CASES = [(op, index) for op in CONVOLUTIONS for index in range(len(SPECS[op].cases))]
IDS = [f"{op}-{SPECS[op].cases[index].name}" for op, index in CASES]
RNG = np.random.default_rng(5)


def normal(*shape: int) -> mx.array:
    return mx.array(RNG.standard_normal(shape, dtype=np.float32))


@pytest.fixture(params=("amx", "avx512_bf16"))
def isa(request: pytest.FixtureRequest, ext: ModuleType, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param not in ext.isas():
        pytest.skip(f"this CPU does not have {request.param}")
    monkeypatch.setenv("RVC_FAST_BACKEND", "auto")
    ext.configure(isa=request.param, threads=2)
    return request.param


def rounded(a: np.ndarray) -> np.ndarray:
    """To bfloat16 and back, by MLX."""
    return np.array(mx.array(a.astype(np.float32)).astype(mx.bfloat16).astype(mx.float32), np.float64)


@functools.cache
def inputs_and_answers(op: str, index: int) -> tuple[dict[str, Any], Any, Any]:
    """A case's arguments, the result for them rounded, and the exact result."""
    case = SPECS[op].cases[index]
    kwargs = case.make(np.random.default_rng(list(case.name.encode())))
    double = {k: np.array(v, np.float64) if isinstance(v, mx.array) else v for k, v in kwargs.items()}
    exact = EXACT[op](**double)
    slope = double.pop("leaky", None)
    if slope is not None:
        x = np.array(kwargs["x"])
        double["x"] = np.maximum(x, x * np.float32(slope))
    double["x"], double["weight"] = rounded(double["x"]), rounded(double["weight"])
    return kwargs, EXACT[op](**double), exact


@pytest.mark.parametrize(("op", "index"), CASES, ids=IDS)
def test_case(op: str, index: int, isa: str) -> None:
    kwargs, want, exact = inputs_and_answers(op, index)
    options = {k: kwargs[k] for k in ("groups", "stride") if k in kwargs}
    if op == "conv1d":
        options.pop("stride", None)
    if op == "conv2d":
        options["algorithm"] = "direct"
    weight = getattr(ops, f"pack_{op}")(kwargs["weight"], dtype="bfloat16", **options)
    got = SPECS[op].op(**{**kwargs, "weight": weight})
    shape = kwargs["weight"].shape
    small = min(shape[-1], shape[0] // kwargs.get("groups", 1)) < 16
    assert weight.dtype == ("float32" if small else "bfloat16")
    assert weight.data.dtype == getattr(mx, weight.dtype)
    if small:
        assert errors(got, exact)[1] <= 1e-6
    else:
        assert errors(got, want)[1] <= 1e-5
        assert 1e-5 < errors(got, exact)[1] <= 4e-3


def test_rounding_is_to_nearest_even(isa: str) -> None:
    step = 2.0**-7
    values = [1 + step / 2, 1 + 1.5 * step, 1 + 0.4999 * step, 1 + 0.5001 * step, -1 - step / 2, 3e38, 0.0]
    x = np.zeros((len(values), 16), np.float32)
    x[:, 3] = values
    unit = ops.pack_linear(mx.eye(16), dtype="bfloat16")
    want = rounded(x)
    np.testing.assert_array_equal(np.array(ops.linear(mx.array(x), unit)), want)
    turned = ops.pack_linear(mx.array(x[:, 3:4] * np.eye(1, 16, 3, dtype=np.float32)).T @ mx.eye(len(values)))
    assert turned.dtype == "float32"
    square = np.zeros((16, 16), np.float32)
    square[: len(values), 3] = values
    weight = ops.pack_linear(mx.array(square), dtype="bfloat16")
    got = np.array(ops.linear(mx.array(np.eye(16, dtype=np.float32)), weight)).T
    np.testing.assert_array_equal(got, rounded(square))


def test_non_finite_input_stays_where_it_is(isa: str) -> None:
    x, weight = normal(1, 200, 40), ops.pack_conv1d(normal(48, 7, 40), dtype="bfloat16")
    x[0, 100, 5] = float("nan")
    bad = np.isnan(np.array(ops.conv1d(x, weight, padding=3)))[0].any(axis=1)
    assert bad[97:104].all()
    assert bad.sum() == 7


def test_results_do_not_depend_on_threads(isa: str, ext: ModuleType) -> None:
    x, weight = normal(1, 3001, 64), ops.pack_conv1d(normal(96, 5, 64), dtype="bfloat16")
    want = ops.conv1d(x, weight, padding=2, leaky=0.1)
    mx.eval(want)
    for threads in (1, 3):
        ext.configure(isa=isa, threads=threads)
        assert mx.array_equal(ops.conv1d(x, weight, padding=2, leaky=0.1), want)


@pytest.mark.parametrize(("channels", "length"), [(16, 1), (24, 333), (64, 700), (256, 90), (32, 5000)])
def test_resblock(isa: str, channels: int, length: int) -> None:
    """Against the same convolutions one by one, each tested above."""
    raw = [
        [
            [
                (normal(channels, k, channels) * (0.7 / (channels * k) ** 0.5), normal(channels), d)
                for d in (d0, 1)
            ]
        ]
        for k in (3, 7, 11)
        for d0 in (1, 5)
    ]
    stage = [
        [
            [
                ops.ResConv(ops.pack_resblock(w, algorithm="direct", dtype="bfloat16"), b, d)
                for w, b, d in step
            ]
            for step in block
        ]
        for block in raw
    ]
    assert all(c.weight.dtype == "bfloat16" for block in stage for step in block for c in step)
    x = normal(2, length, channels)
    want: Any = 0
    for block in stage:
        for step in block:
            first, second = step
            reach = first.dilation * (first.weight.shape[1] // 2)
            y = ops.conv1d(x, first.weight, first.bias, padding=reach, dilation=first.dilation, leaky=0.1)
            y = ops.conv1d(y, second.weight, second.bias, padding=second.weight.shape[1] // 2, leaky=0.1)
            want = want + x + y
    want = want / len(stage)
    got = ops.resblock_stage(x, stage, slope=0.1)
    # A sum that rounds to another bfloat16 in between makes a difference of 2^-9 of one term.
    assert errors(got, want)[1] <= 1e-4
    exact = ops.resblock_stage(
        x,
        [[[ops.ResConv(w, b, d) for w, b, d in step] for step in block] for block in raw],
        slope=0.1,
    )
    assert 1e-5 < errors(got, exact)[1] <= 4e-3


def test_algorithm_of_a_residual_block(isa: str) -> None:
    weight = normal(32, 7, 32)
    auto = ops.pack_resblock(weight, dtype="bfloat16")
    assert (auto.dtype == "bfloat16") == (auto.algorithm == "direct") == (isa == "amx")
    assert ops.pack_resblock(normal(8, 7, 8), dtype="bfloat16").dtype == "float32"
    with pytest.raises(InputError, match=r'algorithm must be "direct" in bfloat16, got "k7n8e10"'):
        ops.pack_resblock(weight, algorithm="k7n8e10", dtype="bfloat16")


def test_algorithm_of_a_convolution_in_two_dimensions(isa: str) -> None:
    auto = ops.pack_conv2d(normal(32, 3, 3, 32), dtype="bfloat16")
    assert (auto.dtype == "bfloat16") == (auto.algorithm == "direct") == (isa == "amx")
    direct = ops.pack_conv2d(normal(32, 3, 3, 32), algorithm="direct", dtype="bfloat16")
    assert (direct.dtype, direct.algorithm) == ("bfloat16", "direct")
    with pytest.raises(InputError, match=r'\[conv2d\] algorithm must be "direct" unless .* in bfloat16'):
        ops.pack_conv2d(normal(32, 3, 3, 32), algorithm="winograd2", dtype="bfloat16")


def test_refused_where_it_cannot_be(ext: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", "auto")
    ext.configure(isa="generic" if "generic" in ext.isas() else "neon")
    message = r"\[load\] dtype must be 'float32' here, got 'bfloat16': this CPU has neither AMX-BF16 nor"
    with pytest.raises(InputError, match=message):
        rvc_fast.load("voice.pth", dtype="bfloat16")
    with pytest.raises(InputError, match=r"\[linear\] dtype must be 'float32' here"):
        ops.pack_linear(normal(16, 16), dtype="bfloat16")
    with pytest.raises(InputError, match=r"\[load\] dtype must be one of float32, .*, got 'int4'"):
        rvc_fast.load("voice.pth", dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"'float32' here, got 'float16': only a GPU computes in float16"):
        rvc_fast.load("voice.pth", dtype="float16")
    packed = ext.linear_pack(normal(16, 16), dtype="bfloat16")
    with pytest.raises(ValueError, match=r"\[linear\] bfloat16 must have AMX-BF16 or AVX512-BF16"):
        ext.linear(normal(3, 16), packed, None, None, out_channels=16)
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    with pytest.raises(
        InputError, match=r"it needs the compiled CPU kernels, and RVC_FAST_BACKEND is reference"
    ):
        ops.pack_conv1d(normal(16, 3, 16), dtype="bfloat16")
