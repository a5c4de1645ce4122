"""What the check of a GPU compares, and when it calls a result wrong. No GPU is needed: nothing is launched here."""

from __future__ import annotations

import json
import subprocess
import sys

import mlx.core as mx
import pytest

from rvc_fast import native
from rvc_fast.bench import first_use
from rvc_fast.bench.first_use import chosen, examine, real_shapes, tolerance, wrong
from rvc_fast.ops import dispatch
from rvc_fast.ops.knn import KNN
from rvc_fast.ops.spec import Tolerance

ALLOWED = Tolerance(max_abs=1e-5, rms=1e-5)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "metal")
    monkeypatch.setenv("RVC_FAST_BACKEND", "metal")
    monkeypatch.setenv("MLX_ENABLE_TF32", "0")
    for cache in (chosen, first_use._answer):
        cache.cache_clear()


def _variants(op: str, cases: list) -> set:
    found = set()
    for case in cases:
        with first_use._launches() as variants:
            first_use._specs()[op].op(**first_use._make(case))
        found |= variants
    return found


@pytest.mark.parametrize("op", ["conv1d", "conv_transpose1d", "mel_stft", "nsf_source", "wavenet_gate"])
def test_every_variant_of_the_real_shapes_is_launched(op: str) -> None:
    shapes = real_shapes(first_use._specs()[op])
    cases = chosen(op, "metal", "float32")
    real = [case for case in cases if case.benchmark]
    assert 1 <= len(real) <= len(shapes)
    assert _variants(op, real) == _variants(op, shapes)
    assert [c for c in cases if not c.benchmark] == [
        c for c in first_use._specs()[op].cases if not c.benchmark
    ]


def test_stages_of_the_decoder_are_among_the_real_shapes() -> None:
    names = {case.name for case in real_shapes(first_use._specs()["resblock"])}
    assert names == {"last_stage_100ms", "256 channels, 0.1 s", "128 channels, 0.1 s", "64 channels, 0.1 s"}


def test_what_is_wrong() -> None:
    want = mx.array([1.0, -2.0, 0.5])
    assert wrong(want + 1e-6, want, ALLOWED) is None
    assert "it is off by 5.0e-04" in (wrong(want + 1e-3, want, ALLOWED) or "")
    assert wrong(want * mx.array([1, float("nan"), 1]), want, ALLOWED)
    assert wrong(want[:2], want, ALLOWED)
    rows = mx.arange(5000)
    assert wrong((want, rows), (want, rows), ALLOWED) is None
    assert wrong((want, mx.where(rows < 4, -1, rows)), (want, rows), ALLOWED) is None
    assert "of the rows are others" in (wrong((want, rows + 1), (want, rows), ALLOWED) or "")


def test_what_may_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = first_use._specs()
    ours = specs["wavenet_gate"].tolerance["float32"]
    assert tolerance(specs["wavenet_gate"], "metal", "float32").rms == pytest.approx(5 * ours.rms)
    # MLX's own kernels, 90 dB and what the reference may be off.
    assert 3e-5 < tolerance(specs["linear"], "metal", "float32").rms < 4e-5
    assert 3e-5 < tolerance(specs["conv1d"], "reference", "float32").rms < 4e-5
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")
    assert 1e-3 < tolerance(specs["linear"], "metal", "float32").rms < 2e-3
    assert 1e-3 < tolerance(specs["knn"], "metal", "float32").rms < 2e-3
    assert tolerance(specs["wavenet_gate"], "metal", "float32").rms == pytest.approx(5 * ours.rms)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_right_op_is_timed(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "cpu" and native.ext() is None:
        pytest.skip(native.load()[1])
    monkeypatch.setattr(first_use, "RUNS", 1)
    found = examine("mel_stft", backend, "metal", "float32")
    assert found["error"] is None
    assert found["seconds"] > 0


def test_the_answer_is_the_references_whatever_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference of `resblock` is made of `conv1d`, whose kernel must not answer for it."""
    launches = []
    monkeypatch.setattr(first_use.gpu, "launch", lambda *args, **_: launches.append(args))
    first_use._answer("resblock", first_use._specs()["resblock"].cases[0], "float32")
    assert not launches


def test_an_error_is_a_line_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("[metal::Device] Unable to build\n metal library")

    monkeypatch.setattr(first_use.gpu, "launch", refuse)
    monkeypatch.setattr(first_use, "real_shapes", lambda spec: [])
    assert examine("wavenet_gate", "metal", "metal", "float32") == {
        "error": "case 'length_1': RuntimeError: [metal::Device] Unable to build metal library",
        "seconds": None,
    }


def test_rows_that_are_elsewhere_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_use, "real_shapes", lambda spec: [])
    assert examine("knn", "reference", "metal", "float32")["error"] is None
    dispatch.forget()
    monkeypatch.setitem(
        KNN._run, "metal", lambda *given: (KNN.reference(*given)[0], KNN.reference(*given)[1] + 1)
    )
    assert "of the rows are others" in examine("knn", "metal", "metal", "float32")["error"]


def test_nothing_comes_between_the_results() -> None:
    """What a library prints goes to stderr."""
    code = (
        "import os, sys; from rvc_fast.bench import first_use; "
        "first_use.examine = lambda *_: os.write(1, b'noise') and {'error': None, 'seconds': 1.0}; "
        "sys.argv[1:] = ['metal', 'float32', 'a:metal', 'b:metal']; first_use.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    row = {"error": None, "seconds": 1.0}
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{}, row, row]
    assert done.stderr == "noisenoise"


def test_it_tells_that_it_gets_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow CPU, which computes the answers, is not taken for a GPU that hangs."""
    told: list[int] = []
    monkeypatch.setattr(first_use, "real_shapes", lambda spec: [])
    found = examine("wavenet_gate", "reference", "metal", "float32", lambda: told.append(1))
    assert found["error"] is None
    assert len(told) == len([c for c in first_use._specs()["wavenet_gate"].cases if not c.benchmark])
