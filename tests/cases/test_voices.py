"""Voices as several programs write them: the tensors decide, contradictions are refused."""

from __future__ import annotations

import json
import time
import warnings

import numpy as np
import pytest

import rvc_fast
from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.synthesizer import load_voice
from rvc_fast.weights import load_checkpoint, save_packed

from .voices import DEMO, TABLES, config, demo, pth, rate, weights, with_metadata

SOUND = (0.3 * np.sin(np.arange(8000) * 0.08)).astype(np.float32)


def spoken(voice, **models) -> rvc_fast.ConversionResult:
    models = {"embedder": DEMO / "embedder", "pitch_model": DEMO / "rmvpe.pt"} | models
    return rvc_fast.load(voice, **models).convert(SOUND, sample_rate=16000)


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    return spoken(DEMO / "voice.pth").samples


# The table of another sample rate


@pytest.mark.parametrize("said", ["32k", "40k", "48k", "32k of v1", "48k of v1"])
@pytest.mark.parametrize("real", TABLES)
def test_table_of_another_rate(tmp_path, real, said):
    path = pth(tmp_path / "a.pth", {"weight": weights(real), "config": config(said), "version": "v2"})
    voice = load_voice(path)
    assert (voice.sample_rate, voice.config.upsample_rates) == (rate(real), TABLES[real][0])


@pytest.mark.parametrize("real", ["32k", "40k", "48k"])
def test_table_of_another_rate_without_f0(tmp_path, real):
    for said in ("32k", "40k", "48k"):
        file = {"weight": weights(real, f0=False), "config": config(said), "version": "v2"}
        assert load_voice(pth(tmp_path / f"{said}.pth", file)).sample_rate == rate(real)


@pytest.mark.parametrize("said", ["32k of v1", "48k of v1"])
def test_what_no_tensor_tells_is_as_stated(tmp_path, said):
    file = {"weight": weights("48k of v1", f0=False), "config": config(said)}
    assert load_voice(pth(tmp_path / "a.pth", file)).sample_rate == rate(said)


@pytest.mark.parametrize("f0", [True, False])
def test_rates_that_contradict_the_kernels_beside_them(tmp_path, f0):
    stated = config("48k")
    stated[12], stated[17] = [10, 10, 2, 2], 40000
    path = pth(tmp_path / "a.pth", {"weight": weights("48k", f0), "config": stated})
    with pytest.raises(
        FileFormatError, match=r"a\.pth: its config's upsample_rates \[10, 10, 2, 2\] contradict"
    ):
        load_voice(path)


def test_a_rate_that_is_not_that_of_the_table(tmp_path):
    path = pth(tmp_path / "a.pth", {"weight": weights("40k"), "config": config("40k", sr=48000)})
    assert load_voice(path).sample_rate == 40000
    own = demo()
    own["config"][17] *= 2  # its table is no published one, so nothing else tells its rate
    with pytest.raises(FileFormatError, match=r"its config's sr 48000 contradicts its upsample_rates"):
        load_voice(pth(tmp_path / "b.pth", own))


def test_the_table_of_another_voice_for_an_unpublished_one(tmp_path):
    own = demo()
    own["config"][12:15] = config("40k")[12:15]
    with pytest.raises(FileFormatError, match="upsample_rates has 4 values for 3 stages"):
        load_voice(pth(tmp_path / "a.pth", own))
    own["config"][12], own["config"][14] = [10, 10, 2], [16, 16, 4]
    with pytest.raises(FileFormatError, match="its config is the table of another voice"):
        load_voice(pth(tmp_path / "b.pth", own))


# Names of decoders


@pytest.mark.parametrize("name", ["Default", "hifigan", "NSF-HiFi-GAN", "", None, "RefineGAN", "BigVGAN"])
def test_names_of_hifigan(tmp_path, reference, name):
    path = pth(tmp_path / "a.pth", demo() | {"vocoder": name})
    assert np.array_equal(spoken(path).samples, reference)


@pytest.mark.parametrize("part", ["alphas.0", "activation_post.act.alpha", "conformers.0.weight"])
def test_decoders_that_are_not_read(tmp_path, part):
    file = demo() | {"vocoder": "RingFormer"}
    file["weight"] |= {f"dec.{part}": np.ones(3, np.float32)}
    with pytest.raises(FileFormatError, match=r"none of HiFi-GAN.*'dec\..*is named 'RingFormer'"):
        load_voice(pth(tmp_path / "a.pth", file))


# Configs of 19 values, in metadata, missing


def nineteen() -> dict:
    file = demo()
    return file | {"config": [*file["config"][:-1], 128, "24k"], "embedder_name": "contentvec"}


def test_config_of_19_values(tmp_path, reference):
    path = pth(tmp_path / "a.pth", nineteen())
    assert np.array_equal(spoken(path).samples, reference)


def test_no_version(tmp_path):
    file = nineteen()
    del file["version"]
    assert load_voice(pth(tmp_path / "a.pth", file)).config.version == "v2"


@pytest.mark.parametrize("said", ["v1", "v2", None])
@pytest.mark.parametrize(("width", "version"), [(256, "v1"), (768, "v2")])
def test_the_width_of_public_features_tells_the_version(tmp_path, width, version, said):
    file = demo() | {"version": said}
    file["weight"] |= {"enc_p.emb_phone.weight": np.zeros((64, width), np.float16)}
    assert load_voice(pth(tmp_path / "a.pth", file)).config.version == version


def test_config_in_metadata(tmp_path, reference):
    path = with_metadata(tmp_path / "a.safetensors", demo() | {"embedder_model": "contentvec", "author": "x"})
    checkpoint = load_checkpoint(path)
    assert checkpoint.metadata["source"] == "safetensors"
    assert (checkpoint.metadata["author"], checkpoint.config["sr"]) == ("x", 24000)
    assert np.array_equal(spoken(path).samples, reference)


@pytest.mark.parametrize("table", ["32k of v1", "48k of v1"])
def test_config_in_metadata_tells_what_tensors_do_not(tmp_path, table):
    file = {"weight": weights(table, f0=False), "config": config(table), "f0": 0, "version": "v2"}
    assert load_voice(with_metadata(tmp_path / "a.safetensors", file)).sample_rate == rate(table)


def test_config_in_metadata_that_is_damaged(tmp_path):
    path = with_metadata(tmp_path / "a.safetensors", demo() | {"config": "[1025, 32"})
    with pytest.raises(FileFormatError, match="the config in its metadata is not JSON"):
        load_voice(path)


@pytest.mark.parametrize("missing", [{}, {"config": []}, {"config": None}], ids=["absent", "empty", "none"])
@pytest.mark.parametrize("table", TABLES)
def test_published_decoders_need_no_config(tmp_path, table, missing):
    file = {"weight": weights(table), "version": "v2"} | missing
    assert load_voice(pth(tmp_path / "a.pth", file)).sample_rate == rate(table)


def test_the_stated_rate_tells_what_tensors_do_not(tmp_path):
    file = {"weight": weights("48k of v1", f0=False), "config": []}
    with pytest.raises(FileFormatError, match=r"a voice without its config, and .* may be 32k or 48k"):
        load_voice(pth(tmp_path / "a.pth", file))
    assert load_voice(pth(tmp_path / "b.pth", file | {"sr": "48k"})).sample_rate == 48000


# The encoder that a voice was trained on


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        ({"embedder_model": "japanese-hubert-base"}, True),
        ({"embedder_name": "hubert-base-japanese"}, True),
        ({"embedder_model": "custom"}, True),
        ({"embedder_model": "spin"}, True),
        ({"embedder_model": "contentvec"}, False),
        ({"embedder_name": "hubert_base"}, False),
        ({"embedder_name": "assets/hubert/hubert_base.pt"}, False),
        ({}, False),
    ],
)
def test_another_encoder_than_the_default(tmp_path, monkeypatch, said, warned):
    # An encoder as wide as the demo voice takes it stands for contentvec.
    monkeypatch.setattr("rvc_fast.weights.configs.VERSIONS", {128: "v2"})
    monkeypatch.setattr("rvc_fast.weights.registry.Model.path", DEMO / "embedder")
    monkeypatch.setattr("rvc_fast.weights.registry.Model.present", True)
    path = pth(tmp_path / "a.pth", demo() | said)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        rvc_fast.load(path, pitch_model=DEMO / "rmvpe.pt")
        assert len(heard) == warned
        rvc_fast.load(path, pitch_model=DEMO / "rmvpe.pt", embedder=DEMO / "embedder")
    assert len(heard) == warned
    if warned:
        assert next(iter(said.values())) in str(heard[0].message)
        assert "--embedder" in str(heard[0].message)


@pytest.mark.parametrize("width", [128, 768], ids=["another width", "the width of contentvec"])
def test_an_encoder_that_must_be_given_is_named(tmp_path, monkeypatch, width):
    monkeypatch.setenv("RVC_FAST_CACHE", str(tmp_path))
    monkeypatch.setattr("rvc_fast.weights.configs.VERSIONS", {width: "v2"})
    path = pth(tmp_path / "a.pth", demo() | {"embedder_model": "spin"})
    with pytest.raises(
        InputError, match=r"features of 'spin', not of contentvec: give that encoder \(--embedder"
    ):
        rvc_fast.load(path)
    if width == 128:
        with pytest.raises(InputError, match="rvc-fast models pull contentvec"):
            rvc_fast.load(pth(tmp_path / "b.pth", demo()))


def test_layer_of_the_encoder_is_taken(tmp_path, reference):
    second = pth(tmp_path / "2.pth", demo() | {"embedder_output_layer": 2})
    assert not np.array_equal(spoken(second).samples, reference)
    last = pth(tmp_path / "4.pth", demo() | {"embedder_output_layer": "4"})
    assert np.array_equal(spoken(last).samples, reference)
    beyond = pth(tmp_path / "12.pth", demo() | {"embedder_output_layer": 12})
    with pytest.warns(UserWarning, match="takes layer 12 of its encoder, this one has 4"):
        assert np.array_equal(spoken(beyond).samples, reference)


@pytest.mark.parametrize("layer", [0, -1, 2.5, 10**9, "last", [2]])
def test_layers_that_no_encoder_has(tmp_path, layer):
    with pytest.raises(FileFormatError, match="embedder_output_layer must be from 1 to 64"):
        load_voice(pth(tmp_path / "a.pth", demo() | {"embedder_output_layer": layer}))


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (256, r"\[hubert\] a v1 voice needs an embedder with final_proj"),
        (768, r"\[load\] .* 768 values, .* 128"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_at_load(tmp_path, width, words):
    file = demo()
    file["weight"] |= {"enc_p.emb_phone.weight": np.zeros((64, width), np.float16)}
    with pytest.raises(InputError, match=words):
        rvc_fast.load(
            pth(tmp_path / "a.pth", file), embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt"
        )


# Sizes that no tensor confirms


@pytest.mark.parametrize("dilation", [65, 1000, 1 << 20])
def test_dilations_are_bounded(tmp_path, dilation):
    file = demo()
    file["config"][11] = [[dilation] * 3 for _ in file["config"][11]]
    with pytest.raises(FileFormatError, match="resblock_dilation_sizes must be a whole number from 1 to 64"):
        load_voice(pth(tmp_path / "a.pth", file))


@pytest.mark.parametrize(
    "change",
    [
        {"upsample_rates": [1 << 20, 1, 1]},
        {"sr": 10**9},
        {"sr": 48000},
        {"resblock_dilation_sizes": [[10**6] * 3] * 2},
        {"vocoder": "RefineGAN", "upsample_rates": [1 << 10, 1 << 10], "sr": 100 << 20},
        {"embedder_layer": 10**9},
        {"embedder": 5},
    ],
)
def test_packed_voices_are_bounded(tmp_path, change):
    checkpoint = load_checkpoint(DEMO / "voice.pth")
    save_packed(tmp_path / "a.safetensors", "voice", {}, checkpoint.config | change)
    start = time.process_time()
    with pytest.raises(FileFormatError, match="must be"):
        load_voice(tmp_path / "a.safetensors")
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "change",
    [
        {"conv_stride": [0] * 7},
        {"conv_stride": ["a"] * 7},
        {"conv_stride": [10**9] * 7},
        {"conv_stride": [2.5] * 7},
        {"conv_stride": 5},
        {"conv_stride": {}},
        {"conv_stride": [[5]] * 7},
        {"conv_stride": [1] * 7},
        {"conv_stride": [-5, 2, 2, 2, 2, 2, 2]},
        {"conv_stride": [5, 2, 2, 2, 2, 2, 10**6]},
        {"conv_stride": [2, 5, 2, 2, 2, 2, 2]},
        {"layer_norm_eps": "x"},
        {"layer_norm_eps": 0},
        {"layer_norm_eps": float("nan")},
        {"num_attention_heads": [4]},
        {"num_attention_heads": 3},
        {"hidden_act": "relu"},
    ],
    ids=str,
)
def test_configs_of_encoders_are_bounded(tmp_path, change):
    config = json.loads((DEMO / "embedder" / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((DEMO / "embedder" / "model.safetensors").read_bytes())
    with pytest.raises(FileFormatError, match="must"):
        rvc_fast.load(DEMO / "voice.pth", embedder=tmp_path, pitch_model=DEMO / "rmvpe.pt")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("hubert", {"num_hidden_layers": 10**9}),
        ("hubert", {"hidden_size": 10**9}),
        ("hubert", {"conv_kernel": [10**9] * 7}),
        ("hubert", {"num_conv_pos_embedding_groups": 0}),
        ("hubert", {"num_conv_pos_embeddings": "128"}),
        ("rmvpe", {"n_blocks": 10**9}),
        ("rmvpe", {"n_gru": "1"}),
        ("rmvpe", {"en_de_layers": 10**9, "kernel_size": [1, 1]}),
        ("rmvpe", {"inter_layers": 0}),
        ("rmvpe", {"kernel_size": [2]}),
        ("rmvpe", {"kernel_size": "22"}),
        ("rmvpe", {"gru_hidden": 10**9}),
        ("rmvpe", {"en_out_channels": [16]}),
    ],
    ids=str,
)
def test_packed_encoders_and_pitch_models_are_bounded(tmp_path, kind, change):
    source = {"hubert": DEMO / "embedder", "rmvpe": DEMO / "rmvpe.pt"}[kind]
    save_packed(tmp_path / "a.safetensors", kind, {}, load_checkpoint(source).config | change)
    models = {"hubert": "embedder", "rmvpe": "pitch_model"}
    given = {"embedder": DEMO / "embedder", "pitch_model": DEMO / "rmvpe.pt"}
    start = time.process_time()
    with pytest.raises(FileFormatError, match=r"must"):
        rvc_fast.load(DEMO / "voice.pth", **given | {models[kind]: tmp_path / "a.safetensors"})
    assert time.process_time() - start < 2
