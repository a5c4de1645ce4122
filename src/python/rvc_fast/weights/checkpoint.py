"""One door for every model file: what is in it is found out by looking, not by its name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FileFormatError, InputError
from ..filekinds import stranger
from ..workers import workers
from . import archive, configs
from .archive import shown
from .stored import BFLOAT16
from .unpickler import Malformed, Tensor, quote

if TYPE_CHECKING:
    from ..layers import Packing
    from .kernels import Kernels

KINDS = {"voice": "a voice", "hubert": "a HuBERT or ContentVec embedder", "rmvpe": "an RMVPE pitch model"}
PACKED_FORMAT = "rvc_fast"
PACKED_LAYOUT = "1"
# Models of other kinds that people mistake for one of ours, by the beginnings of their tensors' names.
_OTHER_MODELS = {
    "a GPT-SoVITS voice, not one of RVC: use that program": ("enc_p.ssl_proj.", "enc_p.mrte.", "ar_"),
    "a so-vits-svc voice, not one of RVC: use that program, or train a voice with RVC": (
        "pre.weight",
        "enc_p.enc_.",
        "enc_p.f0_emb.",
        "f0_decoder.",
        "emb_uv.",
    ),
    "a VITS text-to-speech voice, not one of RVC": ("enc_p.emb.weight", "dp.flows."),
    "an FCPE pitch model, which is not read: use rmvpe.pt": ("input_stack.", "stack."),
    "a CREPE pitch model, which is not read: use rmvpe.pt": ("conv1_BN.",),
    "a Whisper model, not a content encoder of RVC": ("encoder.blocks.", "decoder.blocks."),
}
_HF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Checkpoint:
    """A model file's tensors and configuration.

    Attributes:
        kind: "voice", "hubert" or "rmvpe".
        tensors: {name: read-only array}. PyTorch's names and layouts as stored, in the stored precision (bfloat16 and
            float64 become float32); if `packed`, those of our modules, bfloat16 as `stored.BFLOAT16`.
        config: sizes, under the names of the model's config class.
        metadata: what else the file says of itself (author, epoch, ...), text and numbers only; `source` is
            the kind of file and `assumed` lists config values that neither shapes nor file could tell.
        packed: whether this is a file of `save_packed`, ready for loading without `sanitize`.
        path: the file.
        kernels: packed weights from a file beside it. The tensors that these were made of are not read: they have
            their shapes and are NaN.
    """

    kind: str
    tensors: dict[str, np.ndarray]
    config: dict[str, Any]
    metadata: dict[str, Any]
    packed: bool
    path: Path
    kernels: Kernels | None = None


def load_checkpoint(
    path: str | os.PathLike[str], expect: str | None = None, packing: Packing | None = None
) -> Checkpoint:
    """Read a voice (.pth, training checkpoint), HuBERT (fairseq .pt, Hugging Face folder or file), rmvpe.pt
    or packed file.

    Args:
        path: the file, or a Hugging Face folder with config.json.
        expect: the kind that is wanted ("voice", "hubert", "rmvpe"); None for any.
        packing: take packed weights of this kind from the disk, if a packed model has them beside it.

    Raises:
        kernels.Unfit: the packed weights beside the file cannot be used.
        InputError: there is no such file, or it cannot be opened.
        FileFormatError: the file is damaged, hostile, of no known kind or not of the expected one; the
        message is one line.
    """
    if expect is not None and expect not in KINDS:
        raise InputError(f"[weights] expect must be one of {', '.join(KINDS)}, got {expect!r}")
    path = Path(path)
    try:
        checkpoint = _load(path, packing)
    except Malformed as e:
        raise FileFormatError(f"[weights] cannot load {shown(path)}: {e}") from None
    except OSError as e:
        raise InputError(f"[weights] cannot open {shown(path)}: {e.strerror or e}") from None
    if expect is not None and expect != checkpoint.kind:
        raise FileFormatError(
            f"[weights] {shown(path)} must be {KINDS[expect]}, got {KINDS[checkpoint.kind]}"
        )
    return checkpoint


def save_packed(
    path: str | os.PathLike[str],
    kind: str,
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    metadata: Mapping[str, Any] | None = None,
    sources: Iterable[Path] = (),
) -> None:
    """Write one safetensors file with its config in the metadata, whole or not at all.

    Args:
        path: where to; an existing file is replaced.
        kind: "voice", "hubert" or "rmvpe".
        tensors: names and layouts of our modules, as their `sanitize` returns them. Those of `stored.BFLOAT16` are
            written as bfloat16.
        config, metadata: as in `Checkpoint`; JSON values.
        sources: files that must not be replaced.

    Raises:
        InputError: an unknown kind, or a place that cannot be written.
    """
    if kind not in KINDS:
        raise InputError(f"[weights] kind must be one of {', '.join(KINDS)}, got {kind!r}")
    path = Path(path)
    arrays = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays.values():
        digest.update(array.data)
    header = {
        "format": PACKED_FORMAT,
        "layout": PACKED_LAYOUT,
        "kind": kind,
        "config": json.dumps(dict(config), sort_keys=True),
        "metadata": json.dumps(dict(metadata or {}), sort_keys=True),
        "digest": digest.hexdigest(),
        "xxh3": json.dumps({name: archive.checksum(array) for name, array in arrays.items()}),
    }
    # The widest first, so that all lie at a multiple of their size.
    ordered = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    entries = {
        name: archive.Part(
            archive.code_of(arrays[name].dtype),
            arrays[name].shape,
            arrays[name].reshape(-1).view(np.uint8).data,
        )
        for name in ordered
    }
    archive.write_safetensors(path, entries, header, sources)


def _load(path: Path, packing: Packing | None) -> Checkpoint:
    if path.is_dir():
        path = _weights_of_folder(path)
    with archive.opened(path) as data:
        return _read(path, data, packing)


def _read(path: Path, data: archive.Bytes, packing: Packing | None) -> Checkpoint:
    if archive.is_safetensors(data):
        entries, header = archive.safetensors_directory(data)
        if header.get("format") == PACKED_FORMAT:
            return _packed(path, data, entries, header, packing)
        if header.get("format") == archive.KERNELS_FORMAT:
            raise Malformed("it holds packed weights for faster loading; give the model beside it")
        tensors = archive.read_safetensors(data, entries)
        source, root = "safetensors", _with_metadata(tensors, header)
    elif bytes(data[:4]) in (b"PK\x03\x04", b"PK\x05\x06"):
        source, root = "torch zip", archive.read_torch_zip(data)
    elif archive.is_torch_legacy(data):
        source, root = "torch legacy", archive.read_torch_legacy(data)
    else:
        raise Malformed(
            stranger(bytes(data[:1024]))
            or f"it is no PyTorch checkpoint or safetensors file, it starts with {quote(bytes(data[:12]))}"
        )
    if type(root) is not dict:
        raise Malformed(f"it must hold a dict of tensors, got {quote(root)}")
    return _identify(path, root, source)


def _with_metadata(tensors: dict[str, np.ndarray], header: dict[str, str]) -> dict[str, Any]:
    """Return what a voice's .pth would hold, of a safetensors file that has the rest in its metadata as text."""
    if "enc_p.emb_phone.weight" not in tensors or "config" not in header:
        return dict(tensors)
    try:
        config = json.loads(header["config"])
    except (ValueError, RecursionError):
        raise Malformed(f"the config in its metadata is not JSON: {quote(header['config'])}") from None
    return {**header, "config": config, "weight": tensors}


def _weights_of_folder(path: Path) -> Path:
    files = [path / name for name in _HF_WEIGHTS if (path / name).is_file()]
    if not files:
        raise Malformed(f"it is a folder without {' or '.join(_HF_WEIGHTS)}")
    return files[0]


def _hf_config(path: Path) -> dict[str, Any]:
    """Return the config.json beside a Hugging Face weight file; {} where there is none."""
    file = path.parent / "config.json"
    if path.name not in _HF_WEIGHTS or not file.is_file():
        return {}
    try:
        with archive.opened(file) as data:
            config = json.loads(bytes(data[: archive.MAX_JSON]))
    except Malformed:
        raise Malformed("the config.json beside it is empty") from None
    except (ValueError, RecursionError):
        raise Malformed("the config.json beside it is not JSON") from None
    if type(config) is not dict:
        raise Malformed("the config.json beside it is not a JSON object")
    return {key: v for key, v in config.items() if type(v) is not dict or key.startswith("conv_")}


def _identify(path: Path, root: dict[Any, Any], source: str) -> Checkpoint:
    """Tell the kind of an unpacked file by its keys."""
    metadata: dict[str, Any] = {"source": source}
    if _is_tensors(root.get("weight")):
        if "enc_p.emb_phone.weight" not in root["weight"]:
            _refuse_other({name for name in root["weight"] if type(name) is str})
        tensors = _voice_tensors(root["weight"])
        metadata = _plain(root, skip=("f0", "version", "vocoder", "sr")) | metadata
        try:
            config = configs.voice_config(tensors, root.get("config"), root)
        except Malformed as e:
            raise (
                e if root.get("config") else Malformed(f"it is a voice without its config, and {e}")
            ) from None
        return Checkpoint("voice", tensors, config, metadata, False, path)

    state = next((root[key] for key in ("model", "state_dict") if _is_tensors(root.get(key))), root)
    metadata = (_plain(root) if state is not root else {}) | metadata
    if not _is_tensors(state):
        raise Malformed("it holds no dict of tensors")
    names = {name.removeprefix("hubert.") for name in state if type(name) is str}
    if "enc_p.emb_phone.weight" in names:
        tensors = _voice_tensors(state)
        metadata["source"] += ", training checkpoint"
        facts = {"version": root["version"]} if type(root.get("version")) is str else {}
        return Checkpoint("voice", tensors, configs.voice_config(tensors, None, facts), metadata, False, path)
    if "encoder.layers.0.fc1.weight" in names or "feature_projection.projection.weight" in names:
        tensors = _arrays(state)
        stated = _hf_config(path) or configs.fairseq_statements(root)
        config, assumed = configs.hubert_config(tensors, stated)
        return Checkpoint("hubert", tensors, config, metadata | {"assumed": assumed}, False, path)
    if "unet.encoder.bn.weight" in names:
        tensors = _arrays(state)
        return Checkpoint("rmvpe", tensors, configs.rmvpe_config(tensors), metadata, False, path)
    if any(name.startswith("discriminators.") for name in names):
        raise Malformed(
            "it is a discriminator (D_*.pth), only good for training; its voice is the G_*.pth beside it"
        )
    _refuse_other(names)
    raise Malformed(f"its tensors are of no known model; the first is {quote(next(iter(state)))}")


def _refuse_other(names: set[str]) -> None:
    """Malformed for tensors of a model of another kind that we know by name."""
    for what, signs in _OTHER_MODELS.items():
        if any(name.startswith(signs) for name in names):
            raise Malformed(f"it is {what}")


def _packed(
    path: Path,
    data: archive.Bytes,
    entries: dict[str, archive.Entry],
    header: dict[str, str],
    packing: Packing | None,
) -> Checkpoint:
    if header.get("layout") != PACKED_LAYOUT or header.get("kind") not in KINDS:
        raise Malformed(
            f"it is packed as {quote(header.get('kind'))} in layout {quote(header.get('layout'))}, "
            f"which must be one of {', '.join(KINDS)} in layout {PACKED_LAYOUT}; pack it anew"
        )
    try:
        config, metadata = json.loads(header.get("config", "")), json.loads(header.get("metadata", "{}"))
    except (ValueError, RecursionError):
        raise Malformed("its packed config is not JSON") from None
    if type(config) is not dict or type(metadata) is not dict:
        raise Malformed("its packed config is not a JSON object")
    assumed = metadata.get("assumed")
    metadata = _plain(metadata)
    if type(assumed) is list and all(type(name) is str for name in assumed):
        metadata["assumed"] = assumed
    kernels = None
    if packing is not None:
        from .kernels import find

        kernels = find(path, data, packing)
    made = set() if kernels is None else {f"{layer}.weight" for layer in kernels.weights}
    wanted = {name: entry for name, entry in entries.items() if name not in made}
    read = _finite(archive.read_safetensors(data, wanted, _checksums(header), bfloat16=BFLOAT16))
    tensors = {name: read[name] if name in read else _unread(entry) for name, entry in entries.items()}
    return Checkpoint(header["kind"], tensors, config, metadata, True, path, kernels)


def _unread(entry: archive.Entry) -> np.ndarray:
    """Return something of a tensor's shape that nobody must compute with: NaN, or 0 of a quantised weight."""
    quantized = entry.code == "U32"
    return np.broadcast_to(
        np.array(0 if quantized else np.nan, np.uint32 if quantized else np.float32), entry.shape
    )


def _checksums(header: dict[str, str]) -> dict[str, str] | None:
    """Return the checksums of a packed file's tensors; None if the file was packed before it got any of this kind."""
    if "xxh3" not in header:
        return None
    try:
        checksums = json.loads(header["xxh3"])
    except (ValueError, RecursionError):
        checksums = None
    if type(checksums) is not dict:
        raise Malformed("its checksums are not a JSON object")
    return checksums


def _is_tensors(value: object) -> bool:
    """Whether this is a state dict: text to tensors, perhaps with a few other values among them."""
    return type(value) is dict and any(isinstance(v, (Tensor, np.ndarray)) for v in value.values())


def _arrays(state: dict[Any, Any], drop: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Map the tensors of a state dict; everything in it must be one, and finite."""
    arrays = {}
    for name, value in state.items():
        if type(name) is not str or not isinstance(value, (Tensor, np.ndarray)):
            raise Malformed(f"its entry {quote(name)} is not a tensor")
        if not name.startswith(drop):
            arrays[name] = value.array() if isinstance(value, Tensor) else value
    return _finite(arrays)


def _voice_tensors(state: dict[Any, Any]) -> dict[str, np.ndarray]:
    # enc_q is the posterior encoder, which only training uses.
    return _arrays(state, drop=("enc_q.",))


def _finite(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    # On a few threads: it is a pass over all of the file, and numpy works without Python's lock.
    with workers(4) as pool:
        finite = list(pool.map(_is_finite, tensors.values()))
    for (name, array), good in zip(tensors.items(), finite, strict=True):
        if not good:
            raise Malformed(f"tensor {quote(name)} holds NaN, infinity or numbers beyond float32")
        if array.dtype == np.float64:
            tensors[name] = array.astype(np.float32)
    return tensors


def _is_finite(array: np.ndarray) -> bool:
    """Whether all numbers are finite in float32, without arrays of that size; float16 is checked as bits for speed."""
    if array.dtype == BFLOAT16:
        return not bool(((array["bfloat16"] & 0x7F80) == 0x7F80).any())
    if array.dtype.kind != "f":
        return True
    flat = array.reshape(-1)
    if array.dtype == np.float16:
        bits = flat.view(np.uint16)
        return all(int((bits[i : i + 65536] & 0x7FFF).max()) < 0x7C00 for i in range(0, bits.size, 65536))
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        blocks = (flat[i : i + 65536].astype(np.float32, copy=False) for i in range(0, flat.size, 65536))
        return all(bool(np.isfinite(block).all()) for block in blocks)


def _plain(root: dict[Any, Any], skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The entries of a file that are text or numbers, for showing; long ones are left out."""
    return {
        key: value
        for key, value in root.items()
        if type(key) is str
        and key not in skip
        and (type(value) in (int, float, bool) or (type(value) is str and len(value) <= 4096))
    }
