"""Launches and bytes of the decoder's residual blocks on a GPU, counted from the graph; and which pairs stay on chip."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from rvc_fast.errors import InputError
from rvc_fast.ops import conv1d, conv_tiles
from rvc_fast.ops.resblock import ON_CHIP, pair_tiles

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu" / "count.py"


def _module() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_count", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


COUNT = _module()


def test_count_is_of_what_moves() -> None:
    """Inputs and outputs of each launch once; a broadcast costs what it repeats, a view nothing."""
    x, b = mx.zeros((10, 8)), mx.zeros((8,))
    assert COUNT.count(lambda x, b: x.reshape(5, 16).transpose() * x.reshape(16, 5), x, b) == (1, 4 * 240)
    assert COUNT.count(lambda x, b: mx.exp(x + b), x, b) == (2, 4 * (80 + 8 + 80) + 4 * 160)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
@pytest.mark.parametrize("stage", COUNT.STAGES, ids=lambda s: f"C={s.channels}")
def test_a_stage_moves_at_most_two_fifths(stage: Any, dtype: mx.Dtype) -> None:
    """Of what it would op by op, in a second of sound of the full-size voice; also where x is read twice."""
    ours, plain = COUNT.count_stage(stage, dtype=dtype)
    x = stage.rate * stage.channels * dtype.size
    pairs = 18 - ours.launches
    assert ours.bytes + pairs * x <= 0.4 * plain.bytes
    assert ours.launches <= 18
    assert plain.launches >= 4 * 18


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("channels", [8, 13, 32, 64, 96, 128, 256])
def test_pairs_fit(channels: int, size: int) -> None:
    for first in (2, 6, 10, 30, 50, 200):
        for second in (0, 2, 6, 10, 60):
            t = pair_tiles(channels, (first, second), size)
            if t is not None:
                assert t.rows * conv_tiles.row_step(t.width, size) * size <= ON_CHIP
                assert t.rows >= t.tall + max(first, second)
                assert t.threads == t.tall // 32 * (t.columns // 32) * 32


def test_the_last_stage_stays_on_chip() -> None:
    """C = 32 in any dtype, and C = 64 in 16 bits: all of the decoder's pairs."""
    spans = [((k - 1) * d, k - 1) for k in COUNT.KERNELS for d in COUNT.DILATIONS]
    assert all(pair_tiles(c, s, size) for c, size in ((32, 4), (32, 2), (64, 2)) for s in spans)
    assert pair_tiles(256, spans[0], 2) is None


@pytest.mark.parametrize(
    ("channels", "outputs", "taps", "stride", "dilation"),
    [(16, 32, 1, 1, 1), (64, 64, 11, 1, 5), (512, 512, 3, 2, 1), (48, 64, 128, 1, 1), (32, 64, 3, 1, 900)],
)
@pytest.mark.parametrize("size", [2, 4])
def test_tiles_fit(channels: int, outputs: int, taps: int, stride: int, dilation: int, size: int) -> None:
    t = conv_tiles.tiles(channels, outputs, taps, stride, dilation, size)
    assert t.rows * t.step * size <= conv_tiles.TILE_BYTES
    assert t.tall * t.columns == 4 * 32 * 32
    assert t.rows >= ((t.tall - 1) * stride + (taps - 1) * dilation + 1 if t.all_taps else t.tall)
    assert t.all_taps == (dilation < 900)


def test_a_weight_packed_elsewhere_is_named() -> None:
    weight = conv_tiles.pack("metal", "conv1d", mx.ones((8, 3, 8)))
    with pytest.raises(
        InputError, match=r"weight must be packed where it is used, on \w+, got one packed for metal"
    ):
        conv1d(mx.ones((1, 9, 8)), weight)


@pytest.mark.parametrize("backend", ["metal", "cuda"])
def test_a_packed_weight_changes_its_dtype(backend: str) -> None:
    """What was packed in one precision serves another, in that one's layout."""
    weight = mx.random.normal((40, 3, 20))
    single, half = (conv_tiles.pack(backend, "conv1d", weight.astype(d)) for d in (mx.float32, mx.float16))
    got, channels, outputs = conv_tiles.data(single, mx.float16)
    assert (channels, outputs) == (32, 64)
    assert mx.array_equal(got, half.data)
    back = conv_tiles.data(half, mx.float32)[0]
    assert mx.array_equal(
        back, conv_tiles.pack(backend, "conv1d", weight.astype(mx.float16).astype(mx.float32)).data
    )


@pytest.mark.slow
def test_models_launch_less_than_in_stock_mlx() -> None:
    """A second of sound through the full-size models: launches and bytes, counted from the traced graphs."""
    ours, plain = COUNT.count_models("metal"), COUNT.count_models("reference")
    assert ours["decoder"].launches <= 72
    assert ours["decoder"].bytes <= 0.25 * plain["decoder"].bytes
    for model in ours:
        assert ours[model].launches <= 0.5 * plain[model].launches
        assert ours[model].bytes <= 0.7 * plain[model].bytes
