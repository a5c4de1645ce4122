"""Networks that hear phonemes: the content encoder (HuBERT), a listener, and the recogniser of the evaluation.

All learn the phoneme class of every 20 ms. The listener judges the voice while it trains, beside the encoder, whose
sentences it learns from. The recogniser shares nothing with either but what a log mel spectrogram is: convolutions and
a recurrent layer, other sentences, another seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from benchmarks.peers.hubert import Hubert
from rvc_fast.features.hubert import HubertConfig
from rvc_fast.ops.mel_stft import mel_filters

from . import augment, loop
from .corpus import FRAME, PITCH_FRAME, RATE, Corpus
from .loop import device, fit
from .plan import Plan, Training
from .text import CLASSES, SILENCE

CONFIG = HubertConfig(
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=512,
    conv_dim=(64,) * 7,
    num_conv_pos_embeddings=32,
    num_conv_pos_embedding_groups=8,
    classifier_proj_size=len(CLASSES),
)
# A feature frame sees 400 samples every 320; its middle.
MIDDLE = CONFIG.window // 2
# What going from one phoneme to another costs `decode`: of 0 to 4 in halves, the recogniser's best on other
# sentences of the voices that it learnt from.
CHANGE = 1.5


def plain(model: nn.Module) -> nn.Module:
    """Fold weight norm before training: nothing here needs it, and it costs time."""
    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
    return model


def encoder() -> Hubert:
    """Return an untrained content encoder. Its final_proj is the classifier, which the engine keeps for v1 voices."""
    model = Hubert(CONFIG)
    for layer in model.modules():
        if isinstance(layer, nn.Conv1d):
            nn.init.kaiming_normal_(layer.weight)
    plain(model)
    # Quiet at first: the transformer begins with the frames as they are.
    nn.init.normal_(model.encoder.pos_conv_embed.conv.weight, std=0.02)
    return model.to(device())


def keep_mel(model: nn.Module, filters: np.ndarray, window: int) -> None:
    """Give `model` mel filters (mels, bins) and a Hann window of so many samples; its files hold neither."""
    model.register_buffer("filters", torch.from_numpy(filters), persistent=False)
    model.register_buffer("window", torch.hann_window(window), persistent=False)


class Recogniser(nn.Module):
    """Sound (sounds, n) at 16 kHz -> scores of the classes (sounds, n // 320 + 1, classes)."""

    MELS, WIDTH = 64, 128

    def __init__(self) -> None:
        super().__init__()
        width = self.WIDTH
        self.norm = nn.BatchNorm1d(self.MELS)
        self.convs = nn.Sequential(
            nn.Conv1d(self.MELS, width, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(width),
            nn.Conv1d(width, width, 5, stride=2, padding=2), nn.ReLU(), nn.BatchNorm1d(width),
            nn.Conv1d(width, width, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(width), nn.Dropout(0.1),
        )  # fmt: skip
        self.recurrent = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.output = nn.Linear(2 * width, len(CLASSES))
        keep_mel(self, mel_filters(RATE, 512, self.MELS, 50, 7600), 400)

    def forward(self, sound: Tensor) -> Tensor:
        spectrum = torch.stft(sound, 512, 160, 400, self.window, return_complex=True).abs()
        mel = torch.log(self.filters @ spectrum + 1e-3 * spectrum.mean((1, 2), keepdim=True) + 1e-6)
        x = self.convs(self.norm(mel - mel.mean((1, 2), keepdim=True)))
        return self.output(self.recurrent(x.transpose(1, 2))[0])


class Listener(nn.Module):
    """Sound (sounds, n) at 16 kHz -> scores of the classes (sounds, n // 320 + 1, classes), from 0.3 s around each."""

    MELS, WIDTH = 96, 160

    def __init__(self) -> None:
        super().__init__()
        width = self.WIDTH
        self.norm = nn.BatchNorm1d(self.MELS)
        self.first = nn.Conv1d(self.MELS, width, 3, padding=1)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, stride, padding=dilation, dilation=dilation)
            for stride, dilation in ((1, 1), (2, 1), (1, 1), (1, 2), (1, 4))
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in self.convs)
        self.output = nn.Linear(width, len(CLASSES))
        keep_mel(self, mel_filters(RATE, 512, self.MELS, 60, 8000), 512)

    def layers(self, sound: Tensor) -> list[Tensor]:
        """Return what every layer makes of the sound (sounds, frames, width), the scores last."""
        spectrum = torch.stft(sound, 512, PITCH_FRAME, 512, self.window, return_complex=True)
        # Power first: the gradient of a magnitude is undefined at zero.
        power = spectrum.real.square() + spectrum.imag.square()
        x = torch.relu(self.first(self.norm(torch.log(self.filters @ torch.sqrt(power + 1e-9) + 3e-5))))
        found = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = torch.relu(norm(conv(x)))
            x = x + y if y.shape == x.shape else y
            found.append(y.transpose(1, 2))
        return [*found, self.output(x.transpose(1, 2))]

    def forward(self, sound: Tensor) -> Tensor:
        return self.layers(sound)[-1]


def centres(model: nn.Module, frames: int) -> np.ndarray:
    """Return the sample in the middle of each of so many frames of either kind of network."""
    return np.arange(frames) * FRAME + (MIDDLE if isinstance(model, Hubert) else 0)


def scores(model: nn.Module, sound: Tensor) -> Tensor:
    """Return the class scores of any of the networks."""
    return model.final_proj(model.batch(sound)) if isinstance(model, Hubert) else model(sound)


def train(
    model: nn.Module, training: Training, corpus: Corpus, test: Corpus, path: Path, seed: int
) -> nn.Module:
    """Train a network on `corpus`; prints frame accuracy and phoneme error on `test`."""
    length = training.frames * PITCH_FRAME

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        cuts = augment.cut(corpus, rng, training.batch, length)
        sound = torch.from_numpy(augment.room(augment.throats(cuts.sound, rng), rng)).to(device())
        with loop.autocast():
            out = scores(model, sound)
        wanted = torch.from_numpy(cuts.classes(centres(model, out.shape[1]))).to(device())
        return F.cross_entropy(out.float().transpose(1, 2), wanted, label_smoothing=0.05)

    return fit(model, training, loss, path, seed=seed, watch=lambda: report(model, test))


@torch.inference_mode()
def log_probabilities(model: nn.Module, sound: np.ndarray) -> np.ndarray:
    """Return log probabilities (frames, classes) of a sound at 16 kHz."""
    return scores(model, torch.from_numpy(sound)[None].to(device())).float().log_softmax(2)[0].cpu().numpy()


def decode(log_p: np.ndarray, change: float = CHANGE) -> list[int]:
    """Return the phonemes of the best path, silence left out; going from one to another costs `change`."""
    score = log_p[0].copy()
    came = np.zeros(log_p.shape, np.int64)
    for t in range(1, len(log_p)):
        best = int(score.argmax())
        leave = score[best] - change > score
        came[t] = np.where(leave, best, np.arange(len(score)))
        score = np.where(leave, score[best] - change, score) + log_p[t]
    state = int(score.argmax())
    path = [state]
    for t in range(len(log_p) - 1, 0, -1):
        state = int(came[t, state])
        path.append(state)
    path.reverse()
    return [c for i, c in enumerate(path) if c != SILENCE and (i == 0 or path[i - 1] != c)]


def distance(a: list[int], b: list[int]) -> int:
    """Return how many insertions, deletions and substitutions make `a` of `b`."""
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        # Insertions chain along the row: a running minimum of (value - index) does them at once.
        best = np.minimum(row[1:] + 1, row[:-1] + (np.array(b) != x))
        row = np.minimum.accumulate(np.concatenate([[i], best]) - np.arange(len(b) + 1)) + np.arange(
            len(b) + 1
        )
    return int(row[-1])


def spoken(corpus: Corpus, i: int) -> list[int]:
    """Return what utterance i says, silence left out, repeats joined as `decode` joins them."""
    classes = [int(c) for c in corpus.spoken(i)[1]]
    return [c for j, c in enumerate(classes) if c != SILENCE and (j == 0 or classes[j - 1] != c)]


def phoneme_error(model: nn.Module, corpus: Corpus, sounds: list[np.ndarray] | None = None) -> float:
    """Return the phoneme error rate on the utterances of `corpus`, or on other sounds that say the same."""
    wrong = total = 0
    for i in range(len(corpus)):
        sound = corpus.utterance(i) if sounds is None else sounds[i]
        want = spoken(corpus, i)
        wrong += distance(decode(log_probabilities(model, sound)), want)
        total += len(want)
    return wrong / total


def report(model: nn.Module, test: Corpus) -> str:
    """Return frame accuracy and phoneme error as text."""
    right = total = 0
    for i in range(len(test)):
        found = log_probabilities(model, test.utterance(i)).argmax(1)
        wanted = test.class_at(
            np.minimum(centres(model, len(found)) + test.starts[i], test.starts[i + 1] - 1)
        )
        right, total = right + int((found == wanted).sum()), total + len(found)
    return f"frames {right / total:.3f}, phoneme error {phoneme_error(model, test):.3f}"


def material(corpora: dict[str, Corpus]) -> Corpus:
    """Return all that encoder, listener and pitch model learn from."""
    return Corpus.join([corpora[name] for name in ("speech", "target", "fluent", "recorded", "mixed")])


def warm(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give `model` the tensors of `state` that it has in the same shape; print the names of the others."""
    own = model.state_dict()
    fitting = {
        name: value.float() for name, value in state.items() if name in own and own[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    print(
        f"{len(fitting)} of {len(own)} tensors taken over, not {sorted(set(own) - set(fitting))}", flush=True
    )


def train_encoder(
    plan: Plan, corpus: Corpus, test: Corpus, folder: Path, rounds: int | None = None
) -> Hubert:
    """Return the content encoder after so many rounds of training, or all; each goes on from the one before."""
    torch.manual_seed(plan.seed)
    model = encoder()
    if plan.warm:
        warm(model, load_file(folder / "warm" / "embedder" / "model.safetensors"))
    for number, training in enumerate(plan.encoder[:rounds], 1):
        path = folder / f"encoder{number}.pt"
        for depth, layer in enumerate(model.feature_extractor.conv_layers):
            layer.requires_grad_(depth >= training.frozen)
        train(model, training, corpus, test, path, plan.seed + 10 + 100 * (number - 1))
    return model.requires_grad_().eval()


def train_recogniser(plan: Plan, corpus: Corpus, test: Corpus, folder: Path) -> Recogniser:
    """Return the trained recogniser."""
    torch.manual_seed(plan.seed + 1)
    network = Recogniser().to(device())
    if plan.warm:
        warm(network, load_file(folder / "warm" / "recogniser.safetensors"))
    model = train(network, plan.recogniser, corpus, test, folder / "recogniser.pt", plan.seed + 20)
    assert isinstance(model, Recogniser)
    return model


def train_listener(plan: Plan, corpus: Corpus, test: Corpus, folder: Path) -> Listener:
    """Return the trained listener."""
    torch.manual_seed(plan.seed + 2)
    model = train(
        Listener().to(device()), plan.listener, corpus, test, folder / "listener.pt", plan.seed + 30
    )
    assert isinstance(model, Listener)
    return model
