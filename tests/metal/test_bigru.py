"""What bigru's cases do not show: packed weights, blocks, hidden sizes beyond the kernel, and the bytes it moves."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator
from exact import bigru as exact

from rvc_fast import ops
from rvc_fast.ops.spec import errors
from rvc_fast.resources import kernels_dir

bigru = import_module("rvc_fast.ops.bigru")
BOTH = pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)


def arguments(batch: int, length: int, width: int, hidden: int) -> dict[str, Any]:
    return bigru._case("", batch, length, width, hidden).make(np.random.default_rng(0))


def in_float64(**kwargs: mx.array) -> np.ndarray:
    return exact(**{k: np.array(v.astype(mx.float32), np.float64) for k, v in kwargs.items()})


@BOTH
def test_packed_weights(gpu: Emulator) -> None:
    """The same bits as plain ones; and 16 bits of weight serve 32 of sound."""
    kwargs = arguments(2, 5, 7, 37)
    plain = ops.bigru(**kwargs)
    packed = ops.pack_bigru(kwargs["w_hh"])
    assert isinstance(packed, ops.PackedWeight)
    assert mx.array_equal(ops.bigru(**{**kwargs, "w_hh": packed}), plain)
    for dtype in (mx.float16, mx.bfloat16):
        half = kwargs["w_hh"].astype(dtype)
        got = ops.bigru(**{**kwargs, "w_hh": ops.pack_bigru(half)})
        assert got.dtype == mx.float32
        assert errors(got, in_float64(**{**kwargs, "w_hh": half}))[0] < 1e-6


@BOTH
def test_blocks(gpu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """States are carried from one launch to the next without loss."""
    kwargs = arguments(2, 13, 3, 9)
    whole = ops.bigru(**kwargs)
    monkeypatch.setattr(bigru, "BLOCK", 5)
    assert mx.array_equal(ops.bigru(**kwargs), whole)
    assert len(gpu.launches) == 1 + 3


@BOTH
def test_states_that_do_not_fit(gpu: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to MLX, from plain weights, which packing then keeps."""
    monkeypatch.setitem(bigru.LIMITS, gpu.language, bigru.LIMITS[gpu.language]._replace(shared=256))
    kwargs = arguments(1, 5, 7, 37)
    assert ops.pack_bigru(kwargs["w_hh"]) is kwargs["w_hh"]
    assert errors(ops.bigru(**kwargs), in_float64(**kwargs))[0] < 1e-6
    assert not gpu.launches


@pytest.mark.parametrize(
    ("backend", "itemsize", "share"),
    [("metal", 4, 0.87), ("metal", 2, 0.76), ("cuda", 4, 0.75), ("cuda", 2, 0.51)],
)
@pytest.mark.parametrize("batch", [1, 4])
def test_fewer_bytes_than_two_launches_a_step(backend: str, itemsize: int, share: float, batch: int) -> None:
    """For RMVPE's layer, by the formula in the kernel's head."""
    head = dict(
        re.findall(r"^// ([a-z ]+) = (.*)$", (kernels_dir() / "bigru" / "bigru.inc").read_text(), re.M)
    )
    parts = bigru.layout(backend, 256, itemsize)
    launch = bigru.plan(backend, batch, parts)
    on_chip = launch.kept + launch.stored
    columns = on_chip * parts.split * parts.wide
    letters = {"s": itemsize, "B": batch, "T": 1000, "I": 384, "H": 256, "G": launch.groups, "K": columns}
    moved = eval(head["moved"], letters)
    baseline = eval(head["two launches a step"], letters)
    assert moved < share * baseline
    # The formula's streamed weights are what the launch's threads load.
    streamed = 2 * launch.groups * parts.threads * (parts.chunks - on_chip) * bigru.CHUNK
    assert 6 * 256 * (256 - columns) * itemsize * launch.groups == streamed
    states = 8 * launch.rows * parts.columns
    assert states + launch.stored * parts.threads * bigru.CHUNK <= bigru.LIMITS[backend].shared
