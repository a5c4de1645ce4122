"""Planted faults: the harness must catch each, and let its fault-free twin pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from emulator import EmulationError, Emulator, rules

COMMON = Path(__file__).resolve().parents[2] / "src" / "kernels" / "common"


@dataclass(frozen=True)
class Fault:
    """A kernel body in the words of src/kernels/common, its faulty twin, and what the error says.

    Input `x` has `size` elements 0, 1, ..., output `o` as many as there are threads, of which `good` fills each.
    """

    name: str
    good: str
    bad: str
    error: str
    languages: tuple[str, ...] = ("metal", "cuda")
    groups: int = 1
    threads: int = 64
    size: int = 64
    outputs: int | None = None
    header: str = ""
    call: dict[str, Any] = field(default_factory=dict)


STAGE = "SHARED float t[64]; t[local] = x[local]; "
FAULTS = [
    Fault(
        "missing barrier",
        STAGE + "BARRIER(); o[local] = t[63 - local];",
        STAGE + "o[local] = t[63 - local];",
        "race: .*`t`",
    ),
    Fault(
        "missing barrier before storage is used again",
        STAGE
        + "BARRIER(); float v = t[63 - local]; BARRIER(); t[local] = v; BARRIER(); o[local] = t[local ^ 1];",
        STAGE + "BARRIER(); float v = t[63 - local]; t[local] = v; BARRIER(); o[local] = t[local ^ 1];",
        "race: .*`t`",
    ),
    Fault(
        "race between simdgroups behind a simdgroup barrier",
        STAGE + "SIMD_BARRIER(); o[local] = t[local ^ 1];",
        STAGE + "SIMD_BARRIER(); o[local] = t[63 - local];",
        "race: .*`t`",
    ),
    Fault(
        "a shuffle taken for a barrier",
        STAGE + "SIMD_BARRIER(); o[local] = t[local ^ 1];",
        STAGE + "float v = simd_sum_(1.0f); o[local] = v + t[local ^ 1];",
        "race: .*`t`",
    ),
    Fault(
        "all threads write one cell",
        "SHARED float t[1]; if (local == 0) t[0] = x[0]; BARRIER(); o[local] = t[0];",
        "SHARED float t[1]; t[0] = x[local]; BARRIER(); o[local] = t[0];",
        "race: .*`t` at byte 0, written",
    ),
    Fault(
        "a barrier for the wrong memory",
        STAGE + "threadgroup_barrier(mem_flags::mem_threadgroup); o[local] = t[63 - local];",
        STAGE + "threadgroup_barrier(mem_flags::mem_device); o[local] = t[63 - local];",
        "race: .*`t`",
        languages=("metal",),
    ),
    Fault(
        "a barrier that orders nothing",
        STAGE + "threadgroup_barrier(mem_flags::mem_threadgroup); o[local] = t[63 - local];",
        STAGE + "threadgroup_barrier(mem_flags::mem_none); o[local] = t[63 - local];",
        "race: .*`t`",
        languages=("metal",),
    ),
    Fault(
        "device memory read back without a device barrier",
        "o[local] = x[local]; BARRIER_DEVICE(); float v = o[63 - local]; BARRIER_DEVICE(); o[local] = v;",
        "o[local] = x[local]; BARRIER(); float v = o[63 - local]; BARRIER_DEVICE(); o[local] = v;",
        "race: .*`o`",
        languages=("metal",),
    ),
    Fault(
        "divergent barrier",
        "if (local < 32) { o[local] = x[local]; } BARRIER(); if (local >= 32) o[local] = x[local];",
        "if (local < 32) { o[local] = x[local]; BARRIER(); } else o[local] = x[local];",
        "divergent",
    ),
    Fault(
        "divergent simdgroup operation",
        "float v = simd_sum_(x[local]); o[local] = local < 40 ? v : 0.0f;",
        "o[local] = local < 40 ? simd_sum_(x[local]) : 0.0f;",
        "divergent",
    ),
    Fault(
        "two simdgroup operations at once",
        "float v = simd_sum_(x[local]); SIMD_BARRIER(); o[local] = v;",
        "float v = 0.0f; if (local % 2) v = simd_sum_(x[local]); else SIMD_BARRIER(); o[local] = v;",
        "divergent",
    ),
    Fault(
        "off-by-one store",
        "o[local] = x[local];",
        "o[local + 1] = x[local];",
        r"out of bounds: it writes 4 bytes at byte 256 of `o`, which has 256",
    ),
    Fault(
        "off-by-one load",
        "o[local] = x[local];",
        "o[local] = x[local + 1];",
        r"out of bounds: it reads 4 bytes at byte 256 of `x`, which has 256",
    ),
    Fault(
        "load before the beginning",
        "o[local] = local > 0 ? x[local - 1] : 0.0f;",
        "o[local] = *(x + int(local) - 1);",
        r"out of bounds: it reads 4 bytes at byte -4 of `x`",
    ),
    Fault(
        "group storage overrun",
        STAGE + "BARRIER(); o[local] = t[63 - local];",
        "SHARED float t[63]; int i = int(local); *(t + i) = x[local]; BARRIER(); o[local] = t[0];",
        "out of bounds: it writes 4 bytes at byte 252 of group storage `t`, which has 252|index outside an array",
    ),
    Fault(
        "row overrun inside two-dimensional storage",
        "SHARED float t[8][8]; t[local / 8][local % 8] = x[local]; BARRIER(); o[local] = t[local % 8][local / 8];",
        "SHARED float t[8][8]; t[local / 8][local % 8] = x[local]; BARRIER(); o[local] = t[local / 9][local % 9];",
        "index outside an array",
    ),
    Fault(
        "private array overrun",
        "float a[4] = {1.0f, 2.0f, 3.0f, 4.0f}; o[local] = a[local % 4] + x[local];",
        "float a[4] = {1.0f, 2.0f, 3.0f, 4.0f}; o[local] = a[local % 5] + x[local];",
        "index outside an array",
    ),
    Fault(
        "unwritten output",
        "o[local] = x[local];",
        "if (local != 7) o[local] = x[local];",
        "element 7 of 64 of `o` was never written",
    ),
    Fault(
        "output read before it is written",
        "o[local] = x[local]; o[local] += 1.0f;",
        "o[local] += 1.0f;",
        "reads byte 0 of output `o`, which nothing has written",
    ),
    Fault(
        "write to an input",
        "o[local] = x[local];",
        "const_cast<DEVICE float*>(x)[local] = 1.0f; o[local] = x[local];",
        "writes byte 0 of `x`, which is an input",
    ),
    Fault(
        "two groups write one cell",
        "o[group.x * 32 + local] = x[local];",
        "o[group.x * 31 + local] = x[local];",
        "race: .*byte 124 of `o`, which another group writes",
        groups=2,
        threads=32,
        outputs=64,
    ),
    Fault(
        "one group reads what another writes",
        "o[group.x * 32 + local] = x[local]; o[group.x * 32 + local] += o[group.x * 32 + local];",
        "o[group.x * 32 + local] = x[local]; BARRIER_DEVICE(); float v = o[local]; BARRIER_DEVICE();"
        " o[group.x * 32 + local] = v;",
        "race: .*`o`, which another group|which nothing has written",
        groups=2,
        threads=32,
        outputs=64,
    ),
    Fault(
        "order of atomic additions",
        "SHARED int n[1]; if (local == 0) n[0] = 0; BARRIER(); if (local % 2) add(n, 1); BARRIER(); o[local] = float(n[0]);",
        "SHARED int n[1]; if (local == 0) n[0] = 0; BARRIER(); o[local] = float(add(n, 1));",
        "depends on the order of the threads",
        languages=("cuda",),
        header="FUNC int add(int* n, int v) { return atomicAdd(n, v); }\n",
    ),
    Fault(
        "atomic and plain access at once",
        "SHARED int n[1]; if (local == 0) n[0] = 0; BARRIER(); add(n, 1); BARRIER(); o[local] = float(n[0]);",
        "SHARED int n[1]; if (local == 0) n[0] = 0; BARRIER(); add(n, 1); o[local] = float(n[0]);",
        "race: .*`n`",
        languages=("cuda",),
        header="FUNC int add(int* n, int v) { return atomicAdd(n, v); }\n",
    ),
    Fault(
        "atomic and plain access at once, Metal",
        "SHARED atomic_int n[1]; if (local == 0) atomic_store_explicit(n, 0, memory_order_relaxed); BARRIER();"
        " atomic_fetch_add_explicit(n, 1, memory_order_relaxed); BARRIER();"
        " o[local] = float(atomic_load_explicit(n, memory_order_relaxed));",
        "SHARED atomic_int n[1]; if (local == 0) *(SHARED int*)n = 0;"
        " atomic_fetch_add_explicit(n, 1, memory_order_relaxed); BARRIER();"
        " o[local] = float(atomic_load_explicit(n, memory_order_relaxed));",
        "race: .*`n`",
        languages=("metal",),
    ),
    Fault(
        "vector load from an address aligned to its element",
        "o[local] = x[4 * (local / 4) + local % 4];",
        "DEVICE const float4* p = (DEVICE const float4*)x; float4 v = p[local / 4];"
        " o[local] = local % 4 == 0 ? v.x : local % 4 == 1 ? v.y : local % 4 == 2 ? v.z : v.w;",
        "misaligned",
    ),
    Fault(
        "text that is not ASCII",
        "o[local] = x[local];  // plain",
        "o[local] = x[local];  // schön",
        "must be ASCII",
    ),
    Fault(
        "more group storage than there is",
        "SHARED float t[{small}]; t[local] = x[local]; o[local] = t[local];",
        "SHARED float t[{large}]; t[local] = x[local]; o[local] = t[local];",
        "bytes of group storage: there are at most",
    ),
    Fault(
        "signed overflow of an index",
        "long i = long(local) * (1L << 30); o[local] = i > -1 ? x[local] : 0.0f;",
        "int i = int(local) * (1 << 30); o[local] = i > -1 ? x[local] : 0.0f;",
        "signed multiplication overflows",
    ),
    Fault(
        "a float outside the range of int",
        "o[local] = float(int(x[local] * 1e6f));",
        "o[local] = float(int(x[local] * 1e9f));",
        "a float out of the integer's range",
    ),
    Fault(
        "a grid that is no multiple of the group",
        "if (group.x * 64 + local < 60) o[group.x * 64 + local] = x[local];",
        "o[group.x * 64 + local] = x[local];",
        "byte 240 of `o`, which has 240",
        languages=("cuda",),
        outputs=60,
        call={"grid": (60, 1, 1)},
    ),
    Fault(
        "threadgroup pointer passed as device",
        "SHARED float t[64]; t[local] = x[local]; o[local] = first(t + local);",
        "SHARED float t[64]; t[local] = x[local]; o[local] = second(t + local);",
        "address space",
        languages=("metal",),
        header="inline float first(const threadgroup float* p) { return p[0]; }\n"
        "inline float second(const device float* p) { return p[0]; }\n",
    ),
    Fault(
        "a pointer without an address space",
        "const device float* p = x; o[local] = p[local];",
        "const float* p = x; o[local] = p[local];",
        "cannot initialize a variable",
        languages=("metal",),
    ),
    Fault(
        "a small input, which Metal has in another address space",
        "o[local] = x[0];",
        "const device float* p = x; o[local] = p[0];",
        "cannot initialize a variable",
        languages=("metal",),
        size=7,
    ),
    Fault(
        "C++17, which Metal 3 is not",
        "o[local] = x[local] * 0.0625f;",
        "o[local] = x[local] * 0x1p-4f;",
        "C\\+\\+17",
        languages=("metal",),
    ),
    Fault(
        "a name that MLX makes an argument",
        "uint my_grid = 1; o[local] = x[local] * my_grid;",
        "uint my_grid_size = 1; o[local] = x[local] * my_grid_size;",
        "grid_size",
        languages=("metal",),
    ),
]


def execute(language: str, fault: Fault, body: str) -> mx.array:
    small, large = (rules.STORAGE_LIMIT[language] // 4 + n for n in (0, 1))
    source = (COMMON / f"{language}_prologue.inc").read_text() + body.replace("{small}", str(small)).replace(
        "{large}", str(large)
    )
    emulator = Emulator(language)
    kernel = emulator.kernel(
        "planted", ["x"], ["o"], source, header=(COMMON / f"{language}.h").read_text() + fault.header
    )
    call: dict[str, Any] = {"grid": (fault.groups * fault.threads, 1, 1), **fault.call}
    outputs = fault.groups * fault.threads if fault.outputs is None else fault.outputs
    (o,) = kernel(
        inputs=[mx.arange(fault.size).astype(mx.float32)],
        threadgroup=(fault.threads, 1, 1),
        output_shapes=[(outputs,)],
        output_dtypes=[mx.float32],
        **call,
    )
    return o


@pytest.fixture(autouse=True)
def _fresh_names(monkeypatch: pytest.MonkeyPatch, need_tool: Any) -> None:
    """All texts here have one name, which CUDA text must not have."""
    need_tool("clang++-19")
    monkeypatch.setattr(rules, "_cuda_texts", {})


PLANTED = [
    pytest.param(language, fault, id=f"{language}-{fault.name.replace(' ', '_')}")
    for fault in FAULTS
    for language in fault.languages
]


@pytest.mark.parametrize(("language", "fault"), PLANTED)
def test_planted_fault(language: str, fault: Fault) -> None:
    o = execute(language, fault, fault.good)
    assert np.isfinite(np.array(o)).all()
    rules._cuda_texts.clear()
    with pytest.raises(EmulationError, match=fault.error):
        execute(language, fault, fault.bad)
