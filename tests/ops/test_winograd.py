"""conv2d by Winograd's method against float64: every tile, instruction set, edge and epilogue; and who takes it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from exact import conv2d as exact
from support import isas

from rvc_fast import layers, ops
from rvc_fast.errors import InputError
from rvc_fast.ops.spec import errors

pytestmark = pytest.mark.usefixtures("ext")

RNG = np.random.default_rng(3)
# What F(2 x 2) and F(4 x 4) are allowed, RMS.
TOLERANCE = {"direct": 6e-7, "winograd2": 6e-7, "winograd4": 2e-6}


def normal(*shape: int) -> mx.array:
    return mx.array(RNG.standard_normal(shape, dtype=np.float32))


def case(
    batch: int, size: tuple[int, int], channels: int, outputs: int
) -> tuple[mx.array, mx.array, mx.array]:
    return (
        normal(batch, *size, channels),
        normal(outputs, 3, 3, channels) / (9 * channels) ** 0.5,
        normal(outputs),
    )


def error(got: mx.array, want: np.ndarray) -> float:
    """RMS, of outputs whose terms are about 1: a single one may be anything next to nothing."""
    return float(np.sqrt(np.mean((double(got) - want) ** 2)) / max(np.sqrt(np.mean(want**2)), 1))


def double(x: mx.array | None) -> Any:
    return None if x is None else np.array(x, np.float64)


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize(
    ("batch", "size", "channels", "outputs", "padding", "activation"),
    [
        (1, (1, 1), 16, 1, (1, 1), None),
        (2, (13, 7), 16, 19, (1, 1), "relu"),
        (1, (9, 11), 48, 33, (0, 2), "gelu"),
        (1, (3, 3), 32, 64, (3, 0), "sigmoid"),
        (1, (38, 4), 64, 96, (1, 1), "relu"),
        (1, (61, 50), 32, 16, (1, 1), "tanh"),
    ],
)
def test_against_float64(
    isa: str,
    algorithm: str,
    batch: int,
    size: tuple[int, int],
    channels: int,
    outputs: int,
    padding: tuple[int, int],
    activation: Any,
    ext: ModuleType,
) -> None:
    ext.configure(isa=isa)
    x, weight, bias = case(batch, size, channels, outputs)
    packed = ops.pack_conv2d(weight, algorithm=algorithm)
    assert isinstance(packed, ops.PackedWeight)
    assert packed.algorithm == algorithm
    for b in (bias, None):
        want = exact(double(x), double(weight), double(b), padding=padding, activation=activation)
        got = ops.conv2d(x, packed, b, padding=padding, activation=activation)
        assert error(got, want) <= TOLERANCE[algorithm]
        residual = normal(*want.shape)
        got = ops.conv2d(x, packed, b, padding=padding, activation=activation, residual=residual)
        assert error(got, want + double(residual)) <= TOLERANCE[algorithm]


@pytest.mark.parametrize("channels", [16, 128, 512])
def test_rounding_of_the_widths_of_rmvpe(channels: int) -> None:
    x, weight, bias = case(1, (24, 8), channels, channels)
    want = exact(double(x), double(weight), double(bias), padding=1)
    packed = ops.pack_conv2d(weight)
    assert isinstance(packed, ops.PackedWeight)
    assert packed.algorithm == ("winograd2" if channels == 512 else "winograd4")
    assert errors(ops.conv2d(x, packed, bias, padding=1), want)[1] <= TOLERANCE[packed.algorithm]


@pytest.mark.parametrize("size", [(37, 23), (178, 18)])
@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
def test_results_do_not_depend_on_threads(algorithm: str, size: tuple[int, int], ext: ModuleType) -> None:
    """However tiles and columns are shared out, an output is the same sum."""
    x, weight, bias = case(1, size, 16, 160)
    packed = ops.pack_conv2d(weight, algorithm=algorithm)
    ext.configure(threads=1)
    want = ops.conv2d(x, packed, bias, padding=1)
    mx.eval(want)
    for threads in (2, 5, 16):
        ext.configure(threads=threads)
        assert mx.array_equal(ops.conv2d(x, packed, bias, padding=1), want)


def test_a_chain_that_reuses_memory() -> None:
    """The residual's memory becomes the result's where nobody else holds it."""
    x, weight, bias = case(1, (17, 12), 32, 32)
    packed, y, want = ops.pack_conv2d(weight), x, double(x)
    for _ in range(3):
        y = ops.conv2d(
            ops.conv2d(y, packed, bias, padding=1, activation="relu"), packed, padding=1, residual=y
        )
        inner = exact(want, double(weight), double(bias), padding=1, activation="relu")
        want = exact(inner, double(weight), padding=1) + want
    assert errors(y, want)[1] <= 4e-6


def test_half_precision_inputs_and_weights() -> None:
    x, weight, bias = case(1, (9, 9), 16, 16)
    for dtype in (mx.float16, mx.bfloat16):
        w = weight.astype(dtype)
        want = exact(double(x), double(w.astype(mx.float32)), double(bias), padding=1)
        packed = ops.pack_conv2d(w, algorithm="winograd4")
        assert errors(ops.conv2d(x, packed, bias, padding=1), want)[1] <= TOLERANCE["winograd4"]
    y = ops.conv2d(x.astype(mx.float16), packed, bias, padding=1)
    assert y.dtype == mx.float16
    assert errors(y, want)[1] <= 1e-3


def test_packing() -> None:
    auto, direct = (ops.pack_conv2d(normal(64, 3, 3, 32), algorithm=a) for a in ("auto", "direct"))
    assert isinstance(auto, ops.PackedWeight)
    assert isinstance(direct, ops.PackedWeight)
    assert (auto.algorithm, direct.algorithm) == ("winograd4", "direct")
    assert auto.data.size == 4 * direct.data.size
    for shape in ((64, 3, 3, 20), (64, 3, 2, 32), (64, 1, 1, 32)):
        packed = ops.pack_conv2d(normal(*shape))
        assert isinstance(packed, ops.PackedWeight)
        assert packed.algorithm == "direct"


@pytest.mark.parametrize(("memory", "algorithm"), [("normal", "winograd4"), ("low", "direct")])
def test_layers(memory: layers.Memory, algorithm: str) -> None:
    layer = layers.Conv2d(16, 16, (3, 3), padding=1)
    layer.pack(layers.Packing(memory=memory))
    assert layers.packed_layers(layer)[""].algorithm == algorithm


def test_refusals(ext: ModuleType) -> None:
    with pytest.raises(InputError, match=r'\[conv2d\] algorithm must be one there is, got "quick"'):
        ops.pack_conv2d(normal(16, 3, 3, 16), algorithm="quick")
    for shape in ((16, 3, 3, 20), (16, 3, 2, 16)):
        for algorithm in ("fast", "winograd2"):
            with pytest.raises(
                InputError, match=rf'\[conv2d\] algorithm must be "direct".* got "{algorithm}"'
            ):
                ops.pack_conv2d(normal(*shape), algorithm=algorithm)
    if "bfloat16" in ext.formats():
        with pytest.raises(InputError, match=r'algorithm must be "direct" .* in bfloat16'):
            ops.pack_conv2d(normal(16, 3, 3, 16), algorithm="fast", dtype="bfloat16")
    packed = ops.pack_conv2d(normal(16, 3, 3, 16), algorithm="winograd2")
    assert isinstance(packed, ops.PackedWeight)
    for channels, algorithm, words in (
        (16, "winograd4", r"\[conv2d\] weight must be packed for these channels"),
        (20, "winograd2", r'\[conv2d\] algorithm must be "direct"'),
    ):
        x = normal(1, 9, 9, channels)
        with pytest.raises(ValueError, match=words):
            ext.conv2d(x, packed.data, None, None, out_channels=16, kernel=(3, 3), algorithm=algorithm)


def test_other_routes_have_no_fast_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    weight = normal(16, 3, 3, 16)
    assert mx.array_equal(ops.pack_conv2d(weight), weight)
    with pytest.raises(InputError, match=r'algorithm must be "auto" or "direct" without the CPU kernel'):
        ops.pack_conv2d(weight, algorithm="fast")
