"""What bfloat16 and bfloat16x2 cost, stage by stage, against the public PyTorch code's outputs (its networks are tiny here)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast import native
from rvc_fast.layers import Packing, packed_layers
from rvc_fast.ops import Dtype, Precision, dispatch
from rvc_fast.verify.golden import Folder, compare
from rvc_fast.weights.models import MODELS

GOLDEN = Path(__file__).parent / "golden"
EXT = native.ext()
ISAS = [] if EXT is None else [isa for isa in EXT.isas() if isa in ("amx", "avx512_bf16")]
pytestmark = pytest.mark.skipif(not ISAS, reason="this CPU does not multiply in bfloat16")


@pytest.fixture(autouse=True, params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = EXT.isa()
    EXT.configure(isa=request.param, threads=EXT.threads())
    yield request.param
    EXT.configure(isa=before, threads=EXT.threads())


@pytest.fixture(scope="module")
def folder() -> Folder:
    return Folder(GOLDEN)


def build(folder: Folder, name: str, dtype: Dtype) -> tuple[Any, dict[str, str]]:
    """A model, and in which format each of its layers multiplies."""
    checkpoint = folder.checkpoint(name)
    model = MODELS[checkpoint.kind].from_checkpoint(checkpoint, Packing(precision=Precision(dtype)))
    return model, {path: packed.dtype for path, packed in packed_layers(model).items()}


def need(dtype: Dtype) -> None:
    if (why := dispatch.dtype_missing(dtype)) is not None:
        pytest.skip(why)


# Measured: 42.4 and 97.4.
@pytest.mark.parametrize(("dtype", "least", "most"), [("bfloat16", 38, 90), ("bfloat16x2", 90, 110)])
def test_features(folder: Folder, dtype: Dtype, least: float, most: float) -> None:
    need(dtype)
    want = folder.tensors("hubert_tiny")
    model, formats = build(folder, "hubert_tiny", dtype)
    assert dtype in formats.values()
    traced = model.trace(mx.array(want["audio"]))
    got = {k: compare(np.array(traced[k]), v)[0] for k, v in want.items() if k in traced}
    assert least <= min(got.values()) <= max(got.values()) < most


def test_salience(folder: Folder) -> None:
    want = folder.tensors("rmvpe_tiny")
    model, formats = build(folder, "rmvpe_tiny", "bfloat16")
    assert "bfloat16" in formats.values()
    db = compare(np.array(model.salience(mx.array(want["audio"]))), want["salience"])[0]
    assert 40 <= db < 90  # measured: 46.1


def test_the_pitch_model_stays_as_it_is_in_bfloat16x2(folder: Folder) -> None:
    need("bfloat16x2")
    assert set(build(folder, "rmvpe_tiny", "bfloat16x2")[1].values()) == {"float32"}


# Of mean, latents and audio. Measured, the worst of the voices: 43.9, 38.3, 31.0 and 97.9, 91.9, 85.1.
@pytest.mark.parametrize(("dtype", "bars"), [("bfloat16", (40, 35, 28)), ("bfloat16x2", (95, 88, 80))])
@pytest.mark.parametrize("name", ["synth_tiny_32k", "synth_tiny_mrf_40k", "synth_tiny_nof0_40k"])
def test_voice(folder: Folder, name: str, dtype: Dtype, bars: tuple[float, ...]) -> None:
    need(dtype)
    want = folder.tensors(name)
    given = {k: mx.array(want.pop(k)) for k in ("phone", "pitch", "f0") if k in want}
    model, formats = build(folder, name, dtype)
    assert formats["flow.flows.0.pre"] == dtype
    decoder = {d for path, d in formats.items() if path.startswith("dec.")}
    assert (decoder == {"float32"}) == (dtype == "bfloat16x2")
    traced = model.trace(
        given["phone"],
        given.get("pitch"),
        given.get("f0"),
        folder.settings(name)["sid"],
        folder.noise(name, name),
    )
    got = [compare(np.array(traced[k][0]), want[k])[0] for k in ("m_p", "z", "audio")]
    assert got[0] < 110, f"not computed in {dtype}"
    assert all(db >= bar for db, bar in zip(got, bars, strict=True)), got
