"""Files that travel with the package: the model manifest, the demo models, the text of the GPU kernels, the peers."""

from __future__ import annotations

from pathlib import Path

import rvc_fast

from .errors import RvcFastError


def _find(inside: str, checkout: str, known: str) -> Path:
    """Return a folder inside an installed package, or of the source checkout, by a file known to be there."""
    package = [Path(p) for p in rvc_fast.__path__]
    for folder in [p / inside for p in package] + [p.parents[2] / checkout for p in package]:
        if (folder / known).is_file():
            return folder
    raise RvcFastError(f"[resources] {inside}/{known} is missing beside the package in {package[0]}")


def models_dir() -> Path:
    """Return the `models` folder."""
    return _find("models", "models", "manifest.json")


def kernels_dir() -> Path:
    """Return the folder of the GPU kernels' text, one folder per op."""
    return _find("kernels", "src/kernels", "common/metal.h")


def peers_dir() -> Path:
    """Return the folder of the PyTorch models that benchmarks compare with, a package."""
    return _find("bench/peers", "benchmarks/peers", "sides.py")


def golden_dir() -> Path:
    """Return a folder of golden cases; an installed package has those that check the peers."""
    return _find("golden", "tests/golden", "cases.json")


def demo_dir() -> Path:
    """Return the folder of the demo voice, its embedder, its pitch model and sounds."""
    return models_dir() / "demo"
