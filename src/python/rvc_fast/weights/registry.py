"""The downloadable models: what they are, where they lie, and fetching them, resumable and checked by SHA-256."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .. import env
from ..errors import FileFormatError, InputError, RvcFastError
from ..resources import models_dir

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Model:
    """One entry of models/manifest.json: a file of a Hugging Face repository at a fixed revision."""

    name: str
    kind: str
    description: str
    repository: str
    revision: str
    file: str
    size: int
    sha256: str
    license: str

    @property
    def path(self) -> Path:
        """Where the file lies once it has been pulled."""
        return Path(env.cache_dir()) / self.name / self.file

    @property
    def present(self) -> bool:
        """Whether the file is there in full; `pull` has checked its digest before it got this name."""
        return self.path.is_file() and self.path.stat().st_size == self.size


def models(manifest: Path | None = None) -> dict[str, Model]:
    """Return the models of the manifest by name."""
    path = manifest or models_dir() / "manifest.json"
    try:
        entries = json.loads(path.read_text())["models"]
        return {name: Model(name=name, **entry) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise FileFormatError(f"[models] cannot read the manifest {path}: {e}") from e


def find(name: str) -> Model:
    """Return one model of the manifest; InputError names those there are."""
    known = models()
    if name not in known:
        raise InputError(f"[models] name must be one of {', '.join(known)}, got {name!r}")
    return known[name]


def locate(name: str) -> Path:
    """Return the file of a pulled model; InputError says how to get it."""
    model = find(name)
    if not model.present:
        raise InputError(
            f"[models] {name} is not in {model.path.parent}: run `rvc-fast models pull {name}`, "
            "or name a file of your own"
        )
    return model.path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def pull(name: str, *, quiet: bool = False) -> Path:
    """Download a model unless it is there, and return its file.

    An interrupted download is resumed by the next call. The file gets its final name only after its SHA-256
    was found right, so that what `locate` returns is always whole.
    """
    model = find(name)
    if model.present:
        return model.path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    partial = model.path.parent / "partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        (disable_progress_bars if quiet else enable_progress_bars)()
        fetched = Path(
            hf_hub_download(model.repository, model.file, revision=model.revision, local_dir=partial)
        )
    except (OSError, RuntimeError, ValueError) as e:
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise RvcFastError(
            f"[models] cannot download {name} from {model.repository} at {model.revision[:12]}: {reason} "
            f"(offline? put the file at {model.path})"
        ) from e
    digest = _sha256(fetched)
    if digest != model.sha256:
        fetched.unlink()
        raise FileFormatError(
            f"[models] {name}: the downloaded file has SHA-256 {digest}, the manifest says {model.sha256}; "
            "it was deleted"
        )
    fetched.replace(model.path)
    return model.path
