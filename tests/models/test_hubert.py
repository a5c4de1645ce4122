"""HuBERT against PyTorch's outputs, and every spelling of its files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.features import hubert
from rvc_fast.features.hubert import HubertConfig, HubertModel, load_hubert
from rvc_fast.weights.checkpoint import load_checkpoint, save_packed

GOLDEN = Path(__file__).parent.parent / "golden"
MODEL = "hubert_tiny"
TO_FAIRSEQ = [
    ("feature_extractor.conv_layers.0.layer_norm.", "feature_extractor.conv_layers.0.2."),
    (".conv.weight", ".0.weight"),
    ("feature_projection.layer_norm.", "layer_norm."),
    ("feature_projection.projection.", "post_extract_proj."),
    ("encoder.pos_conv_embed.conv.parametrizations.weight.original0", "encoder.pos_conv.0.weight_g"),
    ("encoder.pos_conv_embed.conv.parametrizations.weight.original1", "encoder.pos_conv.0.weight_v"),
    ("encoder.pos_conv_embed.conv.", "encoder.pos_conv.0."),
    (".attention.", ".self_attn."),
    ("feed_forward.intermediate_dense", "fc1"),
    ("feed_forward.output_dense", "fc2"),
    ("masked_spec_embed", "mask_emb"),
]


def build(tensors, config):
    return HubertModel.from_checkpoint(
        SimpleNamespace(tensors=tensors, config=config, packed=False, kernels=None)
    )


def test_every_step_matches_pytorch(model, recorded, snr):
    steps = model.trace(recorded["audio"])
    for name in recorded.keys() - {"audio"}:
        assert snr(steps[name], recorded[name]) >= 110, name


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_features_match_pytorch(model, recorded, version, snr):
    assert snr(model.features(recorded["audio"], version), recorded[f"{version}_features"]) >= 110


def test_blocks_give_the_same_features(model, recorded, monkeypatch, snr):
    want = np.array(model.features(recorded["audio"], "v2"))
    monkeypatch.setattr(hubert, "FRONT_END_BLOCK", 7)
    assert snr(model.features(recorded["audio"], "v2"), want) >= 125


def fairseq_names(tensors):
    out = {}
    for name, tensor in tensors.items():
        if "encoder.layers" in name:
            name = name.replace(".layer_norm.", ".self_attn_layer_norm.")
        for ours, theirs in TO_FAIRSEQ:
            name = name.replace(ours, theirs)
        out[name] = tensor
    return out


def test_fairseq_names_and_training_tensors(manifest, tensors, model, recorded):
    renamed = {**fairseq_names(tensors), "label_embs_concat": np.ones((5, 4), np.float32)}
    assert "encoder.layers.3.self_attn_layer_norm.bias" in renamed
    assert "feature_extractor.conv_layers.4.0.weight" in renamed
    other = build(renamed, manifest["config"])
    want = model.features(recorded["audio"], "v2")
    assert mx.array_equal(other.features(recorded["audio"], "v2"), want)


def test_files_as_people_have_them_and_packed(recorded, tmp_path, snr):
    path = GOLDEN / "hubert_tiny_fairseq.pt"
    want = recorded["v1_features"]
    assert snr(load_hubert(path).features(recorded["audio"], "v1"), want) >= 110
    raw = load_checkpoint(path, expect="hubert")
    packed = tmp_path / "hubert.safetensors"
    save_packed(packed, "hubert", HubertModel.sanitize(raw.tensors), raw.config, {})
    assert snr(load_hubert(packed).features(recorded["audio"], "v1"), want) >= 110


def test_prefix_half_precision_and_folded_weight_norm(manifest, tensors, recorded, snr):
    half = {k: v.astype(np.float16) for k, v in tensors.items()}
    want = build({k: v.astype(np.float32) for k, v in half.items()}, manifest["config"])
    name = "encoder.pos_conv_embed.conv."
    g = half.pop(name + "parametrizations.weight.original0").astype(np.float64)
    v = half.pop(name + "parametrizations.weight.original1").astype(np.float64)
    half[name + "weight"] = (v * g / np.sqrt((v * v).sum((0, 1)))).astype(np.float32)
    got = build({"hubert." + k: v for k, v in half.items()}, manifest["config"])
    audio = recorded["audio"]
    assert snr(got.features(audio, "v1"), want.features(audio, "v1")) >= 110


def test_packed_tensors_load_as_they_are(manifest, tensors, model, recorded):
    checkpoint = SimpleNamespace(
        tensors=HubertModel.sanitize(tensors), config=manifest["config"], packed=True, kernels=None
    )
    other = HubertModel.from_checkpoint(checkpoint)
    assert mx.array_equal(other.features(recorded["audio"], "v1"), model.features(recorded["audio"], "v1"))


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_tensor_that_does_not_fit_is_named(manifest, tensors, change):
    broken = dict(tensors)
    name = "encoder.layers.2.feed_forward.output_dense.bias"
    ours = "layers.2.output.bias"
    if change == "missing":
        del broken[name]
    elif change == "extra":
        name = ours = "something.else"
        broken[name] = np.ones(3, np.float32)
    else:
        broken[name] = np.ones(3, np.float32)
    with pytest.raises(FileFormatError, match=ours):
        build(broken, manifest["config"])


@pytest.mark.parametrize(
    "name",
    [
        "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
        "encoder.layers.1.attention.v_proj.weight",
        "feature_extractor.conv_layers.0.conv.weight",
    ],
)
def test_a_tensor_of_another_rank_is_refused(manifest, tensors, name):
    with pytest.raises(FileFormatError, match=r"\[hubert\]"):
        build({**tensors, name: np.ones(5, np.float32)}, manifest["config"])


@pytest.mark.parametrize(
    ("gain", "direction", "words"),
    [
        (np.ones((4000, 1, 1)), np.ones((1, 4000, 8)), r"has shapes \(4000, 1, 1\) and \(1, 4000, 8\)"),
        (np.ones((1, 1, 8)), np.zeros((64, 4, 8)), "not finite"),
        (np.full((1, 1, 8), 1e30), np.full((64, 4, 8), 1e-30), "not finite"),
    ],
)
def test_a_weight_norm_cannot_make_more_than_it_has_or_no_numbers(
    manifest, tensors, recwarn, gain, direction, words
):
    """Numpy would spread the first of these over 4000 x 4000 x 8 numbers."""
    name = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    spoilt = {**tensors, f"{name}0": gain.astype(np.float32), f"{name}1": direction.astype(np.float32)}
    with pytest.raises(FileFormatError, match=words):
        build(spoilt, manifest["config"])
    assert not recwarn.list


def test_a_model_without_final_proj_serves_v2_only(manifest, tensors, recorded, snr):
    model = build({k: v for k, v in tensors.items() if not k.startswith("final_proj")}, manifest["config"])
    assert snr(model.features(recorded["audio"], "v2"), recorded["v2_features"]) >= 110
    with pytest.raises(InputError, match="final_proj"):
        model.features(recorded["audio"], "v1")
    assert "v1_features" not in model.trace(recorded["audio"])


@pytest.mark.parametrize(("samples", "frames"), [(400, 1), (719, 1), (720, 2), (16000, 49)])
def test_frame_count(model, samples, frames):
    audio = mx.random.normal((samples,), key=mx.random.key(samples))
    features = model.features(audio, "v2")
    assert features.shape == (frames, 64)
    assert mx.isfinite(features).all()


def test_silence_is_finite(model):
    assert mx.isfinite(model.features(mx.zeros((4000,)), "v1")).all()


@pytest.mark.parametrize(
    "audio", [mx.zeros((399,)), mx.zeros((0,)), mx.zeros((1, 1, 16000)), mx.zeros((0, 16000))]
)
def test_audio_that_cannot_be_used_is_refused(model, audio):
    with pytest.raises(InputError, match=r"\[hubert\] audio must be \(n,\) or \(B, n\) with n >= 400, got"):
        model.features(audio, "v2")


def test_unknown_version_is_refused(model):
    with pytest.raises(InputError, match="version must be 'v1' or 'v2', got 'v3'"):
        model.features(mx.zeros((4000,)), "v3")


def test_config_reads_lists_drops_unknown_keys_and_refuses_other_layouts():
    config = HubertConfig.from_dict(
        {"conv_dim": [8, 9], "conv_kernel": [80, 5], "conv_stride": [80, 4], "x": 1}
    )
    assert config.conv_dim == (8, 9)
    assert (config.hop, config.window) == (320, 400)
    assert (HubertConfig().hop, HubertConfig().window) == (320, 400)
    for values in (
        {"feat_extract_norm": "layer"},
        {"do_stable_layer_norm": True},
        {"conv_dim": [8]},
        {"num_attention_heads": 5},
    ):
        with pytest.raises(FileFormatError, match=r"\[hubert\]"):
            HubertConfig.from_dict(values)
