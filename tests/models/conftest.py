"""What the tests of a model share: the golden case that their module names in `MODEL`, built by its `build`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast.verify.seeded import read_manifest, seeded_weights


def _snr(got: Any, want: Any) -> float:
    a, b = np.array(got, dtype=np.float64), np.array(want, dtype=np.float64)
    assert a.shape == b.shape
    return 10 * np.log10(np.sum(b * b) / max(np.sum((a - b) ** 2), 1e-300))


@pytest.fixture(scope="session")
def snr() -> Callable[[Any, Any], float]:
    """Return a function of (got, want) that gives the signal-to-noise ratio in dB; the shapes must agree."""
    return _snr


@pytest.fixture(scope="module")
def manifest(request: pytest.FixtureRequest, golden: Path) -> dict[str, Any]:
    return read_manifest(golden / f"{request.module.MODEL}.json")


@pytest.fixture(scope="module")
def tensors(manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    return seeded_weights(manifest)


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest, manifest: dict[str, Any], tensors: dict[str, np.ndarray]) -> Any:
    return request.module.build(tensors, manifest["config"])


@pytest.fixture(scope="module")
def recorded(request: pytest.FixtureRequest, golden: Path) -> dict[str, mx.array]:
    """The inputs and outputs of PyTorch."""
    return mx.load(str(golden / f"{request.module.MODEL}.safetensors"))
