"""The only reader of environment variables. `rvc-fast info` and the documentation print this table."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .errors import InputError

BACKENDS = ("auto", "reference", "metal", "cuda", "cpu")


@dataclass(frozen=True)
class Variable:
    """One environment variable: its name, its default as text, and what it does."""

    name: str
    default: str
    help: str


VARIABLES = (
    Variable("RVC_FAST_BACKEND", "auto", "which kernels run: " + ", ".join(BACKENDS)),
    Variable("RVC_FAST_THREADS", "all usable cores", "threads of the compiled CPU kernels"),
    Variable("RVC_FAST_ISA", "best the CPU has", "instruction set of the compiled CPU kernels"),
    Variable("RVC_FAST_CACHE", "~/.cache/rvc_fast", "folder of downloaded models and of the GPU's check"),
    Variable("HF_ENDPOINT", "https://huggingface.co", "where models are downloaded from, for mirrors"),
)


def backend() -> str:
    """Return RVC_FAST_BACKEND, checked."""
    value = os.environ.get("RVC_FAST_BACKEND", "auto")
    if value not in BACKENDS:
        raise InputError(f"[env] RVC_FAST_BACKEND must be one of {', '.join(BACKENDS)}, got {value!r}")
    return value


def tf32() -> bool:
    """Return whether MLX multiplies float32 in fewer bits on the GPUs that can; it looks when it is imported."""
    return os.environ.get("MLX_ENABLE_TF32", "1") != "0"


def threads() -> int | None:
    """Return RVC_FAST_THREADS, or None to use every core the process may use."""
    value = os.environ.get("RVC_FAST_THREADS")
    if value is None:
        return None
    if not value.isdecimal() or not 1 <= int(value) <= 1024:
        raise InputError(f"[env] RVC_FAST_THREADS must be a number from 1 to 1024, got {value!r}")
    return int(value)


def isa() -> str | None:
    """Return RVC_FAST_ISA, or None for the best one. The extension checks the name."""
    return os.environ.get("RVC_FAST_ISA")


def cache_dir() -> str:
    """Return the folder of downloaded models, not necessarily existing; InputError if there is no place for one."""
    given = os.environ.get("RVC_FAST_CACHE")
    if given:
        return given
    home = os.path.expanduser("~")
    if not os.path.isabs(home):  # neither HOME nor the system's list of users knows one
        raise InputError("[env] there is no home folder to keep models in: set HOME or RVC_FAST_CACHE")
    return os.path.join(home, ".cache", "rvc_fast")


def hub() -> str:
    """Return the address of the model hub, without a trailing slash."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
