"""Contestants that need no models: their times, outputs and failures are written down beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rvc_fast.bench.session import Options, Session
from rvc_fast.bench.work import Task
from rvc_fast.bench.worker import Checked, Lost

FACTS = {
    "date": "2026-01-01T00:00:00+00:00",
    "chip": "Test chip",
    "cores": 2,
    "threads": 2,
    "isa": None,
    "memory_gb": 8.0,
    "os": "Test",
    "versions": {"mlx": "0"},
    "commit": None,
}
PEAKS = {
    "fma_gflops": 100.0,
    "bf16_gflops": None,
    "int8_gops": None,
    "read_gbytes": 10.0,
    "copy_gbytes": 8.0,
}
SOUND = np.sin(np.arange(1000, dtype=np.float32))


class Clock:
    """Time that passes only when a fake takes it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """A side whose runs take `seconds` (one after the other, the last for ever) of `clock`'s time.

    `fails` maps a method to what it raises; every call is appended to `log` as "NAME METHOD".
    """

    def __init__(
        self,
        name: str,
        log: list[str],
        clock: Clock,
        seconds: Sequence[float] = (1.0,),
        snr: float = 100.0,
        outputs: np.ndarray = SOUND,
        facts: dict[str, Any] | None = None,
        fails: dict[str, BaseException] | None = None,
    ):
        self.name, self.log, self.clock = name, log, clock
        self.seconds, self.snr, self._outputs = list(seconds), snr, outputs
        self._facts = facts or {"dtype": "float32"}
        self.fails = fails or {}
        self.pitch: np.ndarray | None = None
        self.given: np.ndarray | None = None
        self.stopped = False

    def _called(self, method: str) -> None:
        self.log.append(f"{self.name} {method}")
        if method in self.fails:
            raise self.fails[method]

    def _take(self) -> float:
        seconds = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.clock.now += seconds
        return seconds

    def facts(self) -> dict[str, Any]:
        self._called("facts")
        return self._facts

    def gate(self, task: Task) -> tuple[float, float | None]:
        self._called("gate")
        return self.snr, 80.0

    def check(self, task: Task, outputs: bool, pitch: np.ndarray | None = None) -> Checked:
        self._called("check")
        self.given = pitch
        self.clock.now += self.seconds[0]
        return Checked([self._outputs] if outputs else None, self.seconds[0], 10**11, 10**9, self.pitch)

    def time(self, loops: int) -> float:
        self._called("time")
        return self._take()

    def peak_mb(self) -> float:
        return 123.0

    def fma_peak(self, dtype: str) -> float | None:
        return 100.0

    def stop(self) -> None:
        self.stopped = True


def lost(note: str) -> Lost:
    return Lost(note)


OURS_FACTS = {"dtype": "float32", "backend": "cpu"}


def session(
    ours: Fake, peers: Sequence[Fake], emit: Callable[[dict[str, Any]], None], **options: Any
) -> Session:
    """A session of fakes on their clock."""
    asked = Options(against=tuple(p.name for p in peers), **options)
    return Session(
        asked, ours, {p.name: p for p in peers}, FACTS, PEAKS, emit, clock=ours.clock, others=lambda: None
    )
