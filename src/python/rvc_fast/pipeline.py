"""The signal path: 16 kHz sound -> chunks -> content features + pitch -> retrieval -> synthesizer -> sound.

Follows the public pipelines step by step ("applio", and "classic" where that one differs), their defects
included: every chunk loses 10 to 20 ms, source phase and noise start anew at each cut, nothing is crossfaded. In one
thing not: where the sound is digital silence for longer than the models see, so is the result (`find_silences`).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import mlx.core as mx
import numpy as np

from . import audio, memory
from .audio.process import RATE
from .errors import InputError
from .noise import NoiseSource, SeededNoise
from .ops.packed import Array
from .pitch import f0 as pitch
from .settings import WINDOW, Chunking, Semantics, Settings

if TYPE_CHECKING:
    from .retrieval import Index

PEAK = 0.99
"""No sample of a result is larger."""

# Below 25 ms the last chunk would render nothing; such sounds are continued by silence and the output is cut.
_SHORTEST, _CONTINUED = 400, 720

# Samples at 16 kHz that the models see to either side: the positional convolution of the content encoder, 128 frames
# of 320 samples, sees the farthest. What is below 1e-8 (resampling leaves that much of exact zeros) is silence.
SIGHT = 64 * 320
SILENCE = 1e-8

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total), stage being "features", "pitch" or "synthesis"."""


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
        self, phone: mx.array, pitch: Array, f0: Array, speaker: int, noise: NoiseSource, part: slice
    ) -> mx.array:
        """Return the samples (1, n * hop) of the n frames `part` of phone (1, T, dim), pitch (1, T) int32 and f0 (1, T) Hz."""
        ...


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


class Rendering(NamedTuple):
    """What a run makes: the sound float32 (m,) at `sample_rate` Hz, and the pitch that the voice got, if it takes one.

    f0: float32, Hz, one value per 10 ms of the source.
    """

    samples: np.ndarray
    sample_rate: int
    f0: np.ndarray | None


class Kept:
    """What `run` keeps of its last sound, so that a run that changes only later steps begins there.

    Content features and estimated pitch take about 0.2 MB per second of sound.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Give up what is kept."""
        self._key: tuple[object, ...] = ()
        self._prepared: Prepared | None = None
        self._features: list[mx.array] | None = None
        self._f0: dict[float, np.ndarray] = {}

    def prepared(self, sound: np.ndarray, settings: Settings) -> Prepared:
        """Return `prepare(sound, settings)`; what is kept of another sound, or of other chunks, is given up."""
        digest = hashlib.blake2b(np.ascontiguousarray(sound).data, digest_size=16).digest()
        key = (digest, sound.dtype, settings.chunking, settings.semantics)
        if self._prepared is None or self._key != key:
            self.clear()
            self._key, self._prepared = key, prepare(sound, settings)
        return self._prepared

    def features(self, compute: Callable[[], list[mx.array]]) -> list[mx.array]:
        """Return the content features, computed once."""
        if self._features is None:
            self._features = compute()
        return self._features

    def f0(self, threshold: float, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the estimated pitch, computed once for a threshold."""
        if threshold not in self._f0:
            self._f0 = {threshold: compute()}
        return self._f0[threshold]


def run(
    sound: np.ndarray,
    *,
    voice: Voice,
    embedder: Embedder,
    pitch_model: pitch.PitchModel | None = None,
    f0: Callable[[Prepared], np.ndarray] | None = None,
    index: Index | None = None,
    settings: Settings | None = None,
    noise: NoiseSource | None = None,
    kept: Kept | None = None,
    progress: Progress | None = None,
    stopwatch: Stopwatch | None = None,
) -> Rendering:
    """Convert `sound` (n,) at 16 kHz: all steps of a conversion from the high-pass on, in their order.

    Args:
        f0: gives the pitch of the padded sound before transposition, in Hz, one value per 160 samples, in place of
            `pitch_model`.
        noise: the numbers of the synthesis; those that follow from `settings.seed` by default.
        kept: of an earlier run with the same models; what it holds of this sound is not computed again.
    """
    settings, kept, watch = settings or Settings(), kept or Kept(), stopwatch or Stopwatch()
    with watch("read"):
        prepared = kept.prepared(sound, settings)
    with watch("features"):
        features = kept.features(lambda: content_features(prepared, embedder, voice, progress))
    contour = None
    with watch("pitch"):
        if voice.config.use_f0:
            if f0 is not None:
                estimate = f0(prepared)
            elif pitch_model is not None:
                compute = partial(estimate_pitch, prepared, pitch_model, settings, progress)
                estimate = kept.f0(settings.f0_threshold, compute)
            else:
                raise InputError("[convert] this voice needs a pitch model or an f0 contour")
            contour = move_pitch(prepared, estimate, settings)
    noise = SeededNoise(settings.seed) if noise is None else noise
    samples = render(
        prepared, features, contour, voice, index, settings, noise, progress=progress, stopwatch=watch
    )
    with watch("post"):
        rate = settings.output_rate or voice.sample_rate
        samples = _finished(audio.resample(samples, voice.sample_rate, rate))
    if contour is not None:
        first = prepared.pad // WINDOW
        contour = contour[first : first + max(1, prepared.length // WINDOW)].copy()
    return Rendering(samples, rate, contour)


def _finished(samples: np.ndarray) -> np.ndarray:
    """Return the sound as it is handed out: some samples, finite, none beyond the peak. Nothing may follow this."""
    if len(samples) == 0:
        raise InputError(
            "[convert] the models gave a sound without samples: this embedder does not fit the voice"
        )
    samples = audio.limit_peak(samples, PEAK)
    if not np.isfinite(samples).all():
        raise InputError("[convert] the result has NaN or infinite samples")
    return samples


def prepare(sound: np.ndarray, settings: Settings) -> Prepared:
    """High-pass `sound` (n,) at 16 kHz, find the cuts and pad by reflection (steps 1 and 2)."""
    length, pad = len(sound), settings.chunking.pad
    if length == 0:
        raise InputError("[convert] the sound has no samples")
    silences = find_silences(sound)
    if length < _SHORTEST:
        sound = np.pad(sound, (0, _CONTINUED - length))
    # float64 as in the references: it decides cuts in near silence. What is kept is float32.
    signal = audio.high_pass(sound)
    cuts = find_cuts(signal, settings.chunking, settings.semantics)
    padded = np.pad(signal.astype(np.float32), pad, mode="reflect")
    return Prepared(padded, pad, length, chunks_of(len(signal), cuts, pad), silences)


def find_silences(sound: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Return the spans (start, stop) of `sound` (n,), in samples, from which the models see nothing but zeros.

    They begin `SIGHT` after the last other sample and end as long before the next one; before the beginning and
    after the end there is none, which is infinity here.
    """
    whole = len(sound) // WINDOW * WINDOW
    heard = (np.abs(sound[:whole].reshape(-1, WINDOW)).max(axis=1, initial=0) >= SILENCE).tolist()
    heard.append(bool((np.abs(sound[whole:]) >= SILENCE).any()))
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


def find_cuts(signal: np.ndarray, chunking: Chunking, semantics: Semantics = "applio") -> list[int]:
    """Return the samples at which `signal` (n,) is cut, multiples of the window; none up to `chunking.x_max`.

    Near each multiple t of x_center the cut is the first minimum over [t - x_query, t + x_query) of |s|, s
    being the sum of the window around (classic: the sum of absolute values).
    """
    query, center = round(chunking.x_query * RATE), round(chunking.x_center * RATE)
    if len(signal) + WINDOW <= round(chunking.x_max * RATE):
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


def chunks_of(length: int, cuts: list[int], pad: int) -> tuple[Chunk, ...]:
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
    bins = None if f0 is None else pitch.coarse(f0)
    # Frames are 10 ms, so the padding is the same number of them everywhere.
    pad = prepared.pad // WINDOW
    lengths = [chunk_frames(chunk, feats) for chunk, feats in zip(prepared.chunks, features, strict=True)]
    out = np.empty(sum(max(0, frames - 2 * pad) * voice.hop for frames in lengths), np.float32)
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
                slice(pad, max(pad, frames - pad)),  # what is beside it was for the models to see
            )
            samples = np.array(speech[0].astype(mx.float32))
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
