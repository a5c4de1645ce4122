"""`quantized_linear` takes what MLX quantises, in every dtype that its files have, and gives what `linear` gives."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from support import routes

from rvc_fast import ops
from rvc_fast.ops.spec import errors


def normal(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng(shape).standard_normal(shape, dtype=np.float32))


@pytest.mark.parametrize("rows", [1, 8, 9, 130])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("route", routes(), indirect=True)
def test_it_is_linear_of_the_dequantised_weight(route: str, bits: int, rows: int) -> None:
    """With scales in float16 too, and a weight that does not lie row by row in memory."""
    layer = nn.Linear(192, 70)
    layer.set_dtype(mx.float16)
    layer = nn.QuantizedLinear.from_linear(layer, 64, bits)
    x = normal(rows, 192)
    weight = mx.contiguous(layer.weight.T).T
    y = ops.quantized_linear(x, weight, layer.scales, layer.biases, layer.bias, bits=bits, activation="gelu")
    w = mx.dequantize(layer.weight, *(a.astype(mx.float32) for a in (layer.scales, layer.biases)), 64, bits)
    want = ops.linear(x, w, layer.bias, activation="gelu")
    # The reference's weight is rounded to float16, as `mx.dequantize` does it.
    assert errors(y, want)[1] <= (1e-6 if route.startswith("cpu") else 1e-3)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("route", routes(), indirect=True)
def test_the_result_has_the_dtype_of_x(route: str, dtype: mx.Dtype) -> None:
    x, (weight, scales, biases) = normal(2, 3, 64).astype(dtype), mx.quantize(normal(9, 64))
    assert ops.quantized_linear(x, weight, scales, biases, bits=4).dtype == dtype


@pytest.mark.parametrize("rows", [3, 20])
@pytest.mark.parametrize("route", [r for r in routes() if r.startswith("cpu")], indirect=True)
def test_numbers_that_are_not_finite_stay_in_their_row(route: str, rows: int) -> None:
    weight, scales, biases = mx.quantize(mx.ones((5, 64)) + normal(5, 64), bits=8)
    x = np.array(normal(rows, 64))
    x[1, 7], x[2, 0] = np.nan, np.inf
    y = np.array(ops.quantized_linear(mx.array(x), weight, scales, biases))
    w = np.array(mx.dequantize(weight, scales, biases, 64, 8))
    assert np.isnan(y[1]).all()
    assert (y[2] == np.copysign(np.inf, w[:, 0])).all()
    rest = [r for r in range(rows) if r not in (1, 2)]
    assert np.isfinite(y[rest]).all()
