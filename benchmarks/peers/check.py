"""Compare the peers with the recorded outputs of the public code.

    python -m benchmarks.peers.check FOLDER

FOLDER holds golden cases (tests/golden is one; `rvc_fast.verify` describes it). Prints the SNR of every output
tensor and ends with status 1 if one is below the bar. Decoders other than HiFi-GAN have no peer: skipped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rvc_fast.errors import RvcFastError
from rvc_fast.features.hubert import HubertConfig
from rvc_fast.pitch.rmvpe import RmvpeConfig, decode_salience
from rvc_fast.synthesizer.config import SynthesizerConfig
from rvc_fast.verify.golden import BAR_DB, Folder, compare

from .hubert import Hubert
from .part import Part
from .rmvpe import Rmvpe
from .synthesizer import Synthesizer
from .weights import load


def hubert(folder: Folder, name: str, want: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    checkpoint = folder.checkpoint(name)
    model = Hubert(HubertConfig.from_dict(checkpoint.config))
    load(model, checkpoint.tensors)
    return model.trace(torch.from_numpy(want["audio"]))


def rmvpe(folder: Folder, name: str, want: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    checkpoint = folder.checkpoint(name)
    model = Rmvpe(RmvpeConfig.from_dict(checkpoint.config))
    load(model, checkpoint.tensors)
    salience = model(torch.from_numpy(want["audio"]))
    return {"salience": salience, "f0": torch.from_numpy(decode_salience(salience.numpy()))}


def synth(folder: Folder, name: str, want: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    checkpoint = folder.checkpoint(name)
    config = SynthesizerConfig.from_dict(checkpoint.config)
    model = Synthesizer(config)
    load(model, checkpoint.tensors)
    given = {key: torch.from_numpy(want[key]) for key in ("phone", "pitch", "f0") if key in want}
    noise = folder.noise(name, name)
    frames = given["phone"].shape[1]
    latent = np.array(noise.normal((1, config.inter_channels, frames)))
    source = None
    if config.use_f0:
        noise.uniform((1, 1, 1))  # the phase of the fundamental, which starts at zero
        source = torch.from_numpy(np.array(noise.normal((1, frames * config.hop, 1))))
    return model.trace(
        given["phone"],
        given.get("pitch"),
        given.get("f0"),
        torch.tensor([folder.settings(name)["sid"]]),
        torch.from_numpy(latent),
        source,
    )


def rows(folder: Folder) -> Iterator[tuple[str, str, float]]:
    """Yield (case, tensor, SNR in dB) of every case that the peers cover."""
    run = {"hubert": hubert, "rmvpe": rmvpe, "synth": synth}
    for name, manifest in covered(folder):
        want = folder.tensors(name)
        for tensor, value in run[manifest["kind"]](folder, name, want).items():
            if tensor in want:
                yield name, tensor, compare(value.numpy(), want[tensor])[0]


def covered(folder: Folder) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and manifest of every case with outputs that the peers can give."""
    for name, manifest in folder.manifests.items():
        recorded = (folder.path / f"{name}.safetensors").is_file()
        if recorded and manifest.get("vocoder", "HiFi-GAN") == "HiFi-GAN":
            yield name, manifest


def forwards(folder: Folder) -> Iterator[tuple[str, str, nn.Module, tuple[np.ndarray, ...], np.ndarray]]:
    """Yield (case, tensor, network, its inputs, the output wanted) of every network, for other runtimes."""
    for name, manifest in covered(folder):
        want, checkpoint = folder.tensors(name), folder.checkpoint(name)
        if manifest["kind"] == "hubert":
            model: nn.Module = load(Hubert(HubertConfig.from_dict(checkpoint.config)), checkpoint.tensors)
            yield name, "v2_features", model, (want["audio"],), want["v2_features"]
        elif manifest["kind"] == "rmvpe":
            model = load(Rmvpe(RmvpeConfig.from_dict(checkpoint.config)), checkpoint.tensors)
            yield name, "salience", model, (want["audio"],), want["salience"]
        elif "f0" in want:
            config = SynthesizerConfig.from_dict(checkpoint.config)
            voice = load(Synthesizer(config), checkpoint.tensors)
            noise, frames = folder.noise(name, name), want["phone"].shape[1]
            latent = np.array(noise.normal((1, config.inter_channels, frames)))
            noise.uniform((1, 1, 1))
            source = np.array(noise.normal((1, frames * config.hop, 1)))
            speaker = np.array([folder.settings(name)["sid"]])
            given = (want["phone"], want["pitch"], speaker, latent)
            yield name, "z", Part(voice.latent), given, want["z"].T[None]
            z = np.ascontiguousarray(want["z"].T[None])
            yield name, "audio", Part(voice.render), (z, speaker, want["f0"], source), want["audio"]


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the PyTorch peers with golden outputs.")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    worst = None
    try:
        for name, tensor, snr in rows(Folder(args.folder)):
            print(f"{name:22} {tensor:16} {snr:7.1f} dB{'' if snr >= BAR_DB else '  FAILED'}", flush=True)
            worst = snr if worst is None else min(worst, snr)
    except RvcFastError as e:
        print(f"check: {e}", file=sys.stderr)
        return 2
    if worst is None:
        print("check: no case that the peers cover", file=sys.stderr)
        return 2
    print(f"lowest: {worst:.1f} dB, bar {BAR_DB:.0f} dB")
    return int(worst < BAR_DB)


if __name__ == "__main__":
    sys.exit(main())
