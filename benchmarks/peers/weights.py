"""Weights of the peers, loaded from named arrays."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

# What only training needs, or only counts its steps.
UNUSED = ("masked_spec_embed",)
COUNTER = "num_batches_tracked"

Module = TypeVar("Module", bound=nn.Module)


def load(module: Module, tensors: dict[str, np.ndarray]) -> Module:
    """Load exactly the module's tensors, fold weight norm, and return the module ready for inference."""
    state = {name: torch.from_numpy(value) for name, value in tensors.items() if name not in UNUSED}
    counters = {name: value for name, value in module.state_dict().items() if name.endswith(COUNTER)}
    module.load_state_dict({**counters, **state}, strict=True)
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
    return module.requires_grad_(False).eval()
