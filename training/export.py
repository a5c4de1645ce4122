"""Trained networks -> the bundled model files: the public formats in half precision, which the loader reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.peers.hubert import Hubert
from benchmarks.peers.rmvpe import Rmvpe
from benchmarks.peers.synthesizer import Synthesizer
from rvc_fast.synthesizer.config import SynthesizerConfig

from . import content, measures, pitch
from .corpus import PITCH_FRAME, RATE, praat_f0
from .loop import save


def _half(network: torch.nn.Module, drop: tuple[str, ...] = ()) -> dict[str, Tensor]:
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    return {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in state.items()
        if not name.startswith(drop or ("\0",))
    }


def _write_tensors(state: dict[str, Tensor], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary)
    temporary.chmod(0o644)  # safetensors makes files for their owner alone
    temporary.replace(path)


def write_encoder(encoder: Hubert, folder: Path) -> None:
    """Write the content encoder as a Hugging Face folder, without its classifier."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        **asdict(content.CONFIG),
        "model_type": "hubert",
        "feat_extract_norm": "group",
        "hidden_act": "gelu",
    }
    del config["classifier_proj_size"]
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    _write_tensors(_half(encoder, ("final_proj.",)), folder / "model.safetensors")


def write_pitch(network: Rmvpe, path: Path) -> None:
    """Write the pitch model as a flat state dict, calibrated for the engine's threshold."""
    state = _half(network)
    state["fc.1.bias"] = (network.fc[1].bias.detach().cpu() + pitch.CALIBRATION).half()
    save(path, state)


def write_voice(voice: Synthesizer, config: SynthesizerConfig, path: Path, info: str) -> None:
    """Write the voice as a .pth, its config in the public order of 18 values."""
    c = config
    values = [
        513, 32, c.inter_channels, c.hidden_channels, c.filter_channels, c.n_heads, c.n_layers, c.kernel_size, 0.0,
        c.resblock, list(c.resblock_kernel_sizes), [list(d) for d in c.resblock_dilation_sizes],
        list(c.upsample_rates), c.upsample_initial_channel, list(c.upsample_kernel_sizes), c.spk_embed_dim,
        c.gin_channels, c.sr,
    ]  # fmt: skip
    content = {
        "weight": _half(voice),
        "config": values,
        "info": info,
        "sr": c.sr,
        "f0": 1,
        "version": c.version,
    }
    save(path, content)


def write_recogniser(recogniser: content.Recogniser, path: Path) -> None:
    """Write the recogniser of the evaluation, for tests."""
    _write_tensors(_half(recogniser), path)


def write_speakers(targets: list[tuple[str, np.ndarray]], path: Path) -> None:
    """Write name, median pitch and long-term spectrum (`measures`) of every target, for tests and demos."""
    speakers = []
    for name, sound in targets:
        f0 = praat_f0(sound, RATE, len(sound) // PITCH_FRAME)
        spectrum = measures.long_term_spectrum(sound, RATE)
        pitch_hz = round(float(np.median(f0[f0 > 0])), 1)
        speakers.append(
            {"name": name, "pitch_hz": pitch_hz, "spectrum_db": [round(x, 2) for x in spectrum.tolist()]}
        )
    path.write_text(json.dumps(speakers) + "\n")


def write(
    encoder: Hubert, network: Rmvpe, voice: Synthesizer, config: SynthesizerConfig, folder: Path, info: str
) -> None:
    """Write all three into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_encoder(encoder, folder / "embedder")
    write_pitch(network, folder / "rmvpe.pt")
    write_voice(voice, config, folder / "voice.pth", info)
