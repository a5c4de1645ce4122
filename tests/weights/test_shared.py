"""Models are shared by those who load the same file, and freed with the last of them."""

from __future__ import annotations

import gc
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest

import rvc_fast
from rvc_fast.errors import InputError
from rvc_fast.layers import Packing
from rvc_fast.ops import Precision
from rvc_fast.ops.dispatch import dtype_missing
from rvc_fast.resources import demo_dir
from rvc_fast.synthesizer import load_voice

DEMO = demo_dir()


def converter(**options: str) -> rvc_fast.Converter:
    return rvc_fast.load(
        DEMO / "voice.pth", embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt", **options
    )


def test_two_converters_share_their_models() -> None:
    a, b = converter(), converter()
    assert a.voice is b.voice
    assert a.embedder is b.embedder
    assert a.pitch_model is b.pitch_model


def test_another_packing_is_another_model() -> None:
    assert load_voice(DEMO / "voice.pth") is not load_voice(DEMO / "voice.pth", Packing(memory="low"))


def test_a_replaced_file_is_read_again(tmp_path: Path, golden: Path) -> None:
    path = tmp_path / "voice.pth"
    shutil.copy(DEMO / "voice.pth", path)
    first = load_voice(path)
    shutil.copy(golden / "voice_tiny_32k.pth", path)
    second = load_voice(path)
    assert (first.config.sr, second.config.sr) == (24000, 32000)


def test_the_last_one_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "voice.pth"
    shutil.copy(DEMO / "voice.pth", path)
    alive = weakref.ref(load_voice(path))
    gc.collect()
    assert alive() is None


def test_low_memory_sounds_the_same() -> None:
    sound = np.sin(np.arange(8000) * 0.08).astype(np.float32)
    normal = converter().convert(sound, sample_rate=16000).samples
    low = converter(memory="low").convert(sound, sample_rate=16000).samples
    error = 10 * np.log10(np.sum(normal**2) / np.sum((normal - low) ** 2))
    assert 90 < error < 200, "bit-identical sounds would mean that the same kernels ran"


@pytest.mark.skipif(dtype_missing("bfloat16") is not None, reason="this CPU does not multiply in bfloat16")
def test_bfloat16_is_another_model_and_sounds_alike() -> None:
    assert load_voice(DEMO / "voice.pth") is not load_voice(
        DEMO / "voice.pth", Packing(precision=Precision("bfloat16"))
    )
    sound = np.sin(np.arange(8000) * 0.08).astype(np.float32)
    normal = converter().convert(sound, sample_rate=16000).samples
    rounded = converter(dtype="bfloat16").convert(sound, sample_rate=16000).samples
    error = 10 * np.log10(np.sum(normal**2) / np.sum((normal - rounded) ** 2))
    assert 15 < error < 80


def test_memory_is_checked() -> None:
    with pytest.raises(InputError, match="'tiny'"):
        converter(memory="tiny")
