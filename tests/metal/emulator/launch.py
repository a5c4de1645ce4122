"""Drop-in replacements for `mx.fast.metal_kernel` and `mx.fast.cuda_kernel` that execute the kernel's text on the CPU."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from . import build, rules, texts

GUARD = 256
GUARD_BYTE = 0xA5
# Every float format's NaN; outputs begin so.
UNWRITTEN_BYTE = 0xFF
# Inputs called so are made by us and begin where MLX's allocator puts them; any other may be a slice.
OURS = "packed"
# A launch that took less is executed again: threads in descending order, inputs aligned to their element only.
REPEAT_SECONDS = 0.2
WORKERS = 2


class EmulationError(Exception):
    """A kernel did what a GPU might not forgive; the message says which thread, where and what."""


@dataclass(frozen=True)
class Launch:
    """One executed launch: groups and threads per group, bytes of all inputs and outputs, group storage in bytes."""

    language: str
    name: str
    groups: int
    threads: int
    input_bytes: int
    output_bytes: int
    storage: int
    seconds: float


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
        ("cells", ctypes.c_void_p),
        ("cell_shift", ctypes.c_uint32),
        ("writable", ctypes.c_uint32),
        ("readable", ctypes.c_uint32),
        ("lowest", ctypes.c_uint64),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("entry", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("buffers", ctypes.POINTER(_Buffer)),
        ("buffer_count", ctypes.c_uint32),
        ("grid", ctypes.c_uint32 * 3),
        ("group", ctypes.c_uint32 * 3),
        ("whole_groups", ctypes.c_uint32),
        ("reverse", ctypes.c_uint32),
        ("storage_shift", ctypes.c_uint32),
        ("storage_limit", ctypes.c_uint32),
        ("workers", ctypes.c_uint32),
        ("last_only", ctypes.c_uint32),
        ("storage_used", ctypes.c_uint32),
        ("error_pc", ctypes.c_uint64),
        ("error", ctypes.c_char * 1024),
    )


CELL_BYTES = 16
PAGE = 4096
# Elements from where on 32 bits do not number them.
HUGE = 2**31


def to_numpy(array: mx.array) -> np.ndarray:
    """The array's bytes, row-major; bfloat16 as uint16."""
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    return np.ascontiguousarray(np.array(array))


def _from_bytes(data: np.ndarray, shape: Sequence[int], dtype: mx.Dtype) -> mx.array:
    if dtype == mx.bfloat16:
        return mx.array(data.view(np.uint16).reshape(shape)).view(mx.bfloat16)
    name = str(dtype).rpartition(".")[2].rstrip("_")
    return mx.array(data.view(np.dtype(name)).reshape(shape))


class _Memory:
    """A buffer of a launch; `cells` of an output record who touched what."""

    address: int

    def __init__(self, name: str, size: int, itemsize: int, writable: bool) -> None:
        self.name, self.size, self.itemsize, self.writable = name, size, itemsize, writable
        self.shift = int(math.log2(min(itemsize, 4)))
        self._mapped: list[tuple[int, int]] = []
        self.cells = self._map((size >> self.shift) * CELL_BYTES) if writable else None

    def _map(self, size: int) -> int:
        address = build.runtime().emu_map(size)
        self._mapped.append((address, size))
        return address

    def free(self) -> None:
        for address, size in self._mapped:
            build.runtime().emu_unmap(ctypes.c_void_p(address), ctypes.c_uint64(size))

    def broken(self) -> str | None:
        """What happened around the buffer that no instrumented access did."""
        return None

    def describe(self, readable: bool) -> _Buffer:
        return _Buffer(
            name=self.name.encode(),
            data=self.address,
            size=self.size,
            cells=self.cells,
            cell_shift=self.shift,
            writable=self.writable,
            readable=readable,
            lowest=self.size,
        )


class _Guarded(_Memory):
    """A buffer between guard zones, with `data`; misaligned ones are aligned to their element only."""

    def __init__(self, name: str, size: int, itemsize: int, writable: bool, misaligned: bool) -> None:
        super().__init__(name, size, itemsize, writable)
        self.memory = np.full(size + 2 * GUARD + 64, GUARD_BYTE, np.uint8)
        self.start = -self.memory.ctypes.data % 64 + GUARD + (itemsize if misaligned else 0)
        self.data = self.memory[self.start : self.start + size]
        self.address = self.data.ctypes.data

    def broken(self) -> str | None:
        zones = (-self.start, self.memory[: self.start]), (self.size, self.memory[self.start + self.size :])
        for offset, zone in zones:
            changed = np.flatnonzero(zone != GUARD_BYTE)
            if changed.size:
                at = offset + int(changed[0])
                return f"out of bounds: byte {at} of `{self.name}`, which has {self.size}, was written"
        return None


class _Sparse(_Memory):
    """Zeros that take no memory before they are touched: buffers larger than this machine."""

    def __init__(self, name: str, size: int, itemsize: int, writable: bool) -> None:
        super().__init__(name, size, itemsize, writable)
        self.address = self._map(size + 2 * PAGE) + PAGE


class Emulator:
    """Replaces the constructors of one language; `launches` lists what was executed.

    With `last_group_only` a launch executes its last group alone, on arrays of any size: those of 2^31 elements and
    more take no memory, and that group must touch none of them in their first half. That is how offsets of 32 bits
    are found. Inputs for it are `mx.broadcast_to(mx.zeros(1), shape)`, which are never evaluated; outputs mean nothing.

    With `once` a launch is executed in one order of threads alone: for models, whose kernels the cases of the ops
    have executed in both.

    With `rehearsal` a launch executes nothing and evaluates no inputs: `texts` lists what would be compiled, which
    `build.compile_together` does in less time than launches one by one.

    `mx.vmap` first calls a function with arrays that have a shape only. With `placeholders` set a launch on these gives
    zeros, for a function whose own rule for `vmap` launches again; without it, it is an error.
    """

    def __init__(
        self,
        language: str,
        max_threads: int = rules.PORTABLE_THREADS,
        last_group_only: bool = False,
        rehearsal: bool = False,
        once: bool = False,
    ) -> None:
        self.language = language
        self.max_threads = max_threads
        self.last_group_only = last_group_only
        self.rehearsal = rehearsal
        self.once = once
        self.placeholders = False
        self.launches: list[Launch] = []
        self.texts: dict[texts.Text, int] = {}  # executed, and the threads of their largest group
        self._metal_kernel = mx.fast.metal_kernel

    def kernel(
        self,
        name: str,
        input_names: Sequence[str],
        output_names: Sequence[str],
        source: str,
        header: str = "",
        ensure_row_contiguous: bool = True,
        atomic_outputs: bool = False,
        **options: Any,
    ) -> Callable[..., list[mx.array]]:
        """The constructor, with the signature of MLX's."""
        if not ensure_row_contiguous:
            raise NotImplementedError("the emulator knows row-contiguous inputs only")
        if self.language == "cuda" and (atomic_outputs or options):
            raise TypeError("mx.fast.cuda_kernel has no such arguments")
        names = (tuple(input_names), tuple(output_names))
        made: Callable[..., Any] | None = None
        if self.language == "metal":
            made = self._metal_kernel(name, *names, source, header, True, atomic_outputs, **options)

        def call(
            *,
            inputs: Sequence[Any],
            output_shapes: Sequence[Sequence[int]],
            output_dtypes: Sequence[mx.Dtype],
            grid: tuple[int, int, int],
            threadgroup: tuple[int, int, int],
            template: texts.Template | None = None,
            init_value: float | None = None,
            verbose: bool = False,
            stream: Any = None,
        ) -> list[mx.array]:
            arrays = [x if isinstance(x, mx.array) else mx.array(x) for x in inputs]
            shapes = [tuple(s) for s in output_shapes]
            shape = {"output_shapes": shapes, "output_dtypes": list(output_dtypes)}
            try:
                rules.check_launch(self.language, arrays, shapes, grid, threadgroup, self.max_threads)
                if not self.rehearsal and not self._evaluated(arrays):
                    return [mx.zeros(s, t) for s, t in zip(shapes, output_dtypes, strict=True)]
                if self.language == "metal":
                    launch = {"grid": grid, "threadgroup": threadgroup, "template": template, **shape}
                    text = texts.metal(made, names, source, arrays, **launch)
                else:
                    text = texts.cuda(name, names, source, header, arrays, output_dtypes, template)
                rules.check_text(text)
                return self._execute(
                    text, arrays, shapes, output_dtypes, grid, threadgroup, init_value, atomic_outputs
                )
            except (rules.RuleError, build.BuildError) as error:
                raise EmulationError(f"[{self.language} {name}] {error}") from error

        return call

    def _evaluated(self, arrays: Sequence[mx.array]) -> bool:
        """Evaluate the inputs of a launch; False if they are placeholders, which must be allowed."""
        try:
            mx.eval([x for x in arrays if not self._sparse(x.size)])
        except ValueError as error:
            if not self.placeholders or "during function transformations" not in str(error):
                raise
            return False
        return True

    def _execute(
        self,
        text: texts.Text,
        inputs: Sequence[mx.array],
        shapes: Sequence[tuple[int, ...]],
        dtypes: Sequence[mx.Dtype],
        grid: tuple[int, int, int],
        group: tuple[int, int, int],
        init_value: float | None,
        atomic: bool,
    ) -> list[mx.array]:
        self.texts[text] = max(math.prod(group), self.texts.get(text, 0))
        if self.rehearsal:
            return [mx.zeros(s, t) for s, t in zip(shapes, dtypes, strict=True)]
        arrays = {
            a.name: x for a, x in zip((a for a in text.inputs if a.what == "data"), inputs, strict=True)
        }
        values: dict[str, np.ndarray | mx.array] = {}
        for argument in text.inputs:
            array = arrays[argument.array]
            if argument.what != "data":
                values[argument.name] = self._attribute(array, argument.what)
            else:
                values[argument.name] = array if self._sparse(array.size) else to_numpy(array)
        run = _Run(self, text, values, shapes, dtypes, grid, group, init_value)
        if self.last_group_only:
            run(reverse=False)
            return [mx.broadcast_to(mx.zeros((1,), t), s) for s, t in zip(shapes, dtypes, strict=True)]
        first, seconds, storage = run(reverse=False)
        if seconds < REPEAT_SECONDS and not self.once:
            second, _, _ = run(reverse=True)
            for name, a, b in zip(text.outputs, first, second, strict=True):
                if not atomic and a.tobytes() != b.tobytes():
                    at = int(np.flatnonzero(a != b)[0])
                    raise EmulationError(
                        f"{run.title} byte {at} of `{name.name}` depends on the order of the threads,"
                        " or on the alignment of the inputs"
                    )
        self.launches.append(
            Launch(
                self.language,
                text.name,
                math.prod(-(-g // t) for g, t in zip(grid, group, strict=True)),
                math.prod(group),
                sum(x.nbytes for x in inputs),
                sum(x.nbytes for x in first),
                storage,
                seconds,
            )
        )
        return [_from_bytes(d, s, t) for d, s, t in zip(first, shapes, dtypes, strict=True)]

    def _sparse(self, elements: int) -> bool:
        return self.last_group_only and elements >= HUGE

    def _attribute(self, array: mx.array, what: str) -> np.ndarray:
        strides = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]
        value = {"shape": array.shape, "strides": strides, "ndim": [array.ndim]}[what]
        if self.language == "cuda" and what != "ndim":
            value = [*value, *([0] * (10 - len(value)))]
        return np.array(value, np.int64 if what == "strides" else np.int32)


class _Run:
    """One launch, ready to be executed in one order of threads or another."""

    def __init__(
        self,
        emulator: Emulator,
        text: texts.Text,
        inputs: dict[str, np.ndarray | mx.array],
        shapes: Sequence[tuple[int, ...]],
        dtypes: Sequence[mx.Dtype],
        grid: tuple[int, int, int],
        group: tuple[int, int, int],
        init_value: float | None,
    ) -> None:
        self.language, self.last_group_only = emulator.language, emulator.last_group_only
        self.text, self.inputs = text, inputs
        self.shapes, self.dtypes, self.init_value = shapes, dtypes, init_value
        self.grid, self.group = grid, group
        self.title = f"[{self.language} {text.name}, grid {tuple(grid)}, threadgroup {tuple(group)}]"
        self.kernel = build.kernel(text)

    def _fill(self, output: _Guarded, dtype: mx.Dtype) -> None:
        if self.init_value is None:
            output.data[:] = UNWRITTEN_BYTE
        else:
            value = to_numpy(mx.full((output.size // output.itemsize,), self.init_value, dtype))
            output.data[:] = value.view(np.uint8)

    def __call__(self, reverse: bool) -> tuple[list[np.ndarray], float, int]:
        """Execute; the outputs' bytes, the seconds and the bytes of group storage. EmulationError if a check fails."""
        buffers: list[_Memory] = []
        outputs: list[_Guarded] = []
        try:
            for name, value in self.inputs.items():
                buffers.append(self._input(name, value, reverse))
            for argument, shape, dtype in zip(self.text.outputs, self.shapes, self.dtypes, strict=True):
                elements = math.prod(shape)
                if self.last_group_only and elements >= HUGE:
                    buffers.append(_Sparse(argument.name, elements * dtype.size, dtype.size, True))
                    continue
                outputs.append(_Guarded(argument.name, elements * dtype.size, dtype.size, True, False))
                buffers.append(outputs[-1])
                self._fill(outputs[-1], dtype)
            seconds, storage = self._launch(buffers, reverse)
            return [o.data.copy() for o in outputs], seconds, storage
        finally:
            for buffer in buffers:
                buffer.free()

    def _input(self, name: str, value: np.ndarray | mx.array, misaligned: bool) -> _Memory:
        if isinstance(value, mx.array):
            return _Sparse(name, value.nbytes, value.dtype.size, False)
        attribute = next(a for a in self.text.inputs if a.name == name).what != "data"
        misaligned = misaligned and not attribute and not name.startswith(OURS)
        buffer = _Guarded(name, value.nbytes, value.itemsize, False, misaligned)
        buffer.data[:] = value.reshape(-1).view(np.uint8)
        return buffer

    def _launch(self, buffers: list[_Memory], reverse: bool) -> tuple[float, int]:
        runtime = build.runtime()
        described = (_Buffer * len(buffers))(*(b.describe(self.init_value is not None) for b in buffers))
        arguments = (ctypes.c_void_p * len(buffers))(*(b.address for b in buffers))
        launch = _Launch(
            entry=self.kernel.entry,
            arguments=arguments,
            buffers=described,
            buffer_count=len(buffers),
            grid=tuple(self.grid),
            group=tuple(self.group),
            whole_groups=self.language == "cuda",
            reverse=reverse,
            storage_shift=self.kernel.shift,
            storage_limit=rules.STORAGE_LIMIT[self.language],
            workers=WORKERS,
            last_only=self.last_group_only,
        )
        start = time.perf_counter()
        failed = runtime.emu_launch(ctypes.byref(launch))
        seconds = time.perf_counter() - start
        if failed:
            where = self.kernel.line(launch.error_pc) if launch.error_pc else ""
            message = launch.error.decode(errors="replace") + (f" [{where}]" if where else "")
            raise EmulationError(f"{self.title} {message}")
        for buffer, after in zip(buffers, described, strict=True):
            if wrong := buffer.broken() or self._unwritten(buffer, after):
                raise EmulationError(f"{self.title} {wrong}")
        return seconds, launch.storage_used

    def _unwritten(self, buffer: _Memory, after: _Buffer) -> str | None:
        if self.last_group_only:
            if buffer.size // buffer.itemsize < HUGE or after.lowest >= buffer.size // 2:
                return None
            return (
                f"its last group touches byte {after.lowest} of `{buffer.name}`, which has {buffer.size}:"
                " an offset of 32 bits?"
            )
        if not buffer.writable or self.init_value is not None:
            return None
        cell = build.runtime().emu_first_unwritten(ctypes.byref(after))
        element, count = (cell << buffer.shift) // buffer.itemsize, buffer.size // buffer.itemsize
        return (
            f"element {element} of {count} of `{buffer.name}` was never written" if element < count else None
        )
