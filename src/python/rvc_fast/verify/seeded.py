"""Checkpoints and noise rebuilt from a seed, so that a verification case of any size travels as a few kilobytes.

A manifest (JSON) holds `seed`, `kind`, `config`, and for each tensor its PyTorch name, `shape` and distribution:
`normal` (scale, shift), `uniform` (low, high) or `const` (value). Each tensor has a generator of its own,
PCG64 seeded with crc32("SEED:NAME"), so the draws do not depend on order.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileFormatError


def _draw(seed: int, name: str, shape: tuple[int, ...], spec: dict[str, Any]) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}:{name}".encode())))
    match spec["dist"]:
        case "normal":
            scale, shift = np.float32(spec["scale"]), np.float32(spec["shift"])
            return rng.standard_normal(shape, dtype=np.float32) * scale + shift
        case "uniform":
            low, width = np.float32(spec["low"]), np.float32(spec["high"] - spec["low"])
            return rng.random(shape, dtype=np.float32) * width + low
        case "const":
            return np.full(shape, spec["value"], dtype=np.float32)
        case other:
            raise FileFormatError(f"[verify] tensor {name!r} has an unknown distribution {other!r}")


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest, checked for the keys that everything here needs."""
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError) as e:
        raise FileFormatError(f"[verify] cannot read manifest {path}: {e}") from e
    missing = {"seed", "kind", "config", "tensors"} - set(manifest if isinstance(manifest, dict) else ())
    if missing:
        raise FileFormatError(f"[verify] {path} is not a manifest: it has no {', '.join(sorted(missing))}")
    return manifest


def seeded_weights(manifest: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return {PyTorch name: float32 array}; FileFormatError if numpy draws other numbers than the manifest's."""
    weights = {
        name: _draw(manifest["seed"], name, tuple(spec["shape"]), spec)
        for name, spec in manifest["tensors"].items()
    }
    probe = manifest.get("probe")
    if probe is not None:
        got = float(weights[probe["name"]].sum(dtype=np.float64))
        if not math.isclose(got, probe["sum"], rel_tol=1e-3, abs_tol=1e-3):
            raise FileFormatError(
                f"[verify] {probe['name']} sums to {got}, the manifest says {probe['sum']}: "
                "this numpy draws other numbers"
            )
    return weights


def seeded_normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the standard normal noise that goes by `name`."""
    return _draw(seed, name, shape, {"dist": "normal", "scale": 1.0, "shift": 0.0})


def seeded_uniform(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the [0, 1) noise that goes by `name`."""
    return _draw(seed, name, shape, {"dist": "uniform", "low": 0.0, "high": 1.0})
