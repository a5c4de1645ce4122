"""Full-size models with seeded weights: the work of real ones without a download. The sound they make is noise.

A 48 kHz v2 voice (HiFi-GAN, 109 speakers), HuBERT base, RMVPE, and an index; tensors by the names of the public
checkpoints, so that every side loads the same numbers its own way.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mlx.utils import tree_flatten
from safetensors import SafetensorError, safe_open

from .. import env
from ..errors import InputError
from ..features.hubert import HubertConfig, HubertModel
from ..pitch.rmvpe import BINS, MELS, Rmvpe, RmvpeConfig
from ..retrieval.index import Index
from ..synthesizer import Synthesizer, SynthesizerConfig
from ..synthesizer.flow import COUPLINGS, KERNEL, LAYERS
from ..synthesizer.text_encoder import PITCH_BINS, WINDOW
from ..verify.seeded import seeded_normal
from ..weights.checkpoint import save_packed
from ..weights.stored import stored

# Part of the cache folder's name: another recipe makes other files.
RECIPE = 1
SEEDS = {"voice": 0, "hubert": 1, "rmvpe": 2, "index": 3}
VECTORS = 20_000

HUBERT = HubertConfig()
RMVPE = RmvpeConfig()
VOICE = SynthesizerConfig(
    inter_channels=192,
    hidden_channels=192,
    filter_channels=768,
    n_heads=2,
    n_layers=6,
    kernel_size=3,
    resblock_kernel_sizes=(3, 7, 11),
    resblock_dilation_sizes=((1, 3, 5),) * 3,
    upsample_rates=(12, 10, 2, 2),
    upsample_initial_channel=512,
    upsample_kernel_sizes=(24, 20, 4, 4),
    spk_embed_dim=109,
    gin_channels=256,
    sr=48000,
)

_CLASSES: dict[str, tuple[Any, Any]] = {
    "voice": (Synthesizer, VOICE),
    "hubert": (HubertModel, HUBERT),
    "rmvpe": (Rmvpe, RMVPE),
}

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def _layer(name: str, *shape: int, bias: int = 0) -> Shapes:
    yield f"{name}.weight", shape
    yield f"{name}.bias", (bias or shape[0],)


def _normed(name: str, *shape: int, bias: int = 0, axis: int = 0) -> Shapes:
    """A layer under weight norm: `axis` is the one that keeps a gain per index."""
    yield f"{name}.bias", (bias or shape[0],)
    stem = f"{name}.parametrizations.weight.original"
    yield f"{stem}0", tuple(n if i == axis else 1 for i, n in enumerate(shape))
    yield f"{stem}1", shape


def hubert_shapes(c: HubertConfig) -> Shapes:
    """Name and shape of every tensor, as Hugging Face names them."""
    width = c.hidden_size
    for i, (out, kernel) in enumerate(zip(c.conv_dim, c.conv_kernel, strict=True)):
        before = c.conv_dim[i - 1] if i else 1
        yield f"feature_extractor.conv_layers.{i}.conv.weight", (out, before, kernel)
    yield from _layer("feature_extractor.conv_layers.0.layer_norm", c.conv_dim[0])
    yield from _layer("feature_projection.layer_norm", c.conv_dim[-1])
    yield from _layer("feature_projection.projection", width, c.conv_dim[-1])
    grouped = width // c.num_conv_pos_embedding_groups
    yield from _normed("encoder.pos_conv_embed.conv", width, grouped, c.num_conv_pos_embeddings, axis=2)
    yield from _layer("encoder.layer_norm", width)
    for i in range(c.num_hidden_layers):
        layer = f"encoder.layers.{i}"
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from _layer(f"{layer}.attention.{name}", width, width)
        yield from _layer(f"{layer}.layer_norm", width)
        yield from _layer(f"{layer}.feed_forward.intermediate_dense", c.intermediate_size, width)
        yield from _layer(f"{layer}.feed_forward.output_dense", width, c.intermediate_size)
        yield from _layer(f"{layer}.final_layer_norm", width)
    yield from _layer("final_proj", c.classifier_proj_size, width)


def rmvpe_shapes(c: RmvpeConfig) -> Shapes:
    """Name and shape of every tensor, as in the published rmvpe.pt."""

    def batch_norm(name: str, width: int) -> Shapes:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{part}", (width,)

    def blocks(name: str, before: int, width: int) -> Shapes:
        for i in range(c.n_blocks):
            inner = width if i else before
            for at, channels in ((0, inner), (3, width)):
                yield f"{name}.{i}.conv.{at}.weight", (width, channels, 3, 3)
                yield from batch_norm(f"{name}.{i}.conv.{at + 1}", width)
            if inner != width:
                yield from _layer(f"{name}.{i}.shortcut", width, inner, 1, 1)

    width, depth, hidden = c.en_out_channels, c.en_de_layers, c.gru_hidden
    yield from batch_norm("unet.encoder.bn", 1)
    for i in range(depth):
        yield from blocks(f"unet.encoder.layers.{i}.conv", width << (i - 1) if i else 1, width << i)
    bottom = width << depth
    for i in range(c.inter_layers):
        yield from blocks(f"unet.intermediate.layers.{i}.conv", bottom if i else bottom // 2, bottom)
    for i in range(depth):
        up, name = bottom >> (i + 1), f"unet.decoder.layers.{i}"
        yield f"{name}.conv1.0.weight", (2 * up, up, 3, 3)
        yield from batch_norm(f"{name}.conv1.1", up)
        yield from blocks(f"{name}.conv2", 2 * up, up)
    yield from _layer("cnn", 3, width, 3, 3)
    for i in range(c.n_gru):
        for suffix in (f"l{i}", f"l{i}_reverse"):
            gru = "fc.0.gru"
            yield f"{gru}.weight_ih_{suffix}", (3 * hidden, 2 * hidden if i else 3 * MELS)
            yield f"{gru}.weight_hh_{suffix}", (3 * hidden, hidden)
            yield f"{gru}.bias_ih_{suffix}", (3 * hidden,)
            yield f"{gru}.bias_hh_{suffix}", (3 * hidden,)
    yield from _layer("fc.1", BINS, 2 * hidden)


def voice_shapes(c: SynthesizerConfig) -> Shapes:
    """Name and shape of every tensor of a voice with the HiFi-GAN decoder and f0, as in public voices."""
    width, inter, speaker = c.hidden_channels, c.inter_channels, c.gin_channels
    yield from _layer("enc_p.emb_phone", width, c.text_enc_hidden_dim)
    yield "enc_p.emb_pitch.weight", (PITCH_BINS, width)
    for i in range(c.n_layers):
        attention = f"enc_p.encoder.attn_layers.{i}"
        for name in ("emb_rel_k", "emb_rel_v"):
            yield f"{attention}.{name}", (1, 2 * WINDOW + 1, width // c.n_heads)
        for name in ("conv_q", "conv_k", "conv_v", "conv_o"):
            yield from _layer(f"{attention}.{name}", width, width, 1)
        for name in ("norm_layers_1", "norm_layers_2"):
            yield f"enc_p.encoder.{name}.{i}.gamma", (width,)
            yield f"enc_p.encoder.{name}.{i}.beta", (width,)
        feed_forward = f"enc_p.encoder.ffn_layers.{i}"
        yield from _layer(f"{feed_forward}.conv_1", c.filter_channels, width, c.kernel_size)
        yield from _layer(f"{feed_forward}.conv_2", width, c.filter_channels, c.kernel_size)
    yield from _layer("enc_p.proj", 2 * inter, width, 1)

    for i in range(0, 2 * COUPLINGS, 2):  # every other one is a flip, without tensors
        flow = f"flow.flows.{i}"
        yield from _layer(f"{flow}.pre", width, inter // 2, 1)
        yield from _normed(f"{flow}.enc.cond_layer", 2 * width * LAYERS, speaker, 1)
        for j in range(LAYERS):
            skip = 2 * width if j < LAYERS - 1 else width
            yield from _normed(f"{flow}.enc.in_layers.{j}", 2 * width, width, KERNEL)
            yield from _normed(f"{flow}.enc.res_skip_layers.{j}", skip, width, 1)
        yield from _layer(f"{flow}.post", inter // 2, width, 1)

    initial, stages, kinds = c.upsample_initial_channel, len(c.upsample_rates), len(c.resblock_kernel_sizes)
    yield from _layer("dec.m_source.l_linear", 1, 1)
    yield from _layer("dec.conv_pre", initial, inter, 7)
    yield from _layer("dec.cond", initial, speaker, 1)
    for i in range(stages):
        out = initial >> (i + 1)
        stride = math.prod(c.upsample_rates[i + 1 :])
        kernel = 1 if stride == 1 else 2 * stride - stride % 2
        yield from _layer(f"dec.noise_convs.{i}", out, 1, kernel)
        yield from _normed(f"dec.ups.{i}", 2 * out, out, c.upsample_kernel_sizes[i], bias=out)
        for j, (size, dilations) in enumerate(
            zip(c.resblock_kernel_sizes, c.resblock_dilation_sizes, strict=True)
        ):
            for convs in ("convs1", "convs2"):
                for k in range(len(dilations)):
                    yield from _normed(f"dec.resblocks.{i * kinds + j}.{convs}.{k}", out, out, size)
    yield "dec.conv_post.weight", (1, initial >> stages, 7)
    yield "emb_g.weight", (c.spk_embed_dim, speaker)


def _shapes(kind: str) -> dict[str, tuple[int, ...]]:
    makers: dict[str, Any] = {"voice": voice_shapes, "hubert": hubert_shapes, "rmvpe": rmvpe_shapes}
    return dict(makers[kind](_CLASSES[kind][1]))


@functools.cache
def tensors(kind: str) -> dict[str, np.ndarray]:
    """Return the weights of "voice", "hubert" or "rmvpe", float32, by public names.

    Scaled by fan-in, so that signals neither vanish nor explode; a gain of weight norm is the norm of its
    direction.
    """
    made: dict[str, np.ndarray] = {}
    for name, shape in _shapes(kind).items():
        draw = seeded_normal(SEEDS[kind], name, shape)
        if len(shape) == 1:
            center = name.endswith(("weight", "gamma", "running_var"))
            made[name] = np.float32(center) + np.float32(0.02) * draw
        else:
            made[name] = draw * np.float32(1 / math.sqrt(math.prod(shape[1:])))
    for name in [n for n in made if n.endswith("original0")]:
        axes = tuple(i for i, n in enumerate(made[name].shape) if n == 1)
        direction = made[f"{name[:-1]}1"]
        made[name] = np.sqrt(np.sum(direction * direction, axis=axes, keepdims=True))
    return made


def folder() -> Path:
    """Where the packed files lie, in the cache folder."""
    return Path(env.cache_dir()) / "bench" / f"seeded-{RECIPE}"


def _file(kind: str) -> Path:
    return folder() / f"{kind}.safetensors"


def present(kind: str) -> bool:
    """Whether a file has been made, with the tensors that a model of this version has."""
    file, (model, config) = _file(kind), _CLASSES[kind]
    if not file.is_file():
        return False
    want = {name: list(value.shape) for name, value in tree_flatten(model(config).parameters())}
    try:
        with safe_open(file, "np") as tensors:
            return want == {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError:
        return False


def path(kind: str) -> Path:
    """Return the packed file of "voice", "hubert" or "rmvpe"; made now if it is not there, about 0.9 GB for all."""
    file = _file(kind)
    if not present(kind):
        model, config = _CLASSES[kind]
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"[bench] cannot write to {file.parent}: {e.strerror} (RVC_FAST_CACHE)") from e
        whole = {name: t.value() for name, t in stored(kind, model.sanitize(tensors(kind)), {}).items()}
        save_packed(file, kind, whole, asdict(config))
        tensors.cache_clear()
    return file


def index() -> Index:
    """Return an index of `VECTORS` vectors, searched exactly."""
    vectors = seeded_normal(SEEDS["index"], "vectors", (VECTORS, HUBERT.hidden_size))
    starts = np.arange(VECTORS, dtype=np.int64) * HUBERT.hidden_size
    return Index("Flat", vectors.reshape(-1), starts, np.arange(VECTORS), HUBERT.hidden_size)
