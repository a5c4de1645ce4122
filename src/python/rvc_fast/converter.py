"""From a sound, or its file, to the converted sound: models loaded once, what stays the same kept."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import mlx.core as mx
import numpy as np

from . import audio, pipeline
from . import device as devices
from .device import Device
from .errors import InputError, RvcFastError
from .layers import Packing
from .memory import give_back
from .noise import NoiseSource
from .ops import Dtype, dispatch, precision
from .pipeline import Embedder, Kept, Progress, Stopwatch, Voice
from .pitch import f0 as pitch
from .settings import LIVE, Chunking, Settings, check_number, documented
from .writing import shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .live import Stream
    from .retrieval import Index
    from .settings import LiveOptions, Options

Path = str | os.PathLike[str]

MOST_CHANNELS = 64
"""More than this is not a sound with its channels last."""


@dataclass(frozen=True)
class ConversionResult:
    """A converted sound.

    samples: (n,) float32, full scale 1.0.
    sample_rate: Hz.
    f0: the pitch that the voice was given, (frames,) float32 Hz, one value per 10 ms of the input and 0 where
        unvoiced; None for a voice that does not follow the pitch.
    timings: seconds by stage: read, features, pitch, retrieval, synthesis, post. A stage whose result was
        kept from the last call takes next to none. On a GPU retrieval is computed with the synthesis, whose seconds
        hold both.
    """

    samples: np.ndarray
    sample_rate: int
    f0: np.ndarray | None
    timings: dict[str, float]

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return len(self.samples) / self.sample_rate

    @property
    def realtime_factor(self) -> float:
        """Seconds of work per second of sound: below 1 is faster than real time."""
        return sum(self.timings.values()) / self.duration

    def save(self, path: Path, *, subtype: str | None = None) -> None:
        """Write the sound, see `audio.write_audio`."""
        audio.write_audio(path, self.samples, self.sample_rate, subtype=subtype)


class Converter:
    """A voice with what it needs to speak. Made by `rvc_fast.load`.

    It keeps the content features and the estimated pitch of the last sound (about 0.2 MB per second of it),
    so that a call that changes only the pitch, the index, protect, the speaker, the seed or the like renders
    only what follows from them. `forget()` frees them. Several threads may share a Converter; they take
    turns.
    """

    def __init__(
        self,
        voice: Voice,
        embedder: Embedder,
        pitch_model: pitch.PitchModel | None = None,
        index: Index | None = None,
        device: Device | None = None,
        memory: Literal["normal", "low"] = "normal",
    ):
        self.device = devices.choose(device)
        if voice.config.use_f0 and pitch_model is None:
            raise InputError("[load] this voice follows the pitch: it needs a pitch model")
        _check_embedder(voice, embedder)
        self.voice = voice
        self.embedder = embedder
        self.pitch_model = pitch_model
        self._lock = threading.Lock()
        self._worker: int | None = None
        self._kept = Kept()
        self._warm = False
        self._gives_back = memory == "low"
        self.index = index

    @property
    def index(self) -> Index | None:
        """The retrieval index. May be replaced between calls, by a loaded one, a path, or None."""
        return self._index

    @index.setter
    def index(self, index: Index | Path | None) -> None:
        if isinstance(index, (str, os.PathLike)):
            from .retrieval import load_index

            index = load_index(index)
        width = self.voice.config.text_enc_hidden_dim
        if index is not None and index.dim != width:
            raise InputError(f"[load] the voice takes features of {width} values, the index has {index.dim}")
        self._index = index

    def warm(self) -> None:
        """Do what only the first conversion has to do, so that it is as fast as the next ones.

        On a GPU every kernel that a conversion takes is compiled, by converting 0.3 s of silence; sounds of all lengths
        take the same kernels, and a second call returns at once. On a CPU kernels were compiled with the package:
        nothing is done there. Raises what a conversion would raise, as BackendError for a kernel that cannot be used.
        """
        with self._turn(), devices.on(self.device):
            if self._warm or dispatch.gpu_backend() is None:
                return
            sound, settings = warm_sound()
            self._run(sound, settings, kept=None)
            self._warm = True

    def forget(self) -> None:
        """Free what is kept of the last sound."""
        with self._turn():
            self._kept.clear()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one thread at a time work; RvcFastError where waiting for that would never end."""
        devices.check()
        if self._worker == threading.get_ident():
            raise RvcFastError(
                "[convert] what a conversion calls (progress, noise) must not call its Converter"
            )
        with self._lock:
            self._worker = threading.get_ident()
            try:
                yield
            finally:
                self._worker = None

    def _run(self, sound: np.ndarray, settings: Settings, **options: Any) -> pipeline.Rendering:
        return pipeline.run(
            sound,
            voice=self.voice,
            embedder=self.embedder,
            pitch_model=self.pitch_model,
            index=self._index,
            settings=settings,
            **options,
        )

    @documented
    def convert(
        self,
        sound: Path | np.ndarray | mx.array,
        *,
        sample_rate: int | None = None,
        f0: np.ndarray | mx.array | None = None,
        f0_file: Path | None = None,
        strict: bool = False,
        noise: NoiseSource | None = None,
        progress: Progress | None = None,
        **settings: Unpack[Options],
    ) -> ConversionResult:
        """Return `sound` in the voice.

        sound: a path ("-" is stdin), or samples (n,) or (n, channels), full scale 1.0, at `sample_rate` Hz.
        f0: the pitch before transposition instead of an estimate, one value in Hz per 10 ms of the sound, 0
            where unvoiced.
        f0_file: lines `seconds,hertz` that replace the pitch in their span, after transposition.
        strict: InputError for a file that ends before its header says so; otherwise a warning.
        noise: gives the random numbers of the synthesis, in place of a seed; see `rvc_fast.noise.NoiseSource`.
        progress: called as progress(stage, done, total).

        InputError names what is wrong.
        """
        points = None if f0_file is None else pitch.read_points(f0_file)
        wanted = Settings(**settings, f0_points=points)
        if wanted.speaker >= (speakers := self.voice.config.spk_embed_dim):
            raise InputError(
                f"[convert] speaker must be less than {speakers} for this voice, got {wanted.speaker}"
            )
        if not self.voice.config.use_f0 and (wanted.moves_pitch or f0 is not None):
            raise InputError(
                "[convert] this voice does not follow the pitch of its input, so the pitch cannot be changed"
            )
        if noise is not None and not isinstance(noise, NoiseSource):
            raise InputError(
                "[convert] noise must have the methods normal(shape) and uniform(shape) of rvc_fast.noise.NoiseSource, "
                f"got {type(noise).__name__}"
            )
        given = None if f0 is None else partial(_around, pitch.check(np.array(f0), "convert"))
        watch = Stopwatch()
        with watch("read"):
            # Before it is our turn: a file is read while another thread converts or warms up.
            signal = audio.limit_peak(_load_16k(sound, sample_rate, strict), 0.95)
        if points is not None and f0_file is not None:
            pitch.check_span(points, len(signal) / audio.RATE, f0_file)
        with self._turn(), devices.on(self.device):
            done = self._run(
                signal, wanted, f0=given, noise=noise, kept=self._kept, progress=progress, stopwatch=watch
            )
            self._warm = True
            if self._gives_back:
                give_back()
        return ConversionResult(done.samples, done.sample_rate, done.f0, watch.seconds)

    @partial(documented, names=LIVE)
    def stream(
        self,
        *,
        sample_rate: int,
        hop: float = 0.08,
        lookahead: float = 0.06,
        context: float = 6.0,
        revision: float = 1.0,
        gate: float = -50.0,
        **settings: Unpack[LiveOptions],
    ) -> Stream:
        """Return a live conversion: samples are pushed as they arrive, and as many converted ones come back.

        A sample comes back `hop` + `lookahead` and 2 to 8 ms for resampling later (`Stream.latency`), if a hop is
        computed in less than its own length. The models, the index and the device are those of this Converter now.

        sample_rate: of what is pushed and of what comes back, Hz, from 8000 to 192000.
        hop: seconds that are rendered at a time, a multiple of 0.02. Long hops cost less per second of sound.
        lookahead: seconds of the future that every model sees, a multiple of 0.02 from 0.04. More sounds better.
        context: seconds that the content features look back, a multiple of 0.02.
        revision: seconds, up to `context` and a multiple of 0.02, whose inner features are computed anew at each hop, with what
            has followed since. Costs time and sounds better.
        gate: dB of full scale above which 10 ms of the input count as sound for the features' normalisation.

        InputError names what is wrong.
        """
        from .live import LiveVoice, Models, Stream

        if not isinstance(self.voice, LiveVoice):
            raise InputError(
                "[stream] the voice must have the methods phases(f0, phase) and infer(..., phase) of a synthesizer, "
                f"got {type(self.voice).__name__}"
            )
        models = Models(self.voice, self.embedder, self.pitch_model, self._index)
        return Stream(
            models,
            self.device,
            sample_rate=sample_rate,
            hop=hop,
            lookahead=lookahead,
            context=context,
            revision=revision,
            gate=gate,
            settings=dict(settings),
        )


def warm_sound() -> tuple[np.ndarray, Settings]:
    """Return the sound (n,) float32 at 16 kHz that `Converter.warm` converts, and how: 0.3 s, with little padding."""
    return np.zeros(4800, np.float32), Settings(chunk=Chunking(0.2, 1, 2, 2))


def load(
    voice: Path | Voice,
    *,
    embedder: Path | Embedder | None = None,
    pitch_model: Path | pitch.PitchModel | None = None,
    index: Path | Index | None = None,
    memory: Literal["normal", "low"] = "normal",
    dtype: Dtype = "float32",
    device: Device | None = None,
    warm: bool = False,
) -> Converter:
    """Return a Converter for a voice (.pth or packed .safetensors) and its models: files or already loaded.

    Without `embedder` or `pitch_model` those in the cache folder are taken; InputError says how to get them.
    A voice that does not follow the pitch needs no pitch model. Converters of the same files share their models.

    memory: "low" keeps the weights at their size, and gives back after each conversion what the CPU's kernels worked in;
        "normal" holds more where that is faster.
    dtype: what the models compute in; sums are float32. "float16" and "bfloat16" on a GPU: weights and everything
        between layers have 16 bits, the phase of the source stays float32. "bfloat16" on a CPU: linear layers and
        convolutions multiply in it, which is faster with AMX-BF16 or AVX512-BF16. "int8" on a CPU: content encoder, text
        encoder and flow multiply whole numbers, the rest stays float32, which is faster with AVX512-VNNI, AVX-VNNI or
        Arm's dot products. InputError for "float16" on a CPU, for "int8" on a GPU, and for "bfloat16" and "int8" on a
        CPU without these instructions. "bfloat16x2" on a CPU with AMX-BF16: the same parts as in "int8" multiply numbers
        that are sums of two in bfloat16. Of 100 dB of accuracy about 85 are left by "bfloat16x2", 52 by "float16", 40 by
        "bfloat16", 30 by "int8".
    device: "cpu" or "gpu", where this Converter and its models work; None is the CPU with RVC_FAST_BACKEND=cpu, else
        MLX's default device. InputError without such a device. MLX has one default device for all threads: while a
        Converter works on the other one that is changed, and put back afterwards. Converters of one device work side
        by side in threads, those of different devices take turns.

    All three hold for files only: a model that is already loaded stays as it is, and has to be used on the device it
    was loaded for.

    warm: compile a GPU's kernels now instead of during the first conversion, see `Converter.warm`.
    """
    devices.check()
    device = devices.choose(device)
    with devices.on(device):
        dispatch.check_backend("load")
        converter = _load(voice, embedder, pitch_model, index, memory, dtype, device)
    if warm:
        converter.warm()
    return converter


def _load(
    voice: Path | Voice,
    embedder: Path | Embedder | None,
    pitch_model: Path | pitch.PitchModel | None,
    index: Path | Index | None,
    memory: Literal["normal", "low"],
    dtype: Dtype,
    device: Device,
) -> Converter:
    packing = Packing(memory, precision.choose("load", dtype))
    if isinstance(voice, (str, os.PathLike)):
        from .synthesizer import load_voice

        voice = load_voice(voice, packing)
    if embedder is None:
        embedder = _default_embedder(voice.config.embedder, voice.config.text_enc_hidden_dim)
    if isinstance(embedder, (str, os.PathLike)):
        from .features.hubert import load_hubert

        embedder = load_hubert(embedder, packing)
    if pitch_model is None and voice.config.use_f0:
        from .weights.registry import locate

        pitch_model = locate("rmvpe")
    if isinstance(pitch_model, (str, os.PathLike)):
        from .pitch.rmvpe import load_rmvpe

        pitch_model = load_rmvpe(pitch_model, packing)
    converter = Converter(voice, embedder, pitch_model, device=device, memory=memory)
    converter.index = index
    return converter


def _default_embedder(name: str, width: int) -> Path:
    """Return contentvec for a voice that takes features of `width` values and whose file names an encoder, or "".

    A warning if that is another one; InputError if contentvec cannot serve, or is not here, which says what can.
    """
    from .resources import demo_dir
    from .weights.configs import VERSIONS
    from .weights.registry import find, locate

    plain = os.path.basename(name.replace("\\", "/")).lower().replace("_", "-").replace(" ", "-")
    plain = plain.removesuffix(".pt").removesuffix("-base")
    # ContentVec is the encoder of nearly all voices; hubert_base.pt is RVC's copy of it.
    other = bool(name) and plain != "hubert" and not plain.startswith("contentvec")
    give = "give that encoder (--embedder, embedder=)"
    if width not in VERSIONS and not other:
        raise InputError(
            f"[load] this voice takes features of {width} values, which are those of another encoder than contentvec: "
            f"{give}; the demo voice's is {demo_dir() / 'embedder'}"
        )
    if other:
        trained = f"this voice was trained on the features of {shown(name)!r}, not of contentvec"
        if width not in VERSIONS or not find("contentvec").present:
            raise InputError(f"[load] {trained}: {give}")
        warnings.warn(
            f"rvc_fast: {trained}, and will not speak clearly with it: {give}", UserWarning, stacklevel=4
        )
    return locate("contentvec")


def _check_embedder(voice: Voice, embedder: Embedder) -> None:
    """InputError if the encoder cannot give what the voice takes; a warning if it lacks the layer asked for."""
    from .features.hubert import HubertModel

    if not isinstance(embedder, HubertModel):
        return
    config = voice.config
    got = embedder.width(config.version)
    if got != config.text_enc_hidden_dim:
        raise InputError(
            f"[load] the voice takes features of {config.text_enc_hidden_dim} values, the embedder gives {got}"
        )
    layers = len(embedder.layers)
    if config.embedder_layer is not None and config.embedder_layer > layers:
        warnings.warn(
            f"rvc_fast: this voice takes layer {config.embedder_layer} of its encoder, this one has {layers}: "
            "its last is taken",
            UserWarning,
            stacklevel=5,
        )


def _load_16k(sound: Any, sample_rate: int | None, strict: bool) -> np.ndarray:
    """Return a checked sound as float32 (n,) at 16 kHz."""
    if isinstance(sound, (str, os.PathLike)):
        if sample_rate is not None:
            raise InputError(f"[convert] sample_rate must not be given with a file, got {sample_rate!r}")
        return audio.to_mono_16k(*audio.read_mono(sound, strict=strict))
    if sample_rate is None:
        raise InputError("[convert] sample_rate must be given with samples")
    check_number("convert", "sample_rate", sample_rate, 1000, 768000, whole=True)
    floats = not isinstance(sound, mx.array) or mx.issubdtype(sound.dtype, mx.floating)
    # NumPy has no bfloat16.
    samples = (
        np.array(sound.astype(mx.float32)) if isinstance(sound, mx.array) and floats else np.asarray(sound)
    )
    if not floats or samples.dtype.kind != "f":
        dtype = str(getattr(sound, "dtype", samples.dtype)).removeprefix("mlx.core.")
        raise InputError(f"[convert] samples must be floats with full scale 1.0, got {dtype}")
    if samples.ndim not in (1, 2) or 0 in samples.shape:
        raise InputError(
            f"[convert] samples must be (n,) or (n, channels), not empty, got shape {samples.shape}"
        )
    if samples.ndim == 2 and samples.shape[1] > MOST_CHANNELS:
        raise InputError(
            f"[convert] samples must be (n, channels), at most {MOST_CHANNELS} of these, got shape {samples.shape}: "
            "transpose them if they are (channels, n)"
        )
    audio.check_values("[convert] samples", samples)
    return audio.to_mono_16k(samples, sample_rate)


def _around(f0: np.ndarray, prepared: pipeline.Prepared) -> np.ndarray:
    """Return a contour of the sound itself as one of the padded sound."""
    frames = prepared.length // pitch.HOP
    if not max(1, frames) <= len(f0) <= frames + 2:
        raise InputError(
            f"[convert] f0 must have one value per 10 ms of the sound, {max(1, frames)} here, got {len(f0)}"
        )
    margin = prepared.pad // pitch.HOP
    f0 = np.pad(f0, (margin, 0), mode="reflect")
    return np.pad(f0, (0, max(0, prepared.frames - len(f0))), mode="reflect")
