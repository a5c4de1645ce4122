"""The normalizing flow between the voice's latent and the text encoder's, run in reverse for conversion."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..layers import Conv1d, Linear
from ..ops.wavenet_gate import wavenet_gate
from .config import SynthesizerConfig

COUPLINGS = 4
LAYERS = 3
KERNEL = 5
REACH = COUPLINGS * LAYERS * (KERNEL // 2)
"""Frames to either side of one that the flow looks at."""


class WaveNet(nn.Module):
    """Gated convolutions with skip connections, conditioned on the speaker."""

    def __init__(self, hidden: int, gin: int):
        super().__init__()
        self.cond_layer = Linear(gin, 2 * hidden * LAYERS)
        self.in_layers = [Conv1d(hidden, 2 * hidden, KERNEL, padding=KERNEL // 2) for _ in range(LAYERS)]
        # All but the last give the next layer's input beside their share of the output.
        self.res_skip_layers = [Linear(hidden, 2 * hidden) for _ in range(LAYERS - 1)]
        self.res_skip_layers.append(Linear(hidden, hidden))

    def __call__(self, x: mx.array, g: mx.array) -> mx.array:
        """x (B, T, hidden), g (B, 1, gin) -> (B, T, hidden)."""
        # The running input and the running output, side by side as `res_skip` gives their changes.
        state = mx.concatenate([x, mx.zeros_like(x)], axis=-1)
        width = x.shape[-1]
        conditions = mx.split(self.cond_layer(g), LAYERS, axis=-1)
        layers = list(zip(self.in_layers, self.res_skip_layers, conditions, strict=True))
        for convolution, res_skip, condition in layers[:-1]:
            state = res_skip(wavenet_gate(convolution(state[..., :width]), condition), residual=state)
        convolution, res_skip, condition = layers[-1]
        gated = wavenet_gate(convolution(state[..., :width]), condition)
        return res_skip(gated, residual=state[..., width:])


class Coupling(nn.Module):
    """Mean-only affine coupling: the first half of the channels shifts the second."""

    def __init__(self, c: SynthesizerConfig):
        super().__init__()
        half = c.inter_channels // 2
        self.pre = Linear(half, c.hidden_channels)
        self.enc = WaveNet(c.hidden_channels, c.gin_channels)
        self.post = Linear(c.hidden_channels, half)

    def reverse(self, x: mx.array, g: mx.array) -> mx.array:
        kept, shifted = mx.split(x, 2, axis=-1)
        mean = self.post(self.enc(self.pre(kept), g))
        return mx.concatenate([kept, shifted - mean], axis=-1)


class Flip(nn.Module):
    """Reverses the channels, so that the couplings take turns on the two halves."""

    def reverse(self, x: mx.array, g: mx.array) -> mx.array:
        return x[..., ::-1]


class Flow(nn.Module):
    """Couplings, each followed by a flip; in reverse the flip comes first."""

    def __init__(self, c: SynthesizerConfig):
        super().__init__()
        self.flows = [layer for _ in range(COUPLINGS) for layer in (Coupling(c), Flip())]

    def reverse(self, z: mx.array, g: mx.array) -> mx.array:
        """z_p (B, T, inter), g (B, 1, gin) -> z (B, T, inter)."""
        for layer in reversed(self.flows):
            z = layer.reverse(z, g)
        return z
