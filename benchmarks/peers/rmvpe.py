"""RMVPE, with the tensor names of the published rmvpe.pt; batch norm is not folded, as there."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvc_fast.ops.mel_stft import mel_filters
from rvc_fast.pitch.rmvpe import BINS, FRAME_MULTIPLE, HOP, MELS, N_FFT, SAMPLE_RATE, RmvpeConfig


class Block(nn.Module):
    def __init__(self, before: int, width: int):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.shortcut = nn.Conv2d(before, width, 1) if before != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)


def blocks(before: int, width: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(Block(width if i else before, width) for i in range(count))


def run(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


class Level(nn.Module):
    """The blocks of one resolution."""

    def __init__(self, before: int, width: int, count: int):
        super().__init__()
        self.conv = blocks(before, width, count)

    def forward(self, x: Tensor) -> Tensor:
        return run(self.conv, x)


class Encoder(nn.Module):
    def __init__(self, config: RmvpeConfig):
        super().__init__()
        width = config.en_out_channels
        self.kernel = config.kernel_size
        self.bn = nn.BatchNorm2d(1)
        self.layers = nn.ModuleList(
            Level(width << (i - 1) if i else 1, width << i, config.n_blocks)
            for i in range(config.en_de_layers)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.bn(x)
        skips = []
        for layer in self.layers:
            x = layer(x)
            skips.append(x)
            x = F.avg_pool2d(x, self.kernel)
        return x, skips


class Intermediate(nn.Module):
    def __init__(self, config: RmvpeConfig):
        super().__init__()
        width = config.en_out_channels << config.en_de_layers
        self.layers = nn.ModuleList(
            Level(width if i else width // 2, width, config.n_blocks) for i in range(config.inter_layers)
        )


class Up(nn.Module):
    def __init__(self, before: int, width: int, config: RmvpeConfig):
        super().__init__()
        stride = config.kernel_size
        extra = (stride[0] - 1, stride[1] - 1)
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(before, width, 3, stride, padding=1, output_padding=extra, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.conv2 = blocks(2 * width, width, config.n_blocks)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return run(self.conv2, torch.cat([self.conv1(x), skip], 1))


class Decoder(nn.Module):
    def __init__(self, config: RmvpeConfig):
        super().__init__()
        width, depth = config.en_out_channels, config.en_de_layers
        self.layers = nn.ModuleList(Up(width << i, width << (i - 1), config) for i in range(depth, 0, -1))


class UNet(nn.Module):
    def __init__(self, config: RmvpeConfig):
        super().__init__()
        self.encoder = Encoder(config)
        self.intermediate = Intermediate(config)
        self.decoder = Decoder(config)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.encoder(x)
        x = run(self.intermediate.layers, x)
        for layer in self.decoder.layers:
            x = layer(x, skips.pop())
        return x


class BiGru(nn.Module):
    def __init__(self, width: int, hidden: int, layers: int):
        super().__init__()
        self.gru = nn.GRU(width, hidden, layers, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


class Rmvpe(nn.Module):
    """Sound (n,) at 16 kHz -> salience (n // 160 + 1, 360)."""

    def __init__(self, config: RmvpeConfig):
        super().__init__()
        self.unet = UNet(config)
        self.cnn = nn.Conv2d(config.en_out_channels, 3, 3, padding=1)
        self.fc = nn.Sequential(
            BiGru(3 * MELS, config.gru_hidden, config.n_gru),
            nn.Linear(2 * config.gru_hidden, BINS),
            nn.Sigmoid(),
        )
        filters = torch.from_numpy(mel_filters(SAMPLE_RATE, N_FFT, MELS, 30, 8000))
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def log_mel(self, audio: Tensor) -> Tensor:
        """(..., n) -> (..., 128, n // 160 + 1)."""
        spectrum = torch.stft(audio, N_FFT, HOP, window=self.window, center=True, return_complex=True)
        return torch.log(torch.clamp(self.filters @ spectrum.abs(), min=1e-5))

    def network(self, mel: Tensor) -> Tensor:
        """(128, frames), a multiple of 32 of them -> (frames, 360)."""
        return self.fc[2](self.logits(mel[None]))[0]

    def logits(self, mel: Tensor) -> Tensor:
        """(sounds, 128, frames) -> (sounds, frames, 360), before the sigmoid."""
        x = self.cnn(self.unet(mel.transpose(1, 2)[:, None]))
        return self.fc[1](self.fc[0](x.transpose(1, 2).flatten(2)))

    def padded_mel(self, audio: Tensor) -> Tensor:
        mel = self.log_mel(audio)
        return F.pad(mel[None], (0, -mel.shape[1] % FRAME_MULTIPLE), mode="reflect")[0]

    def forward(self, audio: Tensor) -> Tensor:
        return self.network(self.padded_mel(audio))[: audio.shape[0] // HOP + 1]
