"""Every kind of model file loads, with the config its tensors and statements imply."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.synthesizer import load_voice
from rvc_fast.verify.seeded import read_manifest, seeded_weights
from rvc_fast.weights import Checkpoint, load_checkpoint, save_packed

from .torch_files import Bf16, Encoder, Global, Object, seeded, torch_legacy, torch_zip

GOLDEN = Path(__file__).parents[1] / "golden"
V1_NAMES = (
    ("parametrizations.weight.original0", "weight_g"),
    ("parametrizations.weight.original1", "weight_v"),
)
FAIRSEQ = (
    ("conv_layers.0.layer_norm.", "conv_layers.0.2."),
    (".conv.weight", ".0.weight"),
    ("feature_projection.layer_norm.", "layer_norm."),
    ("feature_projection.projection.", "post_extract_proj."),
    ("encoder.pos_conv_embed.conv.", "encoder.pos_conv.0."),
    (".attention.", ".self_attn."),
    (".feed_forward.intermediate_dense.", ".fc1."),
    (".feed_forward.output_dense.", ".fc2."),
)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def renamed(tensors: dict, *pairs: tuple[str, str]) -> dict:
    def name(text: str) -> str:
        for old, new in pairs:
            text = text.replace(old, new)
        return text

    return {name(key): value for key, value in tensors.items()}


def manifest(name: str) -> dict:
    return read_manifest(GOLDEN / f"{name}.json")


def stated(name: str) -> list:
    """The `config` list of a voice file."""
    config = manifest(name)["config"]
    return [list(v) if isinstance(v, tuple) else v for v in config.values()]


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(
        left[k].dtype == right[k].dtype and np.array_equal(left[k], right[k]) for k in left
    )


def expected_voice(name: str, version: str = "v2") -> dict:
    m = manifest(name)
    config = {k: v for k, v in m["config"].items() if k not in ("p_dropout", "resblock")}
    extra = {k: m[k] for k in ("use_f0", "text_enc_hidden_dim", "vocoder")}
    return config | extra | {"version": version}


# Voices


def test_golden_voice_is_the_seeded_one_in_half_precision():
    checkpoint = load_checkpoint(GOLDEN / "voice_tiny_32k.pth", expect="voice")
    want = renamed(seeded_weights(manifest("synth_tiny_32k")), *V1_NAMES)
    assert same(checkpoint.tensors, {k: v.astype(np.float16) for k, v in want.items()})
    assert checkpoint.config == expected_voice("synth_tiny_32k")
    assert checkpoint.metadata["info"] == "200epoch"
    assert not checkpoint.packed


@pytest.mark.parametrize("name", ["synth_tiny_32k", "synth_tiny_mrf_40k", "synth_tiny_nof0_40k"])
@pytest.mark.parametrize("writer", [torch_zip, torch_legacy])
def test_voice_in_both_containers(tmp_path, name, writer):
    tensors = seeded(GOLDEN / f"{name}.json", np.float16)
    file = {
        "weight": tensors,
        "config": stated(name),
        "sr": "40k",
        "f0": 1,
        "version": "v2",
        "info": "5epoch",
    }
    checkpoint = load_checkpoint(write(tmp_path / "a.pth", writer(file)))
    assert checkpoint.kind == "voice"
    assert same(checkpoint.tensors, tensors)
    assert checkpoint.config == expected_voice(name)


@pytest.mark.parametrize(
    ("version", "width", "want"),
    [
        (None, 256, "v1"),
        ("v1", 256, "v1"),
        ("v2", 768, "v2"),
        (None, 768, "v2"),
        ("v1", 768, "v2"),
        ("v2", 64, "v2"),
    ],
)
def test_version_yields_to_the_feature_width(tmp_path, version, width, want):
    tensors = seeded(GOLDEN / "synth_tiny_32k.json", np.float16)
    tensors["enc_p.emb_phone.weight"] = np.zeros((32, width), np.float16)
    file = {"weight": tensors, "config": stated("synth_tiny_32k")} | ({"version": version} if version else {})
    config = load_checkpoint(write(tmp_path / "a.pth", torch_zip(file))).config
    assert (config["version"], config["text_enc_hidden_dim"]) == (want, width)


def test_shapes_win_over_the_stated_config(tmp_path):
    wrong = stated("synth_tiny_32k")
    wrong[2:8] = [192, 192, 768, 4, 6, 5]
    wrong[13], wrong[15], wrong[16], wrong[17] = 512, 109, 256, "32k"
    file = {"weight": seeded(GOLDEN / "synth_tiny_32k.json"), "config": wrong, "version": "v2"}
    config = load_checkpoint(write(tmp_path / "a.pth", torch_zip(file))).config
    assert config == expected_voice("synth_tiny_32k")


@pytest.mark.parametrize("name", ["synth_tiny_32k", "synth_tiny_mrf_40k", "synth_tiny_nof0_40k"])
def test_training_checkpoint_config_is_inferred(tmp_path, name):
    tensors = seeded(GOLDEN / f"{name}.json")
    optimizer = {
        "state": {0: {"step": 3, "exp_avg": np.full(4, np.nan, np.float32)}},
        "param_groups": [{"lr": 1e-4}],
    }
    training_only = {"enc_q.pre.weight": np.zeros((4, 5, 1), np.float32)}
    file = {"model": tensors | training_only, "iteration": 12, "optimizer": optimizer, "learning_rate": 1e-4}
    checkpoint = load_checkpoint(write(tmp_path / "G_1.pth", torch_zip(file)), expect="voice")
    assert same(checkpoint.tensors, tensors)
    assert checkpoint.config == expected_voice(name)
    assert checkpoint.metadata == {
        "source": "torch zip, training checkpoint",
        "iteration": 12,
        "learning_rate": 1e-4,
    }


def stages(kernels: tuple[int, ...], rates: tuple[int, ...], f0: bool = True) -> dict[str, np.ndarray]:
    """A voice whose decoder has these stages, with the source convs that belong to them."""
    tensors = seeded(GOLDEN / ("synth_tiny_32k.json" if f0 else "synth_tiny_nof0_40k.json"))
    tensors = {
        k: v for k, v in tensors.items() if not k.startswith(("dec.ups", "dec.noise", "dec.resblocks"))
    }
    for i, kernel in enumerate(kernels):
        tensors[f"dec.ups.{i}.weight_v"] = np.ones((4, 2, kernel), np.float32)
        stride = int(np.prod(rates[i + 1 :]))
        if f0:
            width = 1 if stride == 1 else 2 * stride - stride % 2
            tensors[f"dec.noise_convs.{i}.weight"] = np.ones((2, 1, width), np.float32)
        for j, size in enumerate((3, 7, 11)):
            for layer in range(3):
                tensors[f"dec.resblocks.{3 * i + j}.convs1.{layer}.weight"] = np.ones(
                    (2, 2, size), np.float32
                )
    return tensors


@pytest.mark.parametrize(
    ("rate", "rates", "kernels"),
    [
        (40000, (10, 10, 2, 2), (16, 16, 4, 4)),
        (32000, (10, 4, 2, 2, 2), (16, 16, 4, 4, 4)),
        (48000, (10, 6, 2, 2, 2), (16, 16, 4, 4, 4)),
        (32000, (10, 8, 2, 2), (20, 16, 4, 4)),
        (48000, (12, 10, 2, 2), (24, 20, 4, 4)),
        (24000, (10, 6, 2, 2), (20, 12, 4, 4)),
    ],
)
def test_every_published_decoder_is_inferred(tmp_path, rate, rates, kernels):
    path = write(tmp_path / "G_1.pth", torch_zip({"model": stages(kernels, rates)}))
    config = load_checkpoint(path).config
    assert (config["sr"], config["upsample_rates"]) == (rate, list(rates))
    assert config["upsample_kernel_sizes"] == list(kernels)
    assert config["resblock_kernel_sizes"] == [3, 7, 11]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (stages((16, 16, 4, 4, 4), (10, 6, 2, 2, 2), f0=False), "may be 32k or 48k"),
        (stages((22, 16, 4, 4), (11, 8, 2, 2)), r"kernels \[22, 16, 4, 4\] are no known"),
        (stages((20, 16, 4, 4), (10, 8, 2, 4)), "no known"),
    ],
    ids=["ambiguous", "unknown", "other source"],
)
def test_what_cannot_be_inferred_is_said(tmp_path, tensors, words):
    with pytest.raises(FileFormatError, match=words):
        load_checkpoint(write(tmp_path / "G_1.pth", torch_zip({"model": tensors})))


def refinegan() -> dict[str, np.ndarray]:
    tensors = {k: v for k, v in seeded(GOLDEN / "synth_tiny_32k.json").items() if not k.startswith("dec.")}
    for i in range(4):
        block = f"dec.upsample_conv_blocks.{i}"
        tensors[f"{block}.input_conv.weight"] = np.ones((32 >> i, 80 >> i, 7), np.float32)
        for j, kernel in enumerate((3, 7, 11)):
            for layer in range(3):
                conv = f"{block}.blocks.{j}.1.convs1.{layer}.parametrizations.weight.original1"
                tensors[conv] = np.ones((32 >> i, 32 >> i, kernel), np.float32)
    return tensors


def test_refinegan(tmp_path):
    file = {
        "weight": refinegan(),
        "config": stated("synth_tiny_32k"),
        "version": "v2",
        "vocoder": "RefineGAN",
    }
    config = load_checkpoint(write(tmp_path / "a.pth", torch_zip(file))).config
    assert config == expected_voice("synth_tiny_32k") | {"vocoder": "RefineGAN"}
    with pytest.raises(FileFormatError, match="cannot be inferred, RefineGAN"):
        load_checkpoint(write(tmp_path / "G_1.pth", torch_zip({"model": refinegan()})))
    file["vocoder"] = "HiFi-GAN"
    assert load_checkpoint(write(tmp_path / "b.pth", torch_zip(file))).config["vocoder"] == "RefineGAN"


@pytest.mark.parametrize(
    ("index", "value", "words"),
    [
        (slice(0, 18), [1], "list of 18 values, got 1"),
        (slice(12, 13), [[10, 8, 0]], "upsample_rates must be made of positive"),
        (slice(12, 13), [[10, 8, 2, 0]], "upsample_rates must be made of positive"),
        (slice(12, 13), ["10"], "upsample_rates must be made of positive"),
        (slice(11, 12), [[[1, 3]] * 3], "resblock_dilation_sizes do not fit"),
        (slice(11, 12), [7], "resblock_dilation_sizes must be made of positive"),
        (slice(9, 10), ["3"], "resblock must be '1' or '2', got '3'"),
        (slice(17, 18), ["fast"], "sr must be made of positive"),
        (slice(17, 18), [-1], "sr must be made of positive"),
    ],
)
def test_bad_configs(tmp_path, index, value, words):
    config = stated("synth_tiny_32k")
    config[index] = value
    file = {"weight": seeded(GOLDEN / "synth_tiny_32k.json", np.float16), "config": config}
    with pytest.raises(FileFormatError, match=words):
        load_checkpoint(write(tmp_path / "a.pth", torch_zip(file)))


def test_residual_blocks_of_type_2(tmp_path):
    """Single convolutions instead of pairs; the tensors say which, whatever the config states."""
    tensors = seeded(GOLDEN / "synth_tiny_32k.json", np.float16)
    single = {k.replace(".convs1.", ".convs."): v for k, v in tensors.items() if ".convs2." not in k}
    file = {"weight": single, "config": stated("synth_tiny_32k")}
    path = write(tmp_path / "a.pth", torch_zip(file))
    assert load_checkpoint(path).config["resblock"] == "2"
    assert load_voice(path).config.resblock == "2"
    assert load_voice(GOLDEN / "voice_tiny_32k.pth").config.resblock == "1"


# Embedders


def test_golden_fairseq():
    checkpoint = load_checkpoint(GOLDEN / "hubert_tiny_fairseq.pt", expect="hubert")
    m = manifest("hubert_tiny")
    weights = seeded_weights(m)
    want = renamed(weights, *FAIRSEQ, *V1_NAMES)
    for key in ("encoder.pos_conv.0.weight_v", "encoder.layers.11.fc2.bias", "final_proj.weight"):
        assert np.array_equal(checkpoint.tensors[key], want[key])
    assert m["config"].items() <= checkpoint.config.items()
    # The file states no number of heads.
    assert checkpoint.metadata["assumed"] == ["num_attention_heads"]


@pytest.mark.parametrize("spelling", ["dict", "namespace", "omegaconf"])
def test_fairseq_states_its_heads(tmp_path, spelling):
    options = {"encoder_attention_heads": 2}
    file = {"model": renamed(seeded(GOLDEN / "hubert_tiny.json"), *FAIRSEQ, *V1_NAMES)}
    if spelling == "namespace":
        file |= {"args": Object(Global("argparse", "Namespace"), options), "cfg": None}
    elif spelling == "omegaconf":
        node = Object(Global("omegaconf.nodes", "AnyNode"), {"_val": 2, "_parent": None})
        content = {"_content": {"encoder_attention_heads": node}}
        file |= {"cfg": {"model": Object(Global("omegaconf.dictconfig", "DictConfig"), content)}}
    else:
        file |= {"cfg": {"model": options}}
    checkpoint = load_checkpoint(write(tmp_path / "hubert.pt", torch_zip(file)))
    assert checkpoint.config["num_attention_heads"] == 2
    assert checkpoint.metadata["assumed"] == []


@pytest.mark.parametrize("prefix", ["", "hubert."])
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_hugging_face(tmp_path, prefix, weights):
    m = manifest("hubert_tiny")
    tensors = {prefix + k: v for k, v in seeded(GOLDEN / "hubert_tiny.json", np.float16).items()}
    (tmp_path / "config.json").write_text(
        json.dumps(m["config"] | {"num_attention_heads": 8, "id2label": {"0": "a"}})
    )
    if weights.endswith("bin"):
        write(tmp_path / weights, torch_zip(tensors))
    else:
        save_file(tensors, tmp_path / weights)
    for path in (tmp_path, tmp_path / weights):
        checkpoint = load_checkpoint(path, expect="hubert")
        assert same(checkpoint.tensors, tensors)
        assert checkpoint.config.items() >= (m["config"] | {"num_attention_heads": 8}).items()
        assert "id2label" not in checkpoint.config


def test_base_hubert_needs_no_config(tmp_path):
    """Widths of 768 and 1024 have heads of 64 values; elsewhere the number is reported as assumed."""
    shapes = {
        "feature_extractor.conv_layers.0.0.weight": (8, 1, 10),
        "post_extract_proj.weight": (768, 8),
        "encoder.pos_conv.0.weight_v": (768, 48, 16),
        "encoder.layers.0.fc1.weight": (16, 768),
    }
    file = {"model": {k: np.zeros(s, np.float16) for k, s in shapes.items()}}
    checkpoint = load_checkpoint(write(tmp_path / "a.pt", torch_zip(file)))
    assert checkpoint.config["num_attention_heads"] == 12
    assert checkpoint.config["num_conv_pos_embedding_groups"] == 16
    assert checkpoint.metadata["assumed"] == []


# The pitch model


@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: {"model": t, "epoch": 3}, lambda t: {"state_dict": t}]
)
def test_rmvpe(tmp_path, wrap):
    tensors = seeded(GOLDEN / "rmvpe_tiny.json")
    checkpoint = load_checkpoint(write(tmp_path / "rmvpe.pt", torch_zip(wrap(tensors))), expect="rmvpe")
    assert same(checkpoint.tensors, tensors)
    assert manifest("rmvpe_tiny")["config"].items() <= checkpoint.config.items()


# Numbers


def test_precisions(tmp_path):
    tensors = {
        "unet.encoder.bn.weight": np.array([1.5], np.float16),
        "unet.encoder.layers.0.conv.0.conv.0.weight": np.ones((4, 1, 3, 3), np.float64),
        "steps": np.array(7, np.int64),
        "bf": Bf16(np.array([0x3FC0, 0xC000], np.uint16)),
    }
    got = load_checkpoint(write(tmp_path / "a.pt", torch_zip(tensors))).tensors
    assert got["unet.encoder.bn.weight"].dtype == np.float16
    assert got["unet.encoder.layers.0.conv.0.conv.0.weight"].dtype == np.float32
    assert (got["steps"].shape, int(got["steps"])) == ((), 7)
    assert (got["bf"].dtype, got["bf"].tolist()) == (np.float32, [1.5, -2.0])


def test_tensors_are_views_of_the_file(tmp_path):
    got = load_checkpoint(GOLDEN / "voice_tiny_32k.pth").tensors["dec.conv_pre.weight"]
    assert not got.flags.writeable
    assert not got.flags.owndata


# Packed files


def packed(tmp_path: Path, kind: str = "voice") -> tuple[Path, Checkpoint]:
    raw = load_checkpoint(GOLDEN / "voice_tiny_32k.pth")
    save_packed(tmp_path / "a.safetensors", kind, raw.tensors, raw.config, raw.metadata)
    return tmp_path / "a.safetensors", raw


def test_packed_round_trip(tmp_path):
    path, raw = packed(tmp_path)
    again = load_checkpoint(path, expect="voice")
    assert again.packed
    assert same(again.tensors, raw.tensors)
    assert (again.config, again.metadata, again.kind) == (raw.config, raw.metadata, "voice")
    assert not again.tensors["dec.conv_pre.weight"].flags.owndata
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_packing_over_the_file_itself(tmp_path):
    path, raw = packed(tmp_path)
    opened = load_checkpoint(path)
    save_packed(path, "voice", opened.tensors, opened.config, opened.metadata)
    assert same(load_checkpoint(path).tensors, raw.tensors)


def test_packing_where_one_cannot_write(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        save_packed(tmp_path / "none" / "a.safetensors", "voice", {}, {}, {})
    with pytest.raises(InputError, match="kind must be one of"):
        save_packed(tmp_path / "a.safetensors", "song", {}, {}, {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        save_packed(tmp_path / "folder", "voice", {}, {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


# The wrong file


def test_expect(tmp_path):
    with pytest.raises(FileFormatError, match="must be a voice, got a HuBERT or ContentVec embedder"):
        load_checkpoint(GOLDEN / "hubert_tiny_fairseq.pt", expect="voice")
    with pytest.raises(InputError, match="expect must be one of voice, hubert, rmvpe, got 'song'"):
        load_checkpoint(GOLDEN / "hubert_tiny_fairseq.pt", expect="song")


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot open .*: No such file"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(FileFormatError, match=r"folder without model\.safetensors or pytorch_model.bin"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"this is a letter, not a voice\n", "it is a text that begins with 'this is a letter"),
        (torch_zip([1, 2]), "must hold a dict of tensors, got list"),
        (torch_zip({"a": 1}), "no dict of tensors"),
        (
            torch_zip({"weight": {"a": np.ones(3, np.float32)}}),
            "a voice without its config, and tensor 'enc_p",
        ),
        (torch_zip({"a.weight": np.ones(3, np.float32)}), "no known model; the first is 'a.weight'"),
        (torch_zip({"model": {"discriminators.0.w": np.ones(3, np.float32)}}), "discriminator"),
        (
            torch_zip({"unet.encoder.bn.weight": np.ones(3, np.float32), "x": "y"}),
            "entry 'x' is not a tensor",
        ),
        (torch_zip({0: np.ones(3, np.float32)}), "no known model; the first is 0"),
        (
            torch_zip(
                {"model": {"unet.encoder.bn.weight": np.ones(3, np.float32), 0: np.ones(1, np.float32)}}
            ),
            "entry 0 is not a tensor",
        ),
        (torch_zip({"unet.encoder.bn.weight": np.ones(3, np.float32)}), "unet.encoder.layers.0.* is missing"),
        (b"\x80\x02}.", "starts with"),
        (torch_legacy({"a": 1})[:60], "too early"),
        (b"{" + Encoder().dump({}), "starts with"),
    ],
)
def test_files_of_another_kind(tmp_path, data, words):
    with pytest.raises(FileFormatError, match=words) as e:
        load_checkpoint(write(tmp_path / "a.pth", data))
    assert "\n" not in str(e.value)
    assert str(e.value).startswith("[weights] cannot load ")
