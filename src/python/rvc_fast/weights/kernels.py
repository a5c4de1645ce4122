"""Packed weights on disk, beside the packed model they were made of: what loading would otherwise compute.

`voice.safetensors` has `voice.float32.kernels` (or another name for another packing). It is mapped and used where it
lies, but only for exactly that model and by the build of the kernels, the instruction set and the packing that it
was made with; each layer is asked what it wants besides. Whatever differs is `Unfit`.

The file is a safetensors file whose tensors are flat and lie at multiples of 64 bytes. Each begins with 64 bytes
that are left to MLX, then come the packed values, filled up to 64 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from .. import native
from ..errors import InputError
from ..layers import Memory, Packing
from ..ops import Dtype, PackedWeight, dispatch
from . import archive
from .unpickler import Malformed

LINE = 64
CHOICES: tuple[tuple[Dtype, Memory], ...] = (
    ("float32", "normal"),
    ("float32", "low"),
    ("bfloat16", "normal"),
    ("bfloat16", "low"),
)
_TYPES = {"F32": ("float32", 4), "BF16": ("bfloat16", 2)}


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


def file_name(model: Path, dtype: str, memory: str) -> Path:
    """Return where the weights of a model file belong that are packed so."""
    return model.with_name(f"{model.stem}.{dtype}{'-low' if memory == 'low' else ''}.kernels")


def find(model: Path, data: memoryview, packing: Packing) -> Kernels | None:
    """Return the packed weights beside a packed model.

    Args:
        model: its file.
        data: the file's bytes.
        packing: how they have to be packed.

    Returns:
        None if there are none, or if weights are not packed here because the compiled CPU kernels do not run.

    Raises:
        Unfit: there is a file, but of another model, made by or for something else, or damaged.
    """
    path = file_name(model, packing.dtype, packing.memory)
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
    entries: dict[str, Any] = {}
    at = 0
    for name, weight in weights.items():
        code, size = next((c, s) for c, (t, s) in _TYPES.items() if getattr(mx, t) == weight.data.dtype)
        end = at + LINE + -(-weight.data.nbytes // LINE) * LINE
        entries[name] = {"dtype": code, "shape": [(end - at) // size], "data_offsets": [at, end]}
        at = end
    key = _key(archive.map_file(model), packing)
    described = {name: _description(weight) for name, weight in weights.items()}
    entries["__metadata__"] = {**key, "weights": json.dumps(described)}
    header = json.dumps(entries).encode()
    header += b" " * (-(8 + len(header)) % LINE)

    def parts() -> Iterator[bytes | memoryview]:
        yield len(header).to_bytes(8, "little") + header
        for weight in weights.values():
            values = np.array(weight.data.view(mx.uint8))
            yield bytes(LINE)
            yield values.data
            yield bytes(-len(values) % LINE)

    archive.replace_file(file_name(model, packing.dtype, packing.memory), parts(), sources)


def _key(data: memoryview, packing: Packing) -> dict[str, str]:
    """What has to be the same when packed weights are used as when they were made."""
    return {
        "format": archive.KERNELS_FORMAT,
        "model": archive.safetensors_identity(data),
        "layout": native.ext().layout(),
        "isa": native.ext().isa(),
        "dtype": packing.dtype,
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
        entries, metadata = archive.safetensors_directory(archive.map_open(file))
        for name, value in key.items():
            if metadata.get(name) != value:
                got = metadata.get(name, "")[:40]
                raise Unfit(_DIFFERS.get(name, f"it was made for {name} {got!r}, in use is {value!r}"))
        try:
            described = json.loads(metadata["weights"])
            weights = {name: _weight(*described[name]) for name in entries}
        except (KeyError, TypeError, ValueError, RecursionError):
            raise Malformed("its list of weights is damaged") from None
        spans = []
        for name, (_, (dtype, count)) in weights.items():
            entry = entries[name]
            known, size = _TYPES.get(entry.code, ("", 0))
            if known != dtype or not 0 < count * size <= entry.end - entry.begin - LINE:
                raise Malformed(f"layer {name[:80]!r} does not fit its place")
            spans.append((entry.begin + LINE, count, dtype))
        arrays = native.ext().map_arrays(file.fileno(), spans)
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
