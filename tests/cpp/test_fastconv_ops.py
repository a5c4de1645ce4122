"""The compiled residual stages against float64: every fast variant, instruction set and awkward length."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
from exact import resblock
from test_fastconv_generator import generate

from rvc_fast import native, ops
from rvc_fast.errors import InputError
from rvc_fast.ops.resblock import SPEC, Block, ResConv

EXT = native.ext()
pytestmark = pytest.mark.skipif(EXT is None, reason=native.load()[1])
# The two others have the float32 kernels of avx512.
NARROW_ISAS = ("amx", "avx512_bf16", "avx512_vnni", "avx_vnni", "neon_dot")
ISAS = [] if EXT is None else [isa for isa in EXT.isas() if isa not in NARROW_ISAS]
VARIANTS = [generate.design(*v) for v in generate.VARIANTS]
RNG = np.random.default_rng(11)
SLOPE = 0.1


@pytest.fixture(autouse=True)
def _restore():
    isa, threads = EXT.isa(), EXT.threads()
    yield
    EXT.configure(isa=isa, threads=threads)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def snr(got: mx.array, want: np.ndarray) -> float:
    got = np.array(got, dtype=np.float64)
    assert got.shape == want.shape
    noise = np.sum((got - want) ** 2)
    return 10 * np.log10(np.sum(want**2) / max(noise, 1e-300))


def stage64(x: np.ndarray, blocks: Sequence[Block]) -> np.ndarray:
    return resblock(x.astype(np.float64), blocks, SLOPE)


def conv(channels: int, taps: int, dilation: int = 1, bias: bool = True) -> ResConv:
    weight = normal(channels, taps, channels) * np.float32(0.7 / np.sqrt(channels * taps))
    return ResConv(mx.array(weight), mx.array(normal(channels) / 10) if bias else None, dilation)


def hifigan(
    channels: int, taps: Sequence[int] = (3, 7, 11), dilations: Sequence[int] = (1, 3, 5)
) -> list[Block]:
    return [[[conv(channels, k, d), conv(channels, k)] for d in dilations] for k in taps]


def packed(blocks: Sequence[Block], algorithm: str = "auto") -> list[Block]:
    return [
        [[c._replace(weight=ops.pack_resblock(c.weight, algorithm=algorithm)) for c in s] for s in b]
        for b in blocks
    ]


@functools.cache
def one_conv(taps: int, dilation: int, channels: int) -> tuple[np.ndarray, list[Block], np.ndarray]:
    """x, a stage that is one convolution and its residual, and what the convolution alone adds."""
    x, blocks = normal(1, 333, channels), [[[conv(channels, taps, dilation)]]]
    return x, blocks, stage64(x, blocks) - x


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_every_variant(variant: generate.Variant, dilation: int, isa: str) -> None:
    EXT.configure(isa=isa, threads=2)
    x, blocks, want = one_conv(variant.k, dilation, 64)
    got = ops.resblock_stage(mx.array(x), packed(blocks, variant.name), slope=SLOPE)
    # The sum with x has a rounding of its own, far below the bar.
    assert snr(np.array(got, dtype=np.float64) - x, want) >= 106


@pytest.mark.parametrize("channels", [16, 48, 128, 256])
@pytest.mark.parametrize("taps", [3, 7, 11])
def test_every_width_of_the_table(taps: int, channels: int) -> None:
    x, blocks, want = one_conv(taps, 5, channels)
    got = ops.resblock_stage(mx.array(x), packed(blocks), slope=SLOPE)
    assert snr(np.array(got, dtype=np.float64) - x, want) >= 106


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("algorithm", ["auto", "direct"])
@pytest.mark.parametrize("channels", [4, 24, 32])
def test_stage(channels: int, algorithm: str, isa: str) -> None:
    EXT.configure(isa=isa, threads=2)
    x, blocks = normal(1, 200, channels), hifigan(channels)
    got = ops.resblock_stage(mx.array(x), packed(blocks, algorithm), slope=SLOPE)
    assert snr(got, stage64(x, blocks)) >= 120


@functools.cache
def ends(channels: int) -> list[Block]:
    return hifigan(channels)


@pytest.mark.parametrize("algorithm", ["fast", "direct"])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 11, 12, 13, 31, 59, 60, 61, 97, 160, 161, 333])
def test_both_ends_for_any_length(length: int, algorithm: str) -> None:
    x = normal(1, length, 16)
    got = ops.resblock_stage(mx.array(x), packed(ends(16), algorithm), slope=SLOPE)
    want = stage64(x, ends(16))
    assert snr(got, want) >= 118
    assert snr(got[:, :1], want[:, :1]) >= 100
    assert snr(got[:, -1:], want[:, -1:]) >= 100


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("channels", [16, 20])
def test_chunks_meet_without_a_seam(channels: int, threads: int) -> None:
    EXT.configure(threads=threads)
    x, blocks = normal(1, 7001, channels), hifigan(channels)
    got = ops.resblock_stage(mx.array(x), packed(blocks), slope=SLOPE)
    want = stage64(x, blocks)
    assert snr(got, want) >= 118
    error = np.abs(np.array(got) - want).max(axis=(0, 2))
    assert error.max() <= 1e-5 * np.abs(want).max()


def test_the_same_bits_every_time() -> None:
    """Whatever the thread's scratch memory held before."""
    x, blocks = mx.array(normal(1, 3001, 32)), packed(hifigan(32))
    want = ops.resblock_stage(x, blocks, slope=SLOPE)
    mx.eval(want)
    loud = ops.resblock_stage(1e6 * mx.array(normal(2, 4000, 32)), blocks, slope=SLOPE)
    mx.eval(loud)
    mx.eval(ops.resblock_stage(mx.full((1, 500, 32), float("nan")), blocks, slope=SLOPE))
    assert mx.array_equal(ops.resblock_stage(x, blocks, slope=SLOPE), want)


@pytest.mark.parametrize("algorithm", ["auto", "direct"])
@pytest.mark.parametrize("lengths", [(1,), (2,), (3,), (4,), (1, 3, 2)], ids=str)
def test_steps_of_any_length(lengths: tuple[int, ...], algorithm: str) -> None:
    """Resblock type 2 has single convolutions; longer chains need one buffer more."""
    blocks = [[[conv(32, k, d, bias=d < 3) for d in range(1, n + 1)] for n in lengths * 2] for k in (3, 5, 7)]
    x = normal(2, 150, 32)
    got = ops.resblock_stage(mx.array(x), packed(blocks, algorithm), slope=SLOPE)
    assert snr(got, stage64(x, blocks)) >= 118


@pytest.mark.parametrize("taps", [1, 5, 13, 41])
def test_kernels_without_a_variant(taps: int) -> None:
    x, blocks = normal(1, 100, 32), [[[conv(32, taps, 2), conv(32, 3)]], [[conv(32, 7)]]]
    got = ops.resblock_stage(mx.array(x), packed(blocks), slope=SLOPE)
    assert snr(got, stage64(x, blocks)) >= 118


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_slope(slope: float) -> None:
    x, blocks = mx.array(normal(1, 90, 16)), hifigan(16)
    got = ops.resblock_stage(x, packed(blocks, "fast"), slope=slope)
    assert snr(got, np.array(SPEC.reference(x, blocks, slope=slope), dtype=np.float64)) >= 110


def test_strided_batched_lazy_compiled_and_half_inputs() -> None:
    blocks = packed(hifigan(32))
    base = normal(64, 3, 210)
    x = mx.array(base).transpose(1, 2, 0)[:, ::2, 16:48]
    want = ops.resblock_stage(mx.array(np.array(x)), blocks, slope=SLOPE)
    assert mx.array_equal(ops.resblock_stage(x, blocks, slope=SLOPE), want)
    for i in range(3):
        alone = ops.resblock_stage(x[i : i + 1] + 0, blocks, slope=SLOPE)
        assert snr(alone, np.array(want[i : i + 1], dtype=np.float64)) >= 118
    run = mx.compile(lambda v: ops.resblock_stage(v * 2, blocks, slope=SLOPE) + 1)
    assert snr(run(x), np.array(ops.resblock_stage(x * 2, blocks, slope=SLOPE) + 1, dtype=np.float64)) >= 118
    half = ops.resblock_stage(x.astype(mx.float16), blocks, slope=SLOPE)
    assert half.dtype == mx.float16
    assert snr(half, np.array(want, dtype=np.float64)) >= 60


def test_one_graph_of_several_stages() -> None:
    x, blocks = normal(1, 300, 16), hifigan(16, dilations=(1, 2))
    fast, want = packed(blocks, "fast"), x
    y = mx.array(x)
    for _ in range(3):
        y, want = ops.resblock_stage(y, fast, slope=SLOPE), stage64(want, blocks)
    assert snr(y, want) >= 115


def test_packing() -> None:
    weight = mx.array(normal(32, 7, 32))
    auto, direct = ops.pack_resblock(weight), ops.pack_resblock(weight, algorithm="direct")
    assert auto.algorithm in {v.name for v in VARIANTS}
    assert direct.algorithm == "direct"
    assert direct.data.size == weight.size
    assert auto.data.size > 2 * weight.size
    assert ops.pack_resblock(mx.array(normal(20, 7, 20))).algorithm == "direct"


def test_refusals() -> None:
    weight, x = mx.array(normal(32, 7, 32)), mx.array(normal(1, 10, 32))
    with pytest.raises(
        InputError, match=r"\[resblock\] weight must be of shape \(C, K, C\), got \(32, 7, 16\)"
    ):
        ops.pack_resblock(weight[:, :, :16])
    with pytest.raises(InputError, match=r"\[resblock\] algorithm must .*\"slow\""):
        ops.pack_resblock(weight, algorithm="slow")
    with pytest.raises(InputError, match=r"\[resblock\] algorithm .*k3n2e8.* 3 taps"):
        ops.pack_resblock(weight, algorithm="k3n2e8")
    with pytest.raises(InputError, match=r"\[resblock\] algorithm must not be \"fast\" for 20 channels"):
        ops.pack_resblock(mx.array(normal(20, 7, 20)), algorithm="fast")
    with pytest.raises(InputError, match=r"\[resblock\] dilation must be at least 1, got 0"):
        ops.resblock_stage(x, [[[conv(32, 3)._replace(dilation=0)]]])
    with pytest.raises(InputError, match=r"\[resblock\] bias must be of shape \(32,\), got \(16,\)"):
        ops.resblock_stage(x, [[[conv(32, 3)._replace(bias=mx.zeros(16))]]])
    with pytest.raises(InputError, match=r"\[resblock\] slope must be from 0 to 1, got 1.5"):
        ops.resblock_stage(x, [[[conv(32, 3)]]], slope=1.5)
    with pytest.raises(InputError, match=r"\[resblock\] x must be not empty, got shape \(1, 0, 32\)"):
        ops.resblock_stage(x[:, :0], [[[conv(32, 3)]]])
    with pytest.raises(ValueError, match=r"\[resblock\] weight must be packed for these channels"):
        EXT.resblock(x, [mx.zeros(5)], [None], [(3, 1, "k3n2e8", True, True)], slope=0.1)
