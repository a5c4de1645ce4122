"""Models are graphs: MLX can compile and export every one of them whole, on the route of stock MLX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast.noise import SeededNoise
from rvc_fast.ops.transforms import without_rules
from rvc_fast.verify.golden import Folder

GOLDEN = Path(__file__).parents[1] / "golden"
VOICES = ("synth_tiny_32k", "synth_tiny_nof0_40k", "synth_tiny_mrf_40k")
Function = Callable[..., mx.array]


def call(name: str) -> tuple[Function, list[mx.array]]:
    """Return a model as a function of arrays alone, and arrays for it."""
    model: Any = Folder(GOLDEN).model(name)
    rng = np.random.default_rng(0)
    sound = mx.array(0.1 * rng.standard_normal(8000, dtype=np.float32))
    if name.startswith("hubert"):
        return lambda x: model.features(x, "v2"), [sound]
    if name.startswith("rmvpe"):
        return model.salience, [sound]
    phone = mx.array(rng.standard_normal((1, 20, model.config.text_enc_hidden_dim), dtype=np.float32))
    if not model.config.use_f0:
        return lambda x: model.infer(x, None, None, 0, SeededNoise(0)), [phone]
    pitch, f0 = mx.full((1, 20), 60, mx.int32), mx.array(rng.uniform(100, 300, (1, 20)).astype(np.float32))
    return lambda x, p, f: model.infer(x, p, f, 0, SeededNoise(0)), [phone, pitch, f0]


@pytest.mark.parametrize("name", ["hubert_tiny", "rmvpe_tiny", *VOICES])
def test_it_compiles_and_exports(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    function, arrays = call(name)
    want = np.array(function(*arrays))
    assert np.abs(want).max() > 1e-4
    # Fused expressions may keep a product unrounded.
    np.testing.assert_allclose(np.array(mx.compile(function)(*arrays)), want, rtol=1e-4, atol=1e-5)
    with without_rules():  # MLX cannot write down a rule for derivatives
        mx.export_function(str(tmp_path / "model.mlxfn"), function, *arrays)
    (got,) = mx.import_function(str(tmp_path / "model.mlxfn"))(*arrays)
    np.testing.assert_allclose(np.array(got), want, rtol=1e-4, atol=1e-5)
