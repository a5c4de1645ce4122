"""Run the cases of a golden folder: recorded inputs and outputs of the public PyTorch code.

A folder holds (tests/golden is one):
- `NAME.json`, the manifest of a seeded checkpoint (kind `hubert`, `rmvpe` or `synth`), with `NAME.safetensors`,
  its inputs and expected outputs; a manifest alone is a checkpoint that other cases use;
- `mel.safetensors`-like files without a manifest: `audio` -> `log_mel`;
- `STEM.safetensors` with entries `STEM.CASE` in `cases.json`: whole conversions `audio`, `f0` -> `out_CASE`, and
  answers of a retrieval index;
- `*.pth`, `*.pt`: a seeded checkpoint as other programs store it (float16 or float32), compared with the manifest of
  the same tensors;
- `cases.json`: speaker, settings and injected noise of the cases that need them.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..errors import FileFormatError
from ..pipeline import run as run_pipeline
from ..pitch.rmvpe import decode_salience, log_mel
from ..retrieval import load_index
from ..settings import Chunking, Settings
from ..weights.checkpoint import Checkpoint, load_checkpoint
from ..weights.models import MODELS
from . import schema
from .seeded import read_json, read_manifest, seeded_normal, seeded_uniform, seeded_weights

# Kinds of manifests, and of the checkpoints that they describe.
KINDS = {"hubert": "hubert", "rmvpe": "rmvpe", "synth": "voice"}

BAR_DB = 90.0
PIPELINE_BAR_DB = 80.0
F0_BAR_CENTS = 0.05
# Parity beyond the reference's own float32 error means nothing; stay this far below it.
FLOOR_MARGIN_DB = 10.0
# What an exact match is printed as: JSON has no infinity.
EXACT_DB = 999.0


@dataclass(frozen=True)
class Row:
    """The comparison of one output tensor. `snr_db` is 999 for an exact match; `ms` is the time of the case."""

    case: str
    tensor: str
    snr_db: float
    max_abs: float
    correlation: float
    passed: bool
    ms: float
    bar: str

    @property
    def identical(self) -> bool:
        """Whether it is an exact match."""
        return self.snr_db == EXACT_DB

    def as_dict(self) -> dict[str, Any]:
        row = asdict(self)
        del row["bar"]
        return row


def compare(got: np.ndarray, want: np.ndarray) -> tuple[float, float, float]:
    """Return (SNR in dB, max-abs error, correlation) of `got` against `want`, in double."""
    if got.shape != want.shape:
        return -EXACT_DB, EXACT_DB, 0.0
    a, b = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    if not np.isfinite(a).all():
        return -EXACT_DB, EXACT_DB, 0.0
    error, power = float(((a - b) ** 2).sum()), float((b * b).sum())
    if error == 0:
        return EXACT_DB, 0.0, 1.0
    snr = 10 * math.log10(power / error) if power > 0 else -EXACT_DB
    norm = math.sqrt(float((a * a).sum()) * power)
    return snr, float(np.abs(a - b).max()), float(a @ b) / norm if norm > 0 else 0.0


def _row(case: str, tensor: str, got: Any, want: np.ndarray, ms: float, bar_db: float = BAR_DB) -> Row:
    snr, worst, correlation = compare(np.array(got), want)
    return Row(case, tensor, snr, worst, correlation, snr >= bar_db, ms, f">= {bar_db:.0f} dB")


def _f0_row(case: str, tensor: str, got: np.ndarray, want: np.ndarray, ms: float) -> Row:
    snr, worst, correlation = compare(got, want)
    passed = got.shape == want.shape and bool(((got > 0) == (want > 0)).all())
    if passed:
        voiced = want > 0
        cents = 1200 * np.abs(np.log2(got[voiced].astype(np.float64) / want[voiced]))
        passed = bool((cents <= F0_BAR_CENTS).all())
    return Row(case, tensor, snr, worst, correlation, passed, ms, f"<= {F0_BAR_CENTS} cent")


def _exact_row(case: str, tensor: str, got: np.ndarray, want: np.ndarray, ms: float) -> Row:
    snr, worst, correlation = compare(got, want)
    return Row(case, tensor, snr, worst, correlation, bool(np.array_equal(got, want)), ms, "identical")


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = run()
    return result, (time.perf_counter() - start) * 1e3


class ReplayedNoise:
    """The noise of a golden run, in the order in which the reference drew it (a NoiseSource)."""

    def __init__(self, seed: int, entries: list[tuple[str, list[int]]]):
        self._seed = seed
        self._entries = iter([(name, tuple(shape)) for name, shape in entries])

    def _next(self, shape: tuple[int, ...]) -> str:
        name, recorded = next(self._entries, ("", ()))
        if recorded != tuple(shape):
            raise FileFormatError(
                f"[verify] the model draws noise of shape {tuple(shape)}, recorded is {name!r} of {recorded}"
            )
        return name

    def normal(self, shape: tuple[int, ...]) -> mx.array:
        return mx.array(seeded_normal(self._seed, self._next(shape), shape))

    def uniform(self, shape: tuple[int, ...]) -> mx.array:
        return mx.array(seeded_uniform(self._seed, self._next(shape), shape))


class Folder:
    """A golden folder: its manifests, its cases, and the models rebuilt from them (each once)."""

    def __init__(self, path: Path):
        if not path.is_dir():
            raise FileFormatError(f"[verify] {path} is not a folder")
        self.path = path
        self.cases: dict[str, dict[str, Any]] = {}
        cases = path / "cases.json"
        if cases.is_file():
            self.cases = read_json(cases)
            schema.check(self.cases, schema.CASES, str(cases))
        self.manifests = {
            f.stem: read_manifest(f) for f in sorted(path.glob("*.json")) if f.name != "cases.json"
        }
        for name, manifest in self.manifests.items():
            if manifest["kind"] not in KINDS:
                raise FileFormatError(
                    f"[verify] {name}.json has kind {manifest['kind']!r}; known are {', '.join(KINDS)}"
                )
        self.model = functools.cache(self._model)

    def tensors(self, stem: str, *needed: str) -> dict[str, np.ndarray]:
        """Return the tensors of STEM.safetensors; FileFormatError if it has not all that are needed."""
        file = self.path / f"{stem}.safetensors"
        try:
            found = load_file(file)
        except (OSError, SafetensorError) as e:
            raise FileFormatError(f"[verify] cannot read {file}: {e}") from e
        self.require(stem, found, *needed)
        return found

    def require(self, stem: str, found: Mapping[str, np.ndarray], *needed: str) -> None:
        """Raise FileFormatError unless the tensors of STEM.safetensors that were found are all that are needed."""
        for name in needed:
            if name not in found:
                raise FileFormatError(f"[verify] {self.path / stem}.safetensors has no tensor {name!r}")

    def settings(self, case: str, *needed: str) -> dict[str, Any]:
        """Return what cases.json says of a case; FileFormatError if it does not say all that is needed."""
        found = self.cases.get(case, {})
        for name in needed:
            if found.get(name) is None:
                raise FileFormatError(f"[verify] cases.json must say {name!r} of {case!r}")
        return found

    def checkpoint(self, name: str) -> Checkpoint:
        """Return the seeded checkpoint of a manifest, as its original file would have loaded."""
        if name not in self.manifests:
            raise FileFormatError(f"[verify] there is no manifest {name}.json in {self.path}")
        m = self.manifests[name]
        config = dict(m["config"])
        if m["kind"] == "synth":
            shapes = {k: t["shape"] for k, t in m["tensors"].items()}
            config["use_f0"] = m.get("use_f0", "enc_p.emb_pitch.weight" in shapes)
            config["vocoder"] = m.get("vocoder", "HiFi-GAN")
            width = config["text_enc_hidden_dim"] = (shapes.get("enc_p.emb_phone.weight") or [0])[-1]
            # A voice as wide as its embedder's projection takes that: version v1.
            embedders = [
                self.manifests[c["hubert"]]["config"]
                for c in self.cases.values()
                if c.get("synth") == name and c.get("hubert") in self.manifests
            ]
            v1 = any(
                width == e.get("classifier_proj_size", 256) != e.get("hidden_size", 768) for e in embedders
            )
            config.setdefault("version", "v1" if v1 or width == 256 else "v2")
        return Checkpoint(
            kind=KINDS[m["kind"]],
            tensors=seeded_weights(m),
            config=config,
            metadata={},
            packed=False,
            path=self.path / f"{name}.json",
        )

    def _model(self, name: str) -> Any:
        checkpoint = self.checkpoint(name)
        return MODELS[checkpoint.kind].from_checkpoint(checkpoint)

    def noise(self, case: str, manifest: str) -> ReplayedNoise:
        return ReplayedNoise(self.manifests[manifest]["seed"], self.settings(case, "noise")["noise"])


def _hubert(folder: Folder, name: str) -> Iterator[Row]:
    want = folder.tensors(name, "audio")
    model, audio = folder.model(name), mx.array(want.pop("audio"))

    def run() -> dict[str, np.ndarray]:
        return {k: np.array(v) for k, v in model.trace(audio).items() if k in want}

    got, ms = _timed(run)
    for tensor, expected in want.items():
        if tensor not in got:
            raise FileFormatError(f"[verify] {name}: do not know how to compute {tensor!r} of a hubert case")
        yield _row(name, tensor, got[tensor], expected, ms)


def _rmvpe(folder: Folder, name: str) -> Iterator[Row]:
    want = folder.tensors(name, "audio")
    model = folder.model(name)
    audio = mx.array(want["audio"])
    salience, ms = _timed(lambda: np.array(model.salience(audio)))
    if "decode_f0" in want:
        folder.require(name, want, "decode_salience")
    known = {
        "salience": lambda t: _row(name, t, salience, want[t], ms),
        "f0": lambda t: _f0_row(name, t, decode_salience(salience), want[t], ms),
        "decode_f0": lambda t: _f0_row(name, t, decode_salience(want["decode_salience"]), want[t], ms),
    }
    for tensor in want:
        if tensor in ("audio", "decode_salience"):
            continue
        if tensor not in known:
            raise FileFormatError(f"[verify] {name}: do not know how to compute {tensor!r} of an rmvpe case")
        yield known[tensor](tensor)


def _synth(folder: Folder, name: str) -> Iterator[Row]:
    want = folder.tensors(name, "phone")
    settings = folder.settings(name, "sid")
    model = folder.model(name)
    given = {k: mx.array(want.pop(k)) for k in ("phone", "pitch", "f0") if k in want}
    noise = folder.noise(name, name)

    def run() -> dict[str, np.ndarray]:
        traced = model.trace(given["phone"], given.get("pitch"), given.get("f0"), settings["sid"], noise)
        return {k: np.array(v[0]) for k, v in traced.items()}

    got, ms = _timed(run)
    floor = settings.get("snr_fp32_vs_fp64_db", math.inf)
    for tensor, expected in want.items():
        if tensor not in got:
            raise FileFormatError(f"[verify] {name}: do not know how to compute {tensor!r} of a synth case")
        yield _row(name, tensor, got[tensor], expected, ms, min(BAR_DB, floor - FLOOR_MARGIN_DB))


def _mel(folder: Folder, name: str) -> Iterator[Row]:
    want = folder.tensors(name)
    mel, ms = _timed(lambda: np.array(log_mel(mx.array(want["audio"]))))
    yield _row(name, "log_mel", mel.T, want["log_mel"], ms)


def _index_rows(folder: Folder, stem: str, want: dict[str, np.ndarray]) -> Iterator[Row]:
    files = {c["index"] for n, c in folder.cases.items() if n.split(".")[0] == stem and c.get("index")}
    if len(files) != 1:
        raise FileFormatError(
            f"[verify] {stem}: index answers need one index file in cases.json, got {files}"
        )
    index = load_index(folder.path / files.pop())
    if "index_vectors_head" in want:
        head = want["index_vectors_head"]
        got = index.vectors(np.arange(len(head)))
        yield _exact_row(stem, "index_vectors_head", got, head, 0.0)
    for search in ("ivf", "exact"):
        if f"index_{search}_ids" not in want:
            continue
        ids = want[f"index_{search}_ids"]
        folder.require(stem, want, "index_query", f"index_{search}_d2")
        if ids.ndim != 2:
            raise FileFormatError(
                f"[verify] {stem}: index_{search}_ids must be (queries, k), got {ids.shape}"
            )
        query, k, exact = want["index_query"], ids.shape[1], search == "exact"
        (d2, found), ms = _timed(functools.partial(index.search, query, k, exact=exact))
        yield _exact_row(stem, f"index_{search}_ids", found, ids, ms)
        yield _row(stem, f"index_{search}_d2", d2, want[f"index_{search}_d2"], ms)


# What a conversion's settings are called in cases.json.
_CHUNKING = ("x_pad", "x_query", "x_center", "x_max")
_SETTINGS = ("sid", "pitch", "index_rate", "protect", "volume_envelope", *_CHUNKING)


def settings_of(case: Mapping[str, Any]) -> Settings:
    """Return the settings of a whole conversion, which the golden case states by the names of the PyTorch code."""
    return Settings(
        speaker=case["sid"],
        transpose=case["pitch"],
        index_rate=case["index_rate"],
        protect=case["protect"],
        volume_envelope=case["volume_envelope"],
        chunk=Chunking(*(case[key] for key in _CHUNKING)),
    )


def _pipeline(folder: Folder, stem: str) -> Iterator[Row]:
    want = folder.tensors(stem, "audio", "f0")
    yield from _index_rows(folder, stem, want)
    for case, c in folder.cases.items():
        if case.split(".")[0] != stem:
            continue
        out = "out_" + case.split(".", 1)[1]
        if out not in want:
            raise FileFormatError(f"[verify] {stem}.safetensors has no {out!r} for the case {case!r}")
        folder.settings(case, "hubert", "synth", *_SETTINGS)
        embedder, voice = folder.model(c["hubert"]), folder.model(c["synth"])
        index = load_index(folder.path / c["index"]) if c.get("index") else None
        noise = folder.noise(case, c["synth"])
        f0 = want["f0"]
        run = functools.partial(run_pipeline, want["audio"], embedder=embedder, voice=voice)
        found, ms = _timed(
            functools.partial(run, f0=lambda _, f0=f0: f0, index=index, settings=settings_of(c), noise=noise)
        )
        floor = c.get("snr_fp32_vs_fp64_db", math.inf)
        yield _row(case, out, found.samples, want[out], ms, min(PIPELINE_BAR_DB, floor - FLOOR_MARGIN_DB))


def _foreign_checkpoint(folder: Folder, file: Path) -> Iterator[Row]:
    """A checkpoint as other programs store it: its weights must come out as those of the manifest, rounded."""
    checkpoint, ms = _timed(lambda: load_checkpoint(file))
    model = MODELS[checkpoint.kind]
    got = model.sanitize(checkpoint.tensors)
    half = any(t.dtype == np.float16 for t in checkpoint.tensors.values())
    for name, manifest in folder.manifests.items():
        if KINDS[manifest["kind"]] != checkpoint.kind:
            continue
        seeded = seeded_weights(manifest)
        if half:
            seeded = {k: v.astype(np.float16) for k, v in seeded.items()}
        want = model.sanitize(seeded)
        if {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in want.items()}:
            flat_got = np.concatenate([np.ravel(got[k]).astype(np.float32) for k in sorted(got)])
            flat_want = np.concatenate([np.ravel(want[k]).astype(np.float32) for k in sorted(want)])
            yield _exact_row(file.stem, f"weights of {name}", flat_got, flat_want, ms)
            return
    raise FileFormatError(f"[verify] no manifest in {folder.path} has the tensors of {file.name}")


def _case_of(folder: Folder, stem: str) -> Callable[[Folder, str], Iterator[Row]]:
    if stem in folder.manifests:
        return {"hubert": _hubert, "rmvpe": _rmvpe, "synth": _synth}[folder.manifests[stem]["kind"]]
    if any(name.split(".")[0] == stem and "synth" in case for name, case in folder.cases.items()):
        return _pipeline
    if set(folder.tensors(stem)) == {"audio", "log_mel"}:
        return _mel
    raise FileFormatError(f"[verify] {stem}.safetensors is a case of unknown kind")


def verify_case(folder: Folder, stem: str) -> Iterator[Row]:
    """Yield one `Row` per output tensor of the case in STEM.safetensors."""
    yield from _case_of(folder, stem)(folder, stem)


def verify_folder(path: str | Path) -> Iterator[Row]:
    """Yield one `Row` per output tensor of every case in a golden folder.

    FileFormatError for a folder that cannot be read or a case of unknown kind, before anything runs.
    """
    folder = Folder(Path(path))
    stems = sorted(f.stem for f in folder.path.glob("*.safetensors"))
    files = sorted(f for f in folder.path.iterdir() if f.suffix in (".pth", ".pt"))
    if not stems and not files:
        raise FileFormatError(f"[verify] {path} holds no golden case")
    runs = [(_case_of(folder, stem), stem) for stem in stems]
    for run, stem in runs:
        yield from run(folder, stem)
    for file in files:
        yield from _foreign_checkpoint(folder, file)
