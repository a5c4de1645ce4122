"""The limits that hold while models are evaluated."""

from __future__ import annotations

import threading
import time

import mlx.core as mx
import pytest

from rvc_fast import memory, native, ops
from rvc_fast.ops import dispatch


class Limits:
    """MLX's two limits, as its setters see them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, memory: int, cache: int) -> None:
        self.memory, self.cache = memory, cache
        monkeypatch.setattr(mx, "get_memory_limit", lambda: self.memory)
        monkeypatch.setattr(mx, "get_active_memory", lambda: 1000)
        for name in ("memory", "cache"):
            monkeypatch.setattr(mx, f"set_{name}_limit", lambda limit, name=name: self._set(name, limit))

    def _set(self, name: str, limit: int) -> int:
        before = getattr(self, name)
        setattr(self, name, limit)
        return before


HUGE = 1 << 50


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without our kernels."""
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "cpu")
    monkeypatch.setattr(dispatch, "compiled_missing", lambda: "for this test")


@pytest.mark.usefixtures("references")
def test_references_are_kept_from_running_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(monkeypatch, HUGE, HUGE)
    with memory.bounded():
        assert (limits.memory, limits.cache) == (1000 + memory.SLACK, HUGE)
    assert (limits.memory, limits.cache) == (HUGE, HUGE)


def test_a_gpu_keeps_some_of_what_was_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "metal")
    limits = Limits(monkeypatch, HUGE, HUGE)
    with memory.bounded():
        assert (limits.memory, limits.cache) == (HUGE, memory.CACHE)
    assert (limits.memory, limits.cache) == (HUGE, HUGE)


@pytest.mark.usefixtures("references")
def test_limits_are_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(monkeypatch, HUGE, HUGE)

    def fail() -> None:
        with memory.bounded():
            raise ValueError(limits.memory)

    with pytest.raises(ValueError, match=str(1000 + memory.SLACK)):
        fail()
    assert (limits.memory, limits.cache) == (HUGE, HUGE)


@pytest.mark.usefixtures("references")
@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_limits_that_are_lower_stay(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: backend)
    limits = Limits(monkeypatch, 5, 7)
    with memory.bounded():
        assert (limits.memory, limits.cache) == (5, 7)
    assert (limits.memory, limits.cache) == (5, 7)


@pytest.mark.usefixtures("references")
def test_the_last_one_out_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(monkeypatch, HUGE, HUGE)
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with memory.bounded():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with memory.bounded():
        thread.start()
        assert inside.wait(10)
    assert limits.memory == 1000 + memory.SLACK
    leave.set()
    thread.join()
    assert limits.memory == HUGE


@pytest.mark.usefixtures("references")
def test_the_real_limits_come_back() -> None:
    before = mx.get_memory_limit()
    with memory.bounded():
        assert mx.get_memory_limit() < before
    assert mx.get_memory_limit() == before


# With our kernels


def ahead_limit() -> int:
    """What this thread's limit is; reading it sets it anew."""
    limit = native.compiled.set_ahead_limit(0)
    native.compiled.set_ahead_limit(limit)
    return limit


needs_kernels = pytest.mark.skipif(
    dispatch.compiled_missing() is not None, reason="the compiled kernels do not run here"
)


@needs_kernels
def test_the_limit_of_a_thread() -> None:
    before = ahead_limit()
    others: list[int] = []

    def fail() -> None:
        with memory.bounded():
            limit = ahead_limit()
            assert mx.get_active_memory() < limit <= mx.get_active_memory() + memory.SLACK
            thread = threading.Thread(target=lambda: others.append(ahead_limit()))
            thread.start()
            thread.join()
            assert mx.get_memory_limit() > limit  # MLX's own is left alone
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert [ahead_limit()] == [before] == others


def layers(x: mx.array, count: int) -> mx.array:
    weight = mx.eye(x.shape[-1])
    for _ in range(count):
        x = ops.linear(x, weight)
    return x


@needs_kernels
def test_the_thread_that_evaluates_sleeps_and_does_not_run_ahead() -> None:
    x = mx.random.normal((64 << 10, 128))  # twice SLACK
    mx.eval(x)
    mx.reset_peak_memory()
    begin = mx.get_active_memory()
    wall, own = time.perf_counter(), time.thread_time()
    with memory.bounded():
        mx.eval(layers(x, 30))
    wall, own = time.perf_counter() - wall, time.thread_time() - own
    # What one operation reads and writes, and what the next one does.
    assert mx.get_peak_memory() - begin < 4.5 * x.nbytes
    assert own < wall / 2


@needs_kernels
def test_without_a_limit_a_thread_runs_ahead() -> None:
    """So the test before sees what it says."""
    x = mx.random.normal((64 << 10, 128))
    mx.eval(x)
    mx.reset_peak_memory()
    begin = mx.get_active_memory()
    mx.eval(layers(x, 30))
    assert mx.get_peak_memory() - begin > 6 * x.nbytes
