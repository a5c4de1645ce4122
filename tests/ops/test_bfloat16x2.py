"""Linear layers and conv1d in bfloat16x2: a number is the sum of two in bfloat16, a product is three of their four."""

from __future__ import annotations

from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest
from support import SPECS
from test_bfloat16 import inputs_and_answers, normal

import rvc_fast
from rvc_fast import ops
from rvc_fast.errors import InputError
from rvc_fast.ops.spec import errors

CASES = [(op, index) for op in ("conv1d", "linear") for index in range(len(SPECS[op].cases))]
IDS = [f"{op}-{SPECS[op].cases[index].name}" for op, index in CASES]
# What is left out of a product is at most 3 * 2^-16 of it, and of either sign.
MOST, LEAST = 1e-5, 5e-7


@pytest.fixture(autouse=True)
def amx(ext: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    if "amx" not in ext.isas():
        pytest.skip("this CPU does not have amx")
    monkeypatch.setenv("RVC_FAST_BACKEND", "auto")
    ext.configure(isa="amx", threads=2)


def pieces(a: np.ndarray) -> np.ndarray:
    """What is left of numbers in two pieces."""
    first = np.array(mx.array(a).astype(mx.bfloat16).astype(mx.float32))
    return first + np.array(mx.array(a - first).astype(mx.bfloat16).astype(mx.float32))


@pytest.mark.parametrize(("op", "index"), CASES, ids=IDS)
def test_case(op: str, index: int) -> None:
    kwargs, _, exact = inputs_and_answers(op, index)
    options = {k: kwargs[k] for k in ("groups",) if k in kwargs}
    weight = getattr(ops, f"pack_{op}")(kwargs["weight"], dtype="bfloat16x2", **options)
    got = SPECS[op].op(**{**kwargs, "weight": weight})
    shape = kwargs["weight"].shape
    small = min(shape[-1], shape[0] // kwargs.get("groups", 1)) < 16
    assert weight.dtype == ("float32" if small else "bfloat16x2")
    if small:
        assert errors(got, exact)[1] <= 1e-6
    else:
        assert LEAST < errors(got, exact)[1] <= MOST


def test_pieces_are_rounded_to_nearest() -> None:
    x = np.array(normal(48, 48)) * np.float32(2.0) ** np.arange(-24, 24, dtype=np.float32)
    unit = ops.pack_linear(mx.eye(48), dtype="bfloat16x2")
    np.testing.assert_array_equal(np.array(ops.linear(mx.array(x), unit)), pieces(x))
    weight = ops.pack_linear(mx.array(x), dtype="bfloat16x2")
    np.testing.assert_array_equal(np.array(ops.linear(mx.eye(48), weight)).T, pieces(x))


def test_products_of_few_bits_are_exact() -> None:
    """Pieces of whole numbers below 2^8 are the numbers, and their products' sums are below 2^24."""
    rng = np.random.default_rng(3)
    x, w = (rng.integers(-200, 201, shape).astype(np.float32) for shape in ((75, 320), (33, 320)))
    got = ops.linear(mx.array(x), ops.pack_linear(mx.array(w), dtype="bfloat16x2"))
    np.testing.assert_array_equal(np.array(got), x @ w.T)


def test_non_finite_input_stays_where_it_is() -> None:
    x, weight = normal(1, 200, 40), ops.pack_conv1d(normal(48, 7, 40), dtype="bfloat16x2")
    for value in (float("nan"), float("inf"), 3.4e38):
        x[0, 100, 5] = value
        bad = np.isnan(np.array(ops.conv1d(x, weight, padding=3)))[0].any(axis=1)
        assert bad[97:104].all()
        assert bad.sum() == 7


def test_results_do_not_depend_on_threads(ext: ModuleType) -> None:
    x, weight = normal(1, 3001, 64), ops.pack_conv1d(normal(96, 5, 64), dtype="bfloat16x2")
    want = ops.conv1d(x, weight, padding=2, leaky=0.1)
    mx.eval(want)
    for threads in (1, 3):
        ext.configure(isa="amx", threads=threads)
        assert mx.array_equal(ops.conv1d(x, weight, padding=2, leaky=0.1), want)


def test_refused_where_it_cannot_be(ext: ModuleType) -> None:
    packed = ext.linear_pack(normal(16, 16), dtype="bfloat16x2")
    with pytest.raises(InputError, match=r"\[resblock\] dtype must be one of float32, .*, got 'bfloat16x2'"):
        ops.pack_resblock(normal(16, 3, 16), dtype="bfloat16x2")
    ext.configure(isa="avx512")
    with pytest.raises(
        InputError, match=r"got 'bfloat16x2': this CPU has no AMX-BF16 instructions, or RVC_FAST_ISA=avx512"
    ):
        rvc_fast.load("voice.pth", dtype="bfloat16x2")
    with pytest.raises(ValueError, match=r"\[linear\] bfloat16x2 must have AMX-BF16"):
        ext.linear(normal(3, 16), packed, None, None, out_channels=16)
