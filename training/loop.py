"""The training loop: every batch a function of (seed, step), so that an interrupted run goes on as if it had not been."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .plan import Training

SAVE_EVERY = 60.0  # seconds
WARM_UP = 0.03


def device() -> torch.device:
    """Return the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> torch.autocast:
    """Return the context of forward passes: bfloat16 where the hardware multiplies in it (a GPU, or AMX)."""
    fast = device().type == "cuda" or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device().type, torch.bfloat16, enabled=fast)


def save(path: Path, value: Any) -> None:
    """torch.save, atomically."""
    temporary = path.with_suffix(".tmp")
    torch.save(value, temporary)
    os.replace(temporary, path)


def rate_at(training: Training, step: int) -> float:
    """Return the learning rate of a step."""
    warm = max(1, round(WARM_UP * training.steps))
    if step < warm:
        return training.rate * (step + 1) / warm
    return training.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, training.steps - warm)))


def fit(
    model: nn.Module,
    training: Training,
    loss: Callable[[int], Tensor],
    path: Path,
    *,
    seed: int,
    watch: Callable[[], str] | None = None,
    every: int = 250,
) -> nn.Module:
    """Train `model` and leave its weights in `path`; where they are already, load them.

    `loss(step)` draws the batch of a step and returns its loss. Beside `path` a checkpoint (weights, optimiser,
    step, random state) is kept while training runs, and taken up by the next call. `watch()` is printed with the
    mean loss every `every` steps.
    """
    if path.is_file():
        model.load_state_dict(torch.load(path, map_location=device()))
        return model.eval()
    optimiser = torch.optim.AdamW(
        model.parameters(), training.rate, betas=(0.9, 0.98), weight_decay=training.weight_decay
    )
    torch.manual_seed(seed)
    checkpoint, first, before = path.with_suffix(".checkpoint"), 0, 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device())
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"].cpu())
        first, before = state["step"], state["seconds"]
    began = saved = time.monotonic()
    total, count = torch.zeros((), device=device()), 0
    for step in range(first, training.steps):
        model.train()
        for group in optimiser.param_groups:
            group["lr"] = rate_at(training, step)
        value = loss(step)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        total, count = total + value.detach(), count + 1
        now = time.monotonic()
        if (step + 1) % every == 0 or step + 1 == training.steps:
            model.eval()
            said = watch() if watch is not None else ""
            spent = before + now - began
            print(
                f"{path.stem} {step + 1}/{training.steps}: loss {total.item() / count:.4f} {said} ({spent:.0f} s)",
                flush=True,
            )
            total, count = torch.zeros((), device=device()), 0
        if now - saved > SAVE_EVERY:
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "random": torch.get_rng_state(),
                "step": step + 1,
                "seconds": before + now - began,
            }
            save(checkpoint, state)
            saved = now
    model.eval()
    save(path, model.state_dict())
    checkpoint.unlink(missing_ok=True)
    return model
