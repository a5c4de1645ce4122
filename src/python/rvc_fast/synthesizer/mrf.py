"""MRF HiFi-GAN decoder: HiFi-GAN with a source of nine harmonics and other names for its layers."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from ..layers import Conv1d, ResConv1d
from ..noise import NoiseSource
from ..ops.resblock import Block
from .config import SynthesizerConfig
from .hifigan import (
    LAST_SLOPE,
    OUTER_KERNEL,
    Entrance,
    Merge,
    stage_widths,
    stages_reach,
    upsample_conv,
    upsample_stages,
)

HARMONICS = 9


class MrfLayer(nn.Module):
    """A dilated and a plain convolution, added to their input."""

    def __init__(self, channels: int, kernel: int, dilation: int):
        super().__init__()
        self.conv1 = ResConv1d(channels, kernel, dilation)
        self.conv2 = ResConv1d(channels, kernel)


class MrfBlock(nn.Module):
    """A residual block: one layer per dilation."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]):
        super().__init__()
        self.layers = [MrfLayer(channels, kernel, d) for d in dilations]

    def block(self) -> Block:
        """What `resblock_stage` takes."""
        return [[layer.conv1.conv, layer.conv2.conv] for layer in self.layers]


class MrfHifiGan(Entrance):
    """z (B, T, inter), speaker (B, 1, gin), source (B, T * hop, 1) -> waveform (B, T * hop, 1)."""

    def __init__(self, c: SynthesizerConfig):
        widths = stage_widths(c)
        super().__init__(c, widths, Merge((1, HARMONICS)))
        self.upsamples = [upsample_conv(c, i) for i in range(len(widths))]
        self.mrfs = [
            [
                MrfBlock(width, kernel, dilations)
                for kernel, dilations in zip(c.resblock_kernel_sizes, c.resblock_dilation_sizes, strict=True)
            ]
            for width in widths
        ]
        self.conv_post = Conv1d(widths[-1], 1, OUTER_KERNEL, padding=OUTER_KERNEL // 2)

    @property
    def reach(self) -> int:
        """Frames to either side of one that its samples depend on."""
        return stages_reach(self._config, pairs=True)

    def __call__(self, z: mx.array, g: mx.array, source: mx.array, noise: NoiseSource) -> mx.array:
        x = self.conv_pre(z) + self.cond(g)
        stages = [[block.block() for block in stage] for stage in self.mrfs]
        x = upsample_stages(x, self.upsamples, self.noise_convs, stages, source)
        return self.conv_post(x, leaky=LAST_SLOPE, activation="tanh")
