"""HuBERT / ContentVec: 16 kHz sound -> content features, 50 frames a second.

A convolutional front end (one frame of 400 samples every 320) and a post-norm transformer: the "base" layout,
at any width and depth.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .. import ops
from ..errors import FileFormatError, InputError
from ..layers import NORMAL, Conv1d, Layer, LayerNorm, Linear, Packing, load, sanitized
from ..weights.stored import checked_gains, stored

if TYPE_CHECKING:
    from ..weights.checkpoint import Checkpoint

Version = Literal["v1", "v2"]

# v1 voices were trained on the output of this layer, projected; v2 voices on the last layer's.
V1_LAYER = 9

# Frames of the front end that are computed at a time: bounds its memory, which is 640 times its output's.
FRONT_END_BLOCK = 256

# Far above every real model; they stop a hostile file before anything is built from its numbers.
_LARGEST, _MOST_LAYERS = 1 << 14, 64

# What Hugging Face configurations may say of models that are built differently.
_LAYOUT = {
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "hidden_act": "gelu",
    "conv_bias": False,
    "do_stable_layer_norm": False,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
}


@dataclass(frozen=True)
class HubertConfig:
    """Sizes, with Hugging Face's names and the base model's defaults."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    classifier_proj_size: int = 256
    layer_norm_eps: float = 1e-5

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> HubertConfig:
        """Take the known keys; FileFormatError if the others describe a model of another layout."""
        for key, want in _LAYOUT.items():
            if values.get(key, want) != want:
                raise FileFormatError(f"[hubert] {key} must be {want!r}, got {reprlib.repr(values[key])}")
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        for name, value in known.items():
            known[name] = _checked(name, value)
        config = cls(**known)
        if not len(config.conv_dim) == len(config.conv_kernel) == len(config.conv_stride) >= 1:
            raise FileFormatError(
                "[hubert] conv_dim, conv_kernel and conv_stride must be of one length, "
                f"got {config.conv_dim}, {config.conv_kernel} and {config.conv_stride}"
            )
        if (config.hop, config.window) != (320, 400):
            raise FileFormatError(
                "[hubert] conv_kernel and conv_stride must make frames of 400 samples every 320, got "
                f"{reprlib.repr(config.conv_kernel)} and {reprlib.repr(config.conv_stride)}"
            )
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            parts = getattr(config, name)
            if config.hidden_size % parts:
                raise FileFormatError(f"[hubert] {name} must divide {config.hidden_size}, got {parts!r}")
        return config

    @property
    def hop(self) -> int:
        """Samples from one frame to the next (320)."""
        return math.prod(self.conv_stride)

    @property
    def window(self) -> int:
        """Samples that one frame sees (400)."""
        return _needed(self.conv_kernel, self.conv_stride, 1)


def _checked(name: str, value: Any) -> Any:
    """Return a value of the config, lists as tuples; FileFormatError if no network can have it."""
    if name == "layer_norm_eps":
        if type(value) not in (int, float) or not 0 < value <= 0.1:
            raise FileFormatError(
                f"[hubert] {name} must be above 0 and at most 0.1, got {reprlib.repr(value)}"
            )
        return float(value)
    several = name.startswith("conv_")
    numbers = list(value) if several and isinstance(value, list | tuple) else [value]
    largest = _MOST_LAYERS if name == "num_hidden_layers" else _LARGEST
    if len(numbers) > 16 or not all(type(n) is int and 1 <= n <= largest for n in numbers):
        kind = "a list of up to 16 whole numbers" if several else "a whole number"
        raise FileFormatError(
            f"[hubert] {name} must be {kind} from 1 to {largest}, got {reprlib.repr(value)}"
        )
    return tuple(numbers) if several else value


def _needed(kernels: tuple[int, ...], strides: tuple[int, ...], frames: int) -> int:
    """Inputs that a stack of convolutions needs for `frames` outputs."""
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        frames = (frames - 1) * stride + kernel
    return frames


class GroupNormConv(Layer):
    """The first convolution, its normalisation over time and GELU, as one convolution.

    Mean and variance of a convolution's outputs follow from mean and covariance of its input windows, so they
    are known before it runs and are folded into its weight. That is an island: only what it folds is narrow.
    """

    def __init__(self, out_channels: int, kernel_size: int, stride: int, eps: float):
        super().__init__()
        self.weight = mx.zeros((out_channels, kernel_size, 1))
        self.norm_weight = mx.ones((out_channels,))
        self.norm_bias = mx.zeros((out_channels,))
        self._stride = stride
        self._eps = eps

    def fold(self, audio: mx.array) -> tuple[ops.Weight, mx.array]:
        """Return (weight, bias) of the convolution that normalises over the whole of `audio` (n,), float32.

        The sums are of double precision, which only MLX's CPU stream has: a GPU waits for these 10 x 10 numbers, but
        nothing waits on the host.
        """
        kernel, stride = self.weight.shape[1], self._stride
        count, hops = (audio.shape[0] - kernel) // stride + 1, -(-kernel // stride)
        with mx.stream(mx.cpu):
            # Rows of one hop: a window is some of them in a row, and never has to be copied out.
            size = (count + hops - 1) * stride
            samples = audio[:size].astype(mx.float64)
            rows = mx.pad(samples, (0, size - samples.shape[0])).reshape(-1, stride)
            parts = [rows[i : i + count] for i in range(hops)]
            mean = mx.concatenate([part.mean(axis=0) for part in parts])[:kernel]
            square = mx.concatenate([mx.concatenate([a.T @ b for b in parts], axis=1) for a in parts])
            covariance = square[:kernel, :kernel] / count - mean[:, None] * mean
        return self.fold_moments(mean, covariance)

    def fold_moments(self, mean: mx.array, covariance: mx.array) -> tuple[ops.Weight, mx.array]:
        """Return what `fold` does, of the mean (K,) and covariance (K, K) of the windows of K samples, in double."""
        with mx.stream(mx.cpu):
            weight = self.weight[:, :, 0].astype(mx.float64)
            variance = ((weight @ covariance) * weight).sum(axis=1)
            gain = self.norm_weight.astype(mx.float64) / mx.sqrt(variance + self._eps)
            bias = (self.norm_bias.astype(mx.float64) - gain * (weight @ mean)).astype(mx.float32)
            folded = (weight * gain[:, None]).astype(mx.float32)[:, :, None]
        return ops.pack_conv1d(folded, dtype=self.precision.weights), self.receive(bias)

    def __call__(self, x: mx.array, weight: ops.Weight, bias: mx.array) -> mx.array:
        return ops.conv1d(self.receive(x), weight, bias, stride=self._stride, activation="gelu")


class FrontEnd(nn.Module):
    """Convolutions from sounds to frames: (B, n) -> (B, frames, conv_dim[-1])."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        dims, kernels, strides = config.conv_dim, config.conv_kernel, config.conv_stride
        self.first = GroupNormConv(dims[0], kernels[0], strides[0], 1e-5)
        self.layers = [
            Conv1d(dims[i - 1], dims[i], kernels[i], stride=strides[i], bias=False)
            for i in range(1, len(dims))
        ]
        self._config = config

    def frames(self, audio: mx.array, folded: tuple[ops.Weight, mx.array]) -> mx.array:
        """Return the frames (F, conv_dim[-1]) of one sound (n,), normalised by what `GroupNormConv` folded."""
        x = self.first(audio[None, :, None], *folded)
        for layer in self.layers:
            x = layer(x, activation="gelu")
        return x[0]

    def __call__(self, audio: mx.array) -> mx.array:
        config = self._config
        hop, window = config.hop, config.window
        folded = [self.first.fold(sound) for sound in audio]
        frames = (audio.shape[1] - window) // hop + 1
        out: list[mx.array] = []
        for start, end in ops.blocks(frames, FRONT_END_BLOCK):
            x = ops.after(audio[:, start * hop : (end - 1) * hop + window, None], out)
            # Each sound has its own normalisation, and with it its own first convolution.
            x = mx.concatenate([self.first(x[i : i + 1], *both) for i, both in enumerate(folded)])
            for layer in self.layers:
                x = layer(x, activation="gelu")
            out.append(x)
        return mx.concatenate(out, axis=1)


KeysValues = tuple[mx.array, mx.array]
"""The keys and the values of one layer's attention, (B, frames, hidden) each."""


class EncoderLayer(nn.Module):
    """Post-norm transformer layer, (B, T, hidden) -> (B, T, hidden)."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.attention_norm = LayerNorm(width, eps)
        self.intermediate = Linear(width, config.intermediate_size)
        self.output = Linear(config.intermediate_size, width)
        self.final_norm = LayerNorm(width, eps)
        self._heads = config.num_attention_heads

    def __call__(self, x: mx.array) -> mx.array:
        return self.extend(x, None)[0]

    def extend(self, x: mx.array, past: KeysValues | None) -> tuple[mx.array, KeysValues]:
        """Return the layer of x (B, T, hidden), which attends to `past` and to itself, and the keys and values of both.

        `past`: keys and values (B, S, hidden) of earlier frames, as an earlier call gave them.
        """
        batch, _, width = x.shape
        q, k, v = mx.split(self.qkv(x), 3, axis=-1)
        if past is not None:
            k, v = (mx.concatenate([old, new], axis=1) for old, new in zip(past, (k, v), strict=True))
        heads = [a.reshape(batch, a.shape[1], self._heads, -1).swapaxes(1, 2) for a in (q, k, v)]
        mixed = ops.attention(*heads, scale=(width // self._heads) ** -0.5)
        mixed = mixed.swapaxes(1, 2).reshape(x.shape)
        x = self.attention_norm(self.out(mixed, residual=x))
        return self.final_norm(self.output(self.intermediate(x, activation="gelu"), residual=x)), (k, v)


class HubertModel(nn.Module):
    """HuBERT's encoder, and `final_proj` where the file has one (voices of version v1 need it)."""

    float_parts: ClassVar[tuple[str, ...]] = ()
    """How the names of layers begin that lose too much in whole numbers: of none here."""

    def __init__(self, config: HubertConfig, final_proj: bool = True):
        super().__init__()
        self.config = config
        width, eps = config.hidden_size, config.layer_norm_eps
        kernel = config.num_conv_pos_embeddings
        self.front_end = FrontEnd(config)
        self.projection_norm = LayerNorm(config.conv_dim[-1], eps)
        self.projection = Linear(config.conv_dim[-1], width)
        # PyTorch pads kernel // 2 on both sides, then drops the frame that an even kernel has too many.
        self.position = Conv1d(
            width,
            width,
            kernel,
            padding=(kernel // 2, (kernel - 1) // 2),
            groups=config.num_conv_pos_embedding_groups,
        )
        self.norm = LayerNorm(width, eps)
        self.layers = [EncoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.final_proj = Linear(width, config.classifier_proj_size) if final_proj else None

    @staticmethod
    def sanitize(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rename and reshape the tensors of a fairseq or Hugging Face file for `load_weights`.

        What only training needs is dropped by name; other surplus tensors stay: strict loading reports them.
        """
        named: dict[str, np.ndarray] = {}
        for name, tensor in tensors.items():
            name = _rename(name.removeprefix("hubert."))
            if name not in _TRAINING_ONLY:
                named[name] = tensor
        _fold_position(named)
        _join_qkv(named)
        # PyTorch's (O, C, K) -> (O, K, C)
        moved = {k: np.ascontiguousarray(v.swapaxes(1, 2)) if v.ndim == 3 else v for k, v in named.items()}
        return checked_gains("hubert", moved)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, packing: Packing = NORMAL) -> HubertModel:
        """Build the model that a `Checkpoint` of kind "hubert" holds; FileFormatError if it does not fit."""
        tensors = checkpoint.tensors
        if not checkpoint.packed:
            tensors = sanitized("hubert", cls.sanitize, tensors)
        model = cls(HubertConfig.from_dict(checkpoint.config), "final_proj.weight" in tensors)
        load(model, stored("hubert", tensors, checkpoint.config), "hubert", packing, checkpoint.kernels)
        return model

    def _frames(self, audio: mx.array) -> mx.array:
        window = self.config.window
        if audio.ndim not in (1, 2) or audio.shape[-1] < window or audio.shape[0] < 1:
            raise InputError(
                f"[hubert] audio must be (n,) or (B, n) with n >= {window}, got {tuple(audio.shape)}"
            )
        return self.front_end(audio.reshape(-1, audio.shape[-1]).astype(mx.float32))

    def _embed(self, frames: mx.array) -> mx.array:
        x = self.projection(self.projection_norm(frames))
        return self.norm(self.position(x, activation="gelu", residual=x))

    def width(self, version: Version) -> int:
        """Return the width of the features for voices of `version`; InputError if there are none."""
        if version not in ("v1", "v2"):
            raise InputError(f"[hubert] version must be 'v1' or 'v2', got {version!r}")
        if version == "v2":
            return self.config.hidden_size
        if self.final_proj is None or len(self.layers) < V1_LAYER:
            has = "no final_proj" if self.final_proj is None else f"{len(self.layers)} layers"
            raise InputError(
                f"[hubert] a v1 voice needs an embedder with final_proj and {V1_LAYER} layers (contentvec, "
                f"hubert_base.pt), this one has {has}"
            )
        return self.config.classifier_proj_size

    def features(self, audio: mx.array, version: Version, layer: int | None = None) -> mx.array:
        """Return the content features that voices of `version` are made for.

        Args:
            audio: (n,) or (B, n) float32, 16 kHz, not normalised, at least 400 samples. The sounds of a batch do
                not change each other.
            version: "v2" for a layer's output, "v1" for a layer's through `final_proj`.
            layer: which one, counted from 1; None for the last (v2) or the ninth (v1). Of a model with fewer
                layers it is the last.

        Returns:
            (frames, hidden) for v2 or (frames, classifier_proj_size) for v1; frames = (n - 400) // 320 + 1. With a
            batch (B, frames, ...).

        Raises:
            InputError: audio of another shape or too short, or v1 asked of a model that cannot give it.
        """
        self.width(version)
        x = self._embed(self._frames(audio))
        for encoder in self.used_layers(version, layer):
            x = encoder(x)
        features = self._projected(x, version)
        return features if audio.ndim == 2 else features[0]

    def used_layers(self, version: Version, layer: int | None) -> list[EncoderLayer]:
        """Return the layers that `features` runs through."""
        return self.layers[: V1_LAYER if layer is None and version == "v1" else layer]

    def _projected(self, x: mx.array, version: Version) -> mx.array:
        return x if version == "v2" or self.final_proj is None else self.final_proj(x)

    def extend(
        self,
        frames: mx.array,
        past: Sequence[KeysValues] | None,
        first: int,
        version: Version,
        layer: int | None = None,
    ) -> tuple[mx.array, list[KeysValues]]:
        """Return the features of the frames from `first` on, given what earlier frames left, in place of all of them.

        Args:
            frames: (T, conv_dim[-1]), of the front end. Those before `first` are for the positional convolution alone,
                which looks `num_conv_pos_embeddings // 2` to either side.
            past: keys and values (1, S, hidden) of each used layer of the frames before `first`; None for none.
            version, layer: as of `features`.

        Returns:
            (T - first, width), and the keys and values (1, S + T - first, hidden) of each used layer. With all frames
            and no past the features are those of `features`.
        """
        x = self._embed(frames[None])[:, first:]
        kept: list[KeysValues] = []
        for i, encoder in enumerate(self.used_layers(version, layer)):
            x, both = encoder.extend(x, None if past is None else past[i])
            kept.append(both)
        return self._projected(x, version)[0], kept

    def trace(self, audio: mx.array) -> dict[str, mx.array]:
        """Return every step of the same computation, for verification.

        `conv_features` (frames, conv_dim[-1]); `layer_N` (frames, hidden), the input of layer N;
        `v2_features`; and `v1_features` if the model can give them.
        """
        frames = self._frames(audio)
        x = self._embed(frames)
        steps = {"conv_features": frames}
        for i, layer in enumerate(self.layers):
            steps[f"layer_{i}"] = x
            x = layer(x)
        steps["v2_features"] = x
        if self.final_proj is not None and len(self.layers) >= V1_LAYER:
            steps["v1_features"] = self.final_proj(steps.get(f"layer_{V1_LAYER}", x))
        return steps if audio.ndim == 2 else {name: step[0] for name, step in steps.items()}


def load_hubert(path: str | PathLike[str], packing: Packing = NORMAL) -> HubertModel:
    """Load a fairseq `.pt`, a Hugging Face folder or file, or a packed file; shared while in use."""
    from ..weights.shared import load_model

    return load_model(HubertModel, path, "hubert", packing)


_TRAINING_ONLY = {"mask_emb", "masked_spec_embed", "label_embs_concat"}

# Both spellings -> ours. Hugging Face's attention and fairseq's self_attn differ only in that word.
_NAMES = [
    (r"feature_extractor\.conv_layers\.0\.(?:conv|0)\.weight", r"front_end.first.weight"),
    (r"feature_extractor\.conv_layers\.0\.(?:layer_norm|2)\.(weight|bias)", r"front_end.first.norm_\1"),
    (r"(?:feature_projection\.)?layer_norm\.(weight|bias)", r"projection_norm.\1"),
    (r"(?:feature_projection\.projection|post_extract_proj)\.(weight|bias)", r"projection.\1"),
    (r"encoder\.(?:pos_conv\.0|pos_conv_embed\.conv)\.(.+)", r"position.\1"),
    (r"encoder\.layer_norm\.(weight|bias)", r"norm.\1"),
    (r"encoder\.layers\.(\d+)\.(?:attention|self_attn)\.out_proj\.(weight|bias)", r"layers.\1.out.\2"),
    (
        r"encoder\.layers\.(\d+)\.(?:attention|self_attn)\.([qkv])_proj\.(weight|bias)",
        r"layers.\1.\2.\3",
    ),
    (
        r"encoder\.layers\.(\d+)\.(?:layer_norm|self_attn_layer_norm)\.(weight|bias)",
        r"layers.\1.attention_norm.\2",
    ),
    (
        r"encoder\.layers\.(\d+)\.(?:feed_forward\.intermediate_dense|fc1)\.(weight|bias)",
        r"layers.\1.intermediate.\2",
    ),
    (
        r"encoder\.layers\.(\d+)\.(?:feed_forward\.output_dense|fc2)\.(weight|bias)",
        r"layers.\1.output.\2",
    ),
    (r"encoder\.layers\.(\d+)\.final_layer_norm\.(weight|bias)", r"layers.\1.final_norm.\2"),
]


def _rename(name: str) -> str:
    conv = re.fullmatch(r"feature_extractor\.conv_layers\.([1-9]\d*)\.(?:conv|0)\.weight", name)
    if conv:
        return f"front_end.layers.{int(conv[1]) - 1}.weight"
    for pattern, ours in _NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(ours)
    return name


def _fold_position(tensors: dict[str, np.ndarray]) -> None:
    """Turn the positional convolution's weight norm into a gain, one number per tap (the last axis)."""
    for gain, direction in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        if f"position.{gain}" in tensors and f"position.{direction}" in tensors:
            g, v = tensors.pop(f"position.{gain}"), tensors.pop(f"position.{direction}")
            if v.ndim != 3 or g.shape != (1, 1, v.shape[2]):
                raise FileFormatError(
                    f"[hubert] the positional convolution's weight norm has shapes {g.shape} and {v.shape}"
                )
            with np.errstate(all="ignore"):
                square = np.square(v.astype(np.float32, copy=False))
                norm = np.sqrt(np.sum(square, axis=(0, 1), keepdims=True, dtype=np.float64))
                gain_of_taps = (g / norm).astype(np.float32)
            tensors |= {"position.weight": v, "position.gain": gain_of_taps}


def _join_qkv(tensors: dict[str, np.ndarray]) -> None:
    """Stack each layer's query, key and value projections: one product instead of three."""
    for name in [n for n in tensors if re.fullmatch(r"layers\.\d+\.q\.(weight|bias)", n)]:
        names = [name.replace(".q.", f".{part}.") for part in "qkv"]
        if all(n in tensors for n in names):
            tensors[name.replace(".q.", ".qkv.")] = np.concatenate([tensors.pop(n) for n in names])
