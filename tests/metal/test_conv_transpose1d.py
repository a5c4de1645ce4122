"""What the cases of conv_transpose1d do not show: one launch, and weights without the zeros between steps."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator
from exact import EXACT

from rvc_fast import ops
from rvc_fast.errors import InputError


@pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)
def test_a_packed_weight_takes_one_launch(gpu: Emulator) -> None:
    rng = np.random.default_rng(0)
    x, weight, bias, residual = (
        mx.array(rng.standard_normal(shape, dtype=np.float32))
        for shape in ((2, 11, 32), (32, 8, 32), (32,), (2, 44, 32))
    )
    packed = ops.pack_conv_transpose1d(weight, stride=4)
    assert packed.shape == weight.shape
    assert packed.data.size == weight.size
    y = ops.conv_transpose1d(x, packed, bias, stride=4, padding=2, leaky=0.1, residual=residual)
    arrays = [np.array(a, np.float64) for a in (x, weight, bias, residual)]
    want = EXACT["conv_transpose1d"](*arrays[:3], stride=4, padding=2, leaky=0.1, residual=arrays[3])
    np.testing.assert_allclose(np.array(y), want, atol=1e-5)
    assert [launch.output_bytes for launch in gpu.launches] == [y.nbytes]
    with pytest.raises(InputError, match=r"\[conv_transpose1d\] weight must be packed for conv_transpose1d"):
        ops.conv_transpose1d(x, packed, stride=2)
