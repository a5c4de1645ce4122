"""Part of a network as a network of its own, which PyTorch can time, compile or export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class Part(nn.Module):
    """What one method of a network computes.

    Args:
        method: a bound method of a module. The module's weights are this part's too.
    """

    def __init__(self, method: Callable[..., Any]):
        super().__init__()
        self.network, self.method = method.__self__, method.__name__  # type: ignore[attr-defined]

    def forward(self, *inputs: Any) -> Any:
        return getattr(self.network, self.method)(*inputs)
