"""A stream against a clock: a device gives blocks of samples and takes as many, and a worker converts beside it.

The device's callback only copies queues. When the worker is late the device hears silence, and as much of the input is
left out afterwards, with a crossfade, so that the delay is what it was. Nothing is played twice and nothing queues up.
A stream whose hops take longer than they last is told to do with less, until it has been quick for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..settings import check_number
from .signal import Fifo, crossfade
from .speech import MOST_SAVING
from .stream import Stats, Stream, check_values, one_channel

_FADE = 0.005

# After so many hops that took less than this share of their length, a stream may do more again.
_GOOD_HOPS, _GOOD_LOAD = 50, 0.7


@dataclass(frozen=True)
class SessionStats:
    """What a session has done so far.

    stream: of its stream. underruns: how often the device had to be given silence. missing, dropped: samples of silence
    that it was given, and of input that were left out for them. refused: samples of input that became silence, because
    the stream does not take all of their hop. saving: how much the stream leaves out of what it was asked for, see
    `Stream.save`.
    """

    stream: Stats
    underruns: int
    missing: int
    dropped: int
    refused: int
    saving: int


class Session:
    """Runs a `Stream` for a device that calls `exchange` in time.

    The worker is a thread, which runs inside of `with session:`. When it has ended or failed, the device hears silence.

    buffer: seconds by which the result waits beyond the stream's own delay. It has to hold what the device takes at a
        time, and beside that a hop has to be computed within it.
    clock: tells seconds.
    bypass: whether the device hears its own input, as late as the result would be. It may be set at any time.
    """

    def __init__(self, stream: Stream, *, buffer: float, clock: Callable[[], float] = time.perf_counter):
        check_number("live", "buffer", buffer, 0.001, 10)
        self._stream, self._clock = stream, clock
        rate = stream.sample_rate
        self._buffer = round(buffer * rate)
        self._fade = round(_FADE * rate)
        self._changed = threading.Condition()
        self._arrived, self._ready, self._dry = Fifo(), Fifo(), Fifo()
        self._ready.put(np.zeros(self._buffer, np.float32))
        self._dry.put(np.zeros(stream.delay, np.float32))
        self._underruns = self._missing = self._dropped = self._refused = 0
        self._short = False
        self._saving = self._good = 0
        self._bypassed = False
        self.bypass = False
        self._running = self._ended = False
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def latency(self) -> float:
        """Seconds from a sample that the device gives to the same sample converted, without those of the device."""
        return (self._stream.delay + self._buffer) / self._stream.sample_rate

    @property
    def stats(self) -> SessionStats:
        """Counters so far."""
        return SessionStats(
            self._stream.stats, self._underruns, self._missing, self._dropped, self._refused, self._saving
        )

    def exchange(self, samples: np.ndarray) -> np.ndarray:
        """Take what the device recorded, floats (n,), and return what it has to play, float32 (n,). For its callback.

        InputError for what is not such an array, and for more samples than the buffer holds: they could never be there
        in time.
        """
        samples = one_channel(samples)
        if len(samples) > self._buffer:
            raise InputError(
                f"[live] a device may take at most the {self._buffer} samples of the buffer at a time, got "
                f"{len(samples)}: use a longer buffer or shorter blocks"
            )
        with self._changed:
            if self._ended:
                return np.zeros_like(samples)
            self._arrived.put(samples)
            played = self._ready.take(len(samples))
            missing = len(samples) - len(played)
            if missing:
                self._underruns += not self._short
                self._missing += missing
                played = np.concatenate([played, np.zeros(missing, np.float32)])
            self._short = missing > 0
            self._changed.notify()
        return played

    def work(self) -> bool:
        """Convert what has arrived, at most one hop of it, and return whether there was anything. For the worker."""
        hop = round(self._stream.hop * self._stream.sample_rate)
        with self._changed:
            late = min(self._missing - self._dropped, len(self._arrived))
            left_out = self._arrived.take(late)
            self._dropped += late
            samples = self._arrived.take(hop)
            if late:
                # What follows the gap begins as if there were none.
                crossfade(left_out, samples, self._fade)
        if not len(samples):
            return late > 0
        start, hops = self._clock(), self._stream.stats.hops
        converted = self._converted(samples)
        if self._stream.stats.hops > hops:
            self._judge((self._clock() - start) / self._stream.hop)
        with self._changed:
            self._ready.put(converted)
        return True

    def _converted(self, samples: np.ndarray) -> np.ndarray:
        """Return the stream's answer, or the input as late as that would be, while `bypass` is set."""
        try:
            check_values(samples)
        except InputError:
            self._refused += len(samples)
            samples = np.zeros_like(samples)
        wet = self._stream.push(samples)
        self._dry.put(samples)
        dry = self._dry.take(len(samples))
        bypass = self.bypass
        old, new = (dry if mode else wet for mode in (self._bypassed, bypass))
        if bypass != self._bypassed:
            crossfade(old, new, self._fade)
        self._bypassed = bypass
        return new

    def _judge(self, load: float) -> None:
        """Save work after a hop that took `load` times its own length, if that is too much, or less after many quick ones."""
        self._good = self._good + 1 if load < _GOOD_LOAD else 0
        saving = self._saving
        if load > 1:
            saving = min(saving + 1, MOST_SAVING)
        elif self._good >= _GOOD_HOPS:
            saving = max(saving - 1, 0)
            self._good = 0
        if saving != self._saving:
            self._saving = saving
            self._stream.save(saving)

    def __enter__(self) -> Session:
        """Start the worker."""
        self._running, self._ended = True, False
        self._thread = threading.Thread(target=self._run, name="rvc_fast live", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker, and raise what it failed with."""
        with self._changed:
            self._running = False
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self.check()

    def check(self) -> None:
        """Raise what the worker failed with, if it did."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._arrived) or not self._running)
                    if not self._running:
                        return
                self.work()
        except BaseException as e:
            self._failure = e
        finally:
            with self._changed:
                self._ended = True
