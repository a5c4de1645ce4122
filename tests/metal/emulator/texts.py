"""The text that MLX would hand to the GPU's compiler, for one call of a custom kernel."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

# How CUDA, and how Metal's template arguments call MLX's types.
CUDA_TYPES = {
    mx.bool_: "bool",
    mx.int8: "int8_t",
    mx.uint8: "uint8_t",
    mx.int16: "int16_t",
    mx.uint16: "uint16_t",
    mx.int32: "int32_t",
    mx.uint32: "uint32_t",
    mx.int64: "int64_t",
    mx.uint64: "uint64_t",
    mx.float16: "__half",
    mx.bfloat16: "__nv_bfloat16",
    mx.float32: "float",
    mx.float64: "double",
}
TYPE_STRINGS = {**CUDA_TYPES, mx.float16: "float16_t", mx.bfloat16: "bfloat16_t", mx.bool_: "bool"}
Template = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Argument:
    """One argument of the generated kernel: an array ("x"), or its "shape", "strides" or "ndim"."""

    array: str
    what: str = "data"

    @property
    def name(self) -> str:
        return self.array if self.what == "data" else f"{self.array}_{self.what}"


@dataclass(frozen=True)
class Text:
    """Generated text, the function's name in it, and its arguments in order: inputs first."""

    language: str
    name: str
    source: str
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]


def _arguments(source: str, names: Sequence[str], inputs: Sequence[mx.array]) -> tuple[Argument, ...]:
    """Inputs, each followed by those of its attributes that the source names (as a substring: MLX's rule)."""
    found = []
    for name, array in zip(names, inputs, strict=True):
        found.append(Argument(name))
        attributes = ("shape", "strides", "ndim") if array.ndim else ()
        found += [Argument(name, what) for what in attributes if f"{name}_{what}" in source]
    return tuple(found)


def metal(
    kernel: Callable[..., Any],
    names: tuple[Sequence[str], Sequence[str]],
    source: str,
    inputs: Sequence[mx.array],
    **call: Any,
) -> Text:
    """What MLX itself generates, taken from the trace of the call."""
    records: list[dict[str, Any]] = []
    mx.export_function(records.append, lambda *arrays: kernel(inputs=list(arrays), **call), *inputs)
    traced = [r["arguments"] for r in records if r.get("name") == "CustomKernel"]
    if len(traced) != 1:
        raise RuntimeError(f"the trace of a kernel call holds {len(traced)} kernels")
    outputs = tuple(Argument(n) for n in names[1])
    return Text("metal", traced[0][0], traced[0][1], _arguments(source, names[0], inputs), outputs)


def _cuda_value(value: Any) -> str:
    if isinstance(value, bool):
        return "_t" if value else "_f"
    return f"_{value}" if isinstance(value, int) else f"_{TYPE_STRINGS[value]}"


def cuda(
    name: str,
    names: tuple[Sequence[str], Sequence[str]],
    source: str,
    header: str,
    inputs: Sequence[mx.array],
    output_dtypes: Sequence[mx.Dtype],
    template: Template | None,
) -> Text:
    """What MLX 0.32's CUDA backend would generate; it does so only where it runs, so its rules are repeated here."""
    template = template or ()
    function = f"custom_kernel_{name}" + "".join(_cuda_value(v) for _, v in template)
    arguments = _arguments(source, names[0], inputs)
    types = dict(zip(names[0], (CUDA_TYPES[x.dtype] for x in inputs), strict=True))
    grid_constant = {"shape": "Shape", "strides": "Strides", "ndim": "int"}
    declared = [
        f"    const {types[a.array]}* {a.name}"
        if a.what == "data"
        else f"    const __grid_constant__ {grid_constant[a.what]} {a.name}"
        for a in arguments
    ]
    declared += [f"    {CUDA_TYPES[d]}* {n}" for n, d in zip(names[1], output_dtypes, strict=True)]
    constants = ""
    for key, value in template:
        if isinstance(value, bool):
            constants += f"  constexpr bool {key} = {str(value).lower()};\n"
        elif isinstance(value, int):
            constants += f"  constexpr int {key} = {value};\n"
        else:
            constants += f"  using {key} = {CUDA_TYPES[value]};\n"
    text = (
        '\n#include "mlx/backend/cuda/device/utils.cuh"\n\n#include <cooperative_groups.h>\n\n'
        f"{header}namespace mlx::core::cu {{\n\nnamespace cg = cooperative_groups;\n\n"
        f"__global__ void {function}(\n" + ",\n".join(declared) + ") {\n"
    )
    text += f"{constants}\n" if template else ""
    text += f"{source}\n}}\n\n}} // namespace mlx::core::cu\n"
    outputs = tuple(Argument(n) for n in names[1])
    return Text("cuda", function, text, arguments, outputs)


def metal_head(source: str) -> str:
    """What stands before the kernel in Metal text; all of it if directives in the kernel might change what follows."""
    opened = re.search(r"^(?:template <[^>]*>\n)?\[\[kernel\]\] void ", source, re.M)
    if opened is None or re.search(r"^[ \t]*#", source[opened.start() :], re.M):
        return source
    return source[: opened.start()]


def join(unit: Sequence[tuple[str, Path]], head: str, mark: str = "") -> str:
    """Texts with one head as one text, whose parts begin with `mark` and belong, line by line, to the given files."""
    joined = f'#line 1 "{unit[0][1]}"\n{head}'
    line = head.count("\n") + 1
    for source, file in unit:
        joined += f'\n{mark}#line {line} "{file}"\n{source[len(head) :]}'
    return joined


def metal_parameters(source: str, name: str) -> list[tuple[str, str, str]]:
    """(type, name, attribute) of each argument in Metal text: attribute "buffer(0)" or "thread_position_in_grid"."""
    declared = re.search(rf"\[\[kernel\]\] void {name}\((.*?)\) \{{\n", source, re.S)
    if declared is None:
        raise RuntimeError(f"no kernel {name} in its text")
    found = []
    for parameter in declared[1].split(",\n"):
        match = re.fullmatch(r"\s*(.*?)(\w+) \[\[(.*?)\]\]\s*", parameter, re.S)
        if match is None:
            raise RuntimeError(f"{name}: cannot read the argument {parameter!r}")
        found.append((match[1].strip(), match[2], match[3]))
    return found


def metal_instance(source: str) -> tuple[str, str]:
    """Metal text without the line that instantiates the kernel, and its template arguments ("" or "<...>")."""
    body, _, instance = source.partition("\ntemplate [[host_name(")
    match = re.search(r"decltype\(\w+(<.*?>)\)", instance)
    return body, match[1] if match else ""
