"""The computed schedule of benchmarks/scaling.py, and the trace that it is made of."""

from __future__ import annotations

import re
from types import SimpleNamespace

import mlx.core as mx
import pytest

from benchmarks import scaling
from benchmarks.scaling import Costs, Op, Trace, job_seconds, lost, record, seconds
from rvc_fast import native, ops

FREE = Costs(0, 0)


@pytest.mark.parametrize(
    ("items", "threads", "costs", "want"),
    [
        ([2.0], 8, Costs(1, 1), 2.0),
        ([1.0] * 8, 4, FREE, 2.0),
        ([1.0] * 9, 4, FREE, 3.0),
        ([3.0, 1, 1, 1], 2, FREE, 3.0),
        ([1.0, 1, 1, 3], 2, FREE, 4.0),
        ([1.0] * 4, 2, Costs(1, 0), 3.0),
        ([1.0] * 4, 2, Costs(9, 0), 4.0),  # all is done before the helper comes
        ([4.0] * 3, 3, Costs(1, 2), 7.0),
    ],
)
def test_a_job_on_threads(items: list[float], threads: int, costs: Costs, want: float) -> None:
    assert job_seconds(items, threads, costs) == want


def test_what_is_between_jobs_is_not_shared() -> None:
    trace = Trace([Op("a", 1.0, [[2.0, 2.0], [1.0]])], 3.0)
    assert seconds(trace, 1, FREE) == 9.0
    assert seconds(trace, 2, FREE) == 7.0
    assert lost(trace, 2, FREE) == {"outside of ops": 1.5, "a": 1.0}


@pytest.mark.skipif(native.ext() is None, reason="the compiled kernels do not run here")
def test_a_trace_has_the_items_of_so_many_threads() -> None:
    x, weight = mx.random.normal((1, 512, 256)), ops.pack_linear(mx.random.normal((256, 256)))
    mx.eval(x, weight.data)
    before = native.compiled.threads()
    with mx.stream(mx.cpu):
        one, many = (record(lambda: ops.linear(x, weight), threads, 2) for threads in (1, 16))
    assert native.compiled.threads() == before
    for trace in (one, many):
        (op,) = trace.ops
        assert op.name == "linear"
        assert all(time > 0 for items in op.jobs for time in items)
    assert sum(map(len, many.ops[0].jobs)) > sum(map(len, one.ops[0].jobs))


@pytest.mark.skipif(native.ext() is None, reason="the compiled kernels do not run here")
def test_nothing_is_noted_outside_of_a_trace() -> None:
    x, weight = mx.random.normal((1, 64, 32)), mx.random.normal((32, 32))
    with mx.stream(mx.cpu):
        native.compiled.start_trace()
        mx.eval(ops.linear(x, weight))
        assert [name for name, _, _ in native.compiled.end_trace()] == ["linear"]
        mx.eval(ops.linear(x + 1, weight))
    assert native.compiled.end_trace() == []


@pytest.mark.skipif(native.ext() is None, reason="the compiled kernels do not run here")
def test_what_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = mx.random.normal((1, 64, 32)), mx.random.normal((32, 32))
    sides = SimpleNamespace(runs=lambda task: [lambda: ops.linear(x, weight)])
    monkeypatch.setattr(scaling, "Ours", lambda: sides)
    monkeypatch.setattr("sys.argv", ["scaling", "--stage", "flow,decoder", "--repeats", "1"])
    before = mx.default_device()
    try:
        assert scaling.main() == 0
    finally:
        mx.set_default_device(before)
    text = capsys.readouterr().out
    assert native.compiled.isa() in text
    for row in ("flow", "decoder", "all of these"):
        assert re.search(rf"^\| {row} \|( [\d.]* \|){{9}}$", text, re.M)
    assert "Lost on 16 threads" in text
    assert "flow: linear" in text


def test_an_unknown_stage_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["scaling", "--stage", "hubert,nothing"])
    with pytest.raises(SystemExit):
        scaling.main()
    assert capsys.readouterr().err.endswith("got nothing\n")
