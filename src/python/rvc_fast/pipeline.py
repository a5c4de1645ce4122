"""The signal path: 16 kHz sound -> chunks -> content features + pitch -> retrieval -> synthesizer -> sound.

Follows the public pipelines step by step ("applio", and "classic" where that one differs), their defects
included: every chunk loses 10 to 20 ms, source phase and noise start anew at each cut, nothing is crossfaded. In one
thing not: where the sound is digital silence for longer than the models see, so is the result (`find_silences`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import mlx.core as mx
import numpy as np

from . import audio, memory
from .audio.process import RATE
from .errors import InputError
from .noise import NoiseSource
from .pitch import f0 as pitch

if TYPE_CHECKING:
    from .retrieval import Index

WINDOW = pitch.HOP
"""Samples at 16 kHz per frame of pitch."""

PEAK = 0.99
"""No sample of a result is larger."""

# Below 25 ms the last chunk would render nothing; such sounds are continued by silence and the output is cut.
_SHORTEST, _CONTINUED = 400, 720

# Samples at 16 kHz that the models see to either side: the positional convolution of the content encoder, 128 frames
# of 320 samples, sees the farthest. What is below 1e-8 (resampling leaves that much of exact zeros) is silence.
SIGHT = 64 * 320
_SILENCE = 1e-8

Semantics = Literal["applio", "classic"]
Progress = Callable[[str, int, int], None]
"""progress(stage, done, total), stage being "features", "pitch" or "synthesis"."""


def check_number(what: str, name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        raise InputError(f"[{what}] {name} must be a number from {low:g} to {high:g}, got {value!r}")


def check_integer(what: str, name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InputError(f"[{what}] {name} must be a whole number from {low} to {high}, got {value!r}")


class Embedder(Protocol):
    """What turns sound into content features: HuBERT or ContentVec."""

    def features(self, audio: mx.array, version: Literal["v1", "v2"], layer: int | None = None) -> mx.array:
        """Return (frames, dim) of sound (n,) at 16 kHz, frames = (n - 400) // 320 + 1.

        `layer` is the one that the voice asks for, None for the usual one of `version`.
        """
        ...


class Voice(Protocol):
    """What speaks: a synthesizer."""

    @property
    def config(self) -> Any: ...

    @property
    def hop(self) -> int: ...

    @property
    def sample_rate(self) -> int: ...

    def infer(
        self, phone: mx.array, pitch: mx.array | None, f0: mx.array | None, speaker: int, noise: NoiseSource
    ) -> mx.array:
        """Return (T * hop,) samples of phone (1, T, dim), pitch (1, T) int32 and f0 (1, T) Hz."""
        ...


@dataclass(frozen=True)
class ChunkPlan:
    """How a long sound is cut, all in seconds.

    Sounds longer than `x_max` are cut near every multiple of `x_center`, at the quietest point at most
    `x_query` away. Each chunk is rendered with `x_pad` more on both sides, which is then cut off.
    """

    x_pad: float
    x_query: float
    x_center: float
    x_max: float

    def __post_init__(self) -> None:
        for name in ("x_pad", "x_query", "x_center", "x_max"):
            value = getattr(self, name)
            check_number("chunk", name, value, 0.01, 3600)
            if abs(value * 100 - round(value * 100)) > 1e-6:
                raise InputError(f"[chunk] {name} must be a multiple of 0.01 s, got {value!r}")
        if 2 * self.x_query > self.x_center:
            raise InputError(
                f"[chunk] x_query must be at most x_center / 2, got {self.x_query} of {self.x_center}"
            )
        if self.x_max < self.x_center:
            raise InputError(f"[chunk] x_max must be at least x_center, got {self.x_max} of {self.x_center}")

    @property
    def pad(self) -> int:
        """Samples at 16 kHz on each side of a chunk, a multiple of the window."""
        return round(self.x_pad * 100) * WINDOW


PLANS = {
    "fp32": ChunkPlan(1, 6, 38, 41),
    "fp16": ChunkPlan(3, 10, 60, 65),
    "small": ChunkPlan(1, 5, 30, 32),
}


@dataclass(frozen=True)
class Settings:
    """What a conversion is asked for. Every value is checked; InputError names the one that is wrong.

    speaker: id within a voice of several speakers.
    transpose: semitones, -48 to 48.
    index_rate: share of the retrieved features, 0 to 1 (without an index there is nothing to retrieve).
    exact_search: search all vectors of the index, not only the lists that it was built to probe.
    protect: share of the retrieval that unvoiced frames keep, 0 to 0.5; 0.5 protects nothing.
    volume_envelope: 1 keeps the loudness of the voice, 0 takes over that of the input.
    autotune: 0 (off) to 1 (on the note); applies after the transposition.
    proposed_pitch: Hz, or "male" (155) or "female" (255): moves the median pitch there by whole semitones, at
        most an octave, on top of `transpose`.
    f0_points: (n, 2) seconds and Hz that replace the estimate (`pitch.f0.read_points`), not transposed.
    f0_threshold: salience up to which a frame is unvoiced.
    chunk: a ChunkPlan or the name of one: fp32, fp16, small.
    semantics: "applio" or "classic". Classic seeks the quietest point by the sum of absolute values (applio:
        the absolute value of the sum) and pads the pitch network's input with zeros (applio: by reflection).
    """

    speaker: int = 0
    transpose: float = 0.0
    index_rate: float = 0.75
    exact_search: bool = False
    protect: float = 0.33
    volume_envelope: float = 1.0
    autotune: float = 0.0
    proposed_pitch: float | str | None = None
    f0_points: np.ndarray | None = field(default=None, compare=False)
    f0_threshold: float = 0.03
    chunk: ChunkPlan | str = "fp32"
    semantics: Semantics = "applio"

    def __post_init__(self) -> None:
        check_integer("convert", "speaker", self.speaker, 0, 2**31 - 1)
        check_number("convert", "transpose", self.transpose, -48, 48)
        check_number("convert", "index_rate", self.index_rate, 0, 1)
        check_number("convert", "protect", self.protect, 0, 0.5)
        check_number("convert", "volume_envelope", self.volume_envelope, 0, 1)
        check_number("convert", "autotune", self.autotune, 0, 1)
        check_number("convert", "f0_threshold", self.f0_threshold, 0, 1)
        if isinstance(self.proposed_pitch, str) and self.proposed_pitch not in pitch.TARGETS:
            raise InputError(
                f"[convert] proposed_pitch must be male, female or a frequency, got {self.proposed_pitch!r}"
            )
        if self.proposed_pitch is not None and not isinstance(self.proposed_pitch, str):
            check_number("convert", "proposed_pitch", self.proposed_pitch, pitch.F0_MIN, pitch.F0_MAX)
        if not isinstance(self.chunk, ChunkPlan) and self.chunk not in PLANS:
            raise InputError(
                f"[convert] chunk must be a ChunkPlan or one of {', '.join(PLANS)}, got {self.chunk!r}"
            )
        if self.semantics not in get_args(Semantics):
            raise InputError(f"[convert] semantics must be applio or classic, got {self.semantics!r}")

    @property
    def plan(self) -> ChunkPlan:
        """The chunk plan itself."""
        return self.chunk if isinstance(self.chunk, ChunkPlan) else PLANS[self.chunk]

    @property
    def target(self) -> float | None:
        """The proposed pitch in Hz."""
        return (
            pitch.TARGETS[self.proposed_pitch]
            if isinstance(self.proposed_pitch, str)
            else self.proposed_pitch
        )

    @property
    def moves_pitch(self) -> bool:
        """Whether anything is asked of the pitch."""
        return bool(self.transpose or self.autotune) or not (
            self.proposed_pitch is None and self.f0_points is None
        )


@dataclass(frozen=True)
class Chunk:
    """One piece of the padded sound: its samples and its frames of pitch."""

    samples: slice
    frames: slice


@dataclass(frozen=True)
class Prepared:
    """A sound ready for the models: `padded` is its high-passed form, float32, with `pad` on both sides.

    `silences` are the spans of the sound, in samples, in which nothing may be heard (`find_silences`).
    """

    padded: np.ndarray
    pad: int
    length: int
    chunks: tuple[Chunk, ...]
    silences: tuple[tuple[float, float], ...] = ()

    @property
    def signal(self) -> np.ndarray:
        """The sound without the padding."""
        return self.padded[self.pad : len(self.padded) - self.pad]

    @property
    def frames(self) -> int:
        """Frames of pitch of the padded sound."""
        return len(self.padded) // WINDOW


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def run(
    sound: np.ndarray,
    *,
    voice: Voice,
    embedder: Embedder,
    noise: NoiseSource,
    pitch_model: pitch.PitchModel | None = None,
    f0: np.ndarray | None = None,
    index: Index | None = None,
    settings: Settings | None = None,
) -> np.ndarray:
    """Return the converted sound float32 (m,) at the voice's rate of `sound` (n,) at 16 kHz.

    Begins at the high-pass and ends after the 0.99 peak rule. `f0` gives the pitch before transposition
    instead of `pitch_model`, one value per 160 samples of the padded sound.
    """
    settings = settings or Settings()
    prepared = prepare(sound, settings)
    features = content_features(prepared, embedder, voice)
    if f0 is None and voice.config.use_f0:
        if pitch_model is None:
            raise InputError("[convert] this voice needs a pitch model or an f0 contour")
        f0 = estimate_pitch(prepared, pitch_model, settings)
    contour = None if f0 is None else move_pitch(prepared, f0, settings)
    return render(prepared, features, contour, voice, index, settings, noise)


def prepare(sound: np.ndarray, settings: Settings) -> Prepared:
    """High-pass `sound` (n,) at 16 kHz, find the cuts and pad by reflection (steps 1 and 2)."""
    length, pad = len(sound), settings.plan.pad
    if length == 0:
        raise InputError("[convert] the sound has no samples")
    silences = find_silences(sound)
    if length < _SHORTEST:
        sound = np.pad(sound, (0, _CONTINUED - length))
    # float64 as in the references: it decides cuts in near silence. What is kept is float32.
    signal = audio.high_pass(sound)
    cuts = find_cuts(signal, settings.plan, settings.semantics)
    padded = np.pad(signal.astype(np.float32), pad, mode="reflect")
    return Prepared(padded, pad, length, plan_chunks(len(signal), cuts, pad), silences)


def find_silences(sound: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Return the spans (start, stop) of `sound` (n,), in samples, from which the models see nothing but zeros.

    They begin `SIGHT` after the last other sample and end as long before the next one; before the beginning and
    after the end there is none, which is infinity here.
    """
    whole = len(sound) // WINDOW * WINDOW
    heard = (np.abs(sound[:whole].reshape(-1, WINDOW)).max(axis=1, initial=0) >= _SILENCE).tolist()
    heard.append(bool((np.abs(sound[whole:]) >= _SILENCE).any()))
    edges = [
        -math.inf,
        *(WINDOW * (frame + side) for frame in np.flatnonzero(heard) for side in (0, 1)),
        math.inf,
    ]
    spans = [(start + SIGHT, stop - SIGHT) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    return tuple((start, stop) for start, stop in spans if start < stop and start < len(sound) and stop > 0)


def silence(samples: np.ndarray, first: int, hop: int, silences: tuple[tuple[float, float], ...]) -> None:
    """Make what `samples` (n,), `hop` per frame, have in the silences zero, in place, faded over one frame at the edges.

    `first` is the sample of the sound that they begin at.
    """
    scale = WINDOW / hop
    for start, stop in silences:
        begin = 0 if start == -math.inf else max(0, math.floor((start - first) / scale))
        end = len(samples) if stop == math.inf else min(len(samples), math.ceil((stop - first) / scale))
        if begin < end:
            position = first + scale * np.arange(begin, end)
            depth = np.minimum(position - start, stop - position) / WINDOW
            samples[begin:end] *= 1 - np.clip(depth, 0, 1).astype(np.float32)


def find_cuts(signal: np.ndarray, plan: ChunkPlan, semantics: Semantics = "applio") -> list[int]:
    """Return the samples at which `signal` (n,) is cut, multiples of the window; none up to `plan.x_max`.

    Near each multiple t of x_center the cut is the first minimum over [t - x_query, t + x_query) of |s|, s
    being the sum of the window around (classic: the sum of absolute values).
    """
    query, center = round(plan.x_query * RATE), round(plan.x_center * RATE)
    if len(signal) + WINDOW <= round(plan.x_max * RATE):
        return []
    padded = np.pad(signal, WINDOW // 2, mode="reflect")
    cuts = []
    for t in range(center, len(signal), center):
        start, stop = t - query, min(t + query, len(signal))
        sums = np.zeros(stop - start, signal.dtype)
        # One shift at a time, so that sums round as the references' do.
        for shift in range(WINDOW):
            part = padded[start + shift : stop + shift]
            sums += np.abs(part) if semantics == "classic" else part
        cuts.append((start + int(np.argmin(np.abs(sums)))) // WINDOW * WINDOW)
    return cuts


def plan_chunks(length: int, cuts: list[int], pad: int) -> tuple[Chunk, ...]:
    """Return the chunks of a padded sound of `length` + 2 * `pad` samples that is cut at `cuts`."""
    total = length + 2 * pad
    starts = [0, *cuts]
    return tuple(
        Chunk(
            slice(s, total if t is None else t + 2 * pad + WINDOW),
            slice(s // WINDOW, (total if t is None else t + 2 * pad) // WINDOW),
        )
        for s, t in zip(starts, [*cuts, None], strict=True)
    )


def content_features(
    prepared: Prepared, embedder: Embedder, voice: Voice, progress: Progress | None = None
) -> list[mx.array]:
    """Return the content features float32 (frames, dim) that the voice takes, of every chunk (step 3)."""
    features: list[mx.array] = []
    width, version, layer = (
        voice.config.text_enc_hidden_dim,
        voice.config.version,
        voice.config.embedder_layer,
    )
    for number, chunk in enumerate(prepared.chunks, 1):
        feats = embedder.features(mx.array(prepared.padded[chunk.samples]), version, layer)
        if feats.shape[1] != width:
            raise InputError(
                f"[convert] the voice takes features of {width} values, the embedder gives {feats.shape[1]}"
            )
        features.append(feats.astype(mx.float32))
        del feats
        with memory.bounded():
            mx.eval(features[-1])
        if progress is not None:
            progress("features", number, len(prepared.chunks))
    return features


def estimate_pitch(
    prepared: Prepared, model: pitch.PitchModel, settings: Settings, progress: Progress | None = None
) -> np.ndarray:
    """Return the pitch of the padded sound, Hz per frame, before any change."""
    pad: Literal["reflect", "zeros"] = "zeros" if settings.semantics == "classic" else "reflect"
    f0 = pitch.estimate(prepared.padded, model, threshold=settings.f0_threshold, pad=pad)
    if progress is not None:
        progress("pitch", 1, 1)
    return f0[: prepared.frames]


def move_pitch(prepared: Prepared, f0: np.ndarray, settings: Settings) -> np.ndarray:
    """Return the contour that the voice gets, float32 (prepared.frames,), of f0 (at least as long)."""
    f0 = pitch.check(f0, "convert")
    if len(f0) < prepared.frames:
        raise InputError(f"[convert] f0 must have {prepared.frames} values for this sound, got {len(f0)}")
    f0 = f0[: prepared.frames]
    semitones = settings.transpose
    if settings.target is not None:
        semitones += pitch.proposed_semitones(f0, settings.target)
    f0 = pitch.autotune(pitch.transpose(f0, semitones), settings.autotune)
    if settings.f0_points is not None:
        f0 = pitch.overlay(f0, settings.f0_points, prepared.pad // WINDOW)
    return f0


def render(
    prepared: Prepared,
    features: list[mx.array],
    f0: np.ndarray | None,
    voice: Voice,
    index: Index | None,
    settings: Settings,
    noise: NoiseSource,
    *,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> np.ndarray:
    """Return the sound float32 (m,) at the voice's rate, from features and the final pitch (steps 4 to 9)."""
    watch = stopwatch or Stopwatch()
    f0 = f0 if voice.config.use_f0 else None
    bins = None if f0 is None else pitch.coarse(f0)
    # Frames are 10 ms, so the padding is the same number of them everywhere.
    pad = prepared.pad // WINDOW * voice.hop
    lengths = [chunk_frames(chunk, feats) for chunk, feats in zip(prepared.chunks, features, strict=True)]
    out = np.empty(sum(max(0, frames * voice.hop - 2 * pad) for frames in lengths), np.float32)
    filled = 0
    for number, (chunk, feats, frames) in enumerate(zip(prepared.chunks, features, lengths, strict=True), 1):
        contour = None if f0 is None else f0[chunk.frames][:frames]
        with watch("retrieval"):
            phone = blend_features(feats, contour, frames, index, settings)
        with watch("synthesis"), memory.bounded():
            speech = voice.infer(
                phone[None],
                None if bins is None else mx.array(bins[chunk.frames][None, :frames]),
                None if contour is None else mx.array(contour[None]),
                settings.speaker,
                noise,
            )
            samples = np.array(speech.astype(mx.float32))[pad : max(pad, frames * voice.hop - pad)]
        out[filled : filled + len(samples)] = samples
        silence(out[filled : filled + len(samples)], chunk.samples.start, voice.hop, prepared.silences)
        filled += len(samples)
        if progress is not None:
            progress("synthesis", number, len(lengths))
    with watch("post"):
        if not np.isfinite(out).all():
            raise InputError("[convert] the voice gave NaN or infinite samples: its weights are damaged")
        if prepared.length < _SHORTEST:
            out = out[: -(-prepared.length * voice.sample_rate // RATE)]
        out = audio.volume_envelope(out, voice.sample_rate, prepared.signal, settings.volume_envelope)
        return audio.limit_peak(out, PEAK)


def chunk_frames(chunk: Chunk, features: mx.array | np.ndarray) -> int:
    """Return how many 10 ms frames of a chunk are rendered: no more than doubled features or pitch give."""
    samples = chunk.samples.stop - chunk.samples.start
    return min(samples // WINDOW, 2 * features.shape[0], chunk.frames.stop - chunk.frames.start)


def blend_features(
    features: mx.array, f0: np.ndarray | None, frames: int, index: Index | None, settings: Settings
) -> mx.array:
    """Retrieve, double in time, and give unvoiced frames back part of their own features (steps 4 to 6).

    Returns (frames, dim) float32 of features (at least frames / 2, dim).
    """
    own = mx.repeat(features, 2, axis=0)[:frames]
    if index is None or settings.index_rate == 0:
        return own
    from .retrieval import blend_array

    blended = blend_array(features, index, settings.index_rate, exact=settings.exact_search)
    phone = mx.repeat(blended, 2, axis=0)[:frames]
    if f0 is None or settings.protect == 0.5:
        return phone
    share = mx.array(np.where(f0 < 1, settings.protect, 1).astype(np.float32))[:, None]
    return phone * share + own * (1 - share)
