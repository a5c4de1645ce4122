"""Files that travel with the package: the model manifest and the demo models (`models/` of the repository)."""

from __future__ import annotations

from pathlib import Path

import rvc_fast

from .errors import RvcFastError


def models_dir() -> Path:
    """Return the `models` folder: inside an installed package, or at the top of a source checkout."""
    package = [Path(p) for p in rvc_fast.__path__]
    for folder in [p / "models" for p in package] + [p.parents[2] / "models" for p in package]:
        if (folder / "manifest.json").is_file():
            return folder
    raise RvcFastError(f"[resources] models/manifest.json is missing beside the package in {package[0]}")


def demo_dir() -> Path:
    """Return the folder of the demo voice, its embedder, its pitch model and sounds."""
    return models_dir() / "demo"
