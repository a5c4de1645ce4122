"""Models in 16 bits on a GPU: what is launched, what is converted, and how near they stay to float32."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator
from mlx.utils import tree_flatten
from test_syncs import SHORT, sound

import rvc_fast
from benchmarks.gpu import count
from rvc_fast import device
from rvc_fast.features.hubert import GroupNormConv
from rvc_fast.layers import Layer, PackedLayer, Packing
from rvc_fast.ops.precision import FLOAT32, Dtype, Precision, choose, mlx_dtype
from rvc_fast.resources import demo_dir
from rvc_fast.synthesizer.hifigan import Merge
from rvc_fast.verify.golden import Folder, compare
from rvc_fast.weights.models import MODELS

WHOLE_MODELS = True
NARROW: tuple[Dtype, ...] = ("float16", "bfloat16")
# Kernels whose numbers are float32 whatever the models are: the islands.
ISLANDS = ("mel_stft", "nsf_phase", "nsf_source")


def build(folder: Folder, name: str, dtype: Dtype) -> Any:
    checkpoint = folder.checkpoint(name)
    return MODELS[checkpoint.kind].from_checkpoint(checkpoint, Packing(precision=choose("load", dtype)))


def snr(got: mx.array, want: np.ndarray) -> float:
    return compare(np.array(got.astype(mx.float32)), want)[0]


def wide(emulator: Emulator) -> set[str]:
    """Our kernels that were launched on float32 arrays, but for islands."""
    names = {launch.name for launch in emulator.launches}
    return {n for n in names if not any(island in n for island in ISLANDS) and "float16" not in n}


@pytest.mark.parametrize("gpu", ["metal"], indirect=True)
@pytest.mark.parametrize(("dtype", "least"), [("float16", 50), ("bfloat16", 32)])
def test_features_and_salience(gpu: Emulator, golden: Path, dtype: Dtype, least: float) -> None:
    folder = Folder(golden)
    want = folder.tensors("hubert_tiny")
    features = build(folder, "hubert_tiny", dtype).features(mx.array(want["audio"]), "v2")
    assert features.dtype == mlx_dtype(dtype)
    print(dtype, snr(features, want["v2_features"]))
    assert snr(features, want["v2_features"]) >= least
    want = folder.tensors("rmvpe_tiny")
    salience = build(folder, "rmvpe_tiny", dtype).salience(mx.array(want["audio"]))
    assert salience.dtype == mlx_dtype(dtype)
    print(dtype, snr(salience, want["salience"]))
    assert snr(salience, want["salience"]) >= least
    assert gpu.launches
    assert not wide(gpu)


@pytest.mark.parametrize(
    ("gpu", "name", "dtype", "least"),
    [
        ("metal", "synth_tiny_32k", "float16", 45),
        ("metal", "synth_tiny_32k", "bfloat16", 25),
        ("metal", "synth_tiny_mrf_40k", "float16", 45),
        ("cuda", "synth_tiny_32k", "float16", 45),
    ],
    indirect=["gpu"],
)
def test_voices(gpu: Emulator, golden: Path, name: str, dtype: Dtype, least: float) -> None:
    folder = Folder(golden)
    want = folder.tensors(name)
    given = {k: mx.array(want[k]) for k in ("phone", "pitch", "f0") if k in want}
    traced = build(folder, name, dtype).trace(
        given["phone"],
        given.get("pitch"),
        given.get("f0"),
        folder.settings(name)["sid"],
        folder.noise(name, name),
    )
    got = {k: snr(traced[k][0], want[k]) for k in ("m_p", "z", "source", "audio") if k in want}
    print(name, dtype, {k: round(v, 1) for k, v in got.items()})
    assert min(got.values()) >= least, got
    assert max(got[k] for k in ("m_p", "z", "audio")) < 90, "not computed in 16 bits"
    if "source" in got:
        assert got["source"] >= 90
    assert not wide(gpu)


@pytest.mark.parametrize("gpu", ["metal"], indirect=True)
@pytest.mark.parametrize("dtype", NARROW)
def test_load_reaches_the_kernels(gpu: Emulator, dtype: Dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo voice through the public API: weights of 16 bits, launches of 16 bits, islands of 32."""
    # MLX's default device is the CPU, where the GPU is emulated.
    monkeypatch.setattr(device, "choose", lambda _: "cpu")
    demo = demo_dir()
    converter = rvc_fast.load(
        demo / "voice.pth", embedder=demo / "embedder", pitch_model=demo / "rmvpe.pt", dtype=dtype
    )
    for model in (converter.voice, converter.embedder, converter.pitch_model):
        assert isinstance(model, rvc_fast.layers.nn.Module)
        for path, module in model.named_modules():
            if isinstance(module, Layer):
                assert module.precision == Precision(dtype, dtype), path
            if isinstance(module, PackedLayer):
                assert module.packed is not None
                assert module.packed.dtype == mlx_dtype(dtype), path
            if isinstance(module, GroupNormConv | Merge):
                assert all(p.dtype == mx.float32 for _, p in tree_flatten(module.parameters())), path
    done = converter.convert(sound(0.3), sample_rate=16000, chunk=SHORT)
    assert np.isfinite(done.samples).all()
    assert np.abs(done.samples).max() > 1e-3
    names = {launch.name for launch in gpu.launches}
    for kernel in ("conv1d", "resblock", "bigru", "relpos_attention", "wavenet_gate", *ISLANDS):
        assert any(f"rvc_{kernel}_" in name for name in names), kernel
    assert not wide(gpu)


@pytest.mark.parametrize("dtype", NARROW)
def test_only_islands_are_converted(dtype: Dtype) -> None:
    """Every conversion of the full-size models, from their traced graphs: the shores of the islands and no more."""
    narrow = mlx_dtype(dtype)
    found = count.count_models("metal", dtype=dtype, count=count.conversions)
    into = {name: [c.shape for c in made if c.after == narrow] for name, made in found.items()}
    back = {name: [c.shape for c in made if c.after == mx.float32] for name, made in found.items()}
    assert {name: len(made) for name, made in into.items()} == {
        "HuBERT": 3,  # the sound, and what the normalisation folds
        "mel + RMVPE": 1,  # the mel spectrogram
        "text encoder + flow": 2,  # features, latent
        "decoder": 1,  # the source
    }
    # Mean and log deviation of the latent.
    assert {name: len(made) for name, made in back.items() if made} == {"text encoder + flow": 2}
    # Nothing of the size of a decoder's activation.
    assert max(math.prod(shape) for made in (*into.values(), *back.values()) for shape in made) <= 100 * 768


def test_16_bits_are_refused_on_a_cpu() -> None:
    assert choose("load", "float32") == FLOAT32
    with pytest.raises(
        rvc_fast.errors.InputError, match=r"\[load\] dtype must be 'float32'.*here, got 'float16'"
    ):
        rvc_fast.load(demo_dir() / "voice.pth", dtype="float16")
