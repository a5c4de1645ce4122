"""Write full-size models with seeded random weights: what speed and memory are measured on, without a download.

    python benchmarks/e2e/make_models.py FOLDER

writes voice.safetensors (48 kHz v2, HiFi-GAN, 109 speakers), embedder.safetensors (HuBERT base) and
pitch_model.safetensors (RMVPE). The sound they make is noise; the work they do is that of real models.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from rvc_fast.features.hubert import HubertConfig, HubertModel
from rvc_fast.pitch.rmvpe import Rmvpe, RmvpeConfig
from rvc_fast.synthesizer import Synthesizer, SynthesizerConfig
from rvc_fast.weights.checkpoint import save_packed

VOICE_48K_V2: dict[str, Any] = {
    "inter_channels": 192,
    "hidden_channels": 192,
    "filter_channels": 768,
    "n_heads": 2,
    "n_layers": 6,
    "kernel_size": 3,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "upsample_rates": [12, 10, 2, 2],
    "upsample_initial_channel": 512,
    "upsample_kernel_sizes": [24, 20, 4, 4],
    "spk_embed_dim": 109,
    "gin_channels": 256,
    "sr": 48000,
    "use_f0": True,
    "text_enc_hidden_dim": 768,
    "vocoder": "HiFi-GAN",
    "version": "v2",
}


def seeded_tensors(model: nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Weights of `model` scaled by their fan-in, so that signals neither vanish nor explode."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, value in tree_flatten(model.parameters()):
        shape = tuple(value.shape)
        if len(shape) == 1:
            center = 1.0 if "norm" in name and name.endswith(("weight", "gamma")) else 0.0
            tensors[name] = (center + 0.02 * rng.standard_normal(shape)).astype(np.float32)
        else:
            fan_in = math.prod(shape[1:])
            tensors[name] = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.7 / math.sqrt(fan_in))
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description="Write full-size models with seeded random weights.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    rmvpe = RmvpeConfig.from_dict({"n_blocks": 4, "n_gru": 1, "kernel_size": [2, 2]})
    models = (
        ("voice", "voice", Synthesizer(SynthesizerConfig.from_dict(VOICE_48K_V2)), VOICE_48K_V2),
        ("embedder", "hubert", HubertModel(HubertConfig()), {}),
        ("pitch_model", "rmvpe", Rmvpe(rmvpe), asdict(rmvpe)),
    )
    for seed, (name, kind, model, config) in enumerate(models):
        path = folder / f"{name}.safetensors"
        save_packed(path, kind, seeded_tensors(model, seed), config, {})
        print(path)


if __name__ == "__main__":
    main()
