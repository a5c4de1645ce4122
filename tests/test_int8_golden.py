"""What int8 costs, stage by stage, against the public PyTorch code's outputs and, for the demo models, against float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import rvc_fast
from rvc_fast import audio
from rvc_fast.layers import Packing, packed_layers
from rvc_fast.ops import Precision, dispatch
from rvc_fast.resources import demo_dir
from rvc_fast.verify.golden import Folder, compare
from rvc_fast.weights import load_checkpoint
from rvc_fast.weights.models import MODELS

DEMO = demo_dir()
INT8 = Packing(precision=Precision("int8"))
pytestmark = pytest.mark.skipif(
    dispatch.dtype_missing("int8") is not None, reason="this CPU does not multiply in whole numbers"
)


@pytest.fixture(scope="module")
def folder() -> Folder:
    return Folder(Path(__file__).parent / "golden")


def formats(model: Any) -> dict[str, str]:
    return {path: packed.dtype for path, packed in packed_layers(model).items()}


def test_features(folder: Folder) -> None:
    want = folder.tensors("hubert_tiny")
    checkpoint = folder.checkpoint("hubert_tiny")
    model = MODELS["hubert"].from_checkpoint(checkpoint, INT8)
    traced = model.trace(mx.array(want["audio"]))
    got = {k: compare(np.array(traced[k]), v)[0] for k, v in want.items() if k in traced}
    assert max(got.values()) < 60, "not computed in int8"
    assert min(got.values()) >= 28  # measured: 29.9


def test_a_voice_multiplies_all_but_its_decoder_in_int8(folder: Folder) -> None:
    name = "synth_tiny_32k"
    want = folder.tensors(name)
    model = MODELS["voice"].from_checkpoint(folder.checkpoint(name), INT8)
    for path, dtype in formats(model).items():
        assert dtype == "float32" or not path.startswith("dec."), path
    assert formats(model)["flow.flows.0.pre"] == "int8"
    given = {k: mx.array(want.pop(k)) for k in ("phone", "pitch", "f0")}
    traced = model.trace(*given.values(), folder.settings(name)["sid"], folder.noise(name, name))
    got = {k: compare(np.array(traced[k][0]), want[k])[0] for k in ("m_p", "z", "audio")}
    # Measured: 35.6, 29.8 and 24.3.
    assert got["m_p"] >= 33
    assert got["z"] >= 27
    assert got["audio"] >= 22


def test_the_pitch_model_is_as_it_was() -> None:
    model = MODELS["rmvpe"].from_checkpoint(load_checkpoint(DEMO / "rmvpe.pt"), INT8)
    assert set(formats(model).values()) == {"float32"}


def test_a_conversion_of_the_demo_voice() -> None:
    """Same pitch, same noise: the sounds differ by what int8 costs alone."""
    sound = DEMO / "sounds" / "speech_male.wav"
    models = {"embedder": DEMO / "embedder", "pitch_model": DEMO / "rmvpe.pt"}
    exact, quick = (rvc_fast.load(DEMO / "voice.pth", **models, dtype=d) for d in ("float32", "int8"))
    x = mx.array(audio.to_mono_16k(*audio.read_mono(sound)))
    features = [np.array(c.embedder.features(x, "v2")) for c in (quick, exact)]
    assert compare(*features)[0] >= 35  # measured: 36.4
    a, b = (c.convert(sound) for c in (exact, quick))
    np.testing.assert_array_equal(a.f0, b.f0)
    levels = [np.log10(spectrum(r.samples) + 1e-4) * 20 for r in (a, b)]
    distance = np.sqrt(np.mean(np.square(levels[0] - levels[1]), axis=1)).mean()
    assert 0 < distance <= 1.0


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Magnitudes (frames, bins) of windows of 1024 samples."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::256]
    return np.abs(np.fft.rfft(frames * np.hanning(1024), axis=1))
