"""The downloadable models: what they are, where they lie, and fetching them, resumable and checked by SHA-256."""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from .. import env, writing
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


def _fetch(url: str, partial: Path, size: int, title: str, progress: bool) -> None:
    """Get what is missing of `partial`, asking for the rest only if some of it is there."""
    have = partial.stat().st_size if partial.exists() else 0
    if have >= size:
        return
    headers = {"User-Agent": "rvc-fast", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
        if response.status != 206:
            have = 0
        with (
            partial.open("ab" if have else "wb") as f,
            tqdm(
                total=size, initial=have, unit="B", unit_scale=True, desc=title, disable=not progress
            ) as bar,
        ):
            while have < size and (block := response.read(min(_BLOCK, size - have))):
                f.write(block)
                have += len(block)
                bar.update(len(block))
    if have < size:
        raise ConnectionError(
            f"the connection ended after {have} of {size} bytes; the next try goes on from there"
        )


def pull(name: str, *, progress: bool = False) -> Path:
    """Download a model unless it is there, and return its file.

    An interrupted download is resumed by the next call. The file gets its final name only after its SHA-256
    was found right, so that what `locate` returns is always whole. Whoever pulls the same model at the same time
    waits for the one who downloads it.
    """
    model = find(name)
    if model.present:
        return model.path
    try:
        model.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"[models] cannot write to {model.path.parent}: {writing.reason(e)}") from e
    writing.check(model.path, "models")
    with writing.alone(model.path, "models"):
        if not model.present:
            _download(model, progress)
    return model.path


def _download(model: Model, progress: bool) -> None:
    name, partial = model.name, model.path.with_name(model.path.name + ".partial")
    writing.check(partial, "models")
    url = f"{env.hub()}/{model.repository}/resolve/{model.revision}/{model.file}"
    try:
        _fetch(url, partial, model.size, name, progress)
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise RvcFastError(
            f"[models] cannot download {name} from {url}: {e} (offline? put the file at {model.path})"
        ) from e
    digest = _sha256(partial)
    if digest != model.sha256:
        partial.unlink()
        raise FileFormatError(
            f"[models] {name}: the downloaded file has SHA-256 {digest}, the manifest says {model.sha256}; "
            "it was deleted"
        )
    partial.replace(model.path)
