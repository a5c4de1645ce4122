"""RefineGAN decoder (Xu et al. 2021): a U-Net that refines the source, with the latent at its bottom."""

from __future__ import annotations

import functools
import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .. import ops
from ..layers import Conv1d, Layer, Linear
from ..noise import NoiseSource
from ..ops.epilogue import leaky_relu
from .config import SynthesizerConfig
from .hifigan import OUTER_KERNEL, Merge, ResBlock

SLOPE = 0.2
START_CHANNELS = 16
KERNELS = (3, 7, 11)
DILATIONS = (1, 3, 5)

# The low-pass of the resampling on the way down: zero crossings on each side, cut-off, Kaiser's beta.
_CROSSINGS = 64
_ROLLOFF = 0.9475937167399596
_BETA = 14.769656459379492


@functools.cache
def _low_pass(rate: int) -> tuple[mx.array, int]:
    """Return a Kaiser-windowed sinc for decimation by `rate`, (1, K, 1), and how far it reaches back."""
    width = math.ceil(_CROSSINGS * rate / _ROLLOFF)
    t = np.clip(np.arange(-width, width + rate) * (_ROLLOFF / rate), -_CROSSINGS, _CROSSINGS)
    window = np.i0(_BETA * np.sqrt(1 - (t / _CROSSINGS) ** 2)) / np.i0(_BETA)
    kernel = np.sinc(t) * window * (_ROLLOFF / rate)
    return mx.array(kernel.astype(np.float32).reshape(1, -1, 1)), width


def downsample(x: mx.array, rate: int) -> mx.array:
    """(B, T, C) -> (B, T // rate, C) through a sharp low-pass; T a multiple of rate."""
    batch, length, channels = x.shape
    kernel, width = _low_pass(rate)
    # The same filter for every channel: channels become the batch.
    rows = x.swapaxes(1, 2).reshape(batch * channels, length, 1)
    y = ops.conv1d(rows, kernel, stride=rate, padding=(width, width))
    return y.reshape(batch, channels, -1).swapaxes(1, 2)


def upsample(x: mx.array, rate: int) -> mx.array:
    """(B, T, C) -> (B, T * rate, C), linear between the centres of the steps, constant beyond the ends."""
    batch, length, channels = x.shape
    place = (np.arange(rate) + 0.5) / rate - 0.5
    before = mx.array(np.maximum(-place, 0), x.dtype)[:, None]
    after = mx.array(np.maximum(place, 0), x.dtype)[:, None]
    previous = mx.concatenate([x[:, :1], x[:, :-1]], axis=1)[:, :, None]
    following = mx.concatenate([x[:, 1:], x[:, -1:]], axis=1)[:, :, None]
    y = x[:, :, None] * (1 - before - after) + previous * before + following * after
    return y.reshape(batch, length * rate, channels)


class AdaIn(Layer):
    """Adds noise of a learned level per channel, then leaky ReLU."""

    narrow = ("weight",)

    def __init__(self, channels: int):
        super().__init__()
        self.weight = mx.zeros((channels,))

    def __call__(self, x: mx.array, noise: NoiseSource) -> mx.array:
        batch, length, channels = x.shape
        gaussian = self.receive(noise.normal((batch, channels, length)).swapaxes(1, 2))
        return leaky_relu(x + gaussian * self.weight, SLOPE)


class ParallelResBlock(nn.Module):
    """A convolution, then the mean of three noisy residual blocks."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.input_conv = Conv1d(in_channels, channels, OUTER_KERNEL, padding=OUTER_KERNEL // 2)
        self.blocks: list[list[Any]] = [
            [AdaIn(channels), ResBlock(channels, kernel, DILATIONS), AdaIn(channels)] for kernel in KERNELS
        ]

    def __call__(self, x: mx.array, noise: NoiseSource) -> mx.array:
        x = self.input_conv(x)
        total = mx.zeros_like(x)
        for first, residual, last in self.blocks:
            y = first(ops.after(x, [total]), noise)
            y = ops.resblock_stage(y, [residual.block()], slope=SLOPE)
            total = total + last(y, noise)
        return total / len(self.blocks)


class SineSource(nn.Module):
    """Holds the gain of the sine under its public name."""

    def __init__(self) -> None:
        super().__init__()
        self.merge = [Merge((1, 1), bias=False, interpolation="linear")]


def reach(c: SynthesizerConfig) -> int:
    """Return how many frames of latent and source to either side of one its samples depend on, in a RefineGAN.

    The way up is followed from the last convolution to the bottom of the U; then the way down, where each skip
    connection and the level below it ask for more.
    """
    outer = OUTER_KERNEL // 2
    block = max(kernel // 2 * sum(d + 1 for d in DILATIONS) for kernel in KERNELS) + outer
    samples, skips = outer, []
    for rate in reversed(c.upsample_rates):
        samples += block
        skips.append(samples)
        samples = -(-samples // rate) + 1  # interpolated between neighbours
    bottom = samples + outer
    for rate, skip in zip(c.upsample_rates, reversed(skips), strict=True):
        samples = max(skip, (samples + outer) * rate + _low_pass(rate)[1])
    return max(bottom, -(-(samples + outer) // c.hop))


class RefineGan(nn.Module):
    """z (B, T, inter), speaker (B, 1, gin), source (B, T * hop, 1) -> waveform (B, T * hop, 1)."""

    def __init__(self, c: SynthesizerConfig):
        super().__init__()
        self._config = c
        stages = range(len(c.upsample_rates))
        encoder = [START_CHANNELS << i for i in range(len(stages) + 1)]
        self.m_source = SineSource()
        self.pre_conv = Conv1d(1, START_CHANNELS, OUTER_KERNEL, padding=OUTER_KERNEL // 2)
        self.downsample_blocks = [
            Conv1d(encoder[i], encoder[i + 1], OUTER_KERNEL, padding=OUTER_KERNEL // 2) for i in stages
        ]
        bottom = c.upsample_initial_channel // 2
        self.mel_conv = Conv1d(c.inter_channels, bottom, OUTER_KERNEL, padding=OUTER_KERNEL // 2)
        self.cond = Linear(c.gin_channels, bottom)
        widths = [c.upsample_initial_channel >> i for i in range(len(stages) + 1)]
        self.upsample_conv_blocks = [
            ParallelResBlock(widths[i] + encoder[-2 - i], widths[i + 1]) for i in stages
        ]
        self.conv_post = Conv1d(widths[-1], 1, OUTER_KERNEL, padding=OUTER_KERNEL // 2, bias=False)

    @property
    def reach(self) -> int:
        """Frames to either side of one that its samples depend on."""
        return reach(self._config)

    @property
    def merge(self) -> Merge:
        """What makes the source."""
        return self.m_source.merge[0]

    def __call__(self, z: mx.array, g: mx.array, source: mx.array, noise: NoiseSource) -> mx.array:
        rates = self._config.upsample_rates
        x = self.pre_conv(source)
        skips = []
        for rate, convolution in zip(reversed(rates), self.downsample_blocks, strict=True):
            x = leaky_relu(x, SLOPE)
            skips.append(x)
            x = convolution(downsample(x, rate))
        x = mx.concatenate([self.mel_conv(z) + self.cond(g), x], axis=-1)
        for rate, block in zip(rates, self.upsample_conv_blocks, strict=True):
            x = mx.concatenate([upsample(leaky_relu(x, SLOPE), rate), skips.pop()], axis=-1)
            x = block(x, noise)
        return self.conv_post(x, leaky=SLOPE, activation="tanh")
