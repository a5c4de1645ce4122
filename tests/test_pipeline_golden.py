"""The pipeline against the public PyTorch implementation, its noise replayed."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast.features.hubert import HubertModel
from rvc_fast.pipeline import run
from rvc_fast.synthesizer import Synthesizer
from rvc_fast.verify.golden import settings_of
from rvc_fast.verify.seeded import read_manifest, seeded_normal, seeded_uniform, seeded_weights
from rvc_fast.weights.checkpoint import Checkpoint

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "cases.json").read_text())


class Replayed:
    """The noise that a case was computed with; each draw must be the one that the reference made."""

    def __init__(self, seed: int, draws: list):
        self.seed = seed
        self.draws = [(name, tuple(shape)) for name, shape in draws]

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        name, expected = self.draws.pop(0)
        assert (".noise." in name, shape) == (True, expected)
        return mx.array(seeded_normal(self.seed, name, shape))

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        name, expected = self.draws.pop(0)
        assert (".phase." in name, shape) == (True, expected)
        return mx.array(seeded_uniform(self.seed, name, shape))


def model(cls, name: str, kind: str):
    path = GOLDEN / f"{name}.json"
    manifest = read_manifest(path)
    tensors, config = seeded_weights(manifest), manifest["config"]
    if kind == "voice":
        config |= {"text_enc_hidden_dim": tensors["enc_p.emb_phone.weight"].shape[1]}
    return cls.from_checkpoint(Checkpoint(kind, tensors, config, {}, False, path))


@pytest.mark.parametrize("name", ["plain", "full"])
def test_matches_pytorch(name: str) -> None:
    case = CASES[f"pipeline.{name}"]
    tensors = mx.load(str(GOLDEN / "pipeline.safetensors"))
    index = None
    if case["index"] is not None:
        from rvc_fast.retrieval import load_index

        index = load_index(GOLDEN / case["index"])
    noise = Replayed(read_manifest(GOLDEN / f"{case['synth']}.json")["seed"], case["noise"])
    out = run(
        np.array(tensors["audio"]),
        voice=model(Synthesizer, case["synth"], "voice"),
        embedder=model(HubertModel, case["hubert"], "hubert"),
        noise=noise,
        f0=lambda _: np.array(tensors["f0"]),
        index=index,
        settings=settings_of(case),
    ).samples
    expected = np.array(tensors[f"out_{name}"])
    assert not noise.draws
    assert out.shape == expected.shape
    error = (out - expected).astype(np.float64)
    snr = 10 * np.log10(np.square(expected, dtype=np.float64).sum() / np.square(error).sum())
    assert snr >= 100, f"{snr:.1f} dB"
