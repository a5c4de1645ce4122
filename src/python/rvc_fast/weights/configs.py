"""Model configurations, read from the shapes of the tensors; what shapes cannot tell, the file has to state.

Every function takes {PyTorch name: array} and returns a config, or raises `Malformed` naming what is missing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .unpickler import Inert, Malformed, quote

Tensors = dict[str, np.ndarray]

# The 18 values of a voice's `config`, in the file's order; None for the two that inference has no use for.
# The trainer rvc-webui puts a 19th, the width of the features, before the last.
VOICE_FIELDS = (
    "spec_channels",
    "segment_size",
    "inter_channels",
    "hidden_channels",
    "filter_channels",
    "n_heads",
    "n_layers",
    "kernel_size",
    None,
    None,
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
    "upsample_rates",
    "upsample_initial_channel",
    "upsample_kernel_sizes",
    "spk_embed_dim",
    "gin_channels",
    "sr",
)
VOCODERS = ("HiFi-GAN", "MRF HiFi-GAN", "RefineGAN")

# Features of these widths are the public encoders': layer 9 projected, and the last layer.
VERSIONS = {256: "v1", 768: "v2"}

# (kernels of the transposed convs, upsample rates) of the published voices; the sample rate is the product
# times 100.
STAGES = (
    ((16, 16, 4, 4), (10, 10, 2, 2)),
    ((16, 16, 4, 4, 4), (10, 4, 2, 2, 2)),
    ((16, 16, 4, 4, 4), (10, 6, 2, 2, 2)),
    ((20, 16, 4, 4), (10, 8, 2, 2)),
    ((24, 20, 4, 4), (12, 10, 2, 2)),
    ((20, 12, 4, 4), (10, 6, 2, 2)),
)


def shape_of(tensors: Tensors, layer: str, ndim: int) -> tuple[int, ...]:
    """Return the shape of a layer's weight in whichever of the three weight-norm spellings it has."""
    for suffix in ("weight", "weight_v", "parametrizations.weight.original1"):
        tensor = tensors.get(f"{layer}.{suffix}")
        if tensor is not None:
            if tensor.ndim != ndim or 0 in tensor.shape:
                raise Malformed(f"tensor '{layer}.{suffix}' must have {ndim} axes, got shape {tensor.shape}")
            return tensor.shape
    raise Malformed(f"tensor '{layer}.weight' is missing")


def has(tensors: Tensors, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in tensors)


def count(tensors: Tensors, prefix: str) -> int:
    """Return how many layers are numbered PREFIX.0, PREFIX.1, ... without a gap."""
    numbers = {name[len(prefix) + 1 :].split(".", 1)[0] for name in tensors if name.startswith(prefix + ".")}
    n = 0
    while str(n) in numbers:
        n += 1
    return n


def _is_count(value: object, limit: int = 1 << 20) -> bool:
    return type(value) is int and 0 < value <= limit


def _stated_voice(config: Any) -> dict[str, Any]:
    """Check the list of 18 or 19 values and return it by name."""
    if type(config) not in (list, tuple) or len(config) not in (len(VOICE_FIELDS), len(VOICE_FIELDS) + 1):
        got = f"{len(config)} values" if type(config) in (list, tuple) else quote(config)
        raise Malformed(f"its config must be a list of {len(VOICE_FIELDS)} values, got {got}")
    config = [*config[: len(VOICE_FIELDS) - 1], _sample_rate(config[-1])]
    stated: dict[str, Any] = {}
    for name, value in zip(VOICE_FIELDS, config, strict=True):
        if name in ("resblock_kernel_sizes", "upsample_rates", "upsample_kernel_sizes"):
            rows = [value]
        elif name == "resblock_dilation_sizes":
            rows = list(value) if type(value) in (list, tuple) else [None]
        else:
            rows = [[value]] if name is not None else []
        for row in rows:
            good = type(row) in (list, tuple) and 0 < len(row) <= 16 and all(map(_is_count, row))
            if not good or len(rows) > 16:
                raise Malformed(f"its config's {name} must be made of positive numbers, got {quote(value)}")
        if name == "resblock_dilation_sizes":
            stated[name] = [list(row) for row in rows]
        elif name is not None:
            stated[name] = list(value) if type(value) in (list, tuple) else value
    if config[9] not in ("1", 1, "2", 2):
        raise Malformed(f"its config's resblock must be '1' or '2', got {quote(config[9])}")
    return stated


def _sample_rate(value: Any) -> Any:
    """Files spell it "40k", "40000" or 40000."""
    if type(value) is str and len(value) <= 8:
        digits, scale = (value[:-1], 1000) if value[-1:] in ("k", "K") else (value, 1)
        value = int(digits) * scale if digits.isdecimal() and digits.isascii() else value
    return value


_DECODERS = {
    "MRF HiFi-GAN": ("mrfs", "upsamples", "m_source", "noise_convs", "conv_pre", "cond", "conv_post"),
    "RefineGAN": (
        "upsample_conv_blocks",
        "downsample_blocks",
        "m_source",
        "pre_conv",
        "mel_conv",
        "cond",
        "conv_post",
    ),
    "HiFi-GAN": ("ups", "resblocks", "m_source", "noise_convs", "conv_pre", "cond", "conv_post"),
}


def _vocoder(tensors: Tensors, named: Any) -> str:
    """Return the decoder that the tensors are of; `named` is what the file calls it, for the message."""
    parts = {name.split(".")[1] for name in tensors if name.startswith("dec.") and name.count(".") > 1}
    called = f" and is named {quote(named)}" if named else ""
    for vocoder, known in _DECODERS.items():
        if known[0] in parts:
            strange = sorted(parts - set(known))
            if strange:
                raise Malformed(
                    f"its decoder is none of {', '.join(VOCODERS)}: it has {quote('dec.' + strange[0])}{called}"
                )
            return vocoder
    raise Malformed(f"its decoder is none of {', '.join(VOCODERS)}{called}")


def _strides(tensors: Tensors, stages: int) -> list[int] | None:
    """Return the strides of the source's convolutions, each the product of the later upsample rates.

    The kernel for a stride s is 1 for s = 1, else 2 s - s % 2 (2 s in older files). None without a source.
    """
    if not has(tensors, "dec.noise_convs."):
        return None
    return [(shape_of(tensors, f"dec.noise_convs.{i}", 3)[2] + 1) // 2 for i in range(stages)]


def _later(rates: tuple[int, ...]) -> list[int]:
    """Return the products of the rates after each."""
    return [math.prod(rates[i + 1 :]) for i in range(len(rates))]


def _rates(tensors: Tensors, kernels: list[int], stated: dict[str, Any] | None, sr: Any) -> tuple[int, ...]:
    """Return the upsample rates of a HiFi-GAN.

    Kernels and strides tell a published table; where they tell one, a table that is stated for other kernels is
    another voice's and does not count. A file that describes these very kernels with other rates contradicts
    itself. What no published table has is as the file states it, if that fits.

    Args:
        kernels: of the transposed convolutions, from the tensors.
        stated: the config of the file, or None.
        sr: the sample rate that the file states anywhere else.
    """
    strides = _strides(tensors, len(kernels))
    found = {rates for known, rates in STAGES if list(known) == kernels}
    if strides is not None:
        found = {rates for rates in found if _later(rates) == strides}
    said = None if stated is None else tuple(stated["upsample_rates"])
    if said in found:
        return said
    described = (
        said is not None
        and stated is not None
        and stated["upsample_kernel_sizes"] == kernels
        and len(said) == len(kernels)
        and strides in (None, _later(said))
    )
    if len(found) > 1:
        found = {rates for rates in found if 100 * math.prod(rates) == sr} or found
    if len(found) == 1 and not described:
        return found.pop()
    options = " or ".join(f"{math.prod(rates) // 10}k" for rates in sorted(found))
    if said is not None and found:
        raise Malformed(
            f"its config's upsample_rates {list(said)} contradict its tensors: kernels {kernels} are those of "
            f"{options} voices"
        )
    if found:
        raise Malformed(f"its sample rate cannot be inferred: without f0, kernels {kernels} may be {options}")
    if said is None or stated is None:
        raise Malformed(
            f"its upsample rates and sample rate cannot be inferred: kernels {kernels} are no known voice's"
        )
    if len(said) != len(kernels):
        raise Malformed(f"its config's upsample_rates has {len(said)} values for {len(kernels)} stages")
    if not described:
        raise Malformed(
            f"its config is the table of another voice: it states upsample rates {list(said)} with kernels "
            f"{stated['upsample_kernel_sizes']}, its tensors have kernels {kernels}"
            + ("" if strides is None else f" and strides {strides}")
        )
    return said


def voice_config(tensors: Tensors, stated: Any = None, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the config of a synthesizer.

    Args:
        tensors: PyTorch names and layouts.
        stated: the file's list of 18 or 19 values; None or empty (a training checkpoint, or a voice without
            its config) to infer everything from the shapes.
        facts: what else the file states: `version`, `sr`, and the encoder that it was trained on
            (`embedder_model` or `embedder_name`, `embedder_output_layer`).

    Shapes win over statements wherever both speak: fine-tuned and converted files keep the table of what they
    came from, and programs disagree on the names of the decoders.
    """
    facts = facts or {}
    stated = stated or None
    config: dict[str, Any] = {"spec_channels": 1025, "segment_size": 32}
    if stated is not None:
        stated = _stated_voice(stated)
        config = dict(stated)
    hidden, text = shape_of(tensors, "enc_p.emb_phone", 2)
    filters, _, kernel = shape_of(tensors, "enc_p.encoder.ffn_layers.0.conv_1", 3)
    relative = tensors.get("enc_p.encoder.attn_layers.0.emb_rel_k")
    if relative is None or relative.ndim != 3 or not relative.shape[2] or hidden % relative.shape[2]:
        raise Malformed(
            "its number of attention heads cannot be inferred: emb_rel_k is missing or does not fit"
        )
    speakers, gin = shape_of(tensors, "emb_g", 2)
    config |= {
        "inter_channels": shape_of(tensors, "enc_p.proj", 3)[0] // 2,
        "hidden_channels": hidden,
        "filter_channels": filters,
        "n_heads": hidden // relative.shape[2],
        "n_layers": count(tensors, "enc_p.encoder.attn_layers"),
        "kernel_size": kernel,
        "spk_embed_dim": speakers,
        "gin_channels": gin,
        "use_f0": "enc_p.emb_pitch.weight" in tensors,
        "text_enc_hidden_dim": text,
    }
    vocoder = config["vocoder"] = _vocoder(tensors, facts.get("vocoder"))
    config |= _embedder(facts)

    if vocoder == "RefineGAN":
        stages = count(tensors, "dec.upsample_conv_blocks")
        config["upsample_initial_channel"] = (
            2 * shape_of(tensors, "dec.upsample_conv_blocks.0.input_conv", 3)[0]
        )
        blocks = "dec.upsample_conv_blocks.0.blocks"
        convs = [f"{blocks}.{j}.1.convs1" for j in range(count(tensors, blocks))]
        kernels = [shape_of(tensors, f"{conv}.0", 3)[2] for conv in convs]
        if stated is None:
            raise Malformed(
                "its upsample rates and sample rate cannot be inferred, RefineGAN's shapes are the same "
                "for all; use the voice that training extracts beside its checkpoints"
            )
    else:
        ups = "dec.upsamples" if vocoder == "MRF HiFi-GAN" else "dec.ups"
        stages = count(tensors, ups)
        if not stages:
            raise Malformed("its decoder has no upsampling stages")
        config["upsample_initial_channel"] = shape_of(tensors, "dec.conv_pre", 3)[0]
        config["upsample_kernel_sizes"] = [shape_of(tensors, f"{ups}.{i}", 3)[2] for i in range(stages)]
        if vocoder == "MRF HiFi-GAN":
            convs = [f"dec.mrfs.0.{j}.layers" for j in range(count(tensors, "dec.mrfs.0"))]
            kernels = [shape_of(tensors, f"{conv}.0.conv1", 3)[2] for conv in convs]
        else:
            total = count(tensors, "dec.resblocks")
            if not stages or not total or total % stages:
                raise Malformed(f"its decoder has {total} residual blocks for {stages} stages")
            single = has(tensors, "dec.resblocks.0.convs.")
            if single:
                config["resblock"] = "2"
            convs = [f"dec.resblocks.{j}.{'convs' if single else 'convs1'}" for j in range(total // stages)]
            kernels = [shape_of(tensors, f"{conv}.0", 3)[2] for conv in convs]
    depths = [count(tensors, conv) for conv in convs]
    if vocoder == "RefineGAN":
        if len(config["upsample_rates"]) != stages:
            raise Malformed(
                f"its config's upsample_rates has {len(config['upsample_rates'])} values for {stages} stages"
            )
        rates = tuple(config["upsample_rates"])
    else:
        rates = _rates(tensors, config["upsample_kernel_sizes"], stated, _sample_rate(facts.get("sr")))
    # Features are 100 frames a second, so this is the rate whatever the file says; but where only the file
    # tells the rates, the two must agree.
    sr = 100 * math.prod(rates)
    published = vocoder != "RefineGAN" and rates in {rates for _, rates in STAGES}
    if stated is not None and not published and stated["sr"] != sr:
        raise Malformed(
            f"its config's sr {stated['sr']} contradicts its upsample_rates {list(rates)}, which make {sr}"
        )
    config |= {"upsample_rates": list(rates), "sr": sr, "resblock_kernel_sizes": kernels}
    if stated is None:
        if set(depths) != {3}:
            raise Malformed(
                f"its residual dilations cannot be inferred: {depths} convolutions instead of 3 each"
            )
        config["resblock_dilation_sizes"] = [[1, 3, 5] for _ in convs]
    if [len(row) for row in config["resblock_dilation_sizes"]] != depths:
        raise Malformed(
            f"its config's resblock_dilation_sizes do not fit residual blocks of {depths} convolutions"
        )

    version = facts.get("version")
    if version not in (None, "v1", "v2"):
        raise Malformed(f"its version must be 'v1' or 'v2', got {quote(version)}")
    # The width tells it where it is a public encoder's, whatever the file says.
    config["version"] = VERSIONS.get(text, version or "v2")
    return config


def _embedder(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what a voice's file states of the encoder that it was trained on: its name, and which layer."""
    said: dict[str, Any] = {}
    names = (facts.get(key) for key in ("embedder_model", "embedder_name"))
    name = next((n for n in names if type(n) is str and 0 < len(n) <= 256), None)
    if name is not None:
        said["embedder"] = name
    layer = facts.get("embedder_output_layer")
    if type(layer) is str and layer.isdecimal() and layer.isascii() and len(layer) <= 4:
        layer = int(layer)
    if layer is not None:
        if not _is_count(layer, 64):
            raise Malformed(f"its embedder_output_layer must be from 1 to 64, got {quote(layer)}")
        said["embedder_layer"] = layer
    return said


def hubert_config(tensors: Tensors, stated: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    """Return (config under Hugging Face's names, names of assumed values) of a HuBERT in either spelling.

    Only the number of heads cannot be read from shapes. A file that does not state it is taken to have 64
    values a head, as the base and large models have, and at least 4 heads; outside those two widths that is
    an assumption, and reported.
    """
    names = {name.removeprefix("hubert."): tensor for name, tensor in tensors.items()}
    fairseq = "post_extract_proj.weight" in names or "encoder.pos_conv.0.bias" in names
    if fairseq:
        projection, position, dense, conv = "post_extract_proj", "encoder.pos_conv.0", "fc1", "0"
    else:
        projection, position = "feature_projection.projection", "encoder.pos_conv_embed.conv"
        dense, conv = "feed_forward.intermediate_dense", "conv"
    convs = [
        shape_of(names, f"feature_extractor.conv_layers.{i}.{conv}", 3)
        for i in range(max(count(names, "feature_extractor.conv_layers"), 1))
    ]
    hidden = shape_of(names, projection, 2)[0]
    _, group, width = shape_of(names, position, 3)
    config = dict(stated or {}) | {
        "hidden_size": hidden,
        "num_hidden_layers": count(names, "encoder.layers"),
        "intermediate_size": shape_of(names, f"encoder.layers.0.{dense}", 2)[0],
        "conv_dim": [c[0] for c in convs],
        "conv_kernel": [c[2] for c in convs],
        "num_conv_pos_embeddings": width,
        "num_conv_pos_embedding_groups": max(hidden // group, 1),
    }
    if "final_proj.weight" in names:
        config["classifier_proj_size"] = shape_of(names, "final_proj", 2)[0]
    # The stride is 5 once and then 2 in every HuBERT; a file may say otherwise.
    config.setdefault("conv_stride", [5] + [2] * (len(convs) - 1))
    assumed = []
    if "num_attention_heads" not in config:
        config["num_attention_heads"] = max(hidden // 64, 4)
        if hidden not in (768, 1024):
            assumed.append("num_attention_heads")
    heads = config["num_attention_heads"]
    if not _is_count(heads) or hidden % heads:
        raise Malformed(f"its number of attention heads must divide {hidden}, got {quote(heads)}")
    return config, assumed


def fairseq_statements(root: dict[Any, Any]) -> dict[str, Any]:
    """Return what a fairseq checkpoint states in `cfg` (`args` before 2021), under Hugging Face's names."""
    stated: dict[str, Any] = {}
    for options in (_field(_field(root, "cfg"), "model"), _field(root, "args")):
        heads = _field(options, "encoder_attention_heads")
        if _is_count(heads):
            stated.setdefault("num_attention_heads", heads)
        if _field(options, "layer_norm_first") is True:
            stated.setdefault("do_stable_layer_norm", True)
        if _field(options, "extractor_mode") == "layer_norm":
            stated.setdefault("feat_extract_norm", "layer")
    return stated


def _field(options: Any, name: str) -> Any:
    """Look a name up in a dict, or in the state of what was a Namespace or an omegaconf container."""
    if type(options) is Inert:
        options = options.state.get("_content", options.state)
    value = options.get(name) if type(options) is dict else None
    return value.state["_val"] if type(value) is Inert and "_val" in value.state else value


def rmvpe_config(tensors: Tensors) -> dict[str, Any]:
    """Return the config of an RMVPE pitch model."""
    gru = "fc.0.gru.weight_ih_l"
    first = shape_of(tensors, "unet.encoder.layers.0.conv.0.conv.0", 4)
    return {
        "n_blocks": count(tensors, "unet.encoder.layers.0.conv"),
        "n_gru": sum(name.startswith(gru) and name[len(gru) :].isdecimal() for name in tensors),
        "kernel_size": [2, 2],
        "en_de_layers": count(tensors, "unet.encoder.layers"),
        "inter_layers": count(tensors, "unet.intermediate.layers"),
        "in_channels": first[1],
        "en_out_channels": first[0],
    }
