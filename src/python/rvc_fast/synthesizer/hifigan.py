"""HiFi-GAN decoder: latent -> waveform, with a neural source filter for voices with f0, else plain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..layers import Conv1d, ConvTranspose1d, Linear, ResConv1d
from ..noise import NoiseSource
from ..ops.blocks import after
from ..ops.nsf_source import Accumulation, Interpolation, advance_phase, nsf_source
from ..ops.resblock import Block, resblock_stage
from .config import SynthesizerConfig

SLOPE = 0.1
LAST_SLOPE = 0.01
OUTER_KERNEL = 7
"""Taps of the first and of the last convolution."""


class Merge(nn.Module):
    """The weights that merge a source's harmonics; read by `nsf_source`, never packed. The source is an island: float32.

    The public code draws the phases of one sound's harmonics in the shape `phase_shape`.
    """

    def __init__(
        self,
        phase_shape: tuple[int, ...],
        bias: bool = True,
        interpolation: Interpolation = "nearest",
        accumulation: Accumulation = "sample",
    ):
        super().__init__()
        self.weight = mx.zeros((1, phase_shape[-1]))
        if bias:
            self.bias = mx.zeros((1,))
        self._phase_shape = phase_shape
        self._interpolation: Interpolation = interpolation
        self._accumulation: Accumulation = accumulation

    def source(
        self, f0: mx.array, noise: NoiseSource, c: SynthesizerConfig, phase: np.ndarray | float = 0.0
    ) -> mx.array:
        """(B, T) Hz -> (B, T * hop, 1). Overtones start at a random phase, the fundamental at `phase` cycles."""
        batch, frames = f0.shape
        first, *rest = self._phase_shape
        harmonics = self.weight.shape[1]
        offsets = noise.uniform((batch * first, *rest)).reshape(batch, harmonics)
        offsets = mx.concatenate([mx.zeros((batch, 1)), offsets[:, 1:]], axis=1)
        return nsf_source(
            f0,
            noise.normal((batch, frames * c.hop, harmonics)),
            self.weight[0],
            self.get("bias"),
            hop=c.hop,
            sample_rate=c.sr,
            phase=phase,
            offsets=offsets,
            interpolation=self._interpolation,
            accumulation=self._accumulation,
        )

    def advance(self, f0: mx.array, c: SynthesizerConfig, phase: np.ndarray | float) -> np.ndarray:
        """Return the phase (B, T) of the fundamental after each frame of f0 (B, T), double, in cycles."""
        return advance_phase(
            f0,
            hop=c.hop,
            sample_rate=c.sr,
            phase=phase,
            interpolation=self._interpolation,
            accumulation=self._accumulation,
        )


class HarmonicSource(nn.Module):
    """Holds the merging weights under their public name."""

    def __init__(self, merge: Merge):
        super().__init__()
        self.l_linear = merge


class ResBlock(nn.Module):
    """HiFi-GAN's residual block of type 1 (pairs of convolutions) or 2 (single ones)."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], kind: str = "1"):
        super().__init__()
        if kind == "1":
            self.convs1 = [ResConv1d(channels, kernel, d) for d in dilations]
            self.convs2 = [ResConv1d(channels, kernel) for _ in dilations]
        else:
            self.convs = [ResConv1d(channels, kernel, d) for d in dilations]

    def block(self) -> Block:
        """What `resblock_stage` takes."""
        lists = [self.convs1, self.convs2] if "convs1" in self else [self.convs]
        return [[layer.conv for layer in step] for step in zip(*lists, strict=True)]


def noise_conv_shape(c: SynthesizerConfig, stage: int) -> tuple[int, int]:
    """Return stride and kernel size of `noise_conv`."""
    stride = math.prod(c.upsample_rates[stage + 1 :])
    return stride, 1 if stride == 1 else 2 * stride - stride % 2


def noise_conv(c: SynthesizerConfig, stage: int, channels: int) -> Conv1d:
    """The strided convolution that brings the source to the rate and width of a stage."""
    stride, kernel = noise_conv_shape(c, stage)
    return Conv1d(1, channels, kernel, stride=stride, padding=(kernel - stride) // 2)


def upsample_conv(c: SynthesizerConfig, stage: int) -> ConvTranspose1d:
    """The transposed convolution of a stage, which halves the channels."""
    width = c.upsample_initial_channel >> stage
    rate, kernel = c.upsample_rates[stage], c.upsample_kernel_sizes[stage]
    padding, extra = c.upsample_padding(rate, kernel)
    return ConvTranspose1d(width, width // 2, kernel, stride=rate, padding=padding, output_padding=extra)


def upsample_reach(c: SynthesizerConfig, stage: int, samples: int) -> int:
    """Return how many steps before a stage's upsampling `samples` steps behind it reach."""
    rate, kernel = c.upsample_rates[stage], c.upsample_kernel_sizes[stage]
    padding, _ = c.upsample_padding(rate, kernel)
    return -(-(samples + max(padding, kernel - 1 - padding)) // rate)


def stages_reach(c: SynthesizerConfig, pairs: bool) -> int:
    """Return how many frames of latent and source to either side of one its samples depend on, in a HiFi-GAN.

    Followed from the last convolution back to the first one. `pairs`: whether every dilated convolution of a residual
    block is followed by a plain one.
    """
    blocks = zip(c.resblock_kernel_sizes, c.resblock_dilation_sizes, strict=True)
    block = max(kernel // 2 * sum(d + pairs for d in dilations) for kernel, dilations in blocks)
    samples, source = OUTER_KERNEL // 2, 0
    for stage in reversed(range(len(c.upsample_rates))):
        samples += block
        stride, kernel = noise_conv_shape(c, stage)
        source = max(source, samples * stride + kernel // 2)
        samples = upsample_reach(c, stage, samples)
    return max(samples + OUTER_KERNEL // 2, -(-source // c.hop))


def upsample_stages(
    x: mx.array,
    ups: Sequence[ConvTranspose1d],
    noise_convs: Sequence[Conv1d],
    stages: Sequence[Sequence[Block]],
    source: mx.array | None,
) -> mx.array:
    """The stages of a HiFi-GAN: upsample, add the source, average the residual blocks."""
    if source is not None:
        source = source.astype(x.dtype)
    for i, (up, blocks) in enumerate(zip(ups, stages, strict=True)):
        # The branch is as large as the activation that it is added to: it is not made before it is needed.
        branch = None if source is None else noise_convs[i](after(source, [x]))
        x = resblock_stage(up(x, leaky=SLOPE, residual=branch), blocks, slope=SLOPE)
    return x


class Entrance(nn.Module):
    """What the HiFi-GANs have in common: where the latent, the speaker and the source come in, if there is one."""

    def __init__(self, c: SynthesizerConfig, widths: Sequence[int], merge: Merge | None):
        super().__init__()
        self._config = c
        if merge is not None:
            self.m_source = HarmonicSource(merge)
            self.noise_convs = [noise_conv(c, i, width) for i, width in enumerate(widths)]
        self.conv_pre = Conv1d(
            c.inter_channels, c.upsample_initial_channel, OUTER_KERNEL, padding=OUTER_KERNEL // 2
        )
        self.cond = Linear(c.gin_channels, c.upsample_initial_channel)

    @property
    def merge(self) -> Merge:
        """What makes the source."""
        return self.m_source.l_linear


def stage_widths(c: SynthesizerConfig) -> list[int]:
    """The channels behind each upsampling."""
    return [c.upsample_initial_channel >> (i + 1) for i in range(len(c.upsample_rates))]


class HifiGan(Entrance):
    """z (B, T, inter), speaker (B, 1, gin) -> waveform (B, T * hop, 1)."""

    def __init__(self, c: SynthesizerConfig):
        widths = stage_widths(c)
        super().__init__(c, widths, Merge((1, 1, 1), accumulation="frame") if c.use_f0 else None)
        self.ups = [upsample_conv(c, i) for i in range(len(widths))]
        self.resblocks = [
            ResBlock(width, kernel, dilations, c.resblock)
            for width in widths
            for kernel, dilations in zip(c.resblock_kernel_sizes, c.resblock_dilation_sizes, strict=True)
        ]
        self.conv_post = Conv1d(widths[-1], 1, OUTER_KERNEL, padding=OUTER_KERNEL // 2, bias=False)

    @property
    def reach(self) -> int:
        """Frames to either side of one that its samples depend on."""
        return stages_reach(self._config, pairs=self._config.resblock == "1")

    def __call__(self, z: mx.array, g: mx.array, source: mx.array | None, noise: NoiseSource) -> mx.array:
        x = self.conv_pre(z) + self.cond(g)
        blocks = [block.block() for block in self.resblocks]
        each = len(blocks) // len(self.ups)
        stages = [blocks[i : i + each] for i in range(0, len(blocks), each)]
        x = upsample_stages(x, self.ups, self.get("noise_convs", ()), stages, source)
        return self.conv_post(x, leaky=LAST_SLOPE, activation="tanh")
