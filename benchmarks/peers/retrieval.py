"""Retrieval as plain PyTorch: every distance, the nearest 8, their weighted mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rvc_fast.retrieval.blend import NEIGHBOURS


class Retrieval(nn.Module):
    """features (n, dim) -> rate * sum(w v) + (1 - rate) * features, w = d2^-2 normalised to sum 1."""

    def __init__(self, vectors: Tensor, rate: float):
        super().__init__()
        self.rate = rate
        self.register_buffer("vectors", vectors)
        self.register_buffer("squares", (vectors * vectors).sum(1))

    def forward(self, features: Tensor) -> Tensor:
        scores = torch.addmm(self.squares, features, self.vectors.T, alpha=-2)
        nearest = self.vectors[scores.topk(NEIGHBOURS, largest=False).indices]
        d2 = (nearest - features[:, None]).square().sum(2)
        weights = d2**-2
        weights = weights / weights.sum(1, keepdim=True)
        return self.rate * (weights[:, :, None] * nearest).sum(1) + (1 - self.rate) * features
