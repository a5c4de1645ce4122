"""Any model file -> one safetensors file of our own, and its packed weights beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np

from .. import writing
from ..errors import InputError
from ..layers import NORMAL, Linear, Packing, packed_layers
from ..ops import dispatch
from . import kernels, stored
from .checkpoint import KINDS, Checkpoint, load_checkpoint, save_packed
from .models import MODELS
from .stored import Quantization, Stored, StoredDtype

SMALLEST_GROUP = 32


@dataclass(frozen=True)
class Storage:
    """How a file keeps the tensors of a model.

    dtype: what numbers are rounded to; None keeps what the source has: each tensor is in the narrowest type that holds
        all of its numbers exactly, and weight norm and batch norm are gains of their own.
    quantization: how linear layers are quantised, or None. What then is not quantised, scales and biases are float16
        unless `dtype` is given.
    """

    dtype: StoredDtype | None = None
    quantization: Quantization | None = None


def pack_file(
    source: str | Path, target: str | Path, packing: Packing | None = None, storage: Storage = Storage()
) -> Checkpoint:
    """Write the model in `source` to `target` in the names and layouts of our modules, and return it as read.

    The model is built first, so that a file that would not load is refused here. With `packing` its weights, packed so
    for this machine, are written beside it (`kernels.file_name`).

    Whoever packs to one target at the same time waits for the others.

    Raises:
        FileFormatError: `source` is no model.
        InputError: `target` has another suffix than .safetensors, a file cannot be written, one of them is (a file of)
            the source, weights are not packed here because the kernels do not run, or the model cannot be kept as
            `storage` says.
    """
    source, target = Path(source), Path(target)
    if target.suffix != ".safetensors":
        raise InputError(
            f"[pack] the file to write must have the suffix .safetensors, got {writing.shown(target)}"
        )
    dispatch.check_backend("pack")  # the model is built
    targets = [target]
    if packing is not None:
        kernels.require("pack")
        targets.append(kernels.file_name(target, packing))
    for path in targets:
        writing.check(path, "pack", [source])
        writing.check_folder(path, "pack")
    with writing.alone(target, "pack"):
        return _pack(source, target, packing, storage)


def _pack(source: Path, target: Path, packing: Packing | None, storage: Storage) -> Checkpoint:
    checkpoint = load_checkpoint(source)
    cls = MODELS[checkpoint.kind]
    model = cls.from_checkpoint(checkpoint, NORMAL)
    found = checkpoint.tensors if checkpoint.packed else cls.sanitize(checkpoint.tensors)
    tensors = stored.stored(checkpoint.kind, found, checkpoint.config)
    kept, config = _kept(checkpoint, model, tensors, storage)
    save_packed(target, checkpoint.kind, kept, config, checkpoint.metadata, [source])
    if packing is not None:
        del model
        written = cls.from_checkpoint(load_checkpoint(target), packing)
        kernels.save(target, packed_layers(written), packing, [source])
    return checkpoint


def _kept(
    checkpoint: Checkpoint, model: nn.Module, tensors: Mapping[str, Stored], storage: Storage
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tensors and the config of the file."""
    config = dict(checkpoint.config)
    if storage == Storage():
        arrays = {part: array for name, t in tensors.items() for part, array in stored.parts(name, t).items()}
        return {
            name: stored.narrowest(a) if a.dtype == np.float32 else a for name, a in arrays.items()
        }, config
    if any(tensor.codes is not None for tensor in tensors.values()):
        raise InputError("[pack] this model is quantised already: pack the original model")
    how = _quantized_layers(checkpoint.kind, model, storage.quantization)
    dtype = storage.dtype or "float16"
    kept: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        value = tensor.value()
        chosen = how.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if chosen is not None:
            kept |= stored.parts(name, stored.quantized(value, chosen, dtype))
        else:
            kept[name] = stored.rounded(name, value, dtype)
    if storage.quantization is not None:
        others = {path: q.as_dict() for path, q in how.items() if q != storage.quantization}
        config["quantization"] = storage.quantization.as_dict() | others
    return kept, config


def _quantized_layers(kind: str, model: nn.Module, wanted: Quantization | None) -> dict[str, Quantization]:
    """Return how each linear layer is quantised that is: smaller groups where its rows do not divide into those wanted."""
    if wanted is None:
        return {}
    found = {}
    for path, layer in model.named_modules():
        if isinstance(layer, Linear) and not path.startswith(model.float_parts):
            smaller = replace(wanted, group_size=SMALLEST_GROUP)
            for quantization in (wanted, smaller):
                if layer.shape[1] % quantization.group_size == 0:
                    found[path] = quantization
                    break
    if not found:
        raise InputError(
            f"[pack] {KINDS[kind]} of this size has no layers that are quantised: give --dtype float16 without -q"
        )
    return found
