"""The voice: a small RVC v2 synthesizer, trained on targets whose words other voices say as well.

There is no posterior encoder: text encoder, flow and decoder learn together to turn content features, pitch and
speaker into the target's sound, by losses on spectra. Against lines at the frame rate (100 Hz and multiples) in
place of harmonics, which only spectra of long windows tell apart:

- the source begins as a pulse train, so that it has the high harmonics that a sine lacks;
- upsampling begins as smooth interpolation, so that nothing but the source repeats;
- windows of up to 4096 samples, and a third of the targets' lines spoken on one pitch.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from benchmarks.peers.hubert import Hubert
from benchmarks.peers.synthesizer import Synthesizer
from torch import Tensor, nn

from rvc_fast.audio import high_pass
from rvc_fast.ops.mel_stft import mel_filters
from rvc_fast.pitch.f0 import coarse
from rvc_fast.synthesizer.config import SynthesizerConfig
from rvc_fast.synthesizer.model import TEMPERATURE

from . import content, loop, measures
from .corpus import FRAME, RATE, TARGET_RATE, Corpus
from .loop import device, fit
from .plan import SPEAKERS, Plan, VoiceTraining

CONTEXT = 96  # frames that the text encoder sees in training
PAD = RATE  # samples of the sound's mirror image on both sides, as in a conversion
WINDOWS = (256, 512, 1024, 2048, 4096)
PULSES = (200.0, -6.0)  # weight and bias of the source: tanh of this times the sine, which is 0.1 high
PROBE_HZ = (123.0, 137.0, 223.0)  # far from multiples of 100 Hz between 1.5 and 3 kHz, for the most part
FLOOR = 3e-4


def config(plan: Plan) -> SynthesizerConfig:
    """Return the voice's sizes: 24 kHz, as espeak-ng has nothing above 11 kHz."""
    return SynthesizerConfig(
        inter_channels=64,
        hidden_channels=64,
        filter_channels=256,
        n_heads=2,
        n_layers=3,
        kernel_size=3,
        resblock_kernel_sizes=(3, 7),
        resblock_dilation_sizes=((1, 3, 5), (1, 3, 5)),
        upsample_rates=(10, 6, 4),
        upsample_kernel_sizes=(20, 12, 8),
        upsample_initial_channel=plan.upsample_channels,
        spk_embed_dim=len(SPEAKERS),
        gin_channels=32,
        sr=TARGET_RATE,
        text_enc_hidden_dim=content.CONFIG.hidden_size,
    )


def model(plan: Plan) -> Synthesizer:
    """Return an untrained voice."""
    voice = Synthesizer(config(plan))
    for flow in voice.flow.flows:
        if hasattr(flow, "post"):
            nn.init.zeros_(flow.post.weight)
            nn.init.zeros_(flow.post.bias)
    inter = voice.dec.conv_pre.in_channels
    nn.init.zeros_(voice.enc_p.proj.weight[inter:])
    nn.init.constant_(voice.enc_p.proj.bias[inter:], -4.0)  # log deviation: little noise
    for attention in voice.enc_p.encoder.attn_layers:
        nn.init.normal_(attention.emb_rel_k, std=attention.emb_rel_k.shape[2] ** -0.5)
        nn.init.normal_(attention.emb_rel_v, std=attention.emb_rel_v.shape[2] ** -0.5)
    nn.init.constant_(voice.dec.m_source.l_linear.weight, PULSES[0])
    nn.init.constant_(voice.dec.m_source.l_linear.bias, PULSES[1])
    content.plain(voice)
    for up in voice.dec.ups:
        channels, _, size = up.weight.shape
        # Hann windows that overlap by half add up to one.
        window = torch.hann_window(size, periodic=True) if size == 2 * up.stride[0] else torch.ones(size) / 2
        with torch.no_grad():
            mix = torch.randn(up.weight.shape[:2]) * channels**-0.5
            up.weight.copy_(mix[:, :, None] * window)
            up.bias.zero_()
    return voice.to(device())


@torch.inference_mode()
def features(encoder: Hubert, sound: np.ndarray) -> np.ndarray:
    """Return the content features (n // 320, dim) of a sound at 16 kHz, from the same samples as a conversion."""
    padded = np.pad(high_pass(sound).astype(np.float32), PAD, mode="reflect")
    found = encoder(torch.from_numpy(padded).to(device())).cpu().numpy()
    start = PAD // FRAME
    return found[start : start + len(sound) // FRAME]


def warp(
    found: np.ndarray,
    source: tuple[np.ndarray, np.ndarray],
    target: tuple[np.ndarray, np.ndarray],
    frames: int,
) -> np.ndarray | None:
    """Return features of `source` moved to the times of `target`, by their phonemes; None if these differ.

    source, target: (onset samples, classes); found: (frames of the source, dim).
    """
    if not np.array_equal(source[1], target[1]):
        return None
    ends = len(found) * FRAME, frames * FRAME
    middles = np.arange(frames) * FRAME + content.MIDDLE
    there = np.interp(middles, [*target[0], ends[1]], [*source[0], ends[0]])
    place = np.clip((there - content.MIDDLE) / FRAME, 0, len(found) - 1)
    below = np.minimum(place.astype(int), len(found) - 2)
    share = (place - below)[:, None]
    return (found[below] * (1 - share) + found[below + 1] * share).astype(np.float32)


class Material:
    """What the voice learns from: per target line its sound, pitch, and features as several voices say it.

    The features are kept in `path`.
    """

    def __init__(self, encoder: Hubert, targets: Corpus, renderings: Corpus, path: Path):
        self.targets = targets
        if not path.is_file():
            self._listen(encoder, renderings, path)
        with np.load(path) as kept:
            parts = np.split(kept["features"], np.cumsum(kept["frames"])[:-1])
            owner = kept["line"]
        self.features = [[parts[k] for k in np.flatnonzero(owner == i)] for i in range(len(targets))]
        self.speaker = np.array([SPEAKERS.index(voice.split("+")[1]) for voice in targets.voice])
        lengths = np.diff(targets.starts)
        self.chance = lengths / lengths.sum()

    def _listen(self, encoder: Hubert, renderings: Corpus, path: Path) -> None:
        each = len(renderings) // len(self.targets)
        found, line = [], []
        for i in range(len(self.targets)):
            found.append(features(encoder, self.targets.utterance(i)))
            line.append(i)
            own = len(found[-1])
            for j in range(each * i, each * (i + 1)):
                other = features(encoder, renderings.utterance(j))
                moved = warp(other, renderings.spoken(j), self.targets.spoken(i), own)
                if moved is not None:
                    found.append(moved)
                    line.append(i)
        same = len(found) - len(self.targets)
        print(f"{same} of {len(renderings)} renderings have the phonemes of their target", flush=True)
        temporary = path.with_suffix(".tmp.npz")
        frames = [len(f) for f in found]
        np.savez(temporary, features=np.concatenate(found), frames=frames, line=line)
        temporary.replace(path)

    def batch(self, rng: np.random.Generator, size: int, frames: int, hop: int) -> dict[str, Tensor]:
        """Draw `size` items: CONTEXT frames of features and pitch, and where in them `frames` of sound are."""
        rows: dict[str, list[np.ndarray]] = {"phone": [], "f0": [], "sound": []}
        speakers, offset = [], int(rng.integers(0, CONTEXT - frames + 1))
        for i in rng.choice(len(self.chance), size, p=self.chance):
            choices = self.features[i]
            # Half the time the target's own features, else another voice's.
            found = choices[0] if rng.random() < 0.5 else choices[int(rng.integers(len(choices)))]
            f0 = self.targets.pitch(i)
            sound = self.targets.wide_utterance(i)
            short = max(0, CONTEXT - len(f0))
            phone = np.pad(np.repeat(found, 2, axis=0), ((0, short), (0, 0)), mode="edge")
            f0, sound = np.pad(f0, (0, short)), np.pad(sound, (0, short * hop))
            start = int(rng.integers(0, len(f0) - CONTEXT + 1))
            rows["phone"].append(phone[start : start + CONTEXT])
            rows["f0"].append(f0[start : start + CONTEXT])
            rows["sound"].append(sound[(start + offset) * hop : (start + offset + frames) * hop])
            speakers.append(self.speaker[i])
        out = {name: torch.from_numpy(np.stack(values)).to(device()) for name, values in rows.items()}
        out["pitch"] = torch.from_numpy(coarse(np.stack(rows["f0"])).astype(np.int64)).to(device())
        out["speaker"] = torch.from_numpy(np.array(speakers)).to(device())
        out["offset"] = torch.tensor(offset)
        return out


def render(
    voice: Synthesizer, phone: Tensor, pitch: Tensor, f0: Tensor, speaker: Tensor, part: slice = slice(None)
) -> Tensor:
    """Return the sound (sounds, frames * hop) of a part of the frames, with fresh noise."""
    g = voice.speaker(speaker)
    mean, log_deviation = voice.enc_p(phone, pitch)
    z = voice.flow(mean + torch.exp(log_deviation) * torch.randn_like(mean) * TEMPERATURE, g)[:, :, part]
    f0 = f0[:, part]
    noise = torch.randn(*f0.shape[:1], f0.shape[1] * voice.dec.m_source.hop, 1, device=f0.device)
    with torch.autocast(f0.device.type, enabled=False):  # the flanks of the pulses need every bit
        source = voice.dec.m_source(f0, noise)
    return voice.dec.batch(z, g, source)


class SpectralLoss(nn.Module):
    """Distances of log magnitudes at several windows, low frequencies first, of magnitudes, and of mel spectrograms.

    `emphasis` lifts magnitudes from 500 Hz to 4 kHz by 6 dB an octave: speech falls by as much there, and a
    distance of squares would hear nothing but its lowest formant.
    """

    def __init__(self, emphasis: bool = False) -> None:
        super().__init__()
        for size in WINDOWS:
            self.register_buffer(f"window_{size}", torch.hann_window(size))
            weight = 1 / (1 + torch.linspace(0, TARGET_RATE / 2, size // 2 + 1) / 2000)
            self.register_buffer(f"weight_{size}", (weight / weight.mean())[:, None])
            lift = (torch.linspace(0, TARGET_RATE / 2, size // 2 + 1) / 500).clamp(1, 8 if emphasis else 1)
            self.register_buffer(f"lift_{size}", lift[:, None])
        self.register_buffer(
            "filters", torch.from_numpy(mel_filters(TARGET_RATE, 1024, 80, 0, 12000)).float()
        )

    def magnitudes(self, sound: Tensor, size: int) -> Tensor:
        window = getattr(self, f"window_{size}")
        spectrum = torch.stft(sound, size, size // 4, window=window, center=False, return_complex=True)
        # Power first: the gradient of a magnitude is undefined at zero.
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.sqrt(power / window.square().sum() + FLOOR**2)

    def forward(self, got: Tensor, want: Tensor) -> Tensor:
        total = torch.zeros((), device=got.device)
        for size in WINDOWS:
            a, b = self.magnitudes(got, size), self.magnitudes(want, size)
            weight = getattr(self, f"weight_{size}")
            total = total + (weight * (a.log() - b.log()).abs()).mean()
            lift = getattr(self, f"lift_{size}")
            total = total + torch.linalg.vector_norm(lift * (a - b)) / torch.linalg.vector_norm(lift * b)
            if size == 1024:
                total = total + 2 * (torch.log(self.filters @ a) - torch.log(self.filters @ b)).abs().mean()
        return total / len(WINDOWS)


def hear(encoder: Hubert, sound: Tensor) -> list[Tensor]:
    """Return what every layer of the content encoder makes of sounds (sounds, n) at 24 kHz."""
    kept = sound.shape[1] * RATE // TARGET_RATE
    spectrum = torch.fft.rfft(sound)[:, : kept // 2 + 1]
    x = torch.fft.irfft(spectrum, kept) * (RATE / TARGET_RATE)
    with loop.autocast():
        x = encoder.encoder.embed(encoder.feature_projection(encoder.feature_extractor(x)))
        layers = [x]
        for layer in encoder.encoder.layers:
            layers.append(layer(layers[-1]))
    return [x.float() for x in layers]


@torch.inference_mode()
def probe(voice: Synthesizer, found: np.ndarray, voiced: np.ndarray) -> tuple[float, float]:
    """Return the mean shares on harmonics and on the comb over all speakers, each at constant pitches."""
    phone = torch.from_numpy(np.repeat(found, 2, axis=0))[None].to(device())
    shares = []
    for speaker in range(len(SPEAKERS)):
        for hertz in PROBE_HZ:
            f0 = np.where(voiced, hertz, 0).astype(np.float32)[None]
            sound = render(
                voice,
                phone,
                torch.from_numpy(coarse(f0).astype(np.int64)).to(device()),
                torch.from_numpy(f0).to(device()),
                torch.tensor([speaker], device=device()),
            )
            shares.append(measures.line_shares(sound[0].float().cpu().numpy(), TARGET_RATE, hertz, voiced))
    harmonic, comb = np.nanmean(shares, axis=0)
    return float(harmonic), float(comb)


def train(
    plan: Plan, encoders: list[Hubert], targets: Corpus, renderings: Corpus, test: Corpus, folder: Path
) -> Synthesizer:
    """Return the trained voice; `encoders` are those after each round of their training."""
    seed = plan.seed + 40
    torch.manual_seed(seed)
    voice = model(plan)
    for number, training in enumerate(plan.synthesizer, 1):
        path = folder / f"synthesizer{number}.pt"
        if path.is_file():
            voice.load_state_dict(torch.load(path, map_location=device()))
            continue
        encoder = encoders[training.encoder - 1].eval().requires_grad_(False)
        material = Material(encoder, targets, renderings, folder / f"features{training.encoder}.npz")
        _train(voice, training, encoder, material, test, plan.test_sentences, path, seed + 100 * (number - 1))
    return voice.eval()


def _train(
    voice: Synthesizer,
    training: VoiceTraining,
    encoder: Hubert,
    material: Material,
    test: Corpus,
    every: int,
    path: Path,
    seed: int,
) -> None:
    """One round. Its progress is measured on every so-manyth sentence of `test`: one of each held-out voice."""
    spectral = SpectralLoss(training.emphasis).to(device())
    heard = range(0, len(test), every)
    found = np.concatenate([features(encoder, test.utterance(i)) for i in heard])
    voiced = np.concatenate([test.pitch(i) for i in heard]) > 0

    def loss(step: int) -> Tensor:
        given = material.batch(
            np.random.default_rng([seed, step]), training.batch, training.frames, voice.dec.m_source.hop
        )
        start = int(given["offset"])
        with loop.autocast():
            part = slice(start, start + training.frames)
            sound = render(voice, given["phone"], given["pitch"], given["f0"], given["speaker"], part)
        total = spectral(sound.float(), given["sound"])
        if training.hearing:
            with torch.no_grad():
                want = hear(encoder, given["sound"])
            layers = zip(hear(encoder, sound.float()), want, strict=True)
            total = total + training.hearing * sum((a - b).abs().mean() for a, b in layers) / len(want)
        return total

    def watch() -> str:
        return "harmonic share {:.3f}, comb {:.3f}".format(*probe(voice, found, voiced))

    fit(voice, training, loss, path, seed=seed, watch=watch)
