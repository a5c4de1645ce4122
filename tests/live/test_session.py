"""A stream against a clock that the tests own: what happens when hops are late, and that the delay comes back."""

from __future__ import annotations

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

import rvc_fast
from fakes import FakeEmbedder, FakePitch, FakeVoice
from rvc_fast.errors import InputError
from rvc_fast.live import Session

RATE, BLOCK, HOP = 16000, 160, 1280
BUFFER = 0.03
DELAY = HOP + 800


class Echo:
    """A stream that gives back what it gets; each hop takes as many seconds of the device's clock as `cost` says."""

    sample_rate, hop, delay = RATE, HOP / RATE, DELAY

    def __init__(self, cost: float = 0.01) -> None:
        self.cost, self.saved, self.samples = cost, [], 0
        self.device: Device | None = None
        self.waiting = np.zeros(DELAY, np.float32)

    @property
    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(hops=self.samples // HOP)

    def save(self, saving: int) -> None:
        self.saved.append(saving)

    def push(self, samples: np.ndarray) -> np.ndarray:
        if not np.isfinite(samples).all():
            raise InputError("[stream] samples must not be NaN or infinite")
        hops = self.stats.hops
        self.samples += len(samples)
        assert self.device is not None
        self.device.sleep((self.stats.hops - hops) * self.cost)
        self.waiting = np.concatenate([self.waiting, samples])
        out, self.waiting = self.waiting[: len(samples)], self.waiting[len(samples) :]
        return out


class Device:
    """Time, which calls `exchange` every 10 ms. Its sound counts the samples, so that each tells when it was made."""

    def __init__(self, stream: Echo, buffer: float = BUFFER) -> None:
        self.now, self.played = 0.0, np.zeros(0, np.float32)
        self.session = Session(stream, buffer=buffer, clock=lambda: self.now)
        stream.device = self

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while len(self.played) + BLOCK <= self.now * RATE + 1e-6:
            start = len(self.played)
            block = np.arange(start + 1, start + BLOCK + 1, dtype=np.float32)
            self.played = np.concatenate([self.played, self.session.exchange(block)])

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            while self.now < end and self.session.work():
                pass
            self.sleep(BLOCK / RATE)

    def delays(self) -> np.ndarray:
        """Return how late each sample was played, in samples; NaN where there was silence."""
        made = np.where(self.played > 0, self.played - 1, np.nan)
        return np.arange(len(made)) - made


TARGET = DELAY + round(BUFFER * RATE)


def test_in_time_the_delay_is_what_was_said() -> None:
    device = Device(Echo())
    device.run(3)
    assert device.session.latency == TARGET / RATE
    assert not device.played[:TARGET].any()
    np.testing.assert_array_equal(device.delays()[TARGET:], TARGET)
    stats = device.session.stats
    assert (stats.underruns, stats.missing, stats.dropped, stats.saving) == (0, 0, 0, 0)


def test_after_a_stall_the_delay_comes_back_within_a_second() -> None:
    stream = Echo()
    device = Device(stream)
    device.run(1)
    device.sleep(2)  # nobody works
    stalled = len(device.played)
    device.run(3)
    delays = device.delays()
    np.testing.assert_array_equal(delays[stalled + RATE :], TARGET)
    stats = device.session.stats
    assert stats.underruns == 1
    assert stats.missing == stats.dropped == pytest.approx(2 * RATE - BUFFER * RATE, abs=2 * BLOCK)
    heard = device.played[device.played > 0]
    assert (np.diff(heard) > 0).all()  # nothing is played twice
    # What was left out is one gap, whose far side fades in over 5 ms.
    assert (np.diff(heard) > 500).sum() <= 1
    assert np.abs(np.diff(heard)).max() < stats.dropped


def test_a_hop_that_is_a_little_late_costs_as_little() -> None:
    stream = Echo()
    device = Device(stream)
    device.run(1)
    stream.cost = 0.06
    device.run(0.08)
    stream.cost = 0.01
    device.run(2)
    stats = device.session.stats
    assert stats.underruns == 1
    assert 0 < stats.missing == stats.dropped <= 0.04 * RATE
    np.testing.assert_array_equal(device.delays()[-RATE:], TARGET)


def test_a_stream_that_is_too_slow_saves_work_and_takes_it_up_again() -> None:
    stream = Echo(cost=0.1)
    device = Device(stream, buffer=0.3)
    device.run(0.6)
    assert stream.saved == [1, 2]
    stream.cost = 0.07  # quick enough to go on, not quick enough for more
    device.run(6)
    assert stream.saved == [1, 2]
    stream.cost = 0.01
    device.run(4.2)
    assert stream.saved == [1, 2, 1]
    device.run(4.2)
    assert stream.saved == [1, 2, 1, 0]
    assert device.session.stats.saving == 0


def test_bypass_is_the_input_as_late_as_the_result() -> None:
    converter = rvc_fast.load(FakeVoice(), embedder=FakeEmbedder(), pitch_model=FakePitch())
    stream = converter.stream(sample_rate=RATE, hop=0.08, lookahead=0.04)
    session = Session(stream, buffer=0.01)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(8 * HOP).astype(np.float32)
    session.bypass = True
    played = []
    for block in np.split(x, len(x) // BLOCK):
        played.append(session.exchange(block))
        session.work()
    y = np.concatenate(played)
    late = round(session.latency * RATE)
    np.testing.assert_array_equal(y[late:], x[: len(x) - late])


@pytest.mark.parametrize("wrong", [np.nan, 1e30])
def test_samples_that_a_stream_refuses_become_silence(wrong: float) -> None:
    device = Device(Echo())
    device.run(1)
    device.session.exchange(np.full(BLOCK, wrong, np.float32))
    device.run(1)
    assert device.played.max() <= device.now * RATE
    assert device.session.stats.refused >= BLOCK


def test_blocks_that_cannot_be_converted_are_refused() -> None:
    session = Session(Echo(), buffer=BUFFER)
    for wrong, message in [
        (
            np.zeros((BLOCK, 1), np.float32),
            r"samples must be \(n,\) floats .* got float32 of shape \(160, 1\)",
        ),
        (np.zeros(BLOCK, np.int16), r"samples must be \(n,\) floats .* got int16 of shape \(160,\)"),
        (
            np.zeros(481, np.float32),
            "at most the 480 samples of the buffer at a time, got 481: use a longer buffer",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            session.exchange(wrong)
    assert len(session.exchange(np.zeros(480, np.float64))) == 480
    assert session.stats.missing == 0


def test_a_session_that_has_ended_is_silent_and_can_begin_again() -> None:
    stream = Echo(cost=0.0)
    session = Session(stream, buffer=BUFFER)
    stream.device = Device(stream)
    for _ in range(2):
        with session:
            pass
        assert not session.exchange(np.ones(BLOCK, np.float32)).any()
    assert (session.stats.missing, stream.samples) == (0, 0)


def test_a_worker_that_fails_says_so() -> None:
    class Broken(Echo):
        def push(self, samples: np.ndarray) -> np.ndarray:
            raise InputError("[stream] the voice gave NaN or infinite samples: its weights are damaged")

    session = Session(Broken(), buffer=BUFFER)
    session.__enter__()
    session.exchange(np.ones(BLOCK, np.float32))
    session._thread.join(5)
    with pytest.raises(InputError, match="its weights are damaged"):
        session.__exit__()
    for _ in range(10):
        assert not session.exchange(np.ones(BLOCK, np.float32)).any()
    assert len(session._arrived) == 0  # nobody would take it


def test_a_session_is_there_before_any_stream() -> None:
    code = "import rvc_fast; print(rvc_fast.live.Session.__name__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "Session\n"


def test_the_worker_converts_while_the_device_goes_on() -> None:
    converter = rvc_fast.load(FakeVoice(), embedder=FakeEmbedder(), pitch_model=FakePitch())
    stream = converter.stream(sample_rate=RATE, hop=0.04, lookahead=0.04)
    stream.warm()
    assert stream.stats.hops == 0
    with Session(stream, buffer=0.5) as session:
        for _ in range(20):
            session.exchange(np.full(BLOCK, 0.1, np.float32))
        deadline = time.monotonic() + 5
        while stream.stats.samples < 20 * BLOCK and time.monotonic() < deadline:
            time.sleep(0.005)
    assert stream.stats.samples == 20 * BLOCK
