"""conv1d by the fast algorithm against float64: instruction sets, ends, epilogues; and who takes it."""

from __future__ import annotations

from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest
from exact import conv1d as exact
from support import isas

from rvc_fast import layers, ops
from rvc_fast.errors import InputError

pytestmark = pytest.mark.usefixtures("ext")

RNG = np.random.default_rng(5)


def normal(*shape: int) -> mx.array:
    return mx.array(RNG.standard_normal(shape, dtype=np.float32))


def double(x: mx.array | None) -> np.ndarray | None:
    return None if x is None else np.array(x, np.float64)


def snr(got: mx.array, want: np.ndarray) -> float:
    """In dB."""
    assert got.shape == want.shape
    return float(10 * np.log10(np.sum(want**2) / np.sum((np.array(got, np.float64) - want) ** 2)))


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    ("batch", "length", "channels", "outputs", "taps", "padding", "activation"),
    [
        (1, 1, 64, 64, 3, (1, 1), None),
        (2, 13, 64, 67, 5, (2, 2), "relu"),
        (1, 301, 192, 384, 5, (2, 2), None),
        (1, 301, 192, 768, 3, (1, 1), "relu"),
        (1, 301, 768, 192, 3, (1, 1), None),
        (3, 40, 80, 130, 3, (0, 5), "gelu"),
        (1, 7, 64, 100, 5, (9, 0), "tanh"),
    ],
)
def test_it_is_the_definition(
    batch: int,
    length: int,
    channels: int,
    outputs: int,
    taps: int,
    padding: tuple[int, int],
    activation: ops.epilogue.Activation | None,
    isa: str,
    ext: ModuleType,
) -> None:
    ext.configure(isa=isa, threads=2)
    x, bias = normal(batch, length, channels), normal(outputs)
    weight = normal(outputs, taps, channels) / (taps * channels) ** 0.5
    packed = ops.pack_conv1d(weight, algorithm="fast")
    assert isinstance(packed, ops.PackedWeight)
    assert packed.algorithm == {3: "k3n2e6", 5: "k5n4e6"}[taps]
    got = ops.conv1d(x, packed, bias, padding=padding, leaky=0.1, activation=activation)
    residual = normal(*got.shape)
    more = ops.conv1d(x, packed, padding=padding, residual=residual, scale=0.5)
    want = exact(double(x), double(weight), double(bias), padding=padding, leaky=0.1, activation=activation)
    assert snr(got, want) >= 108
    want = exact(double(x), double(weight), padding=padding, residual=double(residual), scale=0.5)
    assert snr(more, want) >= 108


def test_what_is_quiet_beside_what_is_loud_keeps_its_digits() -> None:
    """An error is relative to the loudest input of a tile, which lies 40 dB above."""
    for taps in (3, 5):
        x = normal(1, 120, 192) * mx.where(mx.arange(120) // 20 % 2 == 0, 1.0, 0.01)[None, :, None]
        weight = normal(192, taps, 192) / (taps * 192) ** 0.5
        got = ops.conv1d(x, ops.pack_conv1d(weight, algorithm="fast"), padding=taps // 2)
        quiet = np.arange(120) % 40
        quiet = (quiet >= 22) & (quiet < 38)
        want = exact(double(x), double(weight), padding=taps // 2)[:, quiet]
        assert snr(mx.array(np.array(got)[:, quiet]), want) >= 90


@pytest.mark.parametrize("length", [40, 700])
def test_results_do_not_depend_on_threads(length: int, ext: ModuleType) -> None:
    """However tiles and columns are shared out, an output is the same sum."""
    x = normal(1, length, 64)
    packed = ops.pack_conv1d(normal(320, 5, 64), algorithm="auto")
    ext.configure(threads=1)
    want = ops.conv1d(x, packed, padding=2)
    mx.eval(want)
    for threads in (2, 5, 16):
        ext.configure(threads=threads)
        assert mx.array_equal(ops.conv1d(x, packed, padding=2), want)


def test_packing() -> None:
    for shape, algorithm in (
        ((384, 5, 192), "k5n4e6"),
        ((768, 3, 192), "k3n2e6"),
        ((512, 7, 192), "direct"),
        ((192, 5, 200), "direct"),
        ((48, 3, 192), "direct"),
    ):
        packed = ops.pack_conv1d(normal(*shape), algorithm="auto")
        assert isinstance(packed, ops.PackedWeight)
        assert packed.algorithm == algorithm
    direct = ops.pack_conv1d(normal(384, 5, 192))
    assert isinstance(direct, ops.PackedWeight)
    assert direct.algorithm == "direct"


@pytest.mark.parametrize(
    ("options", "memory", "algorithm"),
    [
        ({}, "normal", "k3n2e6"),
        ({}, "low", "direct"),
        ({"stride": 2}, "normal", "direct"),
        ({"dilation": 3}, "normal", "direct"),
        ({"groups": 2}, "normal", "direct"),
    ],
)
def test_layers(options: dict[str, int], memory: layers.Memory, algorithm: str) -> None:
    layer = layers.Conv1d(128, 128, 3, **options)
    layer.pack(layers.Packing(memory=memory))
    assert layers.packed_layers(layer)[""].algorithm == algorithm


def test_refusals(ext: ModuleType) -> None:
    weight = normal(64, 3, 64)
    with pytest.raises(InputError, match=r'\[conv1d\] algorithm must be one there is, got "quick"'):
        ops.pack_conv1d(weight, algorithm="quick")
    for algorithm in ("k5n4e6", "winograd2"):
        with pytest.raises(
            InputError, match=rf'\[conv1d\] algorithm must be "direct" unless .*"{algorithm}"'
        ):
            ops.pack_conv1d(weight, algorithm=algorithm)
    with pytest.raises(InputError, match=r'\[conv1d\] algorithm must be "direct" unless .*"fast"'):
        ops.pack_conv1d(normal(64, 3, 32), groups=2, algorithm="fast")
    if "bfloat16" in ext.formats():
        with pytest.raises(InputError, match=r'algorithm must be "direct" .* in bfloat16'):
            ops.pack_conv1d(weight, algorithm="fast", dtype="bfloat16")
    packed = ops.pack_conv1d(weight, algorithm="fast")
    x = normal(1, 20, 64)
    for option in ("stride", "dilation"):
        words = rf'\[conv1d\] {option} must be 1 with a weight packed for algorithm "k3n2e6"; "direct" takes any, got 2'
        with pytest.raises(InputError, match=words):
            ops.conv1d(x, packed, **{option: 2})


def test_other_routes_have_no_fast_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    weight = normal(64, 3, 64)
    assert mx.array_equal(ops.pack_conv1d(weight, algorithm="auto"), weight)
    with pytest.raises(InputError, match=r'algorithm must be "auto" or "direct" without the CPU kernel'):
        ops.pack_conv1d(weight, algorithm="fast")
