"""What mel_stft's cases do not show: packed filters, quiet frames, frames beyond the kernel."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator
from exact import mel_stft as exact

from rvc_fast import ops
from rvc_fast.ops.mel_stft import hann, mel_filters
from rvc_fast.ops.spec import errors

BOTH = pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)
RNG = np.random.default_rng(0)


@BOTH
def test_packed_filters(gpu: Emulator) -> None:
    """The same bits as plain ones; a filter of zeros gives the floor, one of a single bin that bin."""
    x, window = mx.array(RNG.standard_normal(500, np.float32)), mx.array(hann(64))
    filters = RNG.random((5, 33), np.float32)
    filters[1] = 0
    filters[2, :32] = 0
    filters[3, 1:] = 0
    plain = ops.mel_stft(x, window, mx.array(filters), hop=20)
    assert mx.array_equal(ops.mel_stft(x, window, ops.pack_mel_stft(mx.array(filters)), hop=20), plain)
    want = exact(np.array(x, np.float64), np.array(window, np.float64), filters.astype(np.float64), hop=20)
    assert errors(plain, want)[0] < 1e-6
    assert np.array(plain)[:, 1] == pytest.approx(np.log(1e-5))
    assert len(gpu.launches) == 2


@BOTH
def test_a_quiet_frame_beside_a_loud_one(gpu: Emulator) -> None:
    """Its logarithms are as exact as if it were alone."""
    n, loud, quiet = 256, *RNG.standard_normal((2, 256))
    x = np.concatenate([loud, 1e-6 * quiet]).astype(np.float32)
    window, filters = hann(n), mel_filters(16000, n, 20, 30, 8000)
    got = ops.mel_stft(mx.array(x), mx.array(window), mx.array(filters), hop=n, floor=1e-30)
    want = exact(x.astype(np.float64), window.astype(np.float64), filters, hop=n, floor=1e-30)
    assert want[1].max() < -10
    assert np.abs(np.array(got) - want).max() < 1e-5
    assert gpu.launches[0].groups == 1


@BOTH
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_frames_that_do_not_fit(gpu: Emulator, dtype: mx.Dtype) -> None:
    """Left to MLX's FFT, in float32 too."""
    x, window = mx.array(RNG.standard_normal(9001, np.float32)).astype(dtype), mx.array(hann(6000))
    filters = mx.array(mel_filters(16000, 6000, 13, 30, 8000))
    got = ops.mel_stft(x, window, filters, hop=500, pad=100)
    single = [np.array(a.astype(mx.float32), np.float64) for a in (x, window, filters)]
    assert errors(got, exact(*single, hop=500, pad=100))[0] < 1e-5
    assert got.dtype == mx.float32
    assert not gpu.launches
