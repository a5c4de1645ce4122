"""Which backend runs an op: the one place that decides.

`RVC_FAST_BACKEND=auto` takes the compiled kernel where there is one for the default device and falls back
to the pure-MLX reference otherwise; `rvc-fast info` prints why. On a GPU it first asks `trust` whether the kernel was
found right and fast on this machine. An explicit choice never falls back: an op that has kernels, but none for that
backend, is an error. An op that has none anywhere is its reference. The CPU's kernels run on the CPU whatever the
default device is.

An `Op` asks once for each signature of a call, which holds the environment and the default device, and keeps the
answer. Whatever else an answer depends on calls `forget` when it changes, as `trust` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import mlx.core as mx

from .. import device, env, native
from ..errors import BackendError, InputError
from . import registry, trust

# backend -> why it cannot take one call, or None. A backend that is not named can.
Refusals = Mapping[str, str | None]


class Route(NamedTuple):
    """The backend an op takes and the reason, as `rvc-fast info` prints it."""

    backend: str
    reason: str


# What forgets the answers that each `Op` keeps.
_FORGET: list[Callable[[], None]] = []
# The backend of the device that `pretending` makes the ops believe in.
_pretended: str | None = None


def on_change(forget: Callable[[], None]) -> None:
    """Have `forget` called when a kept route may be wrong."""
    _FORGET.append(forget)


def forget() -> None:
    """Make every op ask for its route anew: something has changed that a call's signature does not hold."""
    for each in _FORGET:
        each()


trust.when_changed(forget)


@contextmanager
def pretending(backend: str) -> Iterator[None]:
    """Make the ops believe inside that MLX's default device is of this backend: for tests in emulation, and for counting."""
    global _pretended
    before, _pretended = _pretended, backend
    forget()
    try:
        yield
    finally:
        _pretended = before
        forget()


def _device_backend() -> str:
    if _pretended is not None:
        return _pretended
    if device.current() == "cpu":
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def gpu_backend() -> str | None:
    """Return "metal" or "cuda" where MLX's default device is such a GPU, else None."""
    backend = _device_backend()
    return None if backend == "cpu" else backend


def on_gpu() -> bool:
    """Return whether ops run on a GPU now."""
    return gpu_backend() is not None and env.backend() != "cpu"


def _absent(backend: str) -> str | None:
    """Why nothing can run on `backend` here, or None."""
    if backend == "reference":
        return None
    if backend == "cpu":
        return None if native.ext() is not None else native.load()[1]
    return None if backend == _device_backend() else f"MLX's default device is {mx.default_device()}"


def backend_missing() -> str | None:
    """Return why what RVC_FAST_BACKEND asks for is not here, or None."""
    wanted = env.backend()
    return None if wanted == "auto" else _absent(wanted)


def check_backend(what: str) -> None:
    """Raise InputError if RVC_FAST_BACKEND asks for a backend that is not here; `what` is being done."""
    why = backend_missing()
    if why is not None:
        raise InputError(f"[{what}] RVC_FAST_BACKEND is {env.backend()}, but {why}")


def _missing(op: str, backend: str, refusals: Refusals) -> str | None:
    """Why `op` cannot run on `backend`, or None."""
    if backend == "reference":
        return None
    if not registry.backends(op):
        return "no backend has a kernel for it yet"
    if backend not in registry.backends(op):
        return f"there is no {backend} kernel for it"
    return _absent(backend) or refusals.get(backend)


def route(
    op: str, refusals: Refusals | None = None, dtype: mx.Dtype = mx.float32, *, first_use: bool = True
) -> Route:
    """Return the backend that `op` takes now, and why; BackendError for an explicit, impossible choice.

    Args:
        refusals: of one call; without them this is the route of calls that no kernel refuses.
        dtype: of the arrays. A GPU's kernel is trusted in each dtype by itself.
        first_use: whether a GPU that was not checked on this machine yet is checked now; see `trust`.
    """
    wanted = env.backend()
    backend = _device_backend() if wanted == "auto" else wanted
    missing = _missing(op, backend, refusals or {})
    if missing is None:
        kernel = "MLX's own kernels" if registry.of_mlx(op, backend) else "our kernel"
        if wanted == "auto" and backend != "cpu":
            taken, reason = trust.verdict(op, backend, dtype, run=first_use)
            return Route(taken, f"{kernel} for the default device, {reason}" if taken == backend else reason)
        if wanted == "auto":
            return Route(backend, f"{kernel} for the default device")
        asked = "as asked by RVC_FAST_BACKEND"
        return Route(backend, asked if backend == "reference" else f"{kernel}, {asked}")
    if wanted != "auto" and registry.backends(op):
        raise BackendError(f"[{op}] backend {wanted!r} was asked for, but {missing}")
    return Route("reference", missing)


def compiled_missing() -> str | None:
    """Return why the compiled CPU kernels do not run the ops that have one, or None."""
    wanted = env.backend()
    if wanted not in ("auto", "cpu"):
        return f"RVC_FAST_BACKEND is {wanted}"
    if wanted == "auto" and _device_backend() != "cpu":
        return f"MLX's default device is {mx.default_device()}"
    return _absent("cpu")


# What a CPU lacks that does not multiply in a dtype.
_WITHOUT = {
    "bfloat16": "neither AMX-BF16 nor AVX512-BF16",
    "int8": "neither AVX512-VNNI nor AVX-VNNI, nor the dot products of Arm",
    "bfloat16x2": "no AMX-BF16 instructions",
}


def dtype_missing(dtype: str) -> str | None:
    """Return why a model cannot be of this dtype here, or None. A GPU computes in all floats."""
    if dtype in ("int8", "bfloat16x2") and on_gpu():
        return "a GPU gains nothing by it"
    if dtype == "float32" or on_gpu():
        return None
    if dtype == "float16":
        return f"only a GPU computes in {dtype}"
    if (why := compiled_missing()) is not None:
        return f"it needs the compiled CPU kernels, and {why}"
    if dtype not in native.compiled.formats():
        return f"this CPU has {_WITHOUT[dtype]}, or RVC_FAST_ISA={native.compiled.isa()} leaves them out"
    return None
