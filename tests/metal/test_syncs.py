"""How often the host waits for a GPU during a conversion: counted on the emulated route, never measured on one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator, build
from emulator.patch import compile_for
from syncs import count

from rvc_fast.converter import Converter
from rvc_fast.noise import SeededNoise
from rvc_fast.retrieval import load_index
from rvc_fast.settings import Chunking
from rvc_fast.verify.golden import Folder

WHOLE_MODELS = True
SHORT = Chunking(0.1, 0.05, 0.2, 0.3)
MOST = 6


def sound(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    t = np.arange(round(16000 * seconds)) / 16000
    return (0.3 * np.sin(2 * np.pi * 200 * t) + 0.01 * rng.standard_normal(len(t))).astype(np.float32)


def tiny(golden: Path) -> Converter:
    folder = Folder(golden)
    return Converter(folder.model("synth_tiny_32k"), folder.model("hubert_tiny"), folder.model("rmvpe_tiny"))


@contextmanager
def counting() -> Iterator[Counter[str]]:
    with pytest.MonkeyPatch.context() as patches:
        yield count(patches)


def test_waits_are_counted() -> None:
    """Those of rvc_fast, once each, and not those of a test."""
    module = {"__name__": "rvc_fast.planted"}
    exec(
        "import mlx.core as mx, numpy as np\n"
        "def waits(x):\n"
        "    mx.eval(x)\n    np.array(x)\n    np.asarray(x)\n    x.item()\n    x.tolist()\n    int(x)\n    bool(x)\n"
        "    mx.synchronize()\n    np.array([1.0])\n",
        module,
    )
    x = mx.array(3) + 1
    with counting() as waits:
        module["waits"](x)
        mx.eval(x)
        x.item()
    assert waits == {f"rvc_fast.planted:{line}": 1 for line in range(3, 11)}


@pytest.fixture(scope="module", autouse=True)
def compiled_together(need_tool: Any, golden: Path) -> None:
    """Compile the kernels of a conversion in a few large units."""
    need_tool(build.CLANG)
    compile_for("metal", lambda: tiny(golden).warm())


@pytest.mark.parametrize("gpu", ["metal", "cuda"], indirect=True)
def test_a_conversion_waits_at_most_six_times_per_chunk(gpu: Emulator, golden: Path) -> None:
    # What the host waits for does not depend on the language: one is executed, the other rehearsed.
    gpu.rehearsal = gpu.language == "cuda"
    converter = tiny(golden)
    converter.index = load_index(golden / "voice.index")
    options = {"sample_rate": 16000, "chunk": SHORT, "proposed_pitch": 200.0, "volume_envelope": 0.5}
    converter.convert(sound(0.25), **options)  # the tables that are made once
    with counting() as waits:
        stages: list[tuple[str, int, int]] = []
        converter.convert(sound(0.75), progress=lambda *stage: stages.append(stage), **options)
    chunks = stages[-1][2]
    assert chunks >= 3
    print(f"{sum(waits.values())} waits of {chunks} chunks: {dict(waits)}")
    # Features and samples of each chunk, and the pitch of the whole.
    assert sum(waits.values()) == 2 * chunks + 1 <= MOST * chunks


@pytest.mark.parametrize("gpu", ["metal"], indirect=True)
def test_models_are_graphs(gpu: Emulator, golden: Path) -> None:
    """From features to samples nothing waits: the models, the retrieval and the source are one graph."""
    folder = Folder(golden)
    hubert, rmvpe = folder.model("hubert_tiny"), folder.model("rmvpe_tiny")
    voices = [folder.model(f"synth_{name}") for name in ("tiny_32k", "tiny_nof0_40k", "tiny_mrf_40k")]
    samples = mx.array(sound(0.2))
    rmvpe.salience(samples)
    with counting() as waits:
        features = hubert.features(samples, "v2")
        rmvpe.salience(samples)
        for voice in voices:
            width, frames = voice.config.text_enc_hidden_dim, 4
            pitch = mx.full((1, frames), 80) if voice.config.use_f0 else None
            f0 = None if pitch is None else pitch.astype(mx.float32)
            pitch = None if pitch is None else pitch.astype(mx.int32)
            phone = mx.zeros((1, frames, width)) + features[:frames, :1]
            voice.infer(phone, pitch, f0, 0, SeededNoise(0))
    assert not waits
