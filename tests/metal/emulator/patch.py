"""Makes the ops of rvc_fast believe in a GPU, for one test."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import pytest

from . import build
from .launch import Emulator


def forget_kernels() -> None:
    """Drop what `rvc_fast.ops.gpu` has built, by other constructors."""
    if importlib.util.find_spec("rvc_fast.ops.gpu") is None:
        return
    module = importlib.import_module("rvc_fast.ops.gpu")
    for value in vars(module).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


@contextmanager
def installed(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Route `mx.fast.metal_kernel` or `cuda_kernel` to the emulator, and every op to that backend."""
    from rvc_fast.ops import dispatch

    forget_kernels()
    monkeypatch.setattr(mx.fast, f"{emulator.language}_kernel", emulator.kernel)
    monkeypatch.setenv("RVC_FAST_BACKEND", emulator.language)
    try:
        with dispatch.pretending(emulator.language):
            yield
    finally:
        forget_kernels()


def compile_for(language: str, work: Callable[[], object]) -> None:
    """Compile in a few large units what `work` launches; it is rehearsed, so its results mean nothing."""
    emulator = Emulator(language, rehearsal=True)
    with pytest.MonkeyPatch.context() as monkeypatch, installed(emulator, monkeypatch):
        work()
    build.compile_together(emulator.texts)
