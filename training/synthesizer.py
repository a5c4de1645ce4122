"""The voice: a small RVC v2 synthesizer, trained on targets whose words other voices say as well.

There is no posterior encoder: text encoder, flow and decoder learn together to turn content features, pitch and
speaker into the target's sound, by losses on spectra. Against lines at the frame rate (100 Hz and multiples) in
place of harmonics, which only spectra of long windows tell apart:

- the source begins as a pulse train, so that it has the high harmonics that a sine lacks;
- upsampling begins as smooth interpolation, so that nothing but the source repeats;
- windows of up to 4096 samples, and a third of the targets' lines spoken on one pitch.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.hubert import Hubert
from benchmarks.peers.synthesizer import Synthesizer
from rvc_fast.audio import high_pass
from rvc_fast.ops.mel_stft import mel_filters
from rvc_fast.pitch.f0 import coarse
from rvc_fast.synthesizer.config import SynthesizerConfig
from rvc_fast.synthesizer.model import TEMPERATURE

from . import augment, content, loop, measures
from .corpus import FRAME, PITCH_FRAME, RATE, TARGET_RATE, Corpus
from .loop import device, fit
from .plan import SPEAKERS, Plan, VoiceTraining

CONTEXT = 96  # frames that the text encoder sees in training
PAD = RATE  # samples of the sound's mirror image on both sides, as in a conversion
WINDOWS = (256, 512, 1024, 2048, 4096)
PULSES = (200.0, -6.0)  # weight and bias of the source: tanh of this times the sine, which is 0.1 high
PROBE_HZ = (123.0, 137.0, 223.0)  # far from multiples of 100 Hz between 1.5 and 3 kHz, for the most part
FLOOR = 3e-4
ALIKE = 0.75


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


def _elsewhere(sound: np.ndarray, seed: int) -> np.ndarray:
    """Return a sound (n,) of another throat in another room: what the voice is given is seldom clean."""
    rng = np.random.default_rng([50, seed])
    return augment.room(augment.throats(sound[None], rng), rng)[0]


def warp(
    found: np.ndarray,
    source: tuple[np.ndarray, np.ndarray],
    target: tuple[np.ndarray, np.ndarray],
    frames: int,
) -> np.ndarray | None:
    """Return features of `source` moved to the times of `target`, by the phonemes that both have; None if these are
    less than ALIKE of them: synthesizers do not pronounce every word the same.

    source, target: (onset samples, classes); found: (frames of the source, dim).
    """
    matcher = difflib.SequenceMatcher(None, source[1].tolist(), target[1].tolist(), autojunk=False)
    if matcher.ratio() < ALIKE:
        return None
    ends = len(found) * FRAME, frames * FRAME
    places = [(0.0, 0.0)]
    source_onsets, target_onsets = (
        np.append(said[0], end) for said, end in ((source, ends[0]), (target, ends[1]))
    )
    for a, b, size in matcher.get_matching_blocks():
        # The end of a block of phonemes is known as well as their onsets.
        for k in range(size + 1 if size else 0):
            place = float(target_onsets[b + k]), float(source_onsets[a + k])
            if place[0] > places[-1][0] and place[1] > places[-1][1]:
                places.append(place)
    if ends[1] > places[-1][0]:
        places.append((float(ends[1]), float(ends[0])))
    middles = np.arange(frames) * FRAME + content.MIDDLE
    there = np.interp(middles, *zip(*places, strict=True))
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
        parts, owner = _kept(path)
        self.features = [[parts[k] for k in np.flatnonzero(owner == i)] for i in range(len(targets))]
        self.speaker = _speakers(targets)
        lengths = np.diff(targets.starts)
        self.chance = lengths / lengths.sum()

    def _listen(self, encoder: Hubert, renderings: Corpus, path: Path) -> None:
        same_words: dict[str, list[int]] = {}
        for j, text in enumerate(renderings.text):
            same_words.setdefault(str(text), []).append(j)
        found, line = [], []
        for i in range(len(self.targets)):
            found.append(features(encoder, self.targets.utterance(i)))
            line.append(i)
            own = len(found[-1])
            for j in same_words.get(str(self.targets.text[i]), []):
                other = features(encoder, _elsewhere(renderings.utterance(j), j))
                moved = warp(other, renderings.spoken(j), self.targets.spoken(i), own)
                if moved is not None:
                    found.append(moved)
                    line.append(i)
        same = len(found) - len(self.targets)
        print(f"{same} of {len(renderings)} renderings have the phonemes of their target", flush=True)
        _keep(path, found, line)

    def batch(
        self, rng: np.random.Generator, size: int, offset: int, frames: int, hop: int
    ) -> tuple[Cuts, Tensor]:
        """Draw `size` items and the targets' sound (size, frames * hop) of `frames` frames from `offset` on."""
        rows = []
        sounds = []
        for i in rng.choice(len(self.chance), size, p=self.chance):
            own, *others = self.features[i]
            # Half the time the target's own features, else another voice's.
            found = others[int(rng.integers(len(others)))] if others and rng.random() < 0.5 else own
            row = _cut(rng, found, self.targets, i, self.targets.pitch(i), self.speaker[i])
            rows.append(row)
            sound = np.pad(self.targets.wide_utterance(i), (0, CONTEXT * hop))
            sounds.append(sound[(row.start + offset) * hop : (row.start + offset + frames) * hop])
        return _stack(rows), torch.from_numpy(np.stack(sounds)).to(device())


class Strangers:
    """Sentences of the voices that the encoder learnt from, to be said by a target: nobody knows how that sounds.

    The features are kept in `path`.
    """

    def __init__(self, encoder: Hubert, speech: Corpus, targets: Corpus, count: int, path: Path):
        self.speech = speech
        some = np.random.default_rng(count).choice(len(speech), count, replace=False, p=speech.chance)
        self.lines = np.sort(some)
        if not path.is_file():
            found = [features(encoder, _elsewhere(speech.utterance(i), int(i))) for i in self.lines]
            _keep(path, found, self.lines)
        self.features, _ = _kept(path)
        owner = _speakers(targets)
        self.medians = [
            _median(np.concatenate([targets.pitch(i) for i in np.flatnonzero(owner == k)]))
            for k in range(len(SPEAKERS))
        ]

    def batch(self, rng: np.random.Generator, size: int) -> Cuts:
        """Draw `size` items, at the pitch of their speaker."""
        rows = []
        for k in rng.integers(0, len(self.lines), size):
            i, speaker = self.lines[k], int(rng.integers(len(SPEAKERS)))
            f0 = self.speech.pitch(i)
            ratio = self.medians[speaker] / _median(f0) if f0.any() else 1.0
            f0 = (f0 * ratio * 2 ** rng.uniform(-1 / 6, 1 / 6)).astype(np.float32)
            rows.append(_cut(rng, self.features[k], self.speech, i, f0, speaker))
        return _stack(rows)


def _median(f0: np.ndarray) -> float:
    return float(np.median(f0[f0 > 0]))


def _speakers(targets: Corpus) -> np.ndarray:
    voices = list(SPEAKERS.values())
    return np.array([voices.index(voice) for voice in targets.voice])


def _keep(path: Path, found: list[np.ndarray], line: list[int] | np.ndarray) -> None:
    temporary = path.with_suffix(".tmp.npz")
    frames = [len(f) for f in found]
    np.savez(temporary, features=np.concatenate(found), frames=frames, line=line)
    temporary.replace(path)


def _kept(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    with np.load(path) as kept:
        return np.split(kept["features"], np.cumsum(kept["frames"])[:-1]), kept["line"]


@dataclass(frozen=True)
class _Cut:
    """CONTEXT frames of one sentence, from frame `start` on; `samples`: its first and last sample in `corpus`."""

    start: int
    phone: np.ndarray
    f0: np.ndarray
    speaker: int
    corpus: Corpus
    samples: tuple[int, int]


def _cut(
    rng: np.random.Generator, found: np.ndarray, corpus: Corpus, i: int, f0: np.ndarray, speaker: int
) -> _Cut:
    short = max(0, CONTEXT - len(f0))
    phone = np.pad(np.repeat(found, 2, axis=0), ((0, short), (0, 0)), mode="edge")
    f0 = np.pad(f0, (0, short))
    start = int(rng.integers(0, len(f0) - CONTEXT + 1))
    part = slice(start, start + CONTEXT)
    first = int(corpus.starts[i])
    samples = first + start * PITCH_FRAME, int(corpus.starts[i + 1]) - 1
    return _Cut(start, phone[part], f0[part], speaker, corpus, samples)


def _stack(rows: list[_Cut]) -> Cuts:
    def tensor(values: list) -> Tensor:
        return torch.from_numpy(np.stack(values)).to(device())

    return Cuts(
        rows,
        tensor([row.phone for row in rows]),
        tensor([coarse(row.f0).astype(np.int64) for row in rows]),
        tensor([row.f0 for row in rows]),
        tensor([np.int64(row.speaker) for row in rows]),
    )


@dataclass(frozen=True)
class Cuts:
    """Items of a batch: CONTEXT frames of features, pitch (coarse and Hz) and speaker."""

    rows: list[_Cut]
    phone: Tensor
    pitch: Tensor
    f0: Tensor
    speaker: Tensor

    def __add__(self, other: Cuts) -> Cuts:
        tensors = (
            torch.cat([getattr(c, n) for c in (self, other)]) for n in ("phone", "pitch", "f0", "speaker")
        )
        return Cuts(self.rows + other.rows, *tensors)

    def classes(self, samples: np.ndarray) -> Tensor:
        """Return the phoneme class at `samples` of every item, (items, len(samples))."""
        found = [
            row.corpus.class_at(np.minimum(row.samples[0] + samples, row.samples[1])) for row in self.rows
        ]
        return torch.from_numpy(np.stack(found).astype(np.int64)).to(device())


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


class Judges(nn.Module):
    """What the content encoder and the listener hear in results: as in the targets, and the phonemes that were said."""

    EDGE = 2  # frames at both ends whose phonemes are not judged: half of what tells them is cut off

    def __init__(self, encoder: Hubert, listener: content.Listener | None, training: VoiceTraining):
        super().__init__()
        weights = ((encoder, training.hearing), (listener, training.listening))
        self.networks = [(network, weight) for network, weight in weights if network is not None and weight]
        self.words = training.words
        for network, _ in self.networks:
            network.eval().requires_grad_(False)

    @staticmethod
    def layers(network: Hubert | content.Listener, sound: Tensor) -> list[Tensor]:
        """Return what every layer makes of sounds (sounds, n) at 24 kHz, the class scores last."""
        kept = sound.shape[1] * RATE // TARGET_RATE
        spectrum = torch.fft.rfft(sound)[:, : kept // 2 + 1]
        x = torch.fft.irfft(spectrum, kept) * (RATE / TARGET_RATE)
        with loop.autocast():
            if isinstance(network, content.Listener):
                return [y.float() for y in network.layers(x)]
            found = [network.encoder.embed(network.feature_projection(network.feature_extractor(x)))]
            for layer in network.encoder.layers:
                found.append(layer(found[-1]))
            return [y.float() for y in (*found, network.final_proj(found[-1]))]

    def forward(self, got: Tensor, want: Tensor, cuts: Cuts, offset: int) -> Tensor:
        """Return the loss of results (items, n), the first of which should be `want` (at most as many, n).

        offset: frames of 10 ms of `cuts` before the results.
        """
        total = torch.zeros((), device=got.device)
        for network, weight in self.networks:
            with torch.no_grad():
                *wanted, _ = self.layers(network, want)
            *heard, scores = self.layers(network, got)
            distances = [(a[: len(b)] - b).abs().mean() for a, b in zip(heard, wanted, strict=True)]
            total = total + weight * sum(distances) / len(distances)
            if self.words:
                inner = slice(self.EDGE, scores.shape[1] - self.EDGE)
                places = offset * PITCH_FRAME + content.centres(network, scores.shape[1])[inner]
                total = total + self.words * F.cross_entropy(
                    scores[:, inner].transpose(1, 2), cuts.classes(places)
                )
        return total


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


def train(plan: Plan, encoders: list[Hubert], corpora: dict[str, Corpus], folder: Path) -> Synthesizer:
    """Return the trained voice; `encoders`: before any and after each round of their training."""
    seed = plan.seed + 40
    torch.manual_seed(seed)
    voice = model(plan)
    if plan.warm:
        state = torch.load(folder / "warm" / "voice.pth", map_location=device())["weight"]
        content.warm(voice, state)
        with torch.no_grad():  # speakers begin as the mean of those that were there, apart from each other
            voice.emb_g.weight.mul_(0.3).add_(state["emb_g.weight"].float().mean(0))
    for number, training in enumerate(plan.synthesizer, 1):
        path = folder / f"synthesizer{number}.pt"
        if path.is_file():
            voice.load_state_dict(torch.load(path, map_location=device()))
            continue
        _train(voice, plan, training, encoders[training.encoder], corpora, path, seed + 100 * (number - 1))
    return voice.eval()


def _train(
    voice: Synthesizer,
    plan: Plan,
    training: VoiceTraining,
    encoder: Hubert,
    corpora: dict[str, Corpus],
    path: Path,
    seed: int,
) -> None:
    """One round. Its progress is measured on one sentence of each of `plan.watched` held-out voices."""
    folder, test = path.parent, corpora["test"]
    heard = content.material(corpora)
    material = Material(
        encoder, corpora["target"], corpora["renderings"], folder / f"features{training.encoder}.npz"
    )
    listener = content.train_listener(plan, heard, test, folder) if training.listening else None
    judges = Judges(encoder, listener, training)
    spectral = SpectralLoss(training.emphasis).to(device())
    strangers = None
    if training.strangers:
        kept = folder / f"strangers{training.encoder}.npz"
        strangers = Strangers(encoder, heard, corpora["target"], plan.strangers, kept)
    watched = range(0, len(test), plan.test_sentences)[: plan.watched]
    found = np.concatenate([features(encoder, test.utterance(i)) for i in watched])
    voiced = np.concatenate([test.pitch(i) for i in watched]) > 0
    hop, frames = voice.dec.m_source.hop, training.frames

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        offset = int(rng.integers(0, CONTEXT - frames + 1))
        cuts, want = material.batch(rng, training.batch, offset, frames, hop)
        if strangers:
            cuts += strangers.batch(rng, training.strangers)
        with loop.autocast():
            part = slice(offset, offset + frames)
            sound = render(voice, cuts.phone, cuts.pitch, cuts.f0, cuts.speaker, part).float()
        return spectral(sound[: len(want)], want) + judges(sound, want, cuts, offset)

    def watch() -> str:
        return "harmonic share {:.3f}, comb {:.3f}".format(*probe(voice, found, voiced))

    fit(voice, training, loss, path, seed=seed, watch=watch)
