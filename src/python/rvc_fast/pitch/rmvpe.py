"""RMVPE: 16 kHz sound -> salience of 360 pitches (20 cents apart), 100 frames a second.

A U-Net over (time, mel bins) of a log mel spectrogram, then a bidirectional GRU along time. Arrays are
(1, time, bins, channels); batch norm is folded into the convolutions on loading.
"""

from __future__ import annotations

import functools
import re
import reprlib
from dataclasses import dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .. import ops
from ..errors import FileFormatError, InputError
from ..layers import NORMAL, Conv2d, ConvTranspose2d, Linear, PackedLayer, Packing, load, sanitized
from ..ops import dispatch
from ..ops.mel_stft import hann, mel_filters, reflect_pad
from ..ops.precision import mlx_dtype
from ..weights.stored import checked_gains, stored

if TYPE_CHECKING:
    from ..weights.checkpoint import Checkpoint

SAMPLE_RATE = 16000
HOP = 160
N_FFT = 1024
MELS = 128
BINS = 360

# Frames are padded to a multiple of this, whatever the depth of the U-Net.
FRAME_MULTIPLE = 32

# Frames that one pass of the U-Net yields of a long sound; its memory is about 32 KB for each frame it sees.
TILE = 6144

# Pitch of the bins, in cents above 10 Hz.
BIN_CENTS = 20 * np.arange(BINS) + 1997.3794084376191
DECODE_RADIUS = 4

BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True)
class RmvpeConfig:
    """Sizes, with the public code's names and the published model's defaults."""

    n_blocks: int = 4
    n_gru: int = 1
    kernel_size: tuple[int, int] = (2, 2)
    en_de_layers: int = 5
    inter_layers: int = 4
    en_out_channels: int = 16
    gru_hidden: int = 256

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RmvpeConfig:
        """Take the known keys; FileFormatError if no network can have these sizes."""
        known = {f.name for f in fields(cls)}
        taken: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known
        }
        for name, value in taken.items():
            least = 0 if name == "n_gru" else 1
            most = 2 if name == "kernel_size" else 4096 if name in ("en_out_channels", "gru_hidden") else 16
            numbers = value if name == "kernel_size" and isinstance(value, tuple) else (value,)
            wanted = 2 if name == "kernel_size" else 1
            if len(numbers) != wanted or not all(type(n) is int and least <= n <= most for n in numbers):
                kind = "two whole numbers" if wanted == 2 else "a whole number"
                raise FileFormatError(
                    f"[rmvpe] {name} must be {kind} from {least} to {most}, got {reprlib.repr(value)}"
                )
        config = cls(**taken)
        time, bins = config.kernel_size
        depth = config.en_de_layers
        if FRAME_MULTIPLE % time**depth or MELS % bins**depth:
            raise FileFormatError(
                f"[rmvpe] kernel_size must divide {FRAME_MULTIPLE} frames and {MELS} bins en_de_layers times, "
                f"got {config.kernel_size} and {depth}"
            )
        return config

    @property
    def halo(self) -> int:
        """Frames on both sides that one output frame of the U-Net depends on, rounded up to whole 32s."""
        stride = self.kernel_size[0]
        block = 2 * self.n_blocks  # each block has two convolutions of three frames
        radius = 1  # the last convolution
        for _ in range(self.en_de_layers):
            radius += block
            radius = -(-(radius + 1) // stride)  # the transposed convolution sees one frame more
        radius += block * self.inter_layers
        for _ in range(self.en_de_layers):
            radius = radius * stride + stride - 1 + block
        return -(-radius // FRAME_MULTIPLE) * FRAME_MULTIPLE


class Block(nn.Module):
    """Two 3x3 convolutions with ReLU, added to their input (1x1-projected if the width changes)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = Conv2d(in_channels, out_channels, (3, 3), padding=1)
        self.conv2 = Conv2d(out_channels, out_channels, (3, 3), padding=1)
        self.shortcut = Linear(in_channels, out_channels) if in_channels != out_channels else None

    def __call__(self, x: mx.array) -> mx.array:
        y = self.conv1(x, activation="relu")
        return self.conv2(y, activation="relu", residual=x if self.shortcut is None else self.shortcut(x))


def _blocks(in_channels: int, out_channels: int, count: int) -> list[Block]:
    return [Block(out_channels if i else in_channels, out_channels) for i in range(count)]


def _run(blocks: list[Block], x: mx.array) -> mx.array:
    for block in blocks:
        x = block(x)
    return x


def _pool(x: mx.array, kernel: tuple[int, int]) -> mx.array:
    """Mean over kernel[0] frames and kernel[1] bins."""
    parts = [x[:, i :: kernel[0], j :: kernel[1]] for i in range(kernel[0]) for j in range(kernel[1])]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total * (1 / len(parts))


class Up(nn.Module):
    """Upsample, join with the encoder's output of that resolution, refine."""

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int], n_blocks: int):
        super().__init__()
        self.up = ConvTranspose2d(
            in_channels,
            out_channels,
            (3, 3),
            stride=stride,
            padding=(1, 1),
            output_padding=(stride[0] - 1, stride[1] - 1),
        )
        self.blocks = _blocks(2 * out_channels, out_channels, n_blocks)

    def __call__(self, x: mx.array, skip: mx.array) -> mx.array:
        return _run(self.blocks, self.up(x, activation="relu", beside=skip))


class UNet(nn.Module):
    """Log mel (B, T, 128) -> three features per bin (B, T, 128, 3), T a multiple of 32."""

    def __init__(self, config: RmvpeConfig):
        super().__init__()
        width, depth, n_blocks = config.en_out_channels, config.en_de_layers, config.n_blocks
        # Batch norm of the input: its shift cannot be folded into a convolution that pads with zeros.
        self.input_gain = mx.ones((1,))
        self.input_shift = mx.zeros((1,))
        self.encoder = [_blocks(width << (i - 1) if i else 1, width << i, n_blocks) for i in range(depth)]
        bottom = width << depth
        self.middle = [
            _blocks(bottom if i else bottom // 2, bottom, n_blocks) for i in range(config.inter_layers)
        ]
        self.decoder = [
            Up(bottom >> i, bottom >> (i + 1), config.kernel_size, n_blocks) for i in range(depth)
        ]
        self.output = Conv2d(width, 3, (3, 3), padding=1)
        self._config = config

    def _tile(self, mel: mx.array) -> mx.array:
        x = (mel * self.input_gain + self.input_shift)[..., None]
        skips = []
        for blocks in self.encoder:
            x = _run(blocks, x)
            skips.append(x)
            x = _pool(x, self._config.kernel_size)
        for blocks in self.middle:
            x = _run(blocks, x)
        for up in self.decoder:
            x = up(x, skips.pop())
        return self.output(x)

    def __call__(self, mel: mx.array) -> mx.array:
        """Long sounds go through in tiles that overlap by all that an output depends on: the same but for rounding."""
        frames, halo = mel.shape[1], self._config.halo
        if frames <= TILE + 2 * halo:
            return self._tile(mel)
        out: list[mx.array] = []
        for start, end in ops.blocks(frames, TILE):
            first = max(0, start - halo)
            tile = self._tile(ops.after(mel[:, first : end + halo], out))[:, start - first : end - first]
            # A copy, because a view would keep the whole tile alive.
            out.append(mx.contiguous(tile))
        return mx.concatenate(out, axis=1)


class BiGRU(PackedLayer):
    """One bidirectional GRU layer, (B, T, in) -> (B, T, 2 * hidden); `weight` is the recurrent one."""

    def __init__(self, in_channels: int, hidden: int):
        super().__init__((2, 3 * hidden, hidden), bias=False)
        self.forward = Linear(in_channels, 3 * hidden)
        self.backward = Linear(in_channels, 3 * hidden)
        self.b_hh = mx.zeros((2, 3 * hidden))

    def _pack(self, weight: mx.array, packing: Packing) -> ops.Weight:
        return ops.pack_bigru(weight.astype(mlx_dtype(packing.precision.activations)))

    def __call__(self, x: mx.array) -> mx.array:
        (w_ahead, b_ahead), (w_back, b_back) = self.forward.operands, self.backward.operands
        return ops.bigru(self.receive(x), (w_ahead, w_back), self.operands[0], (b_ahead, b_back), self.b_hh)


class Rmvpe(nn.Module):
    """The whole network."""

    float_parts: ClassVar[tuple[str, ...]] = ("",)
    """How the names of layers begin that lose too much in whole numbers: of all here."""

    def __init__(self, config: RmvpeConfig):
        super().__init__()
        self.config = config
        self.unet = UNet(config)
        widths = [3 * MELS] + [2 * config.gru_hidden] * config.n_gru
        self.gru = [BiGRU(width, config.gru_hidden) for width in widths[:-1]]
        self.head = Linear(widths[-1], BINS)

    @staticmethod
    def sanitize(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Turn batch norm into gains (`weights.stored`), rename and transpose the tensors of `rmvpe.pt`.

        Surplus tensors keep their names, for strict loading to report.
        """
        named = {
            name: tensor for name, tensor in tensors.items() if not name.endswith(".num_batches_tracked")
        }
        _fold_batch_norms(named)
        _stack_directions(named)
        moved = {_rename(name): _to_mlx(name, tensor, named) for name, tensor in named.items()}
        return checked_gains("rmvpe", moved)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, packing: Packing = NORMAL) -> Rmvpe:
        """Build the model that a `Checkpoint` of kind "rmvpe" holds; FileFormatError if it does not fit."""
        tensors = checkpoint.tensors
        if not checkpoint.packed:
            tensors = sanitized("rmvpe", cls.sanitize, tensors)
        config = dict(checkpoint.config)
        recurrent = tensors.get("gru.0.weight")
        if recurrent is not None and recurrent.ndim:
            config["gru_hidden"] = int(recurrent.shape[-1])
        model = cls(RmvpeConfig.from_dict(config))
        load(model, stored("rmvpe", tensors, config), "rmvpe", packing, checkpoint.kernels)
        return model

    def salience(self, audio: mx.array, pad: Literal["reflect", "zeros"] = "reflect") -> mx.array:
        """Return how strongly each pitch is present in each frame.

        Args:
            audio: (n,) or (B, n) 16 kHz, n >= 1. The sounds of a batch do not change each other.
            pad: what follows the last frame of the log mel spectrogram up to a multiple of 32 frames: its
                mirror image ("reflect", Applio) or zeros (the original code). The sound itself is always
                mirrored, by 512 samples at both ends. Where PyTorch refuses because there is too little to
                mirror (up to 512 samples, or fewer than 17 frames), it is mirrored back and forth.

        Returns:
            (n // 160 + 1, 360) from 0 to 1, with a batch (B, n // 160 + 1, 360).
        """
        if pad not in ("reflect", "zeros"):
            raise InputError(f"[rmvpe] pad must be 'reflect' or 'zeros', got {pad!r}")
        if audio.ndim not in (1, 2) or 0 in audio.shape:
            raise InputError(f"[rmvpe] audio must be (n,) or (B, n) with n >= 1, got {tuple(audio.shape)}")

        def padded_mel(sound: mx.array) -> mx.array:
            mel = log_mel(sound)
            missing = -mel.shape[0] % FRAME_MULTIPLE
            return reflect_pad(mel, 0, missing) if pad == "reflect" else mx.pad(mel, [(0, missing), (0, 0)])

        mel = mx.stack([padded_mel(sound) for sound in audio.reshape(-1, audio.shape[-1])])
        # PyTorch flattens channels before bins.
        x = self.unet(mel).swapaxes(2, 3).flatten(2)
        for layer in self.gru:
            x = layer(x)
        salience = self.head(x[:, : audio.shape[-1] // HOP + 1], activation="sigmoid")
        return salience if audio.ndim == 2 else salience[0]


@functools.cache
def _mel_constants(backend: str) -> tuple[mx.array, ops.Weight]:
    """The window and the filters, as this backend of mel_stft takes them."""
    filters = ops.pack_mel_stft(mx.array(mel_filters(SAMPLE_RATE, N_FFT, MELS, 30, 8000)))
    mx.eval(filters.data if isinstance(filters, ops.PackedWeight) else filters)
    return mx.array(hann(N_FFT)), filters


def log_mel(audio: mx.array) -> mx.array:
    """Return RMVPE's log mel spectrogram (n // 160 + 1, 128) of (n,) 16 kHz sound, frames centred."""
    if audio.ndim != 1 or audio.shape[0] < 1:
        raise InputError(f"[rmvpe] audio must be (n,) with n >= 1, got {tuple(audio.shape)}")
    window, filters = _mel_constants(dispatch.route("mel_stft").backend)
    return ops.mel_stft(audio.astype(mx.float32), window, filters, hop=HOP, pad=N_FFT // 2)


def decode_salience(salience: mx.array | np.ndarray, threshold: float = 0.03) -> np.ndarray:
    """Return each frame's fundamental frequency, the salience-weighted mean pitch around the strongest bin.

    Args:
        salience: (frames, 360).
        threshold: frames whose strongest bin is not above it are unvoiced.

    Returns:
        (frames,) float32 in Hz, 0 where unvoiced.
    """
    s = np.asarray(salience)
    if s.ndim != 2 or s.shape[1] != BINS:
        raise InputError(f"[rmvpe] salience must be (frames, {BINS}), got {s.shape}")
    peak = s.argmax(axis=1)[:, None]
    around = peak + np.arange(-DECODE_RADIUS, DECODE_RADIUS + 1)
    at = np.clip(around, 0, BINS - 1)
    weight = np.where(around == at, np.take_along_axis(s, at, axis=1), 0).astype(np.float64)
    voiced = np.take_along_axis(s, peak, axis=1)[:, 0] > threshold
    total = np.where(voiced, weight.sum(axis=1), 1)
    cents = (weight * BIN_CENTS[at]).sum(axis=1) / total
    return np.where(voiced, 10 * 2 ** (cents / 1200), 0).astype(np.float32)


def load_rmvpe(path: str | PathLike[str], packing: Packing = NORMAL) -> Rmvpe:
    """Load `rmvpe.pt` or a packed safetensors file; shared while in use (`weights.shared`)."""
    from ..weights.shared import load_model

    return load_model(Rmvpe, path, "rmvpe", packing)


def _fold_batch_norms(tensors: dict[str, np.ndarray]) -> None:
    """Turn each batch norm into its convolution's gain and bias, and the input's into a gain and a shift."""
    for stem in [n.removesuffix(".running_var") for n in tensors if n.endswith(".running_var")]:
        names = [f"{stem}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        parent, _, index = stem.rpartition(".")
        conv = f"{parent}.{int(index) - 1}" if index.isdecimal() else None
        for name in [*names, f"{conv}.weight"] if conv else names:
            if name not in tensors:
                raise FileFormatError(f"[rmvpe] tensor {name!r} is missing")
        weight, bias, mean, variance = (tensors.pop(n).astype(np.float64) for n in names)
        if conv is None:
            kernel, axis, results = np.ones(1), 0, ("input_gain", "input_shift")
        else:
            kernel, axis = tensors[f"{conv}.weight"], 1 if _is_transposed(conv) else 0
            results = (f"{conv}.gain", f"{conv}.bias")
        shapes = [part.shape for part in (weight, bias, mean, variance)]
        if set(shapes) != {kernel.shape[axis : axis + 1]}:
            raise FileFormatError(f"[rmvpe] the batch norm {stem!r} of {kernel.shape} has shapes {shapes}")
        with np.errstate(all="ignore"):
            gain = weight / np.sqrt(variance + BATCH_NORM_EPS)
            across = np.expand_dims(gain, tuple(a for a in range(kernel.ndim) if a != axis))
            folded = across.astype(np.float32), (bias - mean * gain).astype(np.float32)
        if not all(np.isfinite(part).all() for part in folded):
            raise FileFormatError(f"[rmvpe] the batch norm {stem!r} makes numbers that are not finite")
        tensors |= dict(zip(results, folded, strict=True))


def _stack_directions(tensors: dict[str, np.ndarray]) -> None:
    for name in [n for n in tensors if re.fullmatch(r"fc\.0\.gru\.(weight|bias)_hh_l\d+", n)]:
        if f"{name}_reverse" in tensors:
            both = [tensors.pop(name), tensors.pop(f"{name}_reverse")]
            tensors[re.sub(r"(weight|bias)_hh_l(\d+)", r"\2.\1_hh", name)] = np.stack(both)


def _is_transposed(name: str) -> bool:
    return re.fullmatch(r"unet\.decoder\.layers\.\d+\.conv1\.0", name) is not None


def _to_mlx(name: str, tensor: np.ndarray, all_tensors: dict[str, np.ndarray]) -> np.ndarray:
    """From PyTorch's layout to MLX's; a gain moves as its weight does."""
    stem, _, part = name.rpartition(".")
    whole = all_tensors.get(f"{stem}.weight", tensor) if part == "gain" else tensor
    if whole.ndim != 4:
        return tensor
    if part in ("weight", "gain") and stem.endswith(".shortcut") and whole.shape[2:] == (1, 1):
        return tensor[:, :, 0, 0]
    axes = (1, 2, 3, 0) if _is_transposed(stem) else (0, 2, 3, 1)
    return np.ascontiguousarray(tensor.transpose(axes))


_NAMES = [
    (r"input_(gain|shift)", r"unet.input_\1"),
    (r"unet\.encoder\.layers\.(\d+)\.conv\.(\d+)\.(.+)", r"unet.encoder.\1.\2.\3"),
    (r"unet\.intermediate\.layers\.(\d+)\.conv\.(\d+)\.(.+)", r"unet.middle.\1.\2.\3"),
    (r"unet\.decoder\.layers\.(\d+)\.conv1\.0\.(.+)", r"unet.decoder.\1.up.\2"),
    (r"unet\.decoder\.layers\.(\d+)\.conv2\.(\d+)\.(.+)", r"unet.decoder.\1.blocks.\2.\3"),
    (r"cnn\.(.+)", r"unet.output.\1"),
    (r"fc\.0\.gru\.(weight|bias)_ih_l(\d+)", r"gru.\2.forward.\1"),
    (r"fc\.0\.gru\.(weight|bias)_ih_l(\d+)_reverse", r"gru.\2.backward.\1"),
    (r"fc\.0\.gru\.(\d+)\.weight_hh", r"gru.\1.weight"),
    (r"fc\.0\.gru\.(\d+)\.bias_hh", r"gru.\1.b_hh"),
    # Without a GRU the projection is the first layer.
    (r"fc\.[01]\.(weight|bias)", r"head.\1"),
]


def _rename(name: str) -> str:
    for pattern, ours in _NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            name = match.expand(ours)
            break
    return name.replace(".conv.0.", ".conv1.").replace(".conv.3.", ".conv2.")
