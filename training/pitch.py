"""The pitch model (RMVPE): trained on speech whose f0 Praat measures, and on glides whose f0 is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers.rmvpe import Rmvpe
from rvc_fast.pitch.rmvpe import BIN_CENTS, RmvpeConfig, decode_salience

from . import augment, loop
from .corpus import PITCH_FRAME, Corpus
from .loop import device, fit
from .plan import Plan

CONFIG = RmvpeConfig(n_blocks=1, inter_layers=1, en_out_channels=4, gru_hidden=128)
WIDTH_CENTS = 25.0  # of the wanted salience, a Gaussian around the pitch
GLIDES = 0.25  # share of a batch
# The engine calls a frame unvoiced up to a salience of 0.03. Trained salience is a probability, for which 0.2 is
# the better bound: this much less on the logits makes one the other.
CALIBRATION = -2.1


def model() -> Rmvpe:
    """Return an untrained pitch model."""
    network = Rmvpe(CONFIG)
    torch.nn.init.constant_(network.fc[1].bias, -4.0)  # nearly every bin is empty
    return network.to(device())


def salience(f0: np.ndarray) -> np.ndarray:
    """Return the wanted salience (..., 360) of f0 (...), zero where unvoiced."""
    cents = 1200 * np.log2(np.maximum(f0, 1.0) / 10)
    near = np.exp(-0.5 * ((BIN_CENTS - cents[..., None]) / WIDTH_CENTS) ** 2)
    return np.where(f0[..., None] > 0, near, 0).astype(np.float32)


@torch.inference_mode()
def estimate(network: Rmvpe, sound: np.ndarray) -> np.ndarray:
    """Return f0 (n // 160 + 1,) of a sound at 16 kHz, as the engine will."""
    logits = network.logits(network.padded_mel(torch.from_numpy(sound).to(device()))[None])[0]
    salience = torch.sigmoid(logits + CALIBRATION).cpu().numpy()
    return decode_salience(salience[: len(sound) // PITCH_FRAME + 1])


def report(network: Rmvpe, test: Corpus) -> str:
    """Return raw pitch accuracy (within 50 cents, on voiced frames) and the F1 of voicing as text."""
    near = voiced = hits = found = 0
    for i in range(len(test)):
        want = test.pitch(i)
        got = estimate(network, test.utterance(i))[: len(want)]
        both = (want > 0) & (got > 0)
        near += int((np.abs(1200 * np.log2(got[both] / want[both])) < 50).sum())
        hits, voiced, found = (
            hits + int(both.sum()),
            voiced + int((want > 0).sum()),
            found + int((got > 0).sum()),
        )
    return f"raw pitch accuracy {near / max(1, hits):.4f}, voicing F1 {2 * hits / max(1, voiced + found):.3f}"


def train(plan: Plan, corpus: Corpus, test: Corpus, folder: Path) -> Rmvpe:
    """Return the trained pitch model."""
    training, seed = plan.pitch, plan.seed + 30
    torch.manual_seed(seed)
    network = model()
    if plan.warm:
        state = torch.load(folder / "warm" / "rmvpe.pt", map_location=device())
        network.load_state_dict({name: value.float() for name, value in state.items()})
        with torch.no_grad():
            network.fc[1].bias.sub_(CALIBRATION)
        return network.eval()
    tones = round(GLIDES * training.batch)

    def loss(step: int) -> torch.Tensor:
        rng = np.random.default_rng([seed, step])
        cuts = augment.cut(corpus, rng, training.batch - tones, training.frames * PITCH_FRAME)
        tone, tone_f0 = augment.glides(rng, tones, training.frames)
        sound = augment.room(np.concatenate([cuts.sound, tone]), rng)
        f0 = np.concatenate([cuts.f0(training.frames), tone_f0])
        # The spectrogram has a frame more, at the very end.
        mel = network.log_mel(torch.from_numpy(sound).to(device()))[..., : training.frames]
        with loop.autocast():
            logits = network.logits(mel)
        wanted = torch.from_numpy(salience(f0)).to(device())
        return F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="sum") / f0.size

    fit(network, training, loss, folder / "pitch.pt", seed=seed, watch=lambda: report(network, test))
    return network
