"""The choice of a backend, where there is one and where a call is too much for it."""

from __future__ import annotations

import mlx.core as mx
import pytest

from rvc_fast.errors import BackendError
from rvc_fast.ops import dispatch, registry, trust


@pytest.fixture
def op(monkeypatch: pytest.MonkeyPatch) -> str:
    """An op with a kernel of ours on Metal and MLX's on CUDA, on a machine that has the former."""
    monkeypatch.setattr(registry, "_KERNELS", {})
    monkeypatch.setattr(registry, "_OF_MLX", {})
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "metal")
    monkeypatch.setattr(trust, "verdict", lambda op, backend, *_, **__: trust.Verdict(backend, "trusted"))
    registry.register("twice", "metal", of_mlx=("cuda",))
    return "twice"


def test_a_call_beyond_a_limit_takes_the_reference_and_says_why(op, monkeypatch):
    monkeypatch.setenv("RVC_FAST_BACKEND", "auto")
    assert dispatch.route(op).backend == "metal"
    assert dispatch.route(op, {"metal": None, "cuda": "it is too wide"}).backend == "metal"
    assert dispatch.route(op, {"metal": "it is too wide"}) == ("reference", "it is too wide")


def test_an_explicit_backend_refuses_a_call_beyond_a_limit(op, monkeypatch):
    monkeypatch.setenv("RVC_FAST_BACKEND", "metal")
    assert dispatch.route(op, {"metal": None}).backend == "metal"
    with pytest.raises(BackendError, match=r"\[twice\] backend 'metal' was asked for, but it is too wide"):
        dispatch.route(op, {"metal": "it is too wide"})


@pytest.mark.parametrize(("device", "kernels"), [("metal", "our kernel"), ("cuda", "MLX's own kernels")])
def test_the_reason_says_whose_kernels(op, monkeypatch, device, kernels):
    monkeypatch.setattr(dispatch, "_device_backend", lambda: device)
    monkeypatch.setenv("RVC_FAST_BACKEND", "auto")
    assert dispatch.route(op) == (device, f"{kernels} for the default device, trusted")
    monkeypatch.setenv("RVC_FAST_BACKEND", device)
    assert dispatch.route(op) == (device, f"{kernels}, as asked by RVC_FAST_BACKEND")
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    assert dispatch.route(op) == ("reference", "as asked by RVC_FAST_BACKEND")


def test_a_gpus_kernel_is_taken_only_if_it_is_trusted(op, monkeypatch):
    """In the dtype of the call; a call that is too much for it does not ask."""
    asked = []

    def verdict(op, backend, dtype, *, run=True):
        asked.append((op, backend, dtype, run))
        return trust.Verdict(backend if dtype == mx.float32 else "reference", "a test says so")

    monkeypatch.setattr(trust, "verdict", verdict)
    monkeypatch.setenv("RVC_FAST_BACKEND", "auto")
    assert dispatch.route(op).backend == "metal"
    assert dispatch.route(op, dtype=mx.float16).backend == "reference"
    assert dispatch.route(op, dtype=mx.float16, first_use=False) == ("reference", "a test says so")
    assert dispatch.route(op, {"metal": "it is too wide"}).backend == "reference"
    assert asked == [
        (op, "metal", mx.float32, True),
        (op, "metal", mx.float16, True),
        (op, "metal", mx.float16, False),
    ]
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "cpu")
    assert dispatch.route(op).backend == "reference"
    assert len(asked) == 3


@pytest.mark.parametrize("wanted", ["reference", "metal", "cuda"])
def test_why_the_compiled_kernels_do_not_run(wanted, monkeypatch):
    monkeypatch.setenv("RVC_FAST_BACKEND", wanted)
    assert dispatch.compiled_missing() == f"RVC_FAST_BACKEND is {wanted}"
    assert (
        dispatch.dtype_missing("bfloat16")
        == f"it needs the compiled CPU kernels, and RVC_FAST_BACKEND is {wanted}"
    )


def test_the_compiled_kernels_run_here(ext, monkeypatch):
    for wanted in ("auto", "cpu"):
        monkeypatch.setenv("RVC_FAST_BACKEND", wanted)
        assert dispatch.compiled_missing() is None
        with dispatch.pretending("metal"):
            assert (dispatch.compiled_missing() is None) == (wanted == "cpu")
