"""One hop of a live conversion: from the next 10 ms frames at 16 kHz to the frames of the voice that are ready."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import mlx.core as mx
import numpy as np

from .. import memory
from ..errors import InputError
from ..features.hubert import HubertModel
from ..noise import NoiseSource
from ..ops.packed import Array
from ..pipeline import SIGHT, SILENCE, Embedder, Stopwatch, Voice, blend_features
from ..pitch import f0 as contours
from ..retrieval import Index
from ..settings import WINDOW, Settings
from .features import ContinuedFeatures, LiveFeatures, WindowFeatures
from .noise import FrameNoise
from .pitch import LivePitch
from .signal import HighPass, Seam

# What text encoder, flow and decoder see before the first frame that is rendered.
VOICE_FRAMES = 96

MOST_SAVING = 2
"""The largest number that `Speech.save` takes."""

# Seconds of the crossfade between hops, and the frames over which loudness is averaged.
_FADE = 0.005
_LOUDNESS_FRAMES = 50
_SIGHT = SIGHT // WINDOW


@runtime_checkable
class LiveVoice(Voice, Protocol):
    """A voice that can go on from window to window: a synthesizer whose source begins at any phase."""

    def infer(
        self,
        phone: mx.array,
        pitch: Array,
        f0: Array,
        speaker: int,
        noise: NoiseSource,
        part: slice,
        phase: float = 0.0,
    ) -> mx.array:
        """As `Voice.infer`; `phase`: cycles of the source before the first frame."""
        ...

    def phases(self, f0: mx.array, phase: float) -> np.ndarray:
        """Return the cycles (1, T) of the source after each frame of f0 (1, T), which begins at `phase`."""
        ...


@dataclass(frozen=True)
class Models:
    """What a live conversion works with."""

    voice: LiveVoice
    embedder: Embedder
    pitch_model: contours.PitchModel | None
    index: Index | None


@dataclass(frozen=True)
class Plan:
    """How a live conversion is cut, in frames of 10 ms, and the level in dB that counts as sound.

    All are even numbers of frames. Each hop renders the frames up to `lookahead` before the end of what was heard.
    `context` is how far the features look back, `revision` how many of these frames they compute anew each time.
    """

    hop: int
    lookahead: int
    context: int
    revision: int
    gate: float

    @property
    def pitch_frames(self) -> int:
        """Frames of the pitch network's window: a multiple of 32, a hop and its look-ahead and at least as much before."""
        return 32 * max(2, -(-2 * (self.hop + self.lookahead) // 32))


class Speech:
    """Converts a sound at 16 kHz hop by hop. Frame k of the result stands for frame k of the sound."""

    def __init__(self, models: Models, plan: Plan, seed: int):
        self._models, self._plan = models, plan
        voice = models.voice
        config = voice.config
        rows = plan.context // 2
        version, layer = config.version, config.embedder_layer
        self._features: LiveFeatures
        if isinstance(models.embedder, HubertModel):
            self._features = ContinuedFeatures(
                models.embedder, version, layer, context=rows, settled=plan.revision // 2, gate=plan.gate
            )
        else:
            self._features = WindowFeatures(models.embedder, version, layer, context=rows)
        self._pitch = (
            LivePitch(models.pitch_model, plan.pitch_frames) if models.pitch_model and config.use_f0 else None
        )
        self._high_pass = HighPass()
        self._noise = FrameNoise(seed)
        self._seam = Seam(round(_FADE * voice.sample_rate))
        self._loudness = _Loudness(voice.hop)
        self._waiting = np.zeros(0, np.float32)
        self._heard = self._done = 0
        # Final frames from `_from` on, and the source's phase before the first of them.
        self._from, self._phase = 0, 0.0
        self._phone: mx.array | None = None
        self._f0 = np.zeros(0, np.float32)

    def push(self, sound: np.ndarray, settings: Settings, watch: Stopwatch) -> np.ndarray:
        """Take the next hop of the sound and return the samples of the voice that are ready, at its rate.

        Nothing comes until the look-ahead has been heard, then the samples of `hop` frames each time.
        """
        self._waiting = np.concatenate([self._waiting, sound])
        self._heard += len(sound) // WINDOW
        ready = self._heard - self._plan.lookahead
        if ready <= 0:
            return np.zeros(0, np.float32)
        sound, self._waiting = self._waiting, self._waiting[:0]
        with memory.bounded():
            rendered = self._render(sound, ready, settings, watch)
        with watch("post"):
            count = (ready - self._done) * self._models.voice.hop
            self._loudness.push(sound)
            piece = self._loudness.apply(
                self._seam.join(rendered, count), self._plan.lookahead, settings.volume_envelope
            )
        self._done = ready
        return piece

    def save(self, saving: int) -> None:
        """See `Stream.save`."""
        plan = self._plan
        rows = plan.context // 2
        self._features.limit(*((rows // 2, 0) if saving else (rows, plan.revision // 2)))
        if self._pitch is not None:
            self._pitch.limit(32 if saving == MOST_SAVING else plan.pitch_frames)

    def _render(self, sound: np.ndarray, ready: int, settings: Settings, watch: Stopwatch) -> np.ndarray:
        """Return the samples of the frames up to `ready` that are new, and of one frame more."""
        done, voice = self._done, self._models.voice
        filtered = self._high_pass.push(sound)
        with watch("features"):
            rows = self._features.push(filtered, done // 2, ready // 2)
        stop = done + 2 * rows.shape[0]
        contour = None
        with watch("pitch"):
            if self._pitch is not None:
                contour = self._pitch.push(filtered, done, ready, settings)[: stop - done]
        with watch("retrieval"):
            phone = blend_features(rows, contour, stop - done, self._models.index, settings)
            if self._phone is not None:
                phone = mx.concatenate([self._phone, phone])
        f0 = None if contour is None else np.concatenate([self._f0, contour])
        first = self._from
        with watch("synthesis"):
            speech = voice.infer(
                phone[None],
                None if f0 is None else mx.array(contours.coarse(f0)[None]),
                None if f0 is None else mx.array(f0[None]),
                settings.speaker,
                self._noise.window(first, stop - first),
                slice(done - first, ready - first + 1),
                self._phase,
            )
            kept = max(first, ready - VOICE_FRAMES)
            self._phone = mx.contiguous(phone[kept - first : ready - first])
            mx.eval(speech, self._phone)
            samples = np.array(speech[0].astype(mx.float32))
            if f0 is not None:
                self._phase = later_phase(voice, f0, self._phase, kept - first)
                self._f0 = f0[kept - first : ready - first]
            self._from = kept
        if not np.isfinite(samples).all():
            raise InputError("[stream] the voice gave NaN or infinite samples: its weights are damaged")
        return samples


def later_phase(voice: LiveVoice, f0: np.ndarray, phase: float, frames: int) -> float:
    """Return the phase at which the source of f0[frames:] has to begin to be that of f0 (T,), which begins at `phase`.

    From its second frame on: in its first one a source that interpolates has no frame before it. `frames` < T - 1.
    """
    if frames == 0:
        return phase
    whole = voice.phases(mx.array(f0[None]), phase)[0, frames]
    advance = voice.phases(mx.array(f0[None, frames : frames + 2]), 0.0)[0, 0]
    return float((whole - advance) % 1)


class _Loudness:
    """Follows the envelope of the source as far as asked, and is silent where the source has been digital silence.

    The two loudnesses are compared over the last second or so: energies of frames are averaged exponentially. Gains
    change linearly within a frame.
    """

    def __init__(self, hop: int):
        self._hop = hop
        self._energies = np.zeros(0)
        self._loud = np.zeros(_SIGHT, bool)
        self._wanted = self._present = 0.0
        self._gain = 0.0

    def push(self, sound: np.ndarray) -> None:
        """Take the next whole frames of the source (n,) at 16 kHz."""
        frames = sound.reshape(-1, WINDOW)
        self._energies = np.concatenate([self._energies, np.square(frames, dtype=np.float64).mean(axis=1)])
        self._loud = np.concatenate([self._loud, np.abs(frames).max(axis=1) >= SILENCE])

    def apply(self, samples: np.ndarray, lookahead: int, mix: float) -> np.ndarray:
        """Return the next samples of the voice, whole frames, of which `lookahead` frames of the source are ahead."""
        frames = samples.reshape(-1, self._hop)
        count = len(frames)
        seen = np.lib.stride_tricks.sliding_window_view(self._loud, _SIGHT + lookahead + 1)
        gains = np.empty(count + 1)
        gains[0] = self._gain
        present = np.square(frames, dtype=np.float64).mean(axis=1)
        for i in range(count):
            self._wanted += (self._energies[i] - self._wanted) / _LOUDNESS_FRAMES
            self._present += (present[i] - self._present) / _LOUDNESS_FRAMES
            ratio = np.sqrt(self._wanted) / max(np.sqrt(self._present), 1e-6)
            gains[i + 1] = ratio ** (1 - mix) if seen[i].any() else 0.0
        self._gain = gains[count]
        self._energies, self._loud = self._energies[count:], self._loud[count:]
        if (gains == 1).all():
            return samples
        step = (np.arange(self._hop) + 1) / self._hop
        curve = gains[:-1, None] + np.diff(gains)[:, None] * step
        return (frames * curve.astype(np.float32)).reshape(-1)
