"""A side in a process of its own: it can be stopped, its memory is its own, and no other side's threads are in it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, RvcFastError
from .work import Task

# Idle threads of a runtime spin for a while after its work; the next run waits until they sleep.
PAUSE = 0.25
# A run that is shorter is repeated, and its mean taken.
SHORTEST = 0.1
_HIGH_WATER = Path("/proc/self/clear_refs")


class Lost(Exception):
    """A side that did not finish, in words for the row."""


class OutOfTime(Lost):
    """The whole run has no time left."""


@dataclass(frozen=True)
class Checked:
    """A task's first runs. `seconds` is how long a run takes, the shorter of two if it is short.

    `pitch` is what a whole conversion found, (frames, 360).
    """

    outputs: list[np.ndarray] | None
    seconds: float
    flops: int = 0
    bytes: int = 0
    pitch: np.ndarray | None = None


class Contestant(Protocol):
    """What the session talks to: `Local`, or `Remote`, which is one in another process."""

    def facts(self) -> dict[str, Any]: ...
    def gate(self, task: Task) -> tuple[float, float | None]: ...
    def check(self, task: Task, outputs: bool, pitch: np.ndarray | None = None) -> Checked: ...
    def time(self, loops: int) -> float: ...
    def peak_mb(self) -> float: ...
    def fma_peak(self, dtype: str) -> float | None: ...


def load_peers() -> Any:
    """Import benchmarks/peers/sides.py, wherever the package keeps it."""
    from ..resources import peers_dir

    name, folder = "rvc_fast_peers", peers_dir()
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return importlib.import_module(f"{name}.sides")


class Local:
    """A side in this process."""

    def __init__(self, name: str, dtype: str = "float32"):
        from .. import device
        from . import sides

        device.use_for_process()
        self._ours = name in sides.OWN
        self.side: Any = sides.OWN[name](dtype) if self._ours else load_peers().SIDES[name]()
        self._runs: list[Any] = []
        self._cold = False

    def facts(self) -> dict[str, Any]:
        return self.side.facts()

    def gate(self, task: Task) -> tuple[float, float | None]:
        """Return (SNR in dB, what it must reach or None); see `Ours.gate`."""
        return self.side.gate(task)

    def check(self, task: Task, outputs: bool, pitch: np.ndarray | None = None) -> Checked:
        """Prepare a task and run it; its outputs if wanted, and the work that ours counts.

        A whole conversion's outputs are of the `pitch` given, which is another side's, in place of its own.
        """
        import mlx.core as mx

        from . import sides

        self._runs = []
        mx.reset_peak_memory()
        with contextlib.suppress(OSError):
            _HIGH_WATER.write_text("5")
        self.side.pitch = None
        self._runs = self.side.runs(task)
        heard = self.side.pitch
        if heard is not None:
            heard.instead = pitch
        self._cold = task.name == "cold start"
        found: list[np.ndarray] = []
        with sides.counted() if self._ours else contextlib.nullcontext(sides.Work()) as work:
            start = time.perf_counter()
            for run in self._runs:
                result = run()
                self.side.finish(result)
                if outputs:
                    found += self.side.outputs(task, result)
                del result
        seconds = time.perf_counter() - start
        own = None
        if heard is not None:
            own, heard.instead = heard.found, None
        if seconds < 10 * SHORTEST:
            seconds = min(seconds, self.time(1))
        return Checked(found if outputs else None, seconds, work.flops, work.bytes, own)

    def time(self, loops: int) -> float:
        """Return the seconds of one run of the task that was checked last, the mean of `loops`."""
        time.sleep(PAUSE)
        start = time.perf_counter()
        for _ in range(loops):
            for run in self._runs:
                self.side.finish(run())
        return (time.perf_counter() - start) / loops

    def peak_mb(self) -> float:
        """Return the most memory that this process has held since `check`, or ever where that cannot be told."""
        import mlx.core as mx

        if self._cold:
            return _megabytes(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        gpu = mx.get_peak_memory() / 1e6 if mx.default_device().type == mx.gpu else 0.0
        with contextlib.suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text().splitlines()
            line = next(line for line in lines if line.startswith("VmHWM:"))
            return max(gpu, int(line.split()[1]) * 1024 / 1e6)
        return max(gpu, _megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

    def fma_peak(self, dtype: str) -> float | None:
        """Return what `limits.arithmetic` measures now, in the process that is timed."""
        from . import limits

        return limits.arithmetic(dtype)


def _megabytes(maxrss: int) -> float:
    return maxrss / 1e6 if sys.platform == "darwin" else maxrss * 1024 / 1e6


def loops(seconds: float) -> int:
    """Return how many runs of so long make a time worth measuring."""
    return max(1, math.ceil(SHORTEST / max(seconds, 1e-6)))


def _serve(pipe: Connection, name: str, dtype: str, environment: Mapping[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us decides what an interrupt means
    os.environ.update(environment)
    # Libraries that print their troubles must not print into our results.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    side: Local | None = None
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            return
        try:
            side = side or Local(name, dtype)
            pipe.send((None, getattr(side, method)(*args)))
        except InputError as e:
            pipe.send((InputError, str(e)))
        except Exception as e:
            text = str(e) if isinstance(e, RvcFastError) else f"{type(e).__name__}: {e}"
            text = text.replace(str(Path.home()), "~")  # results are sent to others
            pipe.send((Lost, " ".join(text.split())[:300]))


class Remote:
    """A side in a process that starts with the first call, and again after it was lost.

    `limit` is how many seconds a call may take; what takes longer is killed, and `Lost`. At `deadline` on
    `time.monotonic` every call ends so, `OutOfTime`.
    """

    def __init__(
        self,
        name: str,
        dtype: str,
        environment: Mapping[str, str],
        limit: float,
        deadline: float = math.inf,
    ):
        self.name, self.limit, self.deadline = name, limit, deadline
        self._arguments = (name, dtype, dict(environment))
        self._process: Any = None
        self._pipe: Any = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        # What numerical libraries read before they start threads must be there before the process is.
        kept = {key: os.environ.get(key) for key in self._arguments[2]}
        os.environ.update(self._arguments[2])
        try:
            self._process.start()
        finally:
            for key, value in kept.items():
                os.environ.pop(key, None) if value is None else os.environ.update({key: value})
        theirs.close()

    def _call(self, method: str, *args: Any) -> Any:
        left = self.deadline - time.monotonic()
        if left > 0 and self._process is None:
            self._start()
        try:
            if left > 0:
                self._pipe.send((method, args))
            if left <= 0 or not self._pipe.poll(min(self.limit, left)):
                self.stop()
                if left < self.limit:
                    raise OutOfTime("not finished when the time was over")
                raise Lost(f"not finished in {self.limit:.0f} s")
            error, result = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(5)
            code = self._process.exitcode
            self.stop()
            raise Lost(f"its process ended with status {code}") from None
        if error is not None:
            raise error(result)
        return result

    def stop(self) -> None:
        """End the process now, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def facts(self) -> dict[str, Any]:
        return self._call("facts")

    def gate(self, task: Task) -> tuple[float, float | None]:
        return self._call("gate", task)

    def check(self, task: Task, outputs: bool, pitch: np.ndarray | None = None) -> Checked:
        return self._call("check", task, outputs, pitch)

    def time(self, loops: int) -> float:
        return self._call("time", loops)

    def peak_mb(self) -> float:
        return self._call("peak_mb")

    def fma_peak(self, dtype: str) -> float | None:
        return self._call("fma_peak", dtype)
