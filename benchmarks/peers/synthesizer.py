"""A voice with the HiFi-GAN decoder, with the tensor names of the public voices.

Activations are (1, channels, frames), as in the public code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from rvc_fast.ops.nsf_source import NOISE_STD, SINE_AMPLITUDE
from rvc_fast.synthesizer.config import SynthesizerConfig
from rvc_fast.synthesizer.flow import COUPLINGS, KERNEL, LAYERS
from rvc_fast.synthesizer.hifigan import LAST_SLOPE, SLOPE
from rvc_fast.synthesizer.model import TEMPERATURE
from rvc_fast.synthesizer.text_encoder import PITCH_BINS, WINDOW


class ChannelNorm(nn.Module):
    """Layer norm over the channels."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), self.gamma.shape, self.gamma, self.beta, 1e-5).transpose(1, 2)


def by_position(relative: Tensor) -> Tensor:
    """(..., T, 2T - 1) over distances j - i + T - 1 -> (..., T, T) over j."""
    length = relative.shape[-2]
    width = 2 * length - 1
    flat = F.pad(relative, (0, 1)).flatten(-2)[..., length - 1 : length - 1 + length * width]
    return flat.unflatten(-1, (length, width))[..., :length]


def by_distance(absolute: Tensor) -> Tensor:
    """The inverse: (..., T, T) -> (..., T, 2T - 1), zero where there is no such position."""
    length = absolute.shape[-1]
    flat = F.pad(F.pad(absolute, (0, length - 1)).flatten(-2), (length - 1, 1))
    return flat.unflatten(-1, (length, 2 * length))[..., : 2 * length - 1]


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.conv_q, self.conv_k, self.conv_v, self.conv_o = (nn.Conv1d(width, width, 1) for _ in range(4))
        self.emb_rel_k = nn.Parameter(torch.zeros(1, 2 * WINDOW + 1, width // heads))
        self.emb_rel_v = nn.Parameter(torch.zeros(1, 2 * WINDOW + 1, width // heads))

    def distances(self, table: Tensor, length: int) -> Tensor:
        """The table for distances 1 - T to T - 1; a negative pad cuts what cannot occur."""
        return F.pad(table, (0, 0, length - 1 - WINDOW, length - 1 - WINDOW))

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[2]

        def split(y: Tensor) -> Tensor:
            return y.unflatten(1, (self.heads, -1)).transpose(2, 3)

        q, k, v = split(self.conv_q(x)), split(self.conv_k(x)), split(self.conv_v(x))
        q = q / math.sqrt(q.shape[3])
        scores = q @ k.transpose(2, 3)
        scores = scores + by_position(q @ self.distances(self.emb_rel_k, length).transpose(1, 2))
        weights = scores.softmax(3)
        y = weights @ v + by_distance(weights) @ self.distances(self.emb_rel_v, length)
        return self.conv_o(y.transpose(2, 3).flatten(1, 2))


class FeedForward(nn.Module):
    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        width, filters, kernel = config.hidden_channels, config.filter_channels, config.kernel_size
        self.padding = ((kernel - 1) // 2, kernel // 2)
        self.conv_1 = nn.Conv1d(width, filters, kernel)
        self.conv_2 = nn.Conv1d(filters, width, kernel)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv_1(F.pad(x, self.padding)))
        return self.conv_2(F.pad(x, self.padding))


class Transformer(nn.Module):
    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        width, layers = config.hidden_channels, range(config.n_layers)
        self.attn_layers = nn.ModuleList(Attention(width, config.n_heads) for _ in layers)
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(width) for _ in layers)
        self.ffn_layers = nn.ModuleList(FeedForward(config) for _ in layers)
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(width) for _ in layers)

    def forward(self, x: Tensor) -> Tensor:
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attention, norm_1, feed_forward, norm_2 in layers:
            x = norm_1(x + attention(x))
            x = norm_2(x + feed_forward(x))
        return x


class TextEncoder(nn.Module):
    """phone (1, T, d), pitch (1, T) or None -> mean and log deviation (1, inter, T)."""

    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        self.scale = math.sqrt(config.hidden_channels)
        self.emb_phone = nn.Linear(config.text_enc_hidden_dim, config.hidden_channels)
        if config.use_f0:
            self.emb_pitch = nn.Embedding(PITCH_BINS, config.hidden_channels)
        self.encoder = Transformer(config)
        self.proj = nn.Conv1d(config.hidden_channels, 2 * config.inter_channels, 1)

    def forward(self, phone: Tensor, pitch: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.emb_phone(phone)
        if pitch is not None:
            x = x + self.emb_pitch(pitch)
        x = F.leaky_relu(x * self.scale, 0.1).transpose(1, 2)
        mean, log_deviation = self.proj(self.encoder(x)).chunk(2, 1)
        return mean, log_deviation


class WaveNet(nn.Module):
    def __init__(self, width: int, speaker: int):
        super().__init__()
        self.cond_layer = weight_norm(nn.Conv1d(speaker, 2 * width * LAYERS, 1))
        self.in_layers = nn.ModuleList(
            weight_norm(nn.Conv1d(width, 2 * width, KERNEL, padding=KERNEL // 2)) for _ in range(LAYERS)
        )
        self.res_skip_layers = nn.ModuleList(
            weight_norm(nn.Conv1d(width, 2 * width if i < LAYERS - 1 else width, 1)) for i in range(LAYERS)
        )

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        output = torch.zeros_like(x)
        conditions = self.cond_layer(g).chunk(LAYERS, 1)
        for i, (conv, res_skip) in enumerate(zip(self.in_layers, self.res_skip_layers, strict=True)):
            turn, gate = (conv(x) + conditions[i]).chunk(2, 1)
            y = res_skip(torch.tanh(turn) * torch.sigmoid(gate))
            if i < LAYERS - 1:
                residual, y = y.chunk(2, 1)
                x = x + residual
            output = output + y
        return output


class Coupling(nn.Module):
    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        half = config.inter_channels // 2
        self.pre = nn.Conv1d(half, config.hidden_channels, 1)
        self.enc = WaveNet(config.hidden_channels, config.gin_channels)
        self.post = nn.Conv1d(config.hidden_channels, half, 1)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        kept, shifted = x.chunk(2, 1)
        return torch.cat([kept, shifted - self.post(self.enc(self.pre(kept), g))], 1)


class Flip(nn.Module):
    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return torch.flip(x, [1])


class Flow(nn.Module):
    """The flow in reverse."""

    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        layers = [layer for _ in range(COUPLINGS) for layer in (Coupling(config), Flip())]
        self.flows = nn.ModuleList(layers)

    def forward(self, z: Tensor, g: Tensor) -> Tensor:
        for layer in reversed(self.flows):
            z = layer(z, g)
        return z


def fractions(advance: Tensor) -> Tensor:
    """(1, T) cycles of each frame -> (1, T) what is left of the sum so far without its whole cycles.

    In double, where the public code sums in float32: its drift over a minute would hide differences. MPS has no
    double, so that its numbers, one a frame, are summed on the CPU.
    """
    exact = (advance.cpu() if advance.device.type == "mps" else advance).double()
    return torch.fmod(exact.cumsum(1), 1.0).to(advance.device, advance.dtype)


class Source(nn.Module):
    """f0 (1, T), noise (1, T * hop, 1) -> excitation (1, 1, T * hop)."""

    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        self.hop, self.rate = config.hop, config.sr
        self.l_linear = nn.Linear(1, 1)

    def forward(self, f0: Tensor, noise: Tensor) -> Tensor:
        steps = torch.arange(1, self.hop + 1, dtype=f0.dtype, device=f0.device)
        cycles = f0[:, :, None] / self.rate * steps
        advance = torch.fmod(cycles[:, :, -1:] + 0.5, 1.0) - 0.5
        start = fractions(advance)
        cycles = cycles + F.pad(start[:, :-1], (0, 0, 1, 0))
        voiced = (f0 > 0).to(f0.dtype)[:, :, None].expand_as(cycles).flatten(1)[:, :, None]
        sine = SINE_AMPLITUDE * torch.sin(2 * math.pi * cycles).flatten(1)[:, :, None]
        level = voiced * NOISE_STD + (1 - voiced) * (SINE_AMPLITUDE / 3)
        return torch.tanh(self.l_linear(sine * voiced + level * noise)).transpose(1, 2)


class ResBlock(nn.Module):
    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = dilation * (kernel - 1) // 2
            return weight_norm(nn.Conv1d(width, width, kernel, dilation=dilation, padding=padding))

        self.convs1 = nn.ModuleList(conv(d) for d in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = dilated(F.leaky_relu(x, SLOPE))
            x = x + plain(F.leaky_relu(y, SLOPE))
        return x


class Decoder(nn.Module):
    """z (1, inter, T), speaker (1, gin, 1), f0 (1, T), noise -> waveform (T * hop,)."""

    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        c, initial = config, config.upsample_initial_channel
        stages = range(len(c.upsample_rates))
        widths = [initial >> (i + 1) for i in stages]
        if c.use_f0:
            self.m_source = Source(c)
            self.noise_convs = nn.ModuleList()
            for i in stages:
                stride = math.prod(c.upsample_rates[i + 1 :])
                kernel = 1 if stride == 1 else 2 * stride - stride % 2
                self.noise_convs.append(nn.Conv1d(1, widths[i], kernel, stride, (kernel - stride) // 2))
        self.conv_pre = nn.Conv1d(c.inter_channels, initial, 7, padding=3)
        self.cond = nn.Conv1d(c.gin_channels, initial, 1)
        self.ups = nn.ModuleList()
        for i in stages:
            rate, kernel = c.upsample_rates[i], c.upsample_kernel_sizes[i]
            padding, extra = c.upsample_padding(rate, kernel)
            up = nn.ConvTranspose1d(initial >> i, widths[i], kernel, rate, padding, output_padding=extra)
            self.ups.append(weight_norm(up))
        kinds = list(zip(c.resblock_kernel_sizes, c.resblock_dilation_sizes, strict=True))
        self.resblocks = nn.ModuleList(ResBlock(w, kernel, d) for w in widths for kernel, d in kinds)
        self.conv_post = nn.Conv1d(widths[-1], 1, 7, padding=3, bias=False)

    def stage(self, i: int, x: Tensor) -> Tensor:
        """The residual blocks of one stage."""
        count = len(self.resblocks) // len(self.ups)
        total = torch.zeros_like(x)
        for block in self.resblocks[i * count : (i + 1) * count]:
            total = total + block(x)
        return total / count

    def forward(self, z: Tensor, g: Tensor, source: Tensor | None) -> Tensor:
        return self.batch(z, g, source)[0]

    def batch(self, z: Tensor, g: Tensor, source: Tensor | None) -> Tensor:
        """(sounds, inter, T), (sounds, gin, 1), (sounds, 1, T * hop) -> (sounds, T * hop)."""
        x = self.conv_pre(z) + self.cond(g)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, SLOPE))
            if source is not None:
                x = x + self.noise_convs[i](source)
            x = self.stage(i, x)
        return torch.tanh(self.conv_post(F.leaky_relu(x, LAST_SLOPE)))[:, 0]


class Synthesizer(nn.Module):
    def __init__(self, config: SynthesizerConfig):
        super().__init__()
        self.enc_p = TextEncoder(config)
        self.flow = Flow(config)
        self.dec = Decoder(config)
        self.emb_g = nn.Embedding(config.spk_embed_dim, config.gin_channels)

    def speaker(self, speaker: Tensor) -> Tensor:
        """(1,) -> (1, gin, 1)."""
        return self.emb_g(speaker)[:, :, None]

    def trace(
        self,
        phone: Tensor,
        pitch: Tensor | None,
        f0: Tensor | None,
        speaker: Tensor,
        latent_noise: Tensor,
        source_noise: Tensor | None,
    ) -> dict[str, Tensor]:
        """Every step, under the names of the golden files."""
        g = self.speaker(speaker)
        mean, log_deviation = self.enc_p(phone, pitch)
        z_p = mean + torch.exp(log_deviation) * latent_noise * TEMPERATURE
        z = self.flow(z_p, g)
        steps = {"m_p": mean[0].T, "logs_p": log_deviation[0].T, "z_p": z_p[0].T, "z": z[0].T}
        source = None
        if f0 is not None:
            source = self.dec.m_source(f0, source_noise)
            steps["source"] = source[0, 0]
        return {**steps, "audio": self.dec(z, g, source)}

    def prior(self, phone: Tensor, pitch: Tensor) -> tuple[Tensor, Tensor]:
        """Text encoder: phone, pitch -> mean, log deviation (1, inter, T)."""
        return self.enc_p(phone, pitch)

    def reverse(self, z_p: Tensor, speaker: Tensor) -> Tensor:
        """Flow: latents (1, inter, T), speaker -> z (1, inter, T)."""
        return self.flow(z_p, self.speaker(speaker))

    def latent(self, phone: Tensor, pitch: Tensor, speaker: Tensor, noise: Tensor) -> Tensor:
        """Text encoder and flow: phone, pitch, speaker, noise (1, inter, T) -> z (1, inter, T)."""
        mean, log_deviation = self.prior(phone, pitch)
        return self.reverse(mean + torch.exp(log_deviation) * noise * TEMPERATURE, speaker)

    def render(self, z: Tensor, speaker: Tensor, f0: Tensor, noise: Tensor) -> Tensor:
        """Source and decoder: z, speaker, f0 (1, T), noise (1, T * hop, 1) -> waveform (T * hop,)."""
        return self.dec(z, self.speaker(speaker), self.dec.m_source(f0, noise))

    def blocks(self, *x: Tensor) -> tuple[Tensor, ...]:
        """Only the residual blocks: the input (1, C, n) of each stage -> its output."""
        return tuple(self.dec.stage(i, y) for i, y in enumerate(x))
