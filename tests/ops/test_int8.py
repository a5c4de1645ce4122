"""Products in whole numbers, against the same arithmetic in NumPy, on every instruction set that has them."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast import native, ops
from rvc_fast.errors import InputError
from rvc_fast.ops import dispatch
from rvc_fast.ops.packed import INT8_MOST, faster_dtype

EXT = native.ext()
SETS = ("amx", "avx512_bf16", "avx512_vnni", "avx_vnni", "neon_dot")
ISAS = [] if EXT is None else [isa for isa in EXT.isas() if isa in SETS]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = EXT.isa()
    EXT.configure(isa=request.param, threads=EXT.threads())
    yield request.param
    EXT.configure(isa=before, threads=EXT.threads())


def coded(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, zeros and scales of the rows (..., C), by the formula of src/cpp/conv/int8.h."""
    low, high = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    scale = (high - low) / np.float32(255)
    with np.errstate(divide="ignore"):
        by = np.float32(1) / scale
    by[scale == 0] = 0
    zero = np.rint(-low * by).astype(np.int64)
    return np.clip(np.rint(x * by).astype(np.int64) + zero, 0, 255), zero, scale


def whole(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers and scales of the rows (..., C) of a weight."""
    scale = np.abs(w).max(-1, keepdims=True) / np.float32(127)
    return np.clip(np.rint(w * (np.float32(1) / scale)), -127, 127).astype(np.int64), scale


def conv(x: np.ndarray, w: np.ndarray, stride: int, dilation: int, groups: int) -> np.ndarray:
    """A convolution (B, T, C) * (O, K, C / groups) of codes: exact sums of a tap, then float32."""
    out, taps, channels = w.shape
    count = (x.shape[1] - dilation * (taps - 1) - 1) // stride + 1
    y = np.zeros((x.shape[0], count, out), np.float32)
    for g in range(groups):
        codes, zero, scale = coded(x[..., g * channels : (g + 1) * channels])
        outputs = slice(g * out // groups, (g + 1) * out // groups)
        for k in range(taps):
            q, of_column = whole(w[outputs, k])
            at = slice(k * dilation, k * dilation + (count - 1) * stride + 1, stride)
            sums = (codes - zero)[:, at] @ q.T
            y[..., outputs] += sums.astype(np.float32) * (scale[:, at] * of_column[:, 0])
    return y


@pytest.mark.parametrize(
    ("rows", "channels", "out"), [(1, 16, 16), (13, 67, 37), (25, 768, 80), (40, 3072, 33), (7, 130, 16)]
)
def test_sums_are_those_of_numpy(isa: str, rows: int, channels: int, out: int) -> None:
    """Scales are powers of two and codes whole numbers here: every result is an exact sum of integers."""
    rng = np.random.default_rng(rows)
    x = rng.integers(-100, 156, (rows, channels))
    w = rng.integers(-127, 128, (out, channels))
    x[:, 0], x[:, 1], w[:, 0] = -100, 155, 127
    packed = ops.pack_linear(mx.array(w / 8, mx.float32), dtype="int8")
    assert packed.dtype == "int8"
    y = np.array(ops.linear(mx.array(x * 4, mx.float32), packed))
    np.testing.assert_array_equal(y, ((x @ w.T) / 2).astype(np.float32))


@pytest.mark.parametrize(
    ("channels", "out", "taps", "stride", "dilation", "groups"),
    [(512, 48, 3, 2, 1, 1), (48, 51, 5, 1, 2, 1), (96, 64, 4, 1, 1, 2), (70, 16, 1, 3, 1, 1)],
)
def test_convolutions_follow_the_formula(
    isa: str, channels: int, out: int, taps: int, stride: int, dilation: int, groups: int
) -> None:
    rng = np.random.default_rng(channels)
    x = rng.standard_normal((2, 41, channels)).astype(np.float32)
    x[0, 3], x[1, 7] = 0, np.abs(x[1, 7])  # a row of zeros, and one without negative numbers
    w = (rng.standard_normal((out, taps, channels // groups)) / channels**0.5).astype(np.float32)
    packed = ops.pack_conv1d(mx.array(w), groups=groups, dtype="int8")
    assert packed.dtype == "int8"
    y = np.array(ops.conv1d(mx.array(x), packed, stride=stride, dilation=dilation, groups=groups))
    np.testing.assert_allclose(y, conv(x, w, stride, dilation, groups), rtol=1e-5, atol=2e-6)


def test_what_follows_the_sum_and_what_lies_outside(isa: str) -> None:
    rng = np.random.default_rng(3)
    x, residual = (rng.standard_normal((1, 30, 64)).astype(np.float32) for _ in range(2))
    w = rng.standard_normal((64, 3, 64)).astype(np.float32)
    bias = rng.standard_normal(64).astype(np.float32)
    y = ops.conv1d(
        *(mx.array(x), ops.pack_conv1d(mx.array(w), dtype="int8"), mx.array(bias)),
        padding=(2, 1),
        leaky=0.25,
        activation="relu",
        residual=mx.array(np.concatenate([residual, residual[:, :1]], axis=1)),
        scale=0.5,
    )
    padded = np.pad(np.where(x > 0, x, x / 4), ((0, 0), (2, 1), (0, 0)))
    want = np.maximum(conv(padded, w, 1, 1, 1) + bias, 0)
    want = (want + np.concatenate([residual, residual[:, :1]], axis=1)) / 2
    np.testing.assert_allclose(np.array(y), want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3e38])
def test_a_row_that_is_not_finite_gives_nan_and_no_other_does(isa: str, odd: float) -> None:
    x = np.ones((29, 40), np.float32)
    x[11, 17], x[11, 18] = odd, -3e38
    w = np.ones((20, 40), np.float32)
    y = np.array(ops.linear(mx.array(x), ops.pack_linear(mx.array(w), dtype="int8")))
    assert np.isnan(y[11]).all()
    np.testing.assert_allclose(np.delete(y, 11, axis=0), 40, rtol=1e-6)
    w[3, 5] = np.nan
    y = np.array(ops.linear(mx.ones((3, 40)), ops.pack_linear(mx.array(w), dtype="int8")))
    assert np.isnan(y[:, 3]).all()
    assert np.isfinite(np.delete(y, 3, axis=1)).all()


def test_tiny_numbers_are_zeros(isa: str) -> None:
    packed = ops.pack_linear(mx.ones((16, 16)), dtype="int8")
    assert np.array(ops.linear(mx.full((3, 16), 1e-39), packed)).tolist() == [[0] * 16] * 3


def test_a_frame_does_not_depend_on_what_is_beside_it(isa: str) -> None:
    x = mx.random.normal((40, 256), key=mx.random.key(0))
    packed = ops.pack_linear(mx.random.normal((48, 256), key=mx.random.key(1)), dtype="int8")
    alone = mx.concatenate([ops.linear(row, packed) for row in mx.split(x, 40)])
    np.testing.assert_array_equal(np.array(alone), np.array(ops.linear(x, packed)))


def test_shapes_that_stay_in_float32() -> None:
    assert faster_dtype("int8", 8, 768) == "float32"
    assert faster_dtype("int8", INT8_MOST, 16) == "int8"
    assert faster_dtype("int8", INT8_MOST + 1, 16) == "float32"
    assert INT8_MOST * 255 * 127 < 2**31 <= (INT8_MOST + 1) * 255 * 127


@pytest.mark.skipif(EXT is None or "avx2" not in EXT.isas(), reason="needs an instruction set without it")
def test_without_the_instructions_the_error_says_what_can_be_used() -> None:
    before = EXT.isa()
    EXT.configure(isa="avx2", threads=EXT.threads())
    try:
        assert "avx2 leaves them out" in str(dispatch.dtype_missing("int8"))
        with pytest.raises(
            InputError, match=r"dtype must be 'float32' here, got 'int8': this CPU has neither"
        ):
            ops.pack_linear(mx.ones((16, 16)), dtype="int8")
    finally:
        EXT.configure(isa=before, threads=EXT.threads())


def test_ops_without_it_say_so() -> None:
    with pytest.raises(InputError, match="dtype must be one of float32, bfloat16, float16, got 'int8'"):
        ops.pack_conv2d(mx.ones((16, 3, 3, 16)), dtype="int8")
