"""Launching our kernels on a GPU: the one place that calls `mx.fast.metal_kernel` and `mx.fast.cuda_kernel`.

A kernel is a file src/kernels/OP/KERNEL.{metal,cu}, or .inc with one body for both languages: functions, then
`RVC_KERNEL(name, (inputs), (outputs), (sizes)) { body }`. The words a body may use are in src/kernels/common; it
finds `sizes.NAME`, a whole number, for each name of the sizes, `group`, `local`, `lane` and `simd` (the position of its
group in the grid, its thread's index there, its lane and the index of its simdgroup), the options of the launch as
constants, and for an input `bias` that may be absent `HAS_BIAS`. A line `#include "NAME"` stands for
src/kernels/common/NAME with one of those endings, which several kernels share.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from ..errors import RvcFastError
from ..resources import kernels_dir

# What a kernel may have on any Apple GPU that takes all of the 128 registers of a thread: MLX refuses larger groups,
# and cannot tell Metal's compiler how large ours are.
MOST_THREADS = 384
# MLX hands over smaller inputs in another address space, where pointers to them have another type.
LEAST_ELEMENTS = 8

_SUFFIX = {"metal": "metal", "cuda": "cu"}
_KERNEL = re.compile(
    r"^RVC_KERNEL\((\w+), \(([^)]*)\),\s+\(([^)]*)\),\s+\(([^)]*)\)\) \{\n(.*?)^\}$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT = re.compile(r"[ \t]*//[^\n]*")
_SHARED = re.compile(r'^#include "(\w+)"\n', re.MULTILINE)


class Text(NamedTuple):
    """A kernel's text as MLX takes it."""

    header: str
    inputs: tuple[str, ...]  # `sizes`, an array of them all, is the last
    outputs: tuple[str, ...]
    sizes: tuple[str, ...]
    source: str


def _read(backend: str, folder: str, name: str) -> str:
    """Return a file for one language or else the one for both, without comments: MLX looks for names in them too."""
    both = kernels_dir() / folder / f"{name}.inc"
    own = both.with_suffix(f".{_SUFFIX[backend]}")
    code = _COMMENT.sub("", (own if own.is_file() else both).read_text("ascii"))
    return _SHARED.sub(lambda line: _read(backend, "common", line[1]), code)


@functools.cache
def text(backend: str, op: str, kernel: str) -> Text:
    """Return the text of a kernel, without comments."""
    code = _read(backend, op, kernel)
    found = _KERNEL.search(code)
    if found is None or found[1] != kernel:
        raise RvcFastError(f"[{op}] the file of the {backend} kernel {kernel} does not define it")
    inputs, outputs, sizes = (tuple(found[i].replace(",", " ").split()) for i in (2, 3, 4))

    def place(use: re.Match[str]) -> str:
        if use[1] not in sizes:
            raise RvcFastError(f"[{op}] the {backend} kernel {kernel} does not declare the size {use[1]!r}")
        return f"sizes[{sizes.index(use[1])}]"

    body = re.sub(r"\bsizes\.(\w+)", place, found[5])
    common = kernels_dir() / "common"
    header = _COMMENT.sub("", (common / f"{backend}.h").read_text("ascii")) + code[: found.start()]
    prologue = (common / f"{backend}_prologue.inc").read_text("ascii")
    return Text(header, (*inputs, "sizes"), outputs, sizes, prologue + body)


@functools.cache
def _build(backend: str, op: str, kernel: str, dtypes: tuple[str, ...]) -> Callable[..., list[mx.array]]:
    t = text(backend, op, kernel)
    # MLX keeps compiled CUDA kernels on disk by name alone: another text needs another name.
    digest = hashlib.blake2b("\n".join((t.header, t.source)).encode(), digest_size=4).hexdigest()
    make: Any = mx.fast.metal_kernel if backend == "metal" else mx.fast.cuda_kernel
    return make(
        name="_".join(("rvc", kernel, digest, *dtypes)),
        input_names=list(t.inputs),
        output_names=list(t.outputs),
        source=t.source,
        header=t.header,
    )


@functools.cache
def _sizes(sizes: tuple[int, ...]) -> mx.array:
    return mx.array([*sizes, *[0] * (LEAST_ELEMENTS - len(sizes))], dtype=mx.int32)


def _bits(value: Any) -> Any:
    return struct.unpack("<i", struct.pack("<f", value))[0] if isinstance(value, float) else value


@functools.cache
def _absent(dtype: mx.Dtype) -> mx.array:
    return mx.array([0] * LEAST_ELEMENTS, dtype=dtype)


def _input(array: mx.array | None, dtype: mx.Dtype) -> mx.array:
    if array is None:
        return _absent(dtype)
    if array.size < LEAST_ELEMENTS:
        return mx.pad(array.reshape(-1), (0, LEAST_ELEMENTS - array.size))
    return array


def launch(
    backend: str,
    op: str,
    kernel: str,
    inputs: Mapping[str, mx.array | None],
    *,
    sizes: Mapping[str, int | float],
    options: Mapping[str, bool | int | float | mx.Dtype],
    groups: tuple[int, int, int],
    threads: int,
    outputs: Sequence[tuple[tuple[int, ...], mx.Dtype]],
) -> list[mx.array]:
    """Launch a kernel and return its outputs, lazily as everything in MLX.

    Args:
        backend: "metal" or "cuda".
        inputs: by name, in C order after MLX made them so; none of them empty. The first gives `T`. The shape of an
            input is not known to the kernel.
        sizes: by the names that the kernel declares, whole numbers below 2^31 and, as their bits for `as_float`,
            floats.
        options: constants of the kernel, which is compiled once for each set of them; floats as in `sizes`.
        groups: how many thread groups, along three axes; each at least 1.
        threads: of a group, a multiple of 32, the kernel's `THREADS`.
        outputs: shape and dtype of each, none of them empty.
    """
    t = text(backend, op, kernel)
    dtype = next(a.dtype for a in inputs.values() if a is not None)
    if sizes.keys() != set(t.sizes):
        raise RvcFastError(f"[{op}] {kernel} has the sizes {[*t.sizes]}, got {[*sizes]}")
    given = {
        "sizes": _sizes(tuple(_bits(sizes[name]) for name in t.sizes)),
        **{name: _input(a, dtype) for name, a in inputs.items()},
    }
    flags = {
        f"HAS_{name.upper()}": a is not None
        for name, a in inputs.items()
        if f"HAS_{name.upper()}" in t.source
    }
    template = {"T": dtype, "THREADS": threads, **flags, **{k: _bits(v) for k, v in options.items()}}
    arrays = [given.pop(name) for name in t.inputs]
    if given.keys() or threads > MOST_THREADS or threads % 32 or min(groups) < 1:
        raise RvcFastError(f"[{op}] a wrong launch of {kernel}: {[*given]}, {groups} groups of {threads}")
    run = _build(backend, op, kernel, tuple(str(a.dtype).rpartition(".")[2] for a in arrays))
    return run(
        inputs=arrays,
        template=[*template.items()],
        grid=(groups[0] * threads, groups[1], groups[2]),
        threadgroup=(threads, 1, 1),
        output_shapes=[shape for shape, _ in outputs],
        output_dtypes=[dtype for _, dtype in outputs],
    )


def both(run: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Return `run` for the backends of an `Op`, where it takes the backend's name first."""
    return {backend: functools.partial(run, backend) for backend in _SUFFIX}


def alike(run: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Return `run` for the backends of an `Op`, where it does the same on both."""
    return dict.fromkeys(_SUFFIX, run)
