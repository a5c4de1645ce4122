"""Which device work runs on: MLX's default device, or the one that a Converter was loaded for.

MLX keeps one default device for all threads of a process, and every operation without a stream of its own goes there.
A Converter of the other device therefore changes it while it works and puts it back. Work of one device may run in
any number of threads at once; work of the other device waits until those are through.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import mlx.core as mx

from . import env
from .errors import InputError, RvcFastError

Device = Literal["cpu", "gpu"]


def current() -> Device:
    """Return the kind of MLX's default device."""
    return "cpu" if mx.default_device().type == mx.cpu else "gpu"


def choose(device: Device | None) -> Device:
    """Return the device for a Converter: the one asked for, else that of RVC_FAST_BACKEND=cpu, else MLX's default.

    Raises:
        InputError: a device that is not here, or that contradicts RVC_FAST_BACKEND.
    """
    if device not in (None, "cpu", "gpu"):
        raise InputError(f"[load] device must be 'cpu' or 'gpu', got {device!r}")
    backend = env.backend()
    if device is None:
        return "cpu" if backend == "cpu" else _turns.resting()
    if (device, backend) in (("cpu", "metal"), ("cpu", "cuda"), ("gpu", "cpu")):
        raise InputError(f"[load] device {device!r} contradicts RVC_FAST_BACKEND={backend}")
    if device == "gpu" and not mx.is_available(mx.gpu):
        raise InputError("[load] device must be 'cpu' here, got 'gpu': MLX has no GPU to use")
    return device


def use_for_process() -> None:
    """Make the CPU MLX's default device if RVC_FAST_BACKEND=cpu; only for programs of our own."""
    if env.backend() == "cpu":
        mx.set_default_device(mx.cpu)


class _Turns:
    """Who may work: threads of one device together, those of the two devices in turns."""

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._changed = threading.Condition()
        self._inside = 0
        self._device: Device = "cpu"
        self._before: mx.Device | None = None
        self._here = threading.local()
        self._used = False
        self._forked = False
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._forked = self._used

    def check(self) -> None:
        """Raise RvcFastError in a process that cannot work: its locks and MLX's threads stayed with its parent."""
        if self._forked:
            raise RvcFastError(
                "[device] this process was forked from one that had loaded models or converted, so MLX's threads are "
                "missing here: start processes by 'spawn', or fork before rvc_fast.load"
            )

    def resting(self) -> Device:
        """Return the kind of MLX's default device as it is when nobody works."""
        with self._changed:
            if self._inside and self._before is not None:
                return "cpu" if self._before.type == mx.cpu else "gpu"
            return current()

    @contextmanager
    def on(self, device: Device) -> Iterator[None]:
        self.check()
        self._used = True
        mine = getattr(self._here, "device", None)
        if mine is not None:
            if mine != device:
                raise RvcFastError(f"[device] work on the {device} cannot begin within work on the {mine}")
            yield
            return
        self._enter(device)
        self._here.device = device
        try:
            yield
        finally:
            self._here.device = None
            self._leave()

    def _enter(self, device: Device) -> None:
        # One thread at a time waits behind the door, so that the other device's threads cannot overtake it for ever.
        with self._door, self._changed:
            self._changed.wait_for(lambda: self._inside == 0 or self._device == device)
            if self._inside == 0:
                self._device, self._before = device, None
                if current() != device:
                    self._before = mx.default_device()
                    mx.set_default_device(mx.cpu if device == "cpu" else mx.gpu)
            self._inside += 1

    def _leave(self) -> None:
        with self._changed:
            self._inside -= 1
            if self._inside == 0:
                if self._before is not None:
                    mx.set_default_device(self._before)
                    self._before = None
                self._changed.notify_all()


_turns = _Turns()
check = _turns.check
on = _turns.on
"""with on("cpu"): work of this thread runs on that device. RvcFastError inside work of the other device."""
