"""The synthesizer against PyTorch's outputs, and what it must refuse."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file

from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.noise import SeededNoise
from rvc_fast.ops import resblock
from rvc_fast.synthesizer import Synthesizer, SynthesizerConfig, hifigan, refinegan
from rvc_fast.verify.seeded import read_manifest, seeded_normal, seeded_uniform, seeded_weights

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ("synth_tiny_32k", "synth_tiny_nof0_40k", "synth_tiny_mrf_40k")
NEW_NORM = (".parametrizations.weight.original0", ".parametrizations.weight.original1")


class Replay:
    """Gives the noise of a golden run, and insists on its order and shapes."""

    def __init__(self, seed: int, entries: list[Any]):
        self.seed, self.left = seed, list(entries)

    def _next(self, kind: str, shape: tuple[int, ...]) -> str:
        name, wanted = self.left.pop(0)
        assert f".{kind}." in name
        assert shape == tuple(wanted)
        return name

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        return mx.array(seeded_normal(self.seed, self._next("noise", shape), shape))

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        return mx.array(seeded_uniform(self.seed, self._next("phase", shape), shape))


class Recorder(SeededNoise):
    """Notes what is drawn."""

    def __init__(self) -> None:
        super().__init__(0)
        self.drawn: list[tuple[str, tuple[int, ...]]] = []

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        self.drawn.append(("normal", shape))
        return super().normal(shape)

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        self.drawn.append(("uniform", shape))
        return super().uniform(shape)


def settings(manifest: dict[str, Any]) -> dict[str, Any]:
    keys = ("use_f0", "text_enc_hidden_dim", "vocoder")
    return {**manifest["config"], **{key: manifest[key] for key in keys}}


def build(config: dict[str, Any], tensors: dict[str, np.ndarray], packed: bool = False) -> Synthesizer:
    return Synthesizer.from_checkpoint(
        SimpleNamespace(config=config, tensors=tensors, packed=packed, kernels=None)
    )


@pytest.fixture(scope="module")
def voices() -> dict[str, tuple[dict[str, Any], dict[str, np.ndarray], Synthesizer]]:
    found = {}
    for case in CASES:
        manifest = read_manifest(GOLDEN / f"{case}.json")
        tensors = seeded_weights(manifest)
        found[case] = manifest, tensors, build(settings(manifest), tensors)
    return found


@pytest.fixture
def tiny(voices):
    """(configuration, tensors, model) of the small HiFi-GAN voice, free to be changed."""
    manifest, tensors, model = voices["synth_tiny_32k"]
    return copy.deepcopy(settings(manifest)), dict(tensors), model


def inputs(model: Synthesizer, length: int, seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    phone = rng.standard_normal((1, length, model.config.text_enc_hidden_dim), dtype=np.float32)
    if not model.config.use_f0:
        return mx.array(phone), None, None
    f0 = rng.uniform(80, 400, (1, length)) * (rng.random((1, length)) < 0.8)
    pitch = rng.integers(1, 256, (1, length)).astype(np.int32)
    return mx.array(phone), mx.array(pitch), mx.array(f0.astype(np.float32))


def random_voice(config: dict[str, Any]) -> Synthesizer:
    """A voice with seeded weights in MLX's layout, from nothing but its configuration."""
    tensors = {}
    for name, value in tree_flatten(Synthesizer(SynthesizerConfig.from_dict(config)).parameters()):
        fan = max(int(np.prod(value.shape[1:])), 1)
        draw = seeded_normal(7, name, value.shape)
        tensors[name] = draw / np.float32(np.sqrt(fan)) if value.ndim > 1 else draw * np.float32(0.1)
    return build(config, tensors, packed=True)


@pytest.mark.parametrize("case", CASES)
def test_golden(voices, snr, case):
    manifest, _, model = voices[case]
    settings = json.loads((GOLDEN / "cases.json").read_text())[case]
    want = load_file(GOLDEN / f"{case}.safetensors")
    replay = Replay(manifest["seed"], settings["noise"])
    given = [mx.array(want[name]) if name in want else None for name in ("phone", "pitch", "f0")]
    got = model.trace(*given, settings["sid"], replay)
    assert not replay.left
    expected = set(want) - {"phone", "pitch", "f0"}
    assert {"m_p", "logs_p", "z_p", "z", "audio"} <= expected <= set(got)
    for name in expected:
        assert snr(got[name][0], want[name]) >= 105, name


@pytest.mark.parametrize("spelling", ["old", "fused"])
def test_weight_norm_spellings(tiny, spelling):
    config, tensors, model = tiny
    renamed = {}
    for name, value in tensors.items():
        if spelling == "old":
            name = name.replace(NEW_NORM[0], ".weight_g").replace(NEW_NORM[1], ".weight_v")
        elif name.endswith(NEW_NORM[1]):
            gain = tensors[name.replace(*reversed(NEW_NORM))]
            value = value * (gain / np.sqrt((value**2).sum((1, 2), keepdims=True)))
            name = name.replace(NEW_NORM[1], ".weight")
        elif name.endswith(NEW_NORM[0]):
            continue
        renamed[name] = value
    assert not any("parametrizations" in name for name in renamed)
    given = inputs(model, 5)
    want = model.infer(*given, 0, SeededNoise(3))
    got = build(config, renamed).infer(*given, 0, SeededNoise(3))
    np.testing.assert_allclose(np.array(got), np.array(want), atol=1e-6)


def test_half_precision_file_gives_float32_parameters(tiny):
    config, tensors, _ = tiny
    model = build(config, {name: value.astype(np.float16) for name, value in tensors.items()})
    assert {value.dtype for _, value in tree_flatten(model.parameters())} == {mx.float32}


def test_packed_tensors_skip_sanitize(tiny):
    config, tensors, model = tiny
    given = inputs(model, 4)
    again = build(config, Synthesizer.sanitize(tensors), packed=True)
    want, got = (voice.infer(*given, 1, SeededNoise(3)) for voice in (model, again))
    assert mx.array_equal(want, got)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("length", [1, 2, 11, 23])
def test_any_length(voices, case, length):
    model = voices[case][2]
    audio = model.infer(*inputs(model, length), 3, SeededNoise(0))
    assert audio.shape == (1, length * model.hop)
    assert bool(mx.isfinite(audio).all())
    assert float(mx.abs(audio).max()) <= 1


def test_speaker_and_seed_matter(voices):
    model = voices["synth_tiny_32k"][2]
    given = inputs(model, 4)
    first = model.infer(*given, 0, SeededNoise(0))
    assert mx.array_equal(first, model.infer(*given, 0, SeededNoise(0)))
    assert not mx.allclose(first, model.infer(*given, 1, SeededNoise(0)), atol=1e-3)
    assert not mx.allclose(first, model.infer(*given, 0, SeededNoise(1)), atol=1e-3)


def test_pieces_along_time_are_the_whole(monkeypatch):
    """What runs without a compiled stage: 4 * halo = 240 steps is the least piece, so 700 are cut in three."""
    rng = np.random.default_rng(0)
    block = hifigan.ResBlock(8, 11, (1, 3, 5))
    for _, layer in block.named_modules():
        if "weight" in layer:
            layer.weight = mx.array(
                rng.standard_normal(layer.weight.shape, dtype=np.float32) * np.float32(0.05)
            )
    x = mx.array(rng.standard_normal((1, 700, 8), dtype=np.float32))
    whole = resblock.SPEC.reference(x, [block.block()])
    monkeypatch.setattr(resblock, "PIECE", 1)
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    pieces = resblock.resblock_stage(x, [block.block()])
    np.testing.assert_allclose(np.array(pieces), np.array(whole), atol=2e-6)


def test_v1_width(tiny):
    config, _, _ = tiny
    model = random_voice({**config, "text_enc_hidden_dim": 256, "version": "v1"})
    assert model.config.version == "v1"
    assert model.infer(*inputs(model, 3), 0, SeededNoise(0)).shape == (1, 3 * model.hop)


def test_odd_rates(tiny):
    config, _, _ = tiny
    odd = {"upsample_rates": [7, 3], "upsample_kernel_sizes": [14, 6], "sr": 2100}
    model = random_voice({**config, **odd})
    assert model.infer(*inputs(model, 5), 0, SeededNoise(0)).shape == (1, 5 * 21)


def test_resblock_2(tiny):
    config, _, _ = tiny
    model = random_voice({**config, "resblock": "2", "resblock_dilation_sizes": [[1, 3]] * 3})
    names = [name for name, _ in tree_flatten(model.parameters())]
    assert "dec.resblocks.0.convs.1.bias" in names
    assert not any("convs1" in name for name in names)
    assert model.infer(*inputs(model, 3), 0, SeededNoise(0)).shape == (1, 3 * model.hop)


def test_resblock_2_by_hand():
    rng = np.random.default_rng(0)
    block = hifigan.ResBlock(32, 3, (1, 3), kind="2")
    for layer in block.convs:
        layer.weight = mx.array(rng.standard_normal((32, 3, 32), dtype=np.float32) * np.float32(0.1))
        layer.bias = mx.array(rng.standard_normal(32, dtype=np.float32))
    x = mx.array(rng.standard_normal((1, 50, 32), dtype=np.float32))
    want = x
    for layer, dilation in zip(block.convs, (1, 3), strict=True):
        y = mx.conv1d(mx.maximum(want, 0.1 * want), layer.weight, padding=dilation, dilation=dilation)
        want = want + y + layer.bias
    got = resblock.resblock_stage(x, [block.block()], slope=0.1)
    np.testing.assert_allclose(np.array(got), np.array(want), atol=3e-5)  # 106 dB, the fast algorithms' bar


REFINEGAN = {
    "vocoder": "RefineGAN",
    "upsample_rates": [4, 2],
    "upsample_kernel_sizes": [8, 4],
    "upsample_initial_channel": 128,
    "sr": 800,
}


def test_refinegan_draws_and_anchor(tiny):
    """Draws in the public code's order; the sound as when the full-size PyTorch case agreed (118 dB)."""
    model = random_voice({**tiny[0], **REFINEGAN})
    noise = Recorder()
    audio = model.infer(*inputs(model, 9), 0, noise)
    assert noise.drawn == [
        ("normal", (1, 32, 9)),
        ("uniform", (1, 1)),
        ("normal", (1, 72, 1)),
        *[("normal", (1, 64, 36))] * 6,
        *[("normal", (1, 32, 72))] * 6,
    ]
    assert audio.shape == (1, 72)

    kinds = {"normal": "noise", "uniform": "phase"}
    entries = [[f"draw.{kinds[kind]}.{i}", shape] for i, (kind, shape) in enumerate(noise.drawn)]
    (audio,) = np.array(model.infer(*inputs(model, 9), 0, Replay(1, entries)))
    np.testing.assert_allclose(audio[[0, 17, 40, 71]], [0.001942, -0.427505, -0.394261, -0.171708], atol=1e-4)


DECODERS = {
    "pairs": {},
    "single convolutions": {"resblock": "2"},
    "odd rates": {
        "upsample_rates": [3, 7],
        "upsample_kernel_sizes": [6, 14],
        "sr": 2100,
    },
    "without f0": {"use_f0": False},
    "MRF": {"vocoder": "MRF HiFi-GAN"},
    "RefineGAN": REFINEGAN,
}


@pytest.mark.parametrize("first", [0, 20, -7], ids=["beginning", "middle", "end"])
@pytest.mark.parametrize("options", DECODERS.values(), ids=DECODERS)
def test_a_part_is_what_the_whole_has_there(tiny, snr, options, first):
    """Flow and decoder work on a part and what their layers reach beside it; at both ends of the sound as well."""
    model = random_voice({**tiny[0], **options})
    reach = model.dec.reach
    length = 2 * reach + 50
    start = {0: 0, 20: reach + 20, -7: length - 7}[first]
    part = slice(start, start + 7)
    given = inputs(model, length)
    whole = model.trace(*given, 1, SeededNoise(0))
    got = model.trace(*given, 1, SeededNoise(0), part)
    assert got["z"].shape[1] == 7 + (2 if first == 20 else 1) * reach
    want = np.array(whole["audio"])[:, part.start * model.hop : part.stop * model.hop]
    assert got["audio"].shape == want.shape
    assert snr(got["audio"], want) > 110


def test_a_part_without_frames_has_no_samples(tiny):
    model = random_voice(tiny[0])
    assert model.infer(*inputs(model, 9), 0, SeededNoise(0), slice(5, 5)).shape == (1, 0)


@pytest.mark.parametrize("options", DECODERS.values(), ids=DECODERS)
def test_reach_is_as_far_as_needed(tiny, options, monkeypatch):
    """What a frame of latent and source changes ends shortly before the reach, which counts whole steps.

    On the reference, whose sums are not touched by what they do not have as a term.
    """
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    model = random_voice({**tiny[0], **options})
    rng = np.random.default_rng(0)
    middle, hop = model.dec.reach + 4, model.hop
    frames = 2 * middle
    z = rng.standard_normal((1, frames, model.config.inter_channels), dtype=np.float32)
    source = rng.standard_normal((1, frames * hop, 1), dtype=np.float32) if model.config.use_f0 else None
    g = model.emb_g(mx.array([[0]]))

    def sound() -> np.ndarray:
        given = None if source is None else mx.array(source)
        return np.array(model.dec(mx.array(z), g, given, SeededNoise(0)))[0, :, 0]

    before = sound()
    z[:, middle] += 100
    if source is not None:
        source[:, middle * hop : (middle + 1) * hop] += 100
    changed = np.flatnonzero(sound() != before) // hop
    reached = max(middle - changed[0], changed[-1] - middle)
    reach = model.dec.reach
    assert reach - max(3, reach // 8) <= reached <= reach


def test_refinegan_downsample_is_a_sharp_low_pass():
    n, rate = 4000, 8
    t = np.arange(n)
    low, high = np.cos(2 * np.pi * 0.02 * t), np.cos(2 * np.pi * 0.1 * t)
    x = mx.array(np.stack([low, high], axis=1).astype(np.float32)[None])
    y = np.array(refinegan.downsample(x, rate))[0]
    assert y.shape == (n // rate, 2)
    middle = slice(100, -100)
    np.testing.assert_allclose(y[middle, 0], low[::rate][middle], atol=1e-4)
    assert np.abs(y[middle, 1]).max() < 1e-4


@pytest.mark.parametrize("rate", [2, 3])
@pytest.mark.parametrize("length", [1, 5])
def test_refinegan_upsample_is_linear_interpolation(rate, length):
    x = np.random.default_rng(0).standard_normal((1, length, 3), dtype=np.float32)
    places = (np.arange(length * rate) + 0.5) / rate - 0.5
    want = np.stack([np.interp(places, np.arange(length), x[0, :, c]) for c in range(3)], axis=1)
    np.testing.assert_allclose(np.array(refinegan.upsample(mx.array(x), rate))[0], want, atol=1e-6)


def test_training_only_tensors_are_dropped(tiny):
    config, tensors, _ = tiny
    more = {
        "enc_q.pre.weight": np.full((32, 1025, 1), np.nan, np.float32),
        "enc_q.enc.cond_layer.weight_g": np.ones((64, 1, 1), np.float32),
    }
    assert not any(name.startswith("enc_q.") for name in Synthesizer.sanitize({**tensors, **more}))
    build(config, {**tensors, **more})


@pytest.mark.parametrize(
    "name",
    [
        "enc_p.proj.bias",
        "dec.ups.1" + NEW_NORM[0],
        "flow.flows.2.enc.in_layers.0" + NEW_NORM[1],
        "emb_g.weight",
    ],
)
def test_missing_tensor_is_named(tiny, name):
    config, tensors, _ = tiny
    del tensors[name]
    with pytest.raises(FileFormatError, match=name.replace(".", r"\.") + "' is missing"):
        build(config, tensors)


def test_left_over_tensor_is_named(tiny):
    config, tensors, _ = tiny
    with pytest.raises(FileFormatError, match=r"'dec\.surprise\.weight' has no place"):
        build(config, {**tensors, "dec.surprise.weight": np.zeros(3, np.float32)})


def test_wrong_shape_is_named(tiny):
    config, tensors, _ = tiny
    tensors["enc_p.emb_pitch.weight"] = np.zeros((256, 31), np.float32)
    with pytest.raises(FileFormatError, match=r"'enc_p\.emb_pitch\.weight' must be of shape \(256, 32\)"):
        build(config, tensors)


def test_weight_in_two_spellings(tiny):
    config, tensors, _ = tiny
    with pytest.raises(FileFormatError, match=r"'dec\.ups\.0\.weight' is there in two spellings"):
        build(config, {**tensors, "dec.ups.0.weight": np.zeros((64, 32, 20), np.float32)})


def test_numbers_that_are_not_finite_are_named(tiny):
    config, tensors, _ = tiny
    for stored, name in (("dec.conv_post.weight",) * 2, ("dec.ups.0" + NEW_NORM[1], "dec.ups.0.weight")):
        broken = {**tensors, stored: np.zeros_like(tensors[stored]) / np.float32("nan")}
        with pytest.raises(FileFormatError, match=name.replace(".", r"\.") + "' holds numbers"):
            build(config, broken)


def test_weight_norm_that_does_not_fit(tiny):
    config, tensors, _ = tiny
    tensors["dec.ups.0" + NEW_NORM[0]] = np.ones((3, 1, 1), np.float32)
    with pytest.raises(FileFormatError, match=r"weight norm of 'dec\.ups\.0'"):
        build(config, tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocoder": "WaveGlow"}, "vocoder must be one of"),
        ({"vocoder": "MRF HiFi-GAN", "use_f0": False}, "vocoder without f0"),
        ({"n_heads": 3}, "hidden_channels must be a multiple of 3"),
        ({"inter_channels": 31}, "inter_channels must be even"),
        ({"n_layers": 10**9}, "n_layers must be a whole number"),
        ({"sr": "40k"}, "sr must be a whole number"),
        ({"resblock": "3"}, "resblock must be"),
        ({"resblock_kernel_sizes": [3, 7, 10]}, "resblock_kernel_sizes must be odd"),
        ({"resblock_dilation_sizes": [[1, 3, 5]]}, "resblock_dilation_sizes must be a list of 3"),
        (
            {"resblock_kernel_sizes": [3] * 64, "resblock_dilation_sizes": [[1] * 64] * 64},
            "the residual blocks must be of at most 1024 convolutions, got 16384",
        ),
        ({"upsample_rates": []}, "upsample_rates must be a list"),
        ({"upsample_rates": [1000] * 4}, "upsample_rates must be"),
        ({"upsample_kernel_sizes": [20, 16, 4]}, "upsample_kernel_sizes must be 4"),
        ({"upsample_kernel_sizes": [20, 16, 4, 3]}, "upsample_kernel_sizes must be fitting"),
        ({"upsample_initial_channel": 40}, "upsample_initial_channel must be halved"),
        ({**REFINEGAN, "upsample_initial_channel": 64}, "upsample_initial_channel must be 128 for 2"),
    ],
)
def test_impossible_configurations(tiny, change, message):
    with pytest.raises(FileFormatError, match=message):
        SynthesizerConfig.from_dict({**tiny[0], **change})


def test_incomplete_configuration_names_what_is_missing(tiny):
    config, _, _ = tiny
    del config["gin_channels"], config["sr"]
    with pytest.raises(FileFormatError, match="has no gin_channels, sr"):
        SynthesizerConfig.from_dict(config)


def test_speaker_out_of_range(voices):
    model = voices["synth_tiny_32k"][2]
    for speaker in (-1, 4):
        with pytest.raises(InputError, match=f"speaker must be from 0 to 3, got {speaker}"):
            model.infer(*inputs(model, 2), speaker, SeededNoise(0))


def test_pitch_and_f0_must_suit_the_voice(voices):
    with_f0, without = voices["synth_tiny_32k"][2], voices["synth_tiny_nof0_40k"][2]
    phone, pitch, f0 = inputs(with_f0, 3)
    for arguments, message in (
        ((phone, None, f0), r"pitch must be of shape \(1, 3\) for a voice with f0, got None"),
        ((phone, pitch, None), r"f0 must be of shape \(1, 3\) for a voice with f0, got None"),
        ((phone, pitch, f0[:, :2]), "f0 must be of shape"),
        ((phone[:, :, :5], pitch, f0), "phone must be of shape"),
        ((phone[:, :0], pitch[:, :0], f0[:, :0]), "phone must be of shape"),
    ):
        with pytest.raises(InputError, match=message):
            with_f0.infer(*arguments, 0, SeededNoise(0))
    with pytest.raises(InputError, match="f0 must be None for a voice without f0"):
        without.infer(inputs(without, 3)[0], None, f0, 0, SeededNoise(0))


def test_a_pitch_beyond_the_table_is_its_nearest_row(voices):
    model = voices["synth_tiny_32k"][2]
    phone, _, f0 = inputs(model, 3)
    for beyond, nearest in ((-7, 0), (256, 255), (2**30, 255)):
        got, want = (
            model.infer(phone, mx.full((1, 3), pitch, dtype=mx.int32), f0, 0, SeededNoise(0))
            for pitch in (beyond, nearest)
        )
        assert mx.array_equal(got, want)
