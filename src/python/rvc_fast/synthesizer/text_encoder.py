"""Content features and coarse pitch -> mean and log deviation of the latent: a small transformer.

Parameter names are those of the public PyTorch code throughout this package.
"""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from ..layers import Conv1d, Embedding, Layer, LayerNorm, Linear
from ..ops.epilogue import leaky_relu
from ..ops.relpos_attention import relpos_attention
from .config import SynthesizerConfig

WINDOW = 10
PITCH_BINS = 256


class Attention(Layer):
    """Multi-head self-attention with windowed relative positions shared by the heads. Its softmax is float32 inside."""

    narrow = ("emb_rel_k", "emb_rel_v")

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self._heads = heads
        self.conv_q, self.conv_k, self.conv_v, self.conv_o = (Linear(channels, channels) for _ in range(4))
        self.emb_rel_k = mx.zeros((2 * WINDOW + 1, channels // heads))
        self.emb_rel_v = mx.zeros((2 * WINDOW + 1, channels // heads))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, T, C) -> x + attention(x)."""
        batch, length, channels = x.shape

        def split(y: mx.array) -> mx.array:
            return y.reshape(batch, length, self._heads, -1).swapaxes(1, 2)

        q, k, v = split(self.conv_q(x)), split(self.conv_k(x)), split(self.conv_v(x))
        y = relpos_attention(q, k, v, self.emb_rel_k, self.emb_rel_v, WINDOW)
        return self.conv_o(y.swapaxes(1, 2).reshape(batch, length, channels), residual=x)


class FeedForward(nn.Module):
    """Two convolutions over time with a ReLU between them."""

    def __init__(self, channels: int, filter_channels: int, kernel: int):
        super().__init__()
        padding = ((kernel - 1) // 2, kernel // 2)
        self.conv_1 = Conv1d(channels, filter_channels, kernel, padding=padding)
        self.conv_2 = Conv1d(filter_channels, channels, kernel, padding=padding)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, T, C) -> x + feed_forward(x)."""
        return self.conv_2(self.conv_1(x, activation="relu"), residual=x)


class Encoder(nn.Module):
    """The post-norm transformer."""

    def __init__(self, c: SynthesizerConfig):
        super().__init__()
        hidden, layers = c.hidden_channels, range(c.n_layers)
        self.attn_layers = [Attention(hidden, c.n_heads) for _ in layers]
        self.norm_layers_1 = [LayerNorm(hidden) for _ in layers]
        self.ffn_layers = [FeedForward(hidden, c.filter_channels, c.kernel_size) for _ in layers]
        self.norm_layers_2 = [LayerNorm(hidden) for _ in layers]

    def __call__(self, x: mx.array) -> mx.array:
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attention, norm_1, feed_forward, norm_2 in layers:
            x = norm_1(attention(x))
            x = norm_2(feed_forward(x))
        return x


class TextEncoder(nn.Module):
    """phone (B, T, d), pitch (B, T) coarse bins or None -> mean and log deviation, each (B, T, inter)."""

    def __init__(self, c: SynthesizerConfig):
        super().__init__()
        self._scale = math.sqrt(c.hidden_channels)
        self.emb_phone = Linear(c.text_enc_hidden_dim, c.hidden_channels)
        if c.use_f0:
            self.emb_pitch = Embedding(PITCH_BINS, c.hidden_channels)
        self.encoder = Encoder(c)
        self.proj = Linear(c.hidden_channels, 2 * c.inter_channels)

    def __call__(self, phone: mx.array, pitch: mx.array | None) -> tuple[mx.array, mx.array]:
        # A row that the table does not have would be read from whatever lies there.
        tone = None if pitch is None else self.emb_pitch(mx.clip(pitch, 0, PITCH_BINS - 1))
        x = self.emb_phone(phone, residual=tone)
        x = self.encoder(leaky_relu(x * self._scale, 0.1))
        mean, log_deviation = mx.split(self.proj(x), 2, axis=-1)
        return mean, log_deviation
