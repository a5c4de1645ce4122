"""What must hold for every text and every launch, whatever the kernel computes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx

from . import texts

STORAGE_LIMIT = {"metal": 32 * 1024, "cuda": 48 * 1024}
MAX_THREADS = 1024
# Larger groups are refused where a kernel takes all of a thread's registers, as M1 and M2 have them.
PORTABLE_THREADS = 384
MAX_BUFFERS = 31
ATTRIBUTES = {
    "dispatch_simdgroups_per_threadgroup",
    "dispatch_threads_per_threadgroup",
    "simdgroup_index_in_threadgroup",
    "simdgroups_per_threadgroup",
    "thread_execution_width",
    "thread_index_in_simdgroup",
    "thread_index_in_threadgroup",
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "threadgroups_per_grid",
    "threads_per_grid",
    "threads_per_simdgroup",
    "threads_per_threadgroup",
}

# MLX compiles a CUDA kernel once per name, and keeps the result on disk under that name.
_cuda_texts: dict[str, str] = {}


class RuleError(Exception):
    """A launch or text that a GPU might refuse or run wrongly."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise RuleError(message)


def check_text(text: texts.Text) -> None:
    """Rules of the text alone."""
    outside = sorted({c for c in text.source if ord(c) > 127})
    _check(not outside, f"the text must be ASCII, and has {outside}")
    if text.language == "metal":
        parameters = texts.metal_parameters(text.source, text.name)
        attributes = [a for _, _, a in parameters if not a.startswith("buffer(")]
        unknown = sorted(set(attributes) - ATTRIBUTES)
        _check(not unknown, f"the source mentions {unknown}, which MLX makes arguments of the kernel")
        buffers = len(parameters) - len(attributes)
        _check(buffers <= MAX_BUFFERS, f"{buffers} buffers: Metal has {MAX_BUFFERS}")
    else:
        known = _cuda_texts.setdefault(text.name, text.source)
        _check(
            known == text.source,
            f"two texts are called {text.name}: MLX's CUDA backend would run the first one for both",
        )


def check_launch(
    language: str,
    inputs: Sequence[mx.array],
    shapes: Sequence[tuple[int, ...]],
    grid: tuple[int, int, int],
    group: tuple[int, int, int],
    max_threads: int,
) -> None:
    """Rules of one call."""
    for number, array in enumerate(inputs):
        _check(array.ndim > 0, f"input {number} has no dimensions: Metal would get a reference")
        _check(array.size > 0, f"input {number} is empty")
    for number, shape in enumerate(shapes):
        _check(math.prod(shape) > 0, f"output {number} is empty: return before the launch")
    _check(min(*grid, *group) > 0, f"grid {grid} and threadgroup {group} must be positive")
    threads = math.prod(group)
    _check(threads <= max_threads, f"{threads} threads in a group: at most {max_threads}")
    blocks = [-(-g // t) for g, t in zip(grid, group, strict=True)]
    _check(max(grid) < 2**31, f"grid {grid} has a side that MLX cannot pass on")
    if language == "cuda":
        _check(max(blocks[1:]) < 2**16, f"{blocks} blocks are more than CUDA allows")
        _check(group[2] <= 64, f"a block of {group[2]} threads in z: CUDA allows 64")
