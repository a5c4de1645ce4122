"""A conversion of a sound that goes on: samples are pushed, and as many converted ones come back."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import audio
from .. import device as devices
from ..audio.process import RATE
from ..device import Device
from ..errors import InputError
from ..pipeline import PEAK, Stopwatch
from ..settings import CHANGEABLE, LIVE, WINDOW, Settings, check_number
from .signal import Fifo, Resampler
from .speech import MOST_SAVING, Models, Plan, Speech

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..settings import ChangeableOptions

GRID = 0.02
"""Seconds: hops, look-aheads and contexts are whole multiples of one row of content features."""

_WARM_HOPS = 4

# Hops whose seconds are remembered for the percentiles.
_REMEMBERED = 1000


@dataclass(frozen=True)
class Latency:
    """How long a sound is under way, in seconds.

    algorithmic: from a sample that is pushed to the same sample converted, in samples pushed; exact.
    compute_p50, compute_p95, compute_p99: what a hop took, of the last 1000 hops; 0 before the first.
    """

    algorithmic: float
    compute_p50: float
    compute_p95: float
    compute_p99: float


@dataclass(frozen=True)
class Stats:
    """What a stream has done so far.

    samples: pushed. hops: computed. late_hops: of these, how many took longer than they last.
    level_in, level_out: of the last hop, root mean square in dB of full scale, -120 for silence.
    seconds: work by stage, as in `ConversionResult.timings`.
    """

    samples: int
    hops: int
    late_hops: int
    level_in: float
    level_out: float
    seconds: dict[str, float]


def _frames(name: str, seconds: float, low: float, high: float) -> int:
    """Return a time in frames of 10 ms; InputError unless it is on the grid and from `low` to `high`."""
    check_number("stream", name, seconds, low, high)
    rows = round(seconds / GRID)
    if abs(seconds - rows * GRID) > 1e-6:
        raise InputError(f"[stream] {name} must be a multiple of {GRID} s, got {seconds!r}")
    return 2 * rows


class Stream:
    """A live conversion. Made by `Converter.stream`.

    What comes out is a function of what goes in: it does not depend on how the samples were cut into pushes. Noise and
    phase of the voice go on by absolute time, so that hops fit together; a crossfade of 5 ms joins them. Any thread may
    call any method. They take turns: `set`, `save` and `warm` wait while another thread computes a hop.
    """

    def __init__(
        self,
        models: Models,
        device: Device,
        *,
        sample_rate: int,
        hop: float,
        lookahead: float,
        context: float,
        revision: float,
        gate: float,
        settings: dict[str, Any],
    ):
        check_number("stream", "sample_rate", sample_rate, 8000, 192000, whole=True)
        check_number("stream", "gate", gate, -120, 0)
        plan = Plan(
            hop=_frames("hop", hop, 0.02, 10),
            lookahead=_frames("lookahead", lookahead, 0.04, 10),
            context=_frames("context", context, 0.1, 60),
            revision=_frames("revision", revision, 0, context),
            gate=gate,
        )
        _check_names(settings, LIVE)
        self._settings = Settings(**settings)
        _check_voice(models, self._settings)
        self.sample_rate = sample_rate
        self._models, self._device, self._plan = models, device, plan
        self._lock = threading.Lock()
        self._speech = Speech(models, plan, self._settings.seed)
        rate = models.voice.sample_rate
        self._into, self._out = Resampler(sample_rate, RATE), Resampler(rate, sample_rate)
        # A sample waits for its hop and the look-ahead, and for what both resamplers have to see beyond it.
        waits = (plan.hop + plan.lookahead) * sample_rate / 100
        self.delay = math.ceil(waits + self._into.ahead + (self._out.ahead + 1) * sample_rate / rate)
        self._arrived, self._ready = Fifo(), Fifo()
        self._ready.put(np.zeros(self.delay, np.float32))
        self._consumed = self._heard = 0
        # What has ended the stream.
        self._ended: str | None = None
        self._samples = self._hops = self._late = 0
        self._level_in = self._level_out = -120.0
        self._watch = Stopwatch()
        self._took: deque[float] = deque(maxlen=_REMEMBERED)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples (n,), floats with full scale 1.0, and return as many converted ones, float32 (n,).

        The result is `delay` samples late and begins with as many zeros. A push computes as many hops as it completes.
        The result is not scaled: what is beyond 0.99 is clipped.

        InputError for what is not such an array, for NaN and infinity, and after `flush`. Nothing was taken then, and
        the stream can go on. An error while a hop is computed, as from a damaged voice, ends the stream, because a part
        of its state has moved on.
        """
        samples = one_channel(samples)
        check_values(samples)
        with self._lock:
            self._check_open("push")
            return self._push(samples)

    def flush(self) -> np.ndarray:
        """Return the `delay` samples that are still under way, as if silence followed. The stream ends with it."""
        with self._lock:
            self._check_open("flush")
            rest = self._push(np.zeros(self.delay, np.float32))
            self._ended = "flush"
            return rest

    def _check_open(self, what: str) -> None:
        if self._ended is not None:
            raise InputError(f"[stream] {what} must not follow {self._ended}: open another stream")

    def set(self, **settings: Unpack[ChangeableOptions]) -> None:
        """Change settings from the next hop on: those of a conversion, but `seed`.

        InputError names what is wrong; nothing has changed then.
        """
        _check_names(settings, CHANGEABLE)
        with self._lock:
            changed = replace(self._settings, **settings)
            _check_voice(self._models, changed)
            self._settings = changed

    def save(self, saving: int) -> None:
        """Do with less from the next hop on, for a machine that is too slow: 0 to 2, 0 being all that was asked for.

        1: features are not revised and look back half as far. 2: the pitch network also sees 0.32 s only, or a hop and its
        look-ahead. The delay stays as it is.
        """
        check_number("stream", "saving", saving, 0, MOST_SAVING, whole=True)
        with self._lock:
            self._speech.save(saving)

    def warm(self) -> None:
        """Do what only the first hops have to do, so that they take no longer than the later ones.

        A few hops of silence go through the models, of the lengths that the stream will have, and leave no trace in it.
        On a GPU its kernels are compiled by that.
        """
        scratch = Speech(self._models, self._plan, 0)
        hops = -(-self._plan.lookahead // self._plan.hop) + _WARM_HOPS
        with self._lock, self._turn():
            for _ in range(hops):
                scratch.push(np.zeros(self._plan.hop * WINDOW, np.float32), self._settings, Stopwatch())

    @property
    def settings(self) -> Settings:
        """The settings of the next hop."""
        return self._settings

    @property
    def hop(self) -> float:
        """Seconds of one hop."""
        return self._plan.hop / 100

    @property
    def latency(self) -> Latency:
        """How late the result is, and how long hops take."""
        took = np.array(self._took) if self._took else np.zeros(1)
        return Latency(self.delay / self.sample_rate, *(float(np.percentile(took, p)) for p in (50, 95, 99)))

    @property
    def stats(self) -> Stats:
        """Counters and levels so far."""
        return Stats(
            self._samples, self._hops, self._late, self._level_in, self._level_out, dict(self._watch.seconds)
        )

    def _push(self, samples: np.ndarray) -> np.ndarray:
        self._arrived.put(samples)
        self._samples += len(samples)
        hop = self._plan.hop * WINDOW
        while len(self._arrived) >= (wanted := self._into.needed(self._heard + hop) - self._consumed):
            try:
                self._convert(self._arrived.take(wanted))
            except BaseException:
                self._ended = "a hop that failed"
                raise
        return self._ready.take(len(samples))

    def _convert(self, taken: np.ndarray) -> None:
        """Compute one hop of the samples (n,) that it needs next."""
        start = time.perf_counter()
        self._consumed += len(taken)
        sound = self._into.push(taken)
        self._heard += len(sound)
        with self._turn():
            voiced = self._out.push(self._speech.push(sound, self._settings, self._watch))
        converted = np.clip(voiced, -PEAK, PEAK)
        self._ready.put(converted)
        self._hops += 1
        self._took.append(time.perf_counter() - start)
        self._late += self._took[-1] > self.hop
        self._level_in, self._level_out = level(taken), level(converted)

    def _turn(self) -> AbstractContextManager[None]:
        return devices.on(self._device)


def one_channel(samples: np.ndarray) -> np.ndarray:
    """Return samples (n,) of any floats as float32; InputError for what is not such an array."""
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise InputError(
            f"[stream] samples must be (n,) floats with full scale 1.0, got {samples.dtype} of shape {samples.shape}"
        )
    # What float32 cannot hold becomes infinite, which `check_values` refuses.
    with np.errstate(over="ignore"):
        return samples.astype(np.float32, copy=False)


def check_values(samples: np.ndarray) -> None:
    """InputError if some of the samples (n,) are NaN, infinite or far beyond full scale."""
    if len(samples):
        audio.check_values("[stream] samples", samples)


def level(samples: np.ndarray) -> float:
    """Return the root mean square of samples (n,) in dB of full scale, at least -120."""
    power = float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0
    return 10 * math.log10(max(power, 1e-12))


def _check_names(settings: Mapping[str, object], allowed: tuple[str, ...]) -> None:
    """InputError for a setting that is not allowed here."""
    for name in settings:
        if name not in allowed:
            raise InputError(f"[stream] a setting here must be one of {', '.join(allowed)}, got {name}")


def _check_voice(models: Models, settings: Settings) -> None:
    """InputError for settings that this voice cannot follow."""
    config = models.voice.config
    if settings.speaker >= config.spk_embed_dim:
        raise InputError(
            f"[stream] speaker must be less than {config.spk_embed_dim} for this voice, got {settings.speaker}"
        )
    if settings.moves_pitch and not config.use_f0:
        raise InputError(
            "[stream] this voice does not follow the pitch of its input, so the pitch cannot be changed"
        )
