"""What this machine can do at most, measured, and how near a row comes to it (the roofline model)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from .. import native

# Of a copy and of a read: enough to be in no cache, on a machine that has it.
MOST_BYTES, SHARE_OF_MEMORY = 1 << 30, 1 / 8
# Side of the GPU's matmul, and its tries.
MATMUL, TRIES = 4096, 5


def on_gpu() -> bool:
    """Whether MLX's default device is a GPU."""
    return mx.default_device().type == mx.gpu


def device() -> str:
    """Return "cpu" or "gpu"."""
    return "gpu" if on_gpu() else "cpu"


def _fastest(run: Callable[[], Any]) -> float:
    mx.eval(run())
    seconds = []
    for _ in range(TRIES):
        start = time.perf_counter()
        mx.eval(run())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def arithmetic(dtype: str) -> float | None:
    """Return the GFLOP/s reached now in multiply-adds of this dtype, or None where they cannot be measured.

    On a CPU a loop of independent instructions on all threads, on a GPU MLX's largest matmul.
    """
    if on_gpu():
        a = mx.random.normal((MATMUL, MATMUL)).astype(getattr(mx, dtype))
        mx.eval(a)
        return round(2 * MATMUL**3 / _fastest(lambda: a @ a) / 1e9, 1)
    ext = native.ext()
    if ext is None or dtype not in ext.formats():
        return None
    return round(ext.fma_peak(dtype) / 1e9, 1)


def memory_bytes() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def measure() -> dict[str, float | None]:
    """Return the peaks of this machine now, None where something cannot be measured.

    fma_gflops, bf16_gflops; int8_gops (AMX, VNNI or NEON's dot product); read_gbytes, copy_gbytes (read and written).
    """
    size = int(min(MOST_BYTES, memory_bytes() * SHARE_OF_MEMORY))
    peaks: dict[str, float | None] = {
        "fma_gflops": arithmetic("float32"),
        "bf16_gflops": arithmetic("bfloat16"),
        "int8_gops": None,
        "read_gbytes": None,
        "copy_gbytes": None,
    }
    ext = native.ext()
    if on_gpu():
        a = mx.zeros((size // 4,), mx.float32)
        mx.eval(a)
        peaks["read_gbytes"] = round(4 * a.size / _fastest(lambda: a.sum()) / 1e9, 1)
        peaks["copy_gbytes"] = round(8 * a.size / _fastest(lambda: a + 1) / 1e9, 1)
    elif ext is not None:
        peaks["int8_gops"] = round(ext.int8_peak() / 1e9, 1) or None
        for kind in ("read", "copy"):
            peaks[f"{kind}_gbytes"] = round(ext.memory_peak(kind, size) / 1e9, 1)
    return peaks


def roofline(
    flops: float, size: float, seconds: float, gflops: float | None, gbytes: float | None
) -> tuple[float, str] | None:
    """Return (share of the limit reached, "arithmetic" or "memory", which limits), or None without peaks.

    The limit is the longer of flops at `gflops` GFLOP/s and `size` bytes at `gbytes` GB/s. More than 1 means that
    the data stayed in a cache, or that an algorithm needs fewer operations than the flops that define the work.
    """
    if gflops is None or gbytes is None or seconds <= 0:
        return None
    arithmetic, memory = flops / gflops / 1e9, size / gbytes / 1e9
    return max(arithmetic, memory) / seconds, "arithmetic" if arithmetic >= memory else "memory"
