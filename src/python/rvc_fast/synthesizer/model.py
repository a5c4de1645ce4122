"""Synthesizer: content features, pitch and a speaker -> the voice's waveform (VITS, Kim et al. 2021)."""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import FileFormatError, InputError
from ..layers import NORMAL, Embedding, Packing, load
from ..noise import NoiseSource, WindowedNoise
from ..ops.packed import Array
from ..weights.stored import checked_gains, stored
from .config import SynthesizerConfig
from .flow import REACH, Flow
from .hifigan import HifiGan
from .mrf import MrfHifiGan
from .refinegan import RefineGan
from .text_encoder import TextEncoder

if TYPE_CHECKING:
    from ..weights.checkpoint import Checkpoint

DECODERS: dict[str, Callable[..., Any]] = {
    "HiFi-GAN": HifiGan,
    "MRF HiFi-GAN": MrfHifiGan,
    "RefineGAN": RefineGan,
}
# Deviation of the latent noise in the public code's inference.
TEMPERATURE = 0.66666

# The two spellings of weight norm that keep a gain g and a direction v: (suffix of g, suffix of v).
_WEIGHT_NORMS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)
_TRANSPOSED = re.compile(r"dec\.(ups|upsamples)\.\d+\.weight")
# Convolutions of one step, which are matrix products here.
_POINTWISE = re.compile(r"(.*\.)?(conv_[qkvo]|proj|pre|post|cond|cond_layer|res_skip_layers\.\d+)\.weight")
_RELATIVE = re.compile(r".*\.emb_rel_[kv]")
_NORM = re.compile(r"(.*\.norm_layers_[12]\.\d+)\.(gamma|beta)")


def _gain(g: np.ndarray, v: np.ndarray, name: str) -> np.ndarray:
    """g / ||v||, the norm over the axes where g has size 1, in float32."""
    g, v = g.astype(np.float32), v.astype(np.float32)
    if g.ndim != v.ndim or any(a not in (1, b) for a, b in zip(g.shape, v.shape, strict=True)):
        raise FileFormatError(f"[voice] the weight norm of {name!r} has shapes {g.shape} and {v.shape}")
    axes = tuple(i for i, n in enumerate(g.shape) if n == 1)
    with np.errstate(all="ignore"):  # what is not finite is reported by name when the weights are checked
        return g / np.sqrt(np.sum(v * v, axis=axes, keepdims=True))


def _with_gains(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replace the two halves of every weight norm: X.weight is the direction, X.gain what it is multiplied by."""
    found = dict(tensors)
    for gain, direction in _WEIGHT_NORMS:
        ends = (gain, direction)
        for stem in {n.removesuffix(end) for n in tensors for end in ends if n.endswith(end)}:
            for name in (stem + gain, stem + direction):
                if name not in tensors:
                    raise FileFormatError(f"[voice] tensor {name!r} is missing")
            v = found.pop(stem + direction)
            if stem + ".weight" in found:
                raise FileFormatError(f"[voice] tensor {stem + '.weight'!r} is there in two spellings")
            found |= {stem + ".weight": v, stem + ".gain": _gain(found.pop(stem + gain), v, stem)}
    return found


def _renamed(name: str) -> str:
    norm = _NORM.fullmatch(name)
    return f"{norm[1]}.{'weight' if norm[2] == 'gamma' else 'bias'}" if norm else name


def _to_mlx(name: str, value: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Bring a tensor from PyTorch's layout to MLX's: that of the tensor `whole`, of which it may be the gain."""
    if whole.ndim != 3:
        return value
    if _RELATIVE.fullmatch(name) and whole.shape[0] == 1:
        return value[0]
    if _POINTWISE.fullmatch(name) and whole.shape[2] == 1:
        return value[:, :, 0]
    return value.transpose(1, 2, 0) if _TRANSPOSED.fullmatch(name) else value.transpose(0, 2, 1)


def _of(name: str) -> str:
    """Return the name of the weight that a gain belongs to, of another tensor its own name."""
    return name.removesuffix(".gain") + ".weight" if name.endswith(".gain") else name


ALL = slice(None)


def widened(part: slice, reach: int, frames: int) -> slice:
    """Return `part` of `frames` frames with `reach` more on each side, as far as there are so many."""
    start, stop, _ = part.indices(frames)
    return slice(max(0, start - reach), min(frames, max(start, stop) + reach))


def draw(mean: mx.array, log_deviation: mx.array, noise: NoiseSource) -> mx.array:
    """Draw the latent (1, T, inter) in the dtype of `mean`. An island: inside it is float32, for the exponential."""
    latent = noise.normal((mean.shape[0], mean.shape[2], mean.shape[1])).swapaxes(1, 2)
    drawn = mean.astype(mx.float32) + mx.exp(log_deviation.astype(mx.float32)) * latent * TEMPERATURE
    return drawn.astype(mean.dtype)


class Synthesizer(nn.Module):
    """One voice: `config` its architecture, `hop` samples per frame, `sample_rate` of its output."""

    float_parts: ClassVar[tuple[str, ...]] = ("dec.",)
    """How the names of layers begin that lose too much in whole numbers."""

    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        self._config = config
        self.enc_p = TextEncoder(config)
        self.flow = Flow(config)
        self.dec = DECODERS[config.vocoder](config)
        self.emb_g = Embedding(config.spk_embed_dim, config.gin_channels)

    @property
    def config(self) -> SynthesizerConfig:
        """The architecture."""
        return self._config

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self._config.hop

    @property
    def sample_rate(self) -> int:
        """Of the output, Hz."""
        return self._config.sr

    @staticmethod
    def sanitize(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """PyTorch tensors -> this module's parameters, in the precision that they have.

        Drops the posterior encoder (training only), turns weight norm of any spelling into a gain (`weights.stored`),
        renames the layer norms' gamma and beta, and turns (O, C, K) into (O, K, C).

        Raises:
            FileFormatError: one half of a weight norm is missing, the two do not fit, or a result is not finite.
        """
        kept = {name: value for name, value in tensors.items() if not name.startswith("enc_q.")}
        found = _with_gains(kept)
        moved = {
            _renamed(name): np.ascontiguousarray(_to_mlx(_of(name), value, found.get(_of(name), value)))
            for name, value in found.items()
        }
        for name, value in moved.items():
            if not np.isfinite(value).all() and not name.endswith(".gain"):
                raise FileFormatError(f"[voice] tensor {name!r} holds numbers that are not finite")
        return checked_gains("voice", moved)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, packing: Packing = NORMAL) -> Synthesizer:
        """Build and load a voice.

        Raises:
            FileFormatError: a configuration no network can be built with, or a tensor that is missing, left
                over or of the wrong shape, named.
        """
        model = cls(SynthesizerConfig.from_dict(checkpoint.config))
        tensors = checkpoint.tensors if checkpoint.packed else cls.sanitize(checkpoint.tensors)
        load(model, stored("voice", tensors, checkpoint.config), "voice", packing, checkpoint.kernels)
        return model

    def infer(
        self,
        phone: mx.array,
        pitch: Array,
        f0: Array,
        speaker: int,
        noise: NoiseSource,
        part: slice = ALL,
        phase: float = 0.0,
    ) -> mx.array:
        """Return the waveforms of the frames `part`, (B, frames * hop), float32, not evaluated yet.

        Arguments as in `trace`.
        """
        return self.trace(phone, pitch, f0, speaker, noise, part, phase)["audio"]

    def source(self, f0: mx.array, noise: NoiseSource, phase: float = 0.0) -> mx.array:
        """Return the excitation (B, T * hop, 1) of f0 (B, T) Hz, its fundamental at `phase` cycles before it."""
        return self.dec.merge.source(f0, noise, self._config, phase)

    def phases(self, f0: mx.array, phase: float) -> np.ndarray:
        """Return the phase (B, T) after each frame of `source(f0, noise, phase)`, double, in cycles from 0 to 1."""
        return self.dec.merge.advance(f0, self._config, phase)

    def trace(
        self,
        phone: mx.array,
        pitch: Array,
        f0: Array,
        speaker: int,
        noise: NoiseSource,
        part: slice = ALL,
        phase: float = 0.0,
    ) -> dict[str, mx.array]:
        """Synthesize, keeping what verification compares. Nothing is evaluated: the results are one graph.

        All frames pass through the text encoder, in which each sees all others. Flow and decoder work on the frames
        `part` and on as many beside them as their layers reach, so that the waveform is that of a whole synthesis.

        Args:
            phone: (B, T, text_enc_hidden_dim) content features. The sounds of a batch do not change each other.
            pitch: (B, T) coarse pitch, int32 from 0 to 255; None for a voice without f0. A number beyond these
                counts as the nearest of them: looking at it here would make a GPU's owner wait.
            f0: (B, T) Hz, 0 where unvoiced; None for a voice without f0.
            speaker: row of the speaker table, for all sounds.
            noise: gives the latent noise (B, inter, T), then what the decoder draws, for the whole sound.
            part: consecutive frames whose waveform is wanted.
            phase: cycles of the source's fundamental before the first frame.

        Returns:
            m_p, logs_p, z_p (B, T, inter); z (B, N, inter) of the N frames that the decoder works on; source
            (B, T * hop) if the voice uses f0; audio (B, frames * hop). float32.

        Raises:
            InputError: an argument that does not fit this voice.
        """
        self._check_arguments(phone, pitch, f0, speaker)
        g = mx.broadcast_to(self.emb_g(mx.array([[speaker]])), (phone.shape[0], 1, self._config.gin_channels))
        mean, log_deviation = self.enc_p(phone, pitch)
        z_p = draw(mean, log_deviation, noise)
        frames = phone.shape[1]
        inner = self.window(part, frames)
        outer = widened(inner, REACH, frames)
        z = self.flow.reverse(z_p[:, outer], g)[:, inner.start - outer.start :][:, : inner.stop - inner.start]
        traced = {"m_p": mean, "logs_p": log_deviation, "z_p": z_p, "z": z}
        source = None
        if f0 is not None:
            source = self.source(f0, noise, phase)
            traced["source"] = source[..., 0]
        traced["audio"] = self.decode(z, g, source, noise, part, frames)
        return {name: array.astype(mx.float32) for name, array in traced.items()}

    def window(self, part: slice, frames: int) -> slice:
        """Return the frames that the decoder works on for `part` of `frames` frames."""
        return widened(part, self.dec.reach, frames)

    def decode(
        self, z: mx.array, g: mx.array, source: Array, noise: NoiseSource, part: slice, frames: int
    ) -> mx.array:
        """Return the waveforms (B, n * hop) of the n frames `part` of a sound of `frames` frames.

        Args:
            z: (B, N, inter) of the frames `window(part, frames)`.
            g: (B, 1, gin), the speaker.
            source: (B, frames * hop, 1) of the whole sound; None for a voice without f0.
            noise: gives what the decoder draws, for the whole sound.
        """
        window, hop = self.window(part, frames), self.hop
        start, stop, _ = part.indices(frames)
        if source is not None:
            source = source[:, window.start * hop : window.stop * hop]
        audio = self.dec(z, g, source, WindowedNoise(noise, frames, window.start, window.stop))[..., 0]
        return audio[:, (start - window.start) * hop : (stop - window.start) * hop]

    def _check_arguments(self, phone: mx.array, pitch: Array, f0: Array, speaker: int) -> None:
        def require(condition: bool, argument: str, requirement: str, got: object) -> None:
            if not condition:
                raise InputError(f"[synthesizer] {argument} must be {requirement}, got {got}")

        c = self._config
        shape = tuple(phone.shape)
        fits = len(shape) == 3 and min(shape[:2]) >= 1 and shape[2] == c.text_enc_hidden_dim
        require(fits, "phone", f"of shape (B, T, {c.text_enc_hidden_dim}) with B and T at least 1", shape)
        last = c.spk_embed_dim - 1
        require(0 <= speaker <= last, "speaker", f"from 0 to {last}" if last else "0", speaker)
        for name, array in (("pitch", pitch), ("f0", f0)):
            got = None if array is None else tuple(array.shape)
            if c.use_f0:
                require(got == shape[:2], name, f"of shape {shape[:2]} for a voice with f0", got)
            else:
                require(got is None, name, "None for a voice without f0", f"an array of shape {got}")


def load_voice(path: str | PathLike[str], packing: Packing = NORMAL) -> Synthesizer:
    """Load a voice from any file that `weights.checkpoint.load_checkpoint` reads; shared while in use."""
    from ..weights.shared import load_model

    return load_model(Synthesizer, path, "voice", packing)
