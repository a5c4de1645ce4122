"""Offsets past 2^31 and 2^32: arrays larger than this machine, of which one group touches its part."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from emulator import EmulationError, Emulator, rules

WIDTH = 2**17
ROWS = 2**15 + 1
THREADS = 128
METAL = """
  uint3 group = threadgroup_position_in_grid;
  uint local = thread_index_in_threadgroup;
"""
CUDA = """
  uint3 group = blockIdx;
  uint local = threadIdx.x;
"""
STORE = "o[at] = x[at];"


@pytest.mark.parametrize("language", ["metal", "cuda"])
@pytest.mark.parametrize(
    ("index", "error"),
    [
        (f"size_t at = size_t(group.y) * {WIDTH} + group.x * {THREADS} + local;", None),
        (
            f"uint at = group.y * {WIDTH} + group.x * {THREADS} + local;",
            "touches byte .* an offset of 32 bits",
        ),
        (f"int at = int(group.y) * {WIDTH} + int(group.x * {THREADS} + local);", "overflows"),
    ],
    ids=["size_t", "uint", "int"],
)
def test_offsets_of_32_bits_are_found(
    language: str, index: str, error: str | None, need_tool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tool("clang++-19")
    monkeypatch.setattr(rules, "_cuda_texts", {})
    emulator = Emulator(language, last_group_only=True)
    kernel = emulator.kernel("huge", ["x"], ["o"], (METAL if language == "metal" else CUDA) + index + STORE)
    shape = (ROWS, WIDTH)

    def launch() -> list[mx.array]:
        return kernel(
            inputs=[mx.broadcast_to(mx.zeros((1, 1), mx.float16), shape)],
            output_shapes=[shape],
            output_dtypes=[mx.float16],
            grid=(WIDTH, ROWS, 1),
            threadgroup=(THREADS, 1, 1),
        )

    if error is None:
        assert launch()[0].shape == shape
    else:
        with pytest.raises(EmulationError, match=error):
            launch()
