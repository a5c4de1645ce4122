"""Any model file -> one safetensors file of our own, and its packed weights beside it."""

from __future__ import annotations

from pathlib import Path

from .. import writing
from ..errors import InputError
from ..layers import NORMAL, Packing, packed_layers
from ..ops import dispatch
from . import kernels
from .checkpoint import Checkpoint, load_checkpoint, save_packed
from .models import MODELS


def pack_file(source: str | Path, target: str | Path, packing: Packing | None = None) -> Checkpoint:
    """Write the model in `source` to `target` in the names and layouts of our modules, and return it as read.

    Weight norm is folded in float32; nothing is rounded. The model is built first, so that a file that would
    not load is refused here. With `packing` its weights, packed so for this machine, are written beside it
    (`kernels.file_name`).

    Whoever packs to one target at the same time waits for the others.

    Raises:
        FileFormatError: `source` is no model.
        InputError: `target` has another suffix than .safetensors, a file cannot be written, one of them is (a file of)
            the source, or weights are not packed here because the kernels do not run.
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
        return _pack(source, target, packing)


def _pack(source: Path, target: Path, packing: Packing | None) -> Checkpoint:
    checkpoint = load_checkpoint(source)
    cls = MODELS[checkpoint.kind]
    model = cls.from_checkpoint(checkpoint, packing or NORMAL)
    tensors = checkpoint.tensors if checkpoint.packed else cls.sanitize(checkpoint.tensors)
    save_packed(target, checkpoint.kind, tensors, checkpoint.config, checkpoint.metadata, [source])
    if packing is not None:
        kernels.save(target, packed_layers(model), packing, [source])
    return checkpoint
