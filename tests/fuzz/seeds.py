"""Small good files to begin with, made by the project's own means."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile
from mlx.utils import tree_flatten

from rvc_fast.features.hubert import HubertConfig, HubertModel
from rvc_fast.layers import Packing, packed_layers
from rvc_fast.ops import dispatch
from rvc_fast.pitch.rmvpe import Rmvpe, RmvpeConfig
from rvc_fast.synthesizer.config import SynthesizerConfig
from rvc_fast.synthesizer.model import Synthesizer, load_voice
from rvc_fast.weights import archive, configs, kernels, save_packed
from tests.retrieval.index_files import flat, grouped, ivf
from tests.weights.torch_files import Global, Object, torch_legacy, torch_zip


def f0_files() -> list[bytes]:
    return [
        b"0,100\n0.5,200\n1.0,0\n",
        b"time;hertz\n 0.01 ; 120.5 ; x\n0.02;--undefined--\n",
        b"\xef\xbb\xbf0\t1e2\r\n\r\n1\tnan\r\n",
        b"0.1 220 0.9\n0.2 -1 0.1\n",
    ]


def indexes() -> list[bytes]:
    vectors = np.random.default_rng(0).standard_normal((6, 2), dtype=np.float32)
    groups = grouped(vectors, 2)
    made = [flat(vectors, kind) for kind in (b"IxF2", b"IxFl", b"IxFI")]
    made += [ivf(*groups, kind=kind, map_type=t) for kind in (b"IwFl", b"IvFl", b"IvFL") for t in (0, 1, 2)]
    return [*made, ivf(*groups, sizes="sprs", nprobe=2)]


def sounds() -> list[bytes]:
    samples = np.sin(np.arange(400) * 0.1).astype(np.float32)[:, None] * [0.5, 0.25]
    formats = [
        *[("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_U8"), ("WAV", "MS_ADPCM"), ("WAVEX", "PCM_24")],
        *[("RF64", "PCM_16"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT"), ("AU", "PCM_16"), ("AU", "ULAW")],
        *[("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
        *[("CAF", "PCM_16"), ("CAF", "ALAC_16"), ("W64", "PCM_16"), ("VOC", "PCM_16"), ("NIST", "PCM_16")],
    ]
    made = []
    for kind, subtype in formats:
        file = io.BytesIO()
        soundfile.write(file, samples[:, :1] if kind == "MP3" else samples, 16000, subtype, format=kind)
        made.append(file.getvalue())
    return made


VOICE = {
    **{"inter_channels": 2, "hidden_channels": 2, "filter_channels": 2, "n_heads": 1, "n_layers": 1},
    **{"kernel_size": 1, "resblock": "1", "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]},
    **{"upsample_rates": [20], "upsample_initial_channel": 2, "upsample_kernel_sizes": [40]},
    **{"spk_embed_dim": 1, "gin_channels": 1, "sr": 2000, "text_enc_hidden_dim": 2, "use_f0": False},
}
HUBERT = {
    **{"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 2},
    **{"conv_dim": [1] * 7, "num_conv_pos_embeddings": 2, "num_conv_pos_embedding_groups": 2},
    "classifier_proj_size": 2,
}
RMVPE = {
    **{"n_blocks": 1, "n_gru": 1, "kernel_size": [2, 2], "en_de_layers": 1, "inter_layers": 1},
    **{"en_out_channels": 1, "gru_hidden": 1},
}


def ones(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: np.full(shape, 0.5, np.float16) for name, shape in shapes.items()}


def packed_files() -> list[bytes]:
    """The smallest model of each kind, as `rvc-fast pack` writes it."""
    models = {
        "voice": (Synthesizer(SynthesizerConfig.from_dict(VOICE)), VOICE),
        "hubert": (HubertModel(HubertConfig.from_dict(HUBERT)), HUBERT),
        "rmvpe": (Rmvpe(RmvpeConfig.from_dict(RMVPE)), RMVPE),
    }
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, (model, config) in models.items():
            shapes = {name: value.shape for name, value in tree_flatten(model.parameters())}
            save_packed(path := Path(folder) / kind, kind, ones(shapes), config, {"assumed": ["sr"]})
            made.append(path.read_bytes())
    return made


def voice(**changes: Any) -> dict[str, Any]:
    """What the smallest voice's .pth holds, under PyTorch's names; `changes` are of its config."""
    config = VOICE | changes
    shapes = {}
    parameters = Synthesizer(SynthesizerConfig.from_dict(config)).parameters()
    for name, value in tree_flatten(parameters):
        shape = value.shape
        if ".norm_layers_" in name:
            name = name.replace("weight", "gamma").replace("bias", "beta")
        elif "emb_rel" in name:
            shape = (1, *shape)
        elif len(shape) == 3:
            o, k, c = shape
            shape = (c, o, k) if ".ups." in name else (o, c, k)
        elif len(shape) == 2 and not name.startswith(("emb", "enc_p.emb", "dec.m_source")):
            shape = (*shape, 1)
        shapes[name] = shape
    weights = ones(shapes)
    weights["dec.conv_post.weight_g"] = weights["dec.conv_post.weight"][:, :1, :1]
    weights["dec.conv_post.weight_v"] = weights.pop("dec.conv_post.weight")
    names = (*configs.VOICE_FIELDS[:8], "p_dropout", "resblock", *configs.VOICE_FIELDS[10:])
    listed = [{"spec_channels": 1025, "segment_size": 32, "p_dropout": 0, **config}[name] for name in names]
    return {"weight": weights, "config": listed, "info": "1 epoch", "sr": "2k", "f0": 0, "version": "v2"}


def hubert() -> dict[str, np.ndarray]:
    """The smallest HuBERT, under Hugging Face's names."""
    width, inner = HUBERT["hidden_size"], HUBERT["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        f"feature_extractor.conv_layers.{i}.conv.weight": (1, 1, k)
        for i, k in enumerate((10, 3, 3, 3, 3, 2, 2))
    }
    linear = {
        **{f"encoder.layers.0.attention.{part}_proj": (width, width) for part in ("q", "k", "v", "out")},
        "encoder.layers.0.feed_forward.intermediate_dense": (inner, width),
        "encoder.layers.0.feed_forward.output_dense": (width, inner),
        "feature_projection.projection": (width, 1),
        "final_proj": (2, width),
    }
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    norms = {"feature_extractor.conv_layers.0.layer_norm": 1, "feature_projection.layer_norm": 1}
    norms |= dict.fromkeys(("encoder.layer_norm", "encoder.layers.0.layer_norm"), width)
    norms["encoder.layers.0.final_layer_norm"] = width
    for name, size in norms.items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    position = "encoder.pos_conv_embed.conv"
    shapes |= {f"{position}.weight_g": (1, 1, 2), f"{position}.weight_v": (width, 2, 2)}
    return ones(shapes | {f"{position}.bias": (width,)})


def rmvpe() -> dict[str, np.ndarray]:
    """The smallest RMVPE, under the public code's names."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, size: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (size,)

    def block(name: str, inputs: int, outputs: int) -> None:
        for i, width in (0, inputs), (3, outputs):
            shapes[f"{name}.conv.{i}.weight"] = (outputs, width, 3, 3)
            norm(f"{name}.conv.{i + 1}", outputs)
        if inputs != outputs:
            shapes[f"{name}.shortcut.weight"] = (outputs, inputs, 1, 1)
            shapes[f"{name}.shortcut.bias"] = (outputs,)

    norm("unet.encoder.bn", 1)
    block("unet.encoder.layers.0.conv.0", 1, 1)
    block("unet.intermediate.layers.0.conv.0", 1, 2)
    shapes["unet.decoder.layers.0.conv1.0.weight"] = (2, 1, 3, 3)
    norm("unet.decoder.layers.0.conv1.1", 1)
    block("unet.decoder.layers.0.conv2.0", 2, 1)
    for end in ("", "_reverse"):
        gru = {"weight_ih": (3, 384), "weight_hh": (3, 1), "bias_ih": (3,), "bias_hh": (3,)}
        shapes |= {f"fc.0.gru.{part}_l0{end}": shape for part, shape in gru.items()}
    shapes |= {"cnn.weight": (3, 1, 3, 3), "cnn.bias": (3,), "fc.1.weight": (360, 2), "fc.1.bias": (360,)}
    return ones(shapes)


def fairseq() -> dict[str, Any]:
    """The smallest HuBERT as fairseq keeps it."""
    words = {
        **{"encoder.pos_conv_embed.conv.": "encoder.pos_conv.0.", ".conv.weight": ".0.weight"},
        **{"feature_projection.layer_norm.": "layer_norm.", "conv_layers.0.layer_norm.": "conv_layers.0.2."},
        **{"layers.0.layer_norm": "layers.0.self_attn_layer_norm", ".attention.": ".self_attn."},
        "feature_projection.projection.": "post_extract_proj.",
        **{"feed_forward.intermediate_dense": "fc1", "feed_forward.output_dense": "fc2"},
    }
    state = {}
    for name, tensor in hubert().items():
        for theirs, ours in words.items():
            name = name.replace(theirs, ours)
        state[name] = tensor
    options = {"encoder_attention_heads": 4, "layer_norm_first": False, "extractor_mode": "default"}
    return {"model": state, "cfg": {"model": Object(Global("argparse", "Namespace"), options)}, "args": None}


def checkpoints() -> list[bytes]:
    """Files of torch.save, of today and older."""
    f0 = voice(use_f0=True)
    return [
        torch_zip(voice()),
        torch_legacy(f0),
        torch_zip({"model": voice()["weight"], "iteration": 3, "learning_rate": 1e-4}),
        torch_zip(fairseq()),
        torch_legacy(rmvpe()),
        torch_zip(rmvpe()),
        torch_zip(
            {"weight": {"enc_p.emb_phone.weight": np.ones(3, np.float16)}, "config": [1.5, None, True, 2**70]}
        ),
    ]


KEY = {
    "format": archive.KERNELS_FORMAT,
    "model": "m",
    "layout": "l",
    "isa": "i",
    "dtype": "float32",
    "memory": "normal",
}
"""What a file of packed weights states here of what it was made for."""


def kernel_files() -> list[bytes]:
    """The packed weights of the smallest voice; none without the compiled kernels."""
    if dispatch.compiled_missing() is not None:
        return []
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(kernels, "_key", return_value=KEY):
        model = Path(folder) / "voice.safetensors"
        model.write_bytes(packed_files()[0])
        kernels.save(model, packed_layers(load_voice(model)), Packing())
        return [path.read_bytes() for path in Path(folder).glob("*.kernels")]


def configs_of_hubert() -> list[bytes]:
    stated = {key: value for key, value in HUBERT.items() if key != "conv_dim"}
    more = {"feat_extract_norm": "group", "hidden_act": "gelu", "layer_norm_eps": 1e-5, "conv_bias": False}
    layers = {
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_dim": [1] * 7,
    }
    made = [{}, {"num_attention_heads": 4}, stated, stated | more | layers, more | {"classes": {"a": 1}}]
    return [json.dumps(config).encode() for config in made]
