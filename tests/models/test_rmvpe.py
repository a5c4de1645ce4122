"""RMVPE against PyTorch's outputs; long, short and unusual inputs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast import ops
from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.layers import Packing
from rvc_fast.ops.mel_stft import hann, mel_filters
from rvc_fast.pitch import rmvpe
from rvc_fast.pitch.rmvpe import BIN_CENTS, Rmvpe, RmvpeConfig, decode_salience, load_rmvpe, log_mel
from rvc_fast.weights.checkpoint import save_packed

GOLDEN = Path(__file__).parent.parent / "golden"
MODEL = "rmvpe_tiny"


def cents(got, want):
    """Largest distance on voiced frames, which must be the same ones."""
    a, b = np.array(got, dtype=np.float64), np.array(want, dtype=np.float64)
    voiced = b > 0
    assert np.array_equal(a > 0, voiced)
    return np.abs(1200 * np.log2(a[voiced] / b[voiced])).max()


def build(tensors, config, memory="normal"):
    checkpoint = SimpleNamespace(tensors=tensors, config=config, packed=False, kernels=None)
    return Rmvpe.from_checkpoint(checkpoint, Packing(memory=memory))


def test_salience_and_f0_match_pytorch(model, recorded, snr):
    salience = model.salience(recorded["audio"])
    assert snr(salience, recorded["salience"]) >= 110
    assert cents(decode_salience(salience), recorded["f0"]) <= 0.01


def test_log_mel_matches_pytorch(snr):
    golden = mx.load(str(GOLDEN / "mel.safetensors"))
    assert snr(log_mel(golden["audio"]).T, golden["log_mel"]) >= 120


def test_decoding_matches_pytorch_at_threshold_and_edges(recorded):
    assert cents(decode_salience(recorded["decode_salience"]), recorded["decode_f0"]) <= 0.01


def test_decoding_of_single_bins_and_ties():
    salience = np.zeros((5, 360), np.float32)
    salience[0, 0] = salience[1, 359] = salience[2, 100] = 0.5
    salience[3, [100, 102]] = 0.5
    f0 = decode_salience(salience)
    want = 10 * 2 ** (np.array([BIN_CENTS[0], BIN_CENTS[359], BIN_CENTS[100], BIN_CENTS[101]]) / 1200)
    assert np.allclose(f0[:4], want, rtol=1e-6)
    assert f0[4] == 0
    assert f0.dtype == np.float32


def test_threshold_itself_is_unvoiced_and_is_not_ignored():
    salience = np.zeros((1, 360), np.float32)
    salience[0, 50] = 0.25
    assert decode_salience(salience, 0.25)[0] == 0
    assert decode_salience(salience, 0.2499)[0] > 0
    assert decode_salience(np.zeros((1, 360), np.float32), 0.0)[0] == 0
    with pytest.raises(InputError, match=r"salience must be \(frames, 360\), got \(3, 359\)"):
        decode_salience(np.zeros((3, 359)))


@pytest.mark.parametrize("kernel", [(2, 2), (1, 2)])
def test_tiles_give_the_same_salience(manifest, tensors, monkeypatch, kernel, snr):
    model = build(tensors, {**manifest["config"], "kernel_size": kernel})
    audio = mx.random.normal((160 * 700,), key=mx.random.key(1))
    whole = np.array(model.salience(audio))
    monkeypatch.setattr(rmvpe, "TILE", 96)
    monkeypatch.setattr(import_module("rvc_fast.ops.bigru"), "BLOCK", 100)
    monkeypatch.setattr(import_module("rvc_fast.ops.mel_stft"), "BLOCK", 77)
    assert snr(model.salience(audio), whole) >= 125


@pytest.mark.parametrize("kernel", [(2, 2), (1, 2)])
def test_the_halo_is_what_an_output_depends_on(manifest, tensors, kernel):
    """With positive weights and no biases an impulse reaches exactly what depends on its frame.

    Directly: Winograd's products cancel to the last digits in the rest of a tile.
    """
    biases = (".bias", ".running_mean")
    positive = {k: np.zeros_like(v) if k.endswith(biases) else np.abs(v) for k, v in tensors.items()}
    model = build(positive, {**manifest["config"], "kernel_size": kernel}, memory="low")
    halo, frames, reach = model.config.halo, 640, 0
    for at in (288, 300, 319):
        mel = np.zeros((frames, 128), np.float32)
        mel[at, 64] = 1
        touched = np.flatnonzero(np.array(model.unet(mx.array(mel[None]))[0]).any(axis=(1, 2)))
        reach = max(reach, at - touched[0], touched[-1] - at)
    assert halo - 32 < reach <= halo


def test_the_published_model_needs_16_seconds_of_context():
    assert RmvpeConfig().halo == 1600


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 512, 513, 1024, 2400, 5000])
@pytest.mark.parametrize("pad", ["reflect", "zeros"])
def test_short_sounds_give_every_frame(model, samples, pad):
    audio = mx.random.normal((samples,), key=mx.random.key(samples))
    salience = model.salience(audio, pad)
    assert salience.shape == (samples // 160 + 1, 360)
    assert mx.isfinite(salience).all()
    # What follows the last frame is made up, so it is the padding's business whether it matters.
    mel = np.array(log_mel(audio))
    assert np.allclose(mel, short_log_mel(np.array(audio)), atol=1e-4)


def short_log_mel(x):
    padded = np.pad(x.astype(np.float64), 512, mode="reflect")
    frames = np.stack([padded[t : t + 1024] * hann(1024) for t in range(0, len(x) + 1, 160)])
    spectrum = np.abs(np.fft.rfft(frames))
    return np.log(np.maximum(spectrum @ mel_filters(16000, 1024, 128, 30, 8000).T, 1e-5))


def test_padding_modes_differ_only_where_frames_are_missing(model):
    aligned = mx.random.normal((160 * 63 + 7,), key=mx.random.key(3))
    assert mx.array_equal(model.salience(aligned, "zeros"), model.salience(aligned, "reflect"))
    other = aligned[: 160 * 40]
    assert not mx.array_equal(model.salience(other, "zeros"), model.salience(other, "reflect"))


def test_silence_is_finite(model):
    assert mx.isfinite(model.salience(mx.zeros((16000,)))).all()


@pytest.mark.parametrize(
    ("length", "left", "right"), [(1, 3, 4), (2, 5, 5), (5, 4, 4), (5, 23, 0), (7, 0, 30)]
)
def test_reflect_pad_is_numpys(length, left, right):
    x = np.arange(length * 2, dtype=np.float32).reshape(length, 2)
    want = np.pad(x, ((left, right), (0, 0)), mode="reflect")
    assert np.array_equal(np.array(ops.reflect_pad(mx.array(x), left, right)), want)


@pytest.mark.parametrize("n_gru", [0, 2])
def test_other_numbers_of_gru_layers(manifest, tensors, n_gru):
    """No reference has these; the layers must at least be the ones that the names say."""
    rng = np.random.default_rng(n_gru)
    other = {k: v for k, v in tensors.items() if not k.startswith("fc.")}
    if n_gru == 0:
        other["fc.0.weight"] = rng.standard_normal((360, 384), dtype=np.float32) / 20
        other["fc.0.bias"] = np.zeros(360, np.float32)
    else:
        other |= {k: v for k, v in tensors.items() if k.startswith("fc.")}
        for suffix in ("", "_reverse"):
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                shape = {"weight_ih": (768, 512), "weight_hh": (768, 256)}.get(part, (768,))
                other[f"fc.0.gru.{part}_l1{suffix}"] = np.zeros(shape, np.float32)
    model = build(other, {**manifest["config"], "n_gru": n_gru})
    audio = mx.random.normal((4000,), key=mx.random.key(4))
    salience = np.array(model.salience(audio))
    assert salience.shape == (26, 360)
    if n_gru == 2:  # a GRU of zeros stays at zero: only the last bias is left
        bias = tensors["fc.1.bias"].astype(np.float64)
        assert np.allclose(salience, 1 / (1 + np.exp(-bias)), atol=1e-6)


def test_half_precision_and_counters_load(manifest, tensors, recorded, snr):
    half = {k: v.astype(np.float16) for k, v in tensors.items()}
    half["unet.encoder.bn.num_batches_tracked"] = np.array(7, np.int64)
    salience = build(half, manifest["config"]).salience(recorded["audio"])
    assert 30 < snr(salience, recorded["salience"]) < 110


def test_a_packed_file_loads(manifest, tensors, model, recorded, tmp_path):
    path = tmp_path / "rmvpe.safetensors"
    save_packed(path, "rmvpe", Rmvpe.sanitize(tensors), manifest["config"], {})
    assert mx.array_equal(load_rmvpe(path).salience(recorded["audio"]), model.salience(recorded["audio"]))


def test_packed_tensors_load_as_they_are(manifest, tensors, model, recorded):
    checkpoint = SimpleNamespace(
        tensors=Rmvpe.sanitize(tensors), config=manifest["config"], packed=True, kernels=None
    )
    other = Rmvpe.from_checkpoint(checkpoint)
    assert mx.array_equal(other.salience(recorded["audio"]), model.salience(recorded["audio"]))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("unet.intermediate.layers.0.conv.0.shortcut.bias", "unet.middle.0.0.shortcut.bias"),
        ("fc.0.gru.weight_ih_l0_reverse", "gru.0.backward.weight"),
        ("unet.decoder.layers.2.conv1.1.running_mean", "unet.decoder.layers.2.conv1.1.running_mean"),
    ],
)
def test_a_missing_tensor_is_named(manifest, tensors, name, named):
    with pytest.raises(FileFormatError, match=named):
        build({k: v for k, v in tensors.items() if k != name}, manifest["config"])


def test_tensors_that_do_not_fit_are_refused(manifest, tensors):
    with pytest.raises(FileFormatError, match=r"other\.weight"):
        build({**tensors, "other.weight": np.ones(3, np.float32)}, manifest["config"])
    for name in ("unet.encoder.layers.1.conv.0.conv.4.weight", "fc.0.gru.bias_hh_l0", "cnn.weight"):
        with pytest.raises(FileFormatError, match=r"\[rmvpe\]"):
            build({**tensors, name: np.ones(5, np.float32)}, manifest["config"])


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("running_var", np.full(4, -1.0), "not finite"),
        ("running_mean", np.ones((4000, 1)), "has shapes"),
    ],
)
def test_a_batch_norm_cannot_make_more_than_it_has_or_no_numbers(
    manifest, tensors, recwarn, part, value, words
):
    name = "unet.encoder.layers.0.conv.0.conv.1"
    spoilt = {**tensors, f"{name}.{part}": value.astype(np.float32)}
    with pytest.raises(FileFormatError, match=rf"\[rmvpe\] the batch norm '{name}'.*{words}"):
        build(spoilt, manifest["config"])
    assert not recwarn.list


def test_a_packed_recurrent_weight_without_axes_is_refused(manifest, tensors):
    packed = Rmvpe.sanitize(tensors) | {"gru.0.weight": np.float32(1).reshape(())}
    checkpoint = SimpleNamespace(tensors=packed, config=manifest["config"], packed=True, kernels=None)
    with pytest.raises(FileFormatError, match=r"'gru\.0\.weight' must be of shape"):
        Rmvpe.from_checkpoint(checkpoint)


def test_config_is_checked():
    assert RmvpeConfig.from_dict({"kernel_size": [2, 2], "unknown": 1}) == RmvpeConfig()
    for values in ({"kernel_size": [3, 2]}, {"en_de_layers": 6}):
        with pytest.raises(FileFormatError, match="kernel_size"):
            RmvpeConfig.from_dict(values)


def test_bad_arguments_are_refused(model):
    for shape in ((0,), (0, 1600), (1, 1, 1600)):
        with pytest.raises(InputError, match=r"audio must be \(n,\) or \(B, n\) with n >= 1, got"):
            model.salience(mx.zeros(shape))
    with pytest.raises(InputError, match="pad must be 'reflect' or 'zeros', got 'edge'"):
        model.salience(mx.zeros((1600,)), "edge")
