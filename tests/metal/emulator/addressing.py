"""Checks the address spaces of Metal text: C++ for OpenCL has the same four, and clang on any machine compiles it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import texts

OPTIONS = [
    "-x",
    "clcpp",
    "-cl-std=clc++2021",
    "-target",
    "spir64-unknown-unknown",
    "-fsyntax-only",
    "-cl-no-stdinc",
    "-fno-caret-diagnostics",
    "-ferror-limit=0",
    "-Wno-unknown-attributes",
    # Metal 3 is C++14.
    "-Werror=pre-c++17-compat-pedantic",
    "-D__METAL__=1",
    "-D__METAL_VERSION__=320",
]
# Without generic pointers every pointer must say what it points to, as in Metal; but then the compiler cannot copy
# objects of classes, or make them, by itself. With them it can.
GENERIC = ("generic_address_space", "pipes", "device_enqueue", "program_scope_global_variables")
STRICT = ["-Xclang", "-cl-ext=+cl_khr_fp16," + ",".join(f"-__opencl_c_{feature}" for feature in GENERIC)]
LENIENT = ["-Xclang", "-cl-ext=+cl_khr_fp16"]


def _as_opencl(text: texts.Text) -> str:
    """The text as a kernel that is no template and takes no references."""
    body, instance = texts.metal_instance(text.source)
    kernel = re.search(
        rf"(?:template <([^>]*)>\n)?\[\[kernel\]\] void {text.name}\((.*?)\) \{{\n", body, re.S
    )
    if kernel is None:
        raise RuntimeError(f"no kernel {text.name} in its text")
    constants = ""
    if kernel[1]:
        for parameter, value in zip(kernel[1].split(", "), instance[1:-1].split(", "), strict=True):
            kind, name = parameter.split()
            constants += (
                f" using {name} = {value};" if kind == "typename" else f" constexpr {kind} {name} = {value};"
            )
    parameters = re.sub(r" \[\[.*?\]\]", "", kernel[2])
    parameters = re.sub(r"const constant int& ", "int ", parameters)
    # One line for "template <...>", which is gone.
    gap = "\n" if kernel[1] else ""
    opened = f"{gap}kernel void {text.name}({parameters}) {{{constants}\n"
    return body[: kernel.start()] + opened + body[kernel.end() :]


def _errors(command: list[str]) -> list[str]:
    """Run the compiler and return its errors, each with its notes."""
    done = subprocess.run(command, capture_output=True, text=True)
    blocks = [b.strip() for b in re.split(r"^(?=.*\berror: )", done.stderr, flags=re.M) if "error: " in b]
    if done.returncode and not blocks:
        raise RuntimeError(done.stderr)
    return blocks


def check(unit: Sequence[tuple[texts.Text, Path]], clang: str, shim: Path) -> list[str]:
    """Return what is wrong with the pointers of Metal texts of one head, in the compiler's words.

    Each comes with the file that it lies in; the first one's folder takes the text that is compiled.
    """
    source = unit[0][1].with_name("addressing.clcpp")
    head = texts.metal_head(unit[0][0].source)
    kernels = [(_as_opencl(text), file) for text, file in unit]
    source.write_text('#include "opencl.h"\n' + texts.join(kernels, head if len(unit) > 1 else ""))
    command = [clang, *OPTIONS, f"-I{shim}", f"-I{shim / 'metal'}", str(source)]
    implicit = re.compile(
        r"implicit (copy|move) (constructor|assignment operator)\) not viable|does not have a default constructor"
    )
    strict = [error for error in _errors([*command, *STRICT]) if not implicit.search(error)]
    return strict or _errors([*command, *LENIENT])
