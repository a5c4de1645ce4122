"""The limits that hold while models are evaluated."""

from __future__ import annotations

import threading

import mlx.core as mx
import pytest

from rvc_fast import memory
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


def test_a_cpu_is_kept_from_running_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "cpu")
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


def test_limits_are_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "cpu")
    limits = Limits(monkeypatch, HUGE, HUGE)

    def fail() -> None:
        with memory.bounded():
            raise ValueError(limits.memory)

    with pytest.raises(ValueError, match=str(1000 + memory.SLACK)):
        fail()
    assert (limits.memory, limits.cache) == (HUGE, HUGE)


@pytest.mark.parametrize("backend", ["cpu", "cuda"])
def test_limits_that_are_lower_stay(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: backend)
    limits = Limits(monkeypatch, 5, 7)
    with memory.bounded():
        assert (limits.memory, limits.cache) == (5, 7)
    assert (limits.memory, limits.cache) == (5, 7)


def test_the_last_one_out_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "cpu")
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


def test_the_real_limits_come_back() -> None:
    before = mx.get_memory_limit()
    with memory.bounded():
        assert mx.get_memory_limit() < before
    assert mx.get_memory_limit() == before
