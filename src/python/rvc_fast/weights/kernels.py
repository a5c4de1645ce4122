"""Packed weights on disk, beside the packed model they were made of: what loading would otherwise compute.

`voice.safetensors` has `voice.float32.kernels` (or another name for another packing). It is used only for exactly that
model and by the build of the kernels, the instruction set and the packing that it was made with; each layer is asked
what it wants besides. Whatever differs is `Unfit`.

The file is a safetensors file whose tensors are flat, with a checksum of each. It is read, not mapped: what becomes of
it afterwards changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from .. import native
from ..errors import InputError
from ..layers import Packing
from ..ops import PackedWeight, Precision, dispatch
from ..workers import workers
from . import archive
from .unpickler import Malformed

# The formats that the CPU's kernels multiply in, with either use of memory.
CHOICES = (
    Packing("normal"),
    Packing("low"),
    Packing("normal", Precision("bfloat16")),
    Packing("low", Precision("bfloat16")),
    Packing("normal", Precision("int8")),
    Packing("low", Precision("int8")),
    Packing("normal", Precision("bfloat16x2")),
    Packing("low", Precision("bfloat16x2")),
)
_TYPES = {"F32": ("float32", 4), "BF16": ("bfloat16", 2), "I8": ("int8", 1), "U32": ("uint32", 4)}


class Unfit(Exception):
    """A file of packed weights that must not be used, and why, on one line."""


@dataclass(frozen=True)
class Kernels:
    """The packed weights of a model's layers, by their names, and the file they lie in."""

    path: Path
    weights: dict[str, PackedWeight]

    def fit(self, wanted: Mapping[str, PackedWeight]) -> dict[str, PackedWeight]:
        """Return the weights if they are just what the layers would pack, by name; Unfit otherwise."""
        for name in sorted(wanted.keys() | self.weights.keys()):
            want, got = wanted.get(name), self.weights.get(name)
            if want is None or got is None or _description(want) != _description(got):
                raise Unfit(f"it does not hold what layer {name[:80]!r} takes")
        return self.weights


def file_name(model: Path, packing: Packing) -> Path:
    """Return where the weights of a model file belong that are packed so."""
    low = "-low" if packing.memory == "low" else ""
    return model.with_name(f"{model.stem}.{packing.precision.weights}{low}.kernels")


def find(model: Path, data: archive.Bytes, packing: Packing) -> Kernels | None:
    """Return the packed weights beside a packed model.

    Args:
        model: its file.
        data: its contents.
        packing: how they have to be packed.

    Returns:
        None if there are none, or if weights are not packed here because the compiled CPU kernels do not run.

    Raises:
        Unfit: there is a file, but of another model, made by or for something else, or damaged.
    """
    path = file_name(model, packing)
    if dispatch.compiled_missing() is not None or not path.exists():
        return None
    try:
        return Kernels(path, _read(path, _key(data, packing)))
    except OSError as e:
        raise Unfit(f"it cannot be opened: {e.strerror or e}") from None
    except (Malformed, ValueError) as e:
        raise Unfit(str(e)) from None


def require(what: str) -> None:
    """Raise InputError unless weights are packed here."""
    if (why := dispatch.compiled_missing()) is not None:
        raise InputError(f"[{what}] only the compiled CPU kernels have packed weights: {why}")


def save(
    model: Path, weights: Mapping[str, PackedWeight], packing: Packing, sources: Iterable[Path] = ()
) -> None:
    """Write the packed weights of a packed model beside it, whole or not at all; InputError if that cannot be."""
    require("pack")
    entries = {}
    for name, weight in weights.items():
        code = next(c for c, (kind, _) in _TYPES.items() if getattr(mx, kind) == weight.data.dtype)
        entries[name] = archive.Part(code, (weight.data.size,), _bytes(weight.data))
    with archive.opened(model) as data:
        key = _key(data, packing)
    described = {name: _description(weight) for name, weight in weights.items()}
    checksums = {name: archive.checksum(part.content) for name, part in entries.items()}
    metadata = {**key, "weights": json.dumps(described), "xxh3": json.dumps(checksums)}
    archive.write_safetensors(file_name(model, packing), entries, metadata, sources)


def _bytes(array: mx.array) -> memoryview:
    """Return the memory of a flat array."""
    return np.asarray(array.view(mx.uint8)).data


def _key(data: archive.Bytes, packing: Packing) -> dict[str, str]:
    """What has to be the same when packed weights are used as when they were made."""
    return {
        "format": archive.KERNELS_FORMAT,
        "model": archive.safetensors_identity(data),
        "layout": native.compiled.layout(),
        "isa": native.compiled.isa(),
        "dtype": packing.precision.weights,
        "memory": packing.memory,
    }


_DIFFERS = {
    "format": "it does not hold packed weights",
    "model": "it was made of another model",
    "layout": "it was made by another build of rvc_fast",
}


def _description(weight: PackedWeight) -> list[Any]:
    """What a packed weight is, but for its values, as JSON holds it."""
    shape, stride = list(weight.shape), list(weight.stride)
    values = [str(weight.data.dtype).rpartition(".")[2], *weight.data.shape]
    return [weight.op, shape, weight.groups, weight.algorithm, stride, weight.dtype, values]


def _read(path: Path, key: dict[str, str]) -> dict[str, PackedWeight]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise Malformed("it is empty")
        entries, metadata = archive.safetensors_directory(archive.Contents(file.fileno(), 0, size))
        for name, value in key.items():
            if metadata.get(name) != value:
                got = metadata.get(name, "")[:40]
                raise Unfit(_DIFFERS.get(name, f"it was made for {name} {got!r}, in use is {value!r}"))
        try:
            described = json.loads(metadata["weights"])
            weights = {name: _weight(*described[name]) for name in entries}
            checksums = json.loads(metadata["xxh3"])
            expected = [checksums[name] for name in entries]
        except (KeyError, TypeError, ValueError, RecursionError):
            raise Malformed("its list of weights is damaged") from None
        spans = []
        for name, (_, (dtype, count)) in weights.items():
            entry = entries[name]
            known, size = _TYPES.get(entry.code, ("", 0))
            if known != dtype or count <= 0 or count * size != entry.end - entry.begin:
                raise Malformed(f"layer {name[:80]!r} does not fit its place")
            spans.append((entry.begin, count, dtype))
        arrays = native.compiled.read_arrays(file.fileno(), spans)
    # On a few threads: xxhash works without Python's lock.
    with workers(4) as pool:
        found = pool.map(archive.checksum, [_bytes(array) for array in arrays])
    for name, computed, stated in zip(weights, found, expected, strict=True):
        if computed != stated:
            raise Malformed(f"layer {name[:80]!r} does not have its checksum: the file is damaged")
    return {
        name: PackedWeight(data=array, **facts)
        for (name, (facts, _)), array in zip(weights.items(), arrays, strict=True)
    }


def _weight(
    op: str, shape: list[int], groups: int, algorithm: str, stride: list[int], dtype: str, values: list[Any]
) -> tuple[dict[str, Any], tuple[str, int]]:
    kind, count = values
    if type(kind) is not str or any(type(n) is not int for n in (*shape, groups, *stride, count)):
        raise ValueError
    facts = {"op": op, "shape": tuple(shape), "groups": groups, "algorithm": algorithm}
    return facts | {"stride": tuple(stride), "dtype": dtype}, (kind, count)
