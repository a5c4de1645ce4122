"""Weights of the peers: loaded from named arrays, or seeded at full size, so that nothing is downloaded."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

# What only training needs, or only counts its steps.
UNUSED = ("masked_spec_embed",)
COUNTER = "num_batches_tracked"
GAIN, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"


def load(module: nn.Module, tensors: dict[str, np.ndarray]) -> None:
    """Load exactly the module's tensors, fold weight norm, and make the module ready for inference."""
    state = {name: torch.from_numpy(value) for name, value in tensors.items() if name not in UNUSED}
    counters = {name: value for name, value in module.state_dict().items() if name.endswith(COUNTER)}
    module.load_state_dict({**counters, **state}, strict=True)
    prepare(module)


def prepare(module: nn.Module) -> None:
    """Fold weight norm and leave training."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
    module.requires_grad_(False).eval()


def seeded(module: nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Return random tensors for the module, scaled by fan-in: signals neither vanish nor explode."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, value in module.state_dict().items():
        shape = tuple(value.shape)
        if name.endswith(COUNTER):
            continue
        draw = rng.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            center = 1 if name.endswith(("weight", "gamma", "running_var")) else 0
            tensors[name] = np.float32(center) + np.float32(0.02) * draw
        else:
            tensors[name] = draw * np.float32(1 / math.sqrt(math.prod(shape[1:])))
    for name in [n for n in tensors if n.endswith(GAIN)]:
        axes = tuple(i for i, n in enumerate(tensors[name].shape) if n == 1)
        direction = tensors[name.replace(GAIN, DIRECTION)]
        tensors[name] = np.sqrt(np.sum(direction * direction, axis=axes, keepdims=True))
    return tensors
