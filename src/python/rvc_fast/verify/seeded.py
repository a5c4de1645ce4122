"""Checkpoints and noise rebuilt from a seed, so that a verification case of any size travels as a few kilobytes.

A manifest (JSON) holds `seed`, `kind`, `config`, and for each tensor its PyTorch name, `shape` and distribution:
`normal` (scale, shift), `uniform` (low, high) or `const` (value). Each tensor has a generator of its own,
PCG64 seeded with crc32("SEED:NAME"), so the draws do not depend on order.
"""

from __future__ import annotations

import json
import math
import reprlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileFormatError
from . import schema

# What a distribution needs beside its name.
_PARAMETERS = {"normal": ("scale", "shift"), "uniform": ("low", "high"), "const": ("value",)}


def _draw(seed: int, name: str, shape: tuple[int, ...], spec: dict[str, Any]) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}:{name}".encode())))
    values = [spec[parameter] for parameter in _PARAMETERS[spec["dist"]]]
    match spec["dist"]:
        case "normal":
            scale, shift = (np.float32(value) for value in values)
            return rng.standard_normal(shape, dtype=np.float32) * scale + shift
        case "uniform":
            low, width = np.float32(values[0]), np.float32(values[1] - values[0])
            return rng.random(shape, dtype=np.float32) * width + low
        case _:
            return np.full(shape, values[0], dtype=np.float32)


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest, with all that is drawn from it checked; FileFormatError says what does not fit."""
    manifest = read_json(path)
    schema.check(manifest, schema.MANIFEST, str(path))
    numbers = 0
    for name, tensor in manifest["tensors"].items():
        missing = [p for p in _PARAMETERS.get(tensor["dist"], ()) if tensor.get(p) is None]
        if tensor["dist"] not in _PARAMETERS or missing:
            raise FileFormatError(
                f"[verify] {path}: tensor {name[:80]!r} must be one of {', '.join(_PARAMETERS)} with its numbers, "
                f"got {reprlib.repr(tensor['dist'])}{' without ' + ', '.join(missing) if missing else ''}"
            )
        numbers += math.prod(tensor["shape"])
    if numbers > schema.MOST_NUMBERS:
        raise FileFormatError(
            f"[verify] {path}: all tensors together must have at most {schema.MOST_NUMBERS} numbers, got {numbers}"
        )
    probe = manifest.get("probe")
    if probe is not None and probe["name"] not in manifest["tensors"]:
        raise FileFormatError(f"[verify] {path}: there is no tensor {reprlib.repr(probe['name'])} to probe")
    return manifest


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; FileFormatError if it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise FileFormatError(f"[verify] cannot read {path}: {e}") from e


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
