"""What every launch and text must keep to, and that kernel files state what they cost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from emulator import EmulationError, Emulator, rules, texts
from emulator.build import cell_shift, place_storage, read_storage
from support import SPECS

from rvc_fast.ops import registry

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "src" / "kernels"
FILES = sorted(p for p in KERNELS.glob("*/*.*") if p.parent.name != "common")
BODY = {
    "metal": "uint i = thread_position_in_grid.x; o[i] = x[i];",
    "cuda": "int i = blockIdx.x * blockDim.x + threadIdx.x; o[i] = x[i];",
}


def launch(language: str, shape: tuple[int, ...] = (64,), **call: Any) -> list[mx.array]:
    emulator = Emulator(language)
    kernel = emulator.kernel("rule", ["x"], ["o"], BODY[language])
    given = {"grid": (64, 1, 1), "threadgroup": (32, 1, 1), "output_shapes": [(64,)], **call}
    return kernel(inputs=[mx.zeros(shape)], output_dtypes=[mx.float32], **given)


@pytest.mark.parametrize("language", ["metal", "cuda"])
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ({}, None),
        ({"shape": ()}, "input 0 has no dimensions"),
        ({"shape": (0,)}, "input 0 is empty"),
        ({"output_shapes": [(0, 3)]}, "output 0 is empty"),
        ({"grid": (0, 1, 1)}, "must be positive"),
        ({"threadgroup": (385, 1, 1)}, "385 threads in a group: at most 384"),
        ({"grid": (2**31, 1, 1)}, "cannot pass on"),
    ],
)
def test_launch(language: str, call: dict[str, Any], error: str | None, need_tool: Any) -> None:
    need_tool("clang++-19")
    if error is None:
        assert mx.array_equal(launch(language, **call)[0], mx.zeros(64))
    else:
        with pytest.raises(EmulationError, match=error):
            launch(language, **call)


def test_one_cuda_name_has_one_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_cuda_texts", {})
    for body, dtype, wrong in ((";", mx.float32, False), (";", mx.float32, False), (";", mx.float16, True)):
        text = texts.cuda("k", (["x"], ["o"]), body, "", [mx.zeros(8, dtype)], [mx.float32], None)
        if wrong:
            with pytest.raises(rules.RuleError, match="two texts"):
                rules.check_text(text)
        else:
            rules.check_text(text)


@pytest.mark.parametrize(
    ("declaration", "kind", "alignment", "names"),
    [
        (" float t[64]", "float", "1", [("t", "[64]")]),
        (
            " alignas(16) half a[4][N + 1], b[(N + 7) / 8]",
            "half",
            "16",
            [("a", "[4][N + 1]"), ("b", "[(N + 7) / 8]")],
        ),
        (" metal::vec<T, 4> v[2]", "metal::vec<T, 4>", "1", [("v", "[2]")]),
        (" uint n", "uint", "1", [("n", "")]),
    ],
)
def test_group_storage_is_read(
    declaration: str, kind: str, alignment: str, names: list[tuple[str, str]]
) -> None:
    assert read_storage(declaration) == (kind, alignment, names)


def test_pointers_to_group_storage_stay() -> None:
    body = "{ threadgroup float t[4]; threadgroup float* p = t; threadgroup T& r = t[0]; f((threadgroup int*)p); }"
    placed = place_storage(body)
    assert placed.count("emu_storage") == 1
    assert placed.endswith(body[body.index(" threadgroup float* p") :])


@pytest.mark.parametrize(
    ("types", "shift"),
    [((), 2), (("float", "uint4"), 2), (("float", "half2"), 1), (("T",), 1), (("uchar", "float"), 0)],
)
def test_cells_fit_the_smallest_type(types: tuple[str, ...], shift: int) -> None:
    text = "".join(f"{{ threadgroup {t} v{i}[4][2]; }}" for i, t in enumerate(types))
    assert cell_shift(place_storage(text)) == shift


def test_no_host_code_for_metal() -> None:
    """Kernels are launched from Python alone. C++ that calls Metal would have to be type-checked against MLX's headers
    for macOS, and there is no such check."""
    files = [p for p in (ROOT / "src" / "cpp").rglob("*") if p.suffix in (".h", ".cpp", ".inc", ".mm")]
    assert files
    calls = [p for p in files if re.search(r"mlx/backend/metal|\bMTL::|Metal/Metal", p.read_text())]
    assert not calls


# ---- the heads of kernel files


def head(file: Path) -> dict[str, str]:
    """The statements "// name = value" of a file's first comment."""
    comment = re.match(r"(?://[^\n]*\n)*", file.read_text())
    assert comment
    return dict(re.findall(r"^// ([a-z ]+) = (.*)$", comment[0], re.M))


def test_kernels_are_found() -> None:
    ours = {
        op
        for op in registry.ops()
        for backend in registry.backends(op) & {"metal", "cuda"}
        if not registry.of_mlx(op, backend)
    }
    # Whose kernel is another op's.
    assert ours - {p.parent.name for p in FILES} == {"conv_transpose1d"}
    assert {p.parent.name for p in FILES} <= ours


@pytest.mark.parametrize("file", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_head_is_complete(file: Path) -> None:
    stated = head(file)
    assert stated.keys() >= {"flops", "bytes", "on chip", "threads"}
    threads = [int(n) for n in re.findall(r"\d+", stated["threads"])]
    assert threads
    assert all(32 <= n <= rules.PORTABLE_THREADS for n in threads)
    assert stated["on chip"]


@pytest.mark.parametrize("op", sorted({p.parent.name for p in FILES}))
def test_heads_state_what_the_op_costs(op: str) -> None:
    """An op of several kernels costs their sum; both languages of one kernel state the same."""
    spec = SPECS[op]
    assert spec.dims is not None
    kernels: dict[str, dict[str, str]] = {}
    for file in FILES:
        if file.parent.name == op:
            stated = head(file)
            same = kernels.setdefault(file.stem, stated)
            assert (same["flops"], same["bytes"]) == (stated["flops"], stated["bytes"]), file
    for case in spec.cases:
        kwargs = case.make(np.random.default_rng(0))
        for what, expected in (("flops", spec.flops(**kwargs)), ("bytes", spec.bytes(**kwargs))):
            names = {**spec.dims(**kwargs), "s": 4, "min": min, "max": max, "ceil": lambda a, b: -(-a // b)}
            total = sum(eval(k[what], {"__builtins__": {}}, names) for k in kernels.values())
            assert total == expected, f"{case.name}: {what}"
