"""Compare the peers with the recorded outputs of the public code.

    python -m benchmarks.peers.check FOLDER

FOLDER holds golden cases (tests/golden is one; `rvc_fast.verify` describes it). Prints the SNR of every output
tensor and ends with status 1 if one is below the bar. Decoders other than HiFi-GAN have no peer: skipped by name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from rvc_fast.errors import RvcFastError
from rvc_fast.features.hubert import HubertConfig
from rvc_fast.pitch.rmvpe import RmvpeConfig, decode_salience
from rvc_fast.synthesizer.config import SynthesizerConfig
from rvc_fast.verify.golden import BAR_DB, Folder, compare

from .hubert import Hubert
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


def rows(path: Path) -> Iterator[tuple[str, str, float]]:
    """Yield (case, tensor, SNR in dB) of every case that the peers cover."""
    folder = Folder(path)
    run = {"hubert": hubert, "rmvpe": rmvpe, "synth": synth}
    for name, manifest in folder.manifests.items():
        if not (path / f"{name}.safetensors").is_file():
            continue
        if manifest.get("vocoder", "HiFi-GAN") != "HiFi-GAN":
            print(f"{name}: no peer for {manifest['vocoder']}", file=sys.stderr)
            continue
        want = folder.tensors(name)
        with torch.inference_mode():
            got = run[manifest["kind"]](folder, name, want)
        for tensor, value in got.items():
            if tensor in want:
                yield name, tensor, compare(value.numpy(), want[tensor])[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the PyTorch peers with golden outputs.")
    parser.add_argument("folder", type=Path)
    worst = None
    try:
        for name, tensor, snr in rows(parser.parse_args().folder):
            print(f"{name:22} {tensor:16} {snr:7.1f} dB{'' if snr >= BAR_DB else '  FAILED'}", flush=True)
            worst = snr if worst is None else min(worst, snr)
    except RvcFastError as e:
        print(f"check: {e}", file=sys.stderr)
        return 2
    if worst is None:
        print("check: no case that the peers cover", file=sys.stderr)
        return 2
    print(f"lowest: {worst:.1f} dB, bar {BAR_DB:.0f} dB")
    return 0 if worst >= BAR_DB else 1


if __name__ == "__main__":
    sys.exit(main())
