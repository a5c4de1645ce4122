"""SynthesizerConfig: the architecture of one voice, as its file states it."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ..errors import FileFormatError

VOCODERS = ("HiFi-GAN", "MRF HiFi-GAN", "RefineGAN")

# Far above every real voice; they stop a hostile file before anything is built from its numbers.
_LARGEST = 1 << 20
_MOST = 64
_CONVOLUTIONS = 1024  # of all residual blocks; voices have up to 45 of each of the two sorts
_DILATION = 64  # voices have up to 5; no tensor's shape tells it
_RATE = 384_000

_SIZES = (
    "inter_channels",
    "hidden_channels",
    "filter_channels",
    "n_heads",
    "kernel_size",
    "upsample_initial_channel",
    "spk_embed_dim",
    "gin_channels",
    "text_enc_hidden_dim",
)


def _require(condition: bool, what: str, requirement: str, got: object) -> None:
    if not condition:
        raise FileFormatError(f"[voice] {what} must be {requirement}, got {reprlib.repr(got)}")


def _integer(name: str, value: Any, largest: int = _LARGEST) -> int:
    sound = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest
    _require(sound, name, f"a whole number from 1 to {largest}", value)
    return int(value)


def _integers(name: str, value: Any, largest: int = _LARGEST) -> tuple[int, ...]:
    sound = isinstance(value, list | tuple) and 1 <= len(value) <= _MOST
    _require(sound, name, f"a list of 1 to {_MOST} numbers", value)
    return tuple(_integer(name, v, largest) for v in value)


@dataclass(frozen=True)
class SynthesizerConfig:
    """Fields as in the public configuration, plus those that voice files keep beside it.

    The last two are what a file states of the content encoder that the voice was trained on: its name, and
    the layer whose output is taken (None: layer 9 for v1, else the last).

    Raises:
        FileFormatError: a value no network can be built with, named with the field.
    """

    inter_channels: int
    hidden_channels: int
    filter_channels: int
    n_heads: int
    n_layers: int
    kernel_size: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    upsample_rates: tuple[int, ...]
    upsample_initial_channel: int
    upsample_kernel_sizes: tuple[int, ...]
    spk_embed_dim: int
    gin_channels: int
    sr: int
    resblock: str = "1"
    use_f0: bool = True
    text_enc_hidden_dim: int = 768
    vocoder: str = "HiFi-GAN"
    version: str = "v2"
    embedder: str = ""
    embedder_layer: int | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> SynthesizerConfig:
        """Build from a mapping with the field names as keys; keys of training and others are dropped."""
        known = {f.name: config[f.name] for f in fields(cls) if f.name in config}
        try:
            return cls(**known)
        except TypeError:
            missing = [f.name for f in fields(cls) if f.default is MISSING and f.name not in known]
            raise FileFormatError(f"[voice] the configuration has no {', '.join(missing)}") from None

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name in _SIZES:
            put(name, _integer(name, getattr(self, name)))
        put("n_layers", _integer("n_layers", self.n_layers, _MOST))
        put("sr", _integer("sr", self.sr, _RATE))
        if self.embedder_layer is not None:
            put("embedder_layer", _integer("embedder_layer", self.embedder_layer, _MOST))
        _require(isinstance(self.embedder, str), "embedder", "a name", self.embedder)
        for name in ("resblock_kernel_sizes", "upsample_rates", "upsample_kernel_sizes"):
            put(name, _integers(name, getattr(self, name)))
        dilations = self.resblock_dilation_sizes
        count = len(self.resblock_kernel_sizes)
        sound = isinstance(dilations, list | tuple) and len(dilations) == count
        _require(sound, "resblock_dilation_sizes", f"a list of {count} lists", dilations)
        put(
            "resblock_dilation_sizes",
            tuple(_integers("resblock_dilation_sizes", d, _DILATION) for d in dilations),
        )
        convolutions = len(self.upsample_rates) * sum(map(len, self.resblock_dilation_sizes))
        few = convolutions <= _CONVOLUTIONS
        _require(few, "the residual blocks", f"of at most {_CONVOLUTIONS} convolutions", convolutions)
        put("resblock", str(self.resblock))
        put("use_f0", bool(self.use_f0))
        _require(self.resblock in ("1", "2"), "resblock", "'1' or '2'", self.resblock)
        _require(self.vocoder in VOCODERS, "vocoder", f"one of {', '.join(VOCODERS)}", self.vocoder)
        _require(self.version in ("v1", "v2"), "version", "'v1' or 'v2'", self.version)
        _require(self.use_f0 or self.vocoder == "HiFi-GAN", "vocoder without f0", "HiFi-GAN", self.vocoder)
        whole = self.hidden_channels % self.n_heads == 0
        _require(whole, "hidden_channels", f"a multiple of {self.n_heads} heads", self.hidden_channels)
        _require(self.inter_channels % 2 == 0, "inter_channels", "even", self.inter_channels)
        odd = all(k % 2 == 1 for k in self.resblock_kernel_sizes)
        _require(odd, "resblock_kernel_sizes", "odd", self.resblock_kernel_sizes)
        # Features are 100 frames a second. This bounds every rate, too.
        fits = self.hop * 100 == self.sr
        _require(
            fits, "upsample_rates", f"of the product {self.sr / 100:g} for sr {self.sr}", self.upsample_rates
        )
        self._check_stages()

    def _check_stages(self) -> None:
        """Every stage must make exactly `rate` steps of one: the source and the pitch rely on it."""
        rates, kernels, initial = (
            self.upsample_rates,
            self.upsample_kernel_sizes,
            self.upsample_initial_channel,
        )
        if self.vocoder == "RefineGAN":
            # Its encoder of the source doubles 16 channels per stage and fills half of the decoder's.
            want = 32 << len(rates)
            _require(initial == want, "upsample_initial_channel", f"{want} for {len(rates)} stages", initial)
            return
        _require(len(kernels) == len(rates), "upsample_kernel_sizes", f"{len(rates)} numbers", kernels)
        _require(
            initial % (1 << len(rates)) == 0, "upsample_initial_channel", "halved by every stage", initial
        )
        for rate, kernel in zip(rates, kernels, strict=True):
            padding, extra = self.upsample_padding(rate, kernel)
            sound = padding >= 0 and kernel - 2 * padding + extra == rate
            _require(sound, "upsample_kernel_sizes", f"fitting the rates {rates}", kernels)

    def upsample_padding(self, rate: int, kernel: int) -> tuple[int, int]:
        """Return (padding, output_padding) of the transposed convolution of a stage."""
        if rate % 2 == 0 or not self.use_f0:
            return (kernel - rate) // 2, 0
        return rate // 2 + 1, 1

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.upsample_rates)
