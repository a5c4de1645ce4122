"""Any supported model file -> one packed safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..features.hubert import HubertModel
from ..pitch.rmvpe import Rmvpe
from ..synthesizer import Synthesizer
from .checkpoint import Checkpoint, load_checkpoint, save_packed

MODELS: dict[str, Any] = {"voice": Synthesizer, "hubert": HubertModel, "rmvpe": Rmvpe}


def pack_file(source: str | Path, target: str | Path) -> Checkpoint:
    """Write the model in `source` to `target` in the names and layouts of our modules, and return it as read.

    Weight norm is folded in float32; nothing is rounded. The model is built first, so that a file that would
    not load is refused here. FileFormatError if `source` is no model, InputError if `target` cannot be written.
    """
    checkpoint = load_checkpoint(source)
    model = MODELS[checkpoint.kind]
    model.from_checkpoint(checkpoint)
    tensors = checkpoint.tensors if checkpoint.packed else model.sanitize(checkpoint.tensors)
    save_packed(Path(target), checkpoint.kind, tensors, checkpoint.config, checkpoint.metadata)
    return checkpoint
