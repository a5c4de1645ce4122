"""Small voices with the decoders of the published tables, and the files that programs make of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from rvc_fast.weights.checkpoint import load_checkpoint
from tests.weights.torch_files import torch_zip

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo"

TABLES = {
    "32k": ((10, 8, 2, 2), (20, 16, 4, 4)),
    "40k": ((10, 10, 2, 2), (16, 16, 4, 4)),
    "48k": ((12, 10, 2, 2), (24, 20, 4, 4)),
    "24k": ((10, 6, 2, 2), (20, 12, 4, 4)),
    "32k of v1": ((10, 4, 2, 2, 2), (16, 16, 4, 4, 4)),
    "48k of v1": ((10, 6, 2, 2, 2), (16, 16, 4, 4, 4)),
}


def rate(table: str) -> int:
    return 100 * math.prod(TABLES[table][0])


def demo() -> dict[str, Any]:
    """What models/demo/voice.pth holds."""
    checkpoint = load_checkpoint(DEMO / "voice.pth")
    config = checkpoint.config
    return {
        "weight": checkpoint.tensors,
        "config": [
            *[1025, 32, config["inter_channels"], config["hidden_channels"], config["filter_channels"]],
            *[config["n_heads"], config["n_layers"], config["kernel_size"], 0, "1"],
            *[config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], config["upsample_rates"]],
            *[config["upsample_initial_channel"], config["upsample_kernel_sizes"]],
            *[config["spk_embed_dim"], config["gin_channels"], config["sr"]],
        ],
        "version": "v2",
        "f0": 1,
        "sr": "24k",
    }


def weights(table: str, f0: bool = True) -> dict[str, np.ndarray]:
    """The demo voice's tensors with a decoder of a published table, 64 channels wide."""
    rates, kernels = TABLES[table]
    rng = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)

    w = {k: v for k, v in demo()["weight"].items() if not k.startswith("dec.")}
    gin, inter, width = w["emb_g.weight"].shape[1], w["enc_p.proj.weight"].shape[0] // 2, 64
    w |= {"dec.conv_pre.weight": draw(width, inter, 7), "dec.conv_pre.bias": draw(width)}
    w |= {"dec.cond.weight": draw(width, gin, 1), "dec.cond.bias": draw(width)}
    if f0:
        w |= {"dec.m_source.l_linear.weight": draw(1, 1), "dec.m_source.l_linear.bias": draw(1)}
    else:
        del w["enc_p.emb_pitch.weight"]
    for i, kernel in enumerate(kernels):
        w |= {f"dec.ups.{i}.weight": draw(width, width // 2, kernel), f"dec.ups.{i}.bias": draw(width // 2)}
        width //= 2
        stride = math.prod(rates[i + 1 :])
        if f0:
            size = 1 if stride == 1 else 2 * stride
            w |= {
                f"dec.noise_convs.{i}.weight": draw(width, 1, size),
                f"dec.noise_convs.{i}.bias": draw(width),
            }
        for j, taps in enumerate((3, 7, 11)):
            for n in range(3):
                for convs in ("convs1", "convs2"):
                    name = f"dec.resblocks.{3 * i + j}.{convs}.{n}"
                    w |= {f"{name}.weight": 0.3 * draw(width, width, taps), f"{name}.bias": draw(width)}
    return w | {"dec.conv_post.weight": draw(1, width, 7)}


def config(table: str, sr: int | None = None) -> list[Any]:
    rates, kernels = TABLES[table]
    head = demo()["config"][:10]
    tail = [list(rates), 64, list(kernels), 3, 32, sr or rate(table)]
    return [*head, [3, 7, 11], [[1, 3, 5]] * 3, *tail]


def pth(path: Path, file: dict[str, Any]) -> Path:
    path.write_bytes(torch_zip(file))
    return path


def with_metadata(path: Path, file: dict[str, Any]) -> Path:
    """As deiteris/voice-changer keeps a voice: the tensors, and all else as text in the metadata."""
    said = {k: json.dumps(v) if type(v) in (dict, list) else str(v) for k, v in file.items() if k != "weight"}
    save_file({k: np.ascontiguousarray(v) for k, v in file["weight"].items()}, path, {"format": "pt"} | said)
    return path
