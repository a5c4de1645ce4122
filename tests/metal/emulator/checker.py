"""The first-use check with the emulator as the GPU, and faults planted into kernels.

    python -m emulator.checker OP FAULT BACKEND DTYPE OP:BACKEND...

is what `trust.COMMAND` is in tests, with OP and FAULT before what `trust` adds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from .launch import Emulator
from .patch import installed

FAULTS = ("wrong numbers", "exception at compile", "exception at launch", "crash", "hang")
# What the emulator gets through in a second or two.
MOST_FLOPS = 5e6


def plant(monkeypatch: pytest.MonkeyPatch, language: str, kernel: str, fault: str, deadly: bool) -> None:
    """Give one kernel a fault, one of `FAULTS`; unless `deadly` what ends or stops a process is an AssertionError."""
    construct = getattr(mx.fast, f"{language}_kernel")

    def constructed(name: str, *args: Any, **options: Any) -> Callable[..., list[mx.array]]:
        run = construct(name, *args, **options)
        if not name.startswith(f"rvc_{kernel}_"):
            return run
        if fault == "exception at compile":
            raise RuntimeError("[metal::Device] Unable to build metal library from source")

        def launched(**launch: Any) -> list[mx.array]:
            if fault == "wrong numbers":
                return [y + 0.01 for y in run(**launch)]
            if fault == "exception at launch":
                raise RuntimeError("[metal::CommandEncoder] the threadgroup is too large")
            if not deadly:
                raise AssertionError(f"this would {fault}")
            if fault == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(600)
            return []

        return launched

    monkeypatch.setattr(mx.fast, f"{language}_kernel", constructed)


def main() -> None:
    """Check as `rvc_fast.bench.first_use` does. All times are the same: those of an emulator mean nothing."""
    from rvc_fast.bench import first_use

    kernel, fault, language = sys.argv[1:4]
    del sys.argv[1:3]
    with pytest.MonkeyPatch.context() as monkeypatch, installed(Emulator(language), monkeypatch):
        if fault:
            plant(monkeypatch, language, kernel, fault, deadly=True)
        monkeypatch.setattr(first_use, "MOST_FLOPS", MOST_FLOPS)
        monkeypatch.setattr(first_use, "seconds", lambda run: (run(), 1.0)[1])
        first_use.main()


if __name__ == "__main__":
    main()
