"""Compiles kernel text for this machine, instrumented, into a cache keyed by everything that goes into it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from . import addressing, nvcc, texts

SHIM = Path(__file__).resolve().parent / "shim"
CACHE = Path(__file__).resolve().parents[3] / "build" / "emulator"
CLANG = "clang++-19"
MACHINE = ["-std=c++20", "-O2", "-march=x86-64-v3", "-fPIC", "-fno-math-errno", "-ffp-contract=on"]
HALF = [f"-f{t}-excess-precision=none" for t in ("float16", "bfloat16")]
# Each access asks for the thread it is in, which must not be a call.
RUNTIME = ["-shared", "-Wall", "-Wextra", "-ftls-model=initial-exec"]
# What kernels call is in the emulator, which is loaded, and in the compiler's own library.
LINKED = ["-shared", "-nostdlib"]
# Texts that are compiled together.
UNIT = 24
# Vectorized accesses wider than 16 bytes would not be instrumented.
SCALAR = ["-fno-vectorize", "-fno-slp-vectorize", "-fno-strict-aliasing", "-gline-tables-only"]
UNDEFINED = (
    "alignment,array-bounds,signed-integer-overflow,shift-exponent,integer-divide-by-zero,float-cast-overflow"
)
INSTRUMENTED = [
    f"-fsanitize=thread,{UNDEFINED}",
    f"-fsanitize-recover={UNDEFINED}",
    "-fsanitize-minimal-runtime",
]
PASSES = [
    "-tsan-instrument-func-entry-exit=0",
    "-tsan-instrument-atomics=0",
    "-tsan-instrument-read-before-write=1",
]
WARNINGS = ["-Wall", "-Wextra", "-Werror"] + [
    f"-Wno-{w}"
    for w in (
        "unknown-attributes",
        "unused",
        "unused-parameter",
        "user-defined-literals",
        "duplicate-decl-specifier",
        "sign-compare",
        "unknown-pragmas",
        "pass-failed",
    )
]


class BuildError(Exception):
    """A compiler refused the text; the message is its own."""


def _run(command: Sequence[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise BuildError(done.stderr.strip()[:4000])
    return done.stdout


@functools.cache
def supported() -> str | None:
    """Why kernels cannot be executed here, or None."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "the emulator's fibers are written for Linux on x86-64"
    return None


@functools.cache
def _shim_key() -> str:
    files = [p for p in SHIM.rglob("*") if p.is_file()]
    files += [Path(__file__), Path(addressing.__file__), Path(nvcc.__file__), Path(texts.__file__)]
    content = _run([CLANG, "--version"]).encode() + b"".join(p.read_bytes() for p in sorted(files))
    return hashlib.sha256(content).hexdigest()


def _cached(key: str, name: str) -> Path:
    digest = hashlib.sha256((_shim_key() + key).encode()).hexdigest()[:20]
    folder = CACHE / digest
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _compile(command: list[str], target: Path) -> Path:
    """Run a compiler that writes `target`, which appears at once and whole."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / target.name
        _run([*command, "-o", str(part)])
        os.replace(part, target)
    return target


@functools.cache
def runtime() -> ctypes.CDLL:
    """The emulator itself, loaded so that kernels find its functions."""
    target = _cached("runtime", "runtime.so")
    if not target.exists():
        _compile([CLANG, *MACHINE, *RUNTIME, str(SHIM / "runtime.cpp")], target)
    library = ctypes.CDLL(str(target), mode=ctypes.RTLD_GLOBAL)
    library.emu_map.restype, library.emu_map.argtypes = ctypes.c_void_p, [ctypes.c_uint64]
    library.emu_first_unwritten.restype = ctypes.c_uint64
    return library


STORAGE = re.compile(r"(?<=[;{})])(\s*(?:#[^\n]*\n\s*)*)(?:threadgroup|__shared__)\b([^;]*);")
DECLARATOR = re.compile(r"\s*(.*?)\s*\b(\w+)\s*((?:\[[^\]]*\]\s*)*)\Z", re.S)
ALIGNMENT = re.compile(r"\b(?:alignas|__align__)\s*\(([^()]*)\)")


class Storage(NamedTuple):
    """A declaration "alignas(16) float a[4][N], b": type "float", alignment "16", names [("a", "[4][N]"), ("b", "")]."""

    type: str
    alignment: str
    names: list[tuple[str, str]]


def read_storage(declaration: str) -> Storage | None:
    """What follows "threadgroup" or "__shared__"; None if it declares a pointer or reference."""
    alignment = ALIGNMENT.search(declaration)
    first, *others = re.split(r",(?![^<\[(]*[>\])])", ALIGNMENT.sub("", declaration))
    matches = [DECLARATOR.match(d) for d in (first, *others)]
    if matches[0] is None or not matches[0][1] or re.search(r"[*&=(]", matches[0][1]):
        return None
    names = [(m[2], m[3].strip()) for m in matches if m]
    return Storage(matches[0][1], alignment[1] if alignment else "1", names)


def place_storage(text: str) -> str:
    """Replace declarations of group storage by references into the emulator's."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        declared = read_storage(match[2])
        if declared is None:
            return match[0]
        lines = []
        for name, dimensions in declared.names:
            lines.append(
                f"auto& {name} = emu_storage<{declared.type}{dimensions}, {count}, {declared.alignment}>"
                f'("{name}");'
            )
            count += 1
        return match[1] + " ".join(lines) + "\n" * match[2].count("\n")

    return STORAGE.sub(replace, text)


TENSOR_CORE = re.compile(r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.(f16|bf16)\.\1\.f32 ")
ASSEMBLY = re.compile(r"\basm(?:\s+volatile)?\s*\(")


def _operands(text: str) -> list[str]:
    """The expressions of assembly's operands "+f"(a[0]), "r"(f(b))."""
    found, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character == "(":
            depth += 1
            start = at + 1 if depth == 1 else start
        elif character == ")":
            depth -= 1
            if depth == 0:
                found.append(text[start:at])
    return found


def place_tensor_cores(text: str) -> str:
    """Replace the one instruction of PTX that kernels write out by the emulator's function."""
    pieces, at = [], 0
    while match := ASSEMBLY.search(text, at):
        end, depth = match.end(), 1
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        instruction, operands = re.match(
            r"((?:\s*\"[^\"]*\")*)(.*)", text[match.end() : end - 1], re.S
        ).groups()  # type: ignore[union-attr]
        kind = TENSOR_CORE.match("".join(re.findall(r'"([^"]*)"', instruction)))
        values = _operands(operands)
        if kind is None or len(values) != 10:
            raise BuildError(f"the emulator does not know the assembly {instruction.strip()}")
        scalar = {"f16": "__half", "bf16": "__nv_bfloat16"}[kind[1]]
        pieces += [text[at : match.start()], f"emu_mma_m16n8k16<{scalar}>({', '.join(values)})"]
        at = end
    return "".join(pieces) + text[at:]


def cell_shift(translated: str) -> int:
    """log2 of the bytes in a cell of group storage: of the smallest type that may be stored there."""
    types = [
        re.sub(r"\b(const|volatile)\b", "", t) for t in re.findall(r"emu_storage<([^\[;]*?)[\[,]", translated)
    ]
    if any(re.search(r"\b(char|u?char\d|uchar|u?int8_t|bool)\b", t) for t in types):
        return 0
    wide = all(re.fullmatch(r"\s*(u?int|float|u?int32_t)[234]?\s*", t) for t in types)
    return 2 if wide else 1


# The last part of a unit: `emu_entry_KEY` executes a thread of a kernel, `emu_shift_KEY` is its cell_shift.
PLAIN = """
#undef device
#undef constant
#undef thread
#undef threadgroup
#undef kernel
"""
ENTRY = """
extern "C" __attribute__((no_sanitize("thread"))) void emu_entry_{key}(void* const* emu_arguments) {{
  {call};
}}
extern "C" const int emu_shift_{key} = {shift};
"""
PART = "#pragma emu_part\n"


def _metal_call(text: texts.Text) -> str:
    body, instance = texts.metal_instance(text.source)
    calls = []
    for number, (kind, _, attribute) in enumerate(texts.metal_parameters(body, text.name)):
        if attribute.startswith("buffer("):
            index = int(attribute[7:-1])
            if index != number:
                raise RuntimeError(f"{text.name}: buffer {index} is argument {number}")
            plain = re.sub(r"\b(constant|device)\b", "", kind).strip()
            pointer = f"(({plain.rstrip('&*')}*)emu_arguments[{index}])"
            calls.append(f"*{pointer}" if plain.endswith("&") else pointer)
        else:
            calls.append(f"emu_{attribute}()")
    return f"{text.name}{instance}({', '.join(calls)})"


def _cuda_call(text: texts.Text) -> str:
    kinds = {"shape": "Shape", "strides": "Strides", "ndim": "int"}
    calls = []
    for index, argument in enumerate([*text.inputs, *text.outputs]):
        if argument.what == "data":
            calls.append(f"emu_pointer{{emu_arguments[{index}]}}")
        else:
            calls.append(f"*(const {kinds[argument.what]}*)emu_arguments[{index}]")
    return f"mlx::core::cu::{text.name}({', '.join(calls)})"


def _translate(unit: Sequence[tuple[texts.Text, Path]], preprocessed: str) -> str:
    """The C++ that the emulator executes, from preprocessed text in parts: the head, and each kernel."""
    language = unit[0][0].language
    call = _metal_call if language == "metal" else _cuda_call
    head, *parts = preprocessed.split(PART)
    # Kernels number their storage by themselves.
    common = place_storage(head)
    source, entries = common, ""
    for (text, file), part in zip(unit, parts, strict=True):
        placed = place_storage(head + part)
        source += placed[len(common) :]
        entries += ENTRY.format(key=file.parent.name, call=call(text), shift=cell_shift(placed))
    source = source if language == "metal" else place_tensor_cores(source)
    return f'#include "{language}.h"\n{source}\n{PLAIN}{entries}'


PREPROCESS = {
    "metal": ["-D__METAL__=1", "-D__METAL_VERSION__=320", f"-I{SHIM / 'metal'}"],
    "cuda": ["-D__CUDACC__=1", "-D__CUDA_ARCH__=800", f"-I{SHIM / 'cuda'}"],
}


def _file(text: texts.Text) -> Path:
    """The library of a text, in a folder of its own."""
    return _cached(text.language + text.name + text.source, "kernel.so")


def _head(text: texts.Text) -> str:
    return texts.metal_head(text.source) if text.language == "metal" else nvcc.head(text.source)


def _compile_unit(unit: Sequence[texts.Text]) -> None:
    """Compile texts of one head. Each gets its library, the same file under several names."""
    files = [_file(text) for text in unit]
    language = unit[0].language
    kernels = []
    for text, file in zip(unit, files, strict=True):
        body = texts.metal_instance(text.source)[0] if language == "metal" else text.source
        kernels.append((body, file.with_name(f"kernel.{language}")))
        kernels[-1][1].write_text(body)
    written = [*zip(unit, (file for _, file in kernels), strict=True)]
    if language == "metal" and (wrong := addressing.check(written, CLANG, SHIM)):
        raise BuildError("\n".join(wrong))
    head = _head(unit[0]) if len(unit) > 1 else ""
    joined, translated = (files[0].with_name(name) for name in ("unit.cpp", "translated.cpp"))
    joined.write_text(texts.join(kernels, head, PART))
    preprocessed = _run(
        [CLANG, "-E", "-x", "c++", "-std=c++20", "-nostdinc", *PREPROCESS[language], str(joined)]
    )
    translated.write_text(_translate(written, preprocessed))
    flags = [f for x in (*INSTRUMENTED, *HALF) for f in ("-Xclang", x)]
    flags += [f for x in PASSES for f in ("-mllvm", x)]
    command = [CLANG, *MACHINE, *SCALAR, *flags, *WARNINGS, f"-I{SHIM}", *LINKED, str(translated), "-lgcc"]
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        library, name = Path(folder) / "library", Path(folder) / "name"
        _run([*command, "-o", str(library)])
        for file in files:
            os.link(library, name)
            os.replace(name, file)


def compile_together(found: Iterable[texts.Text]) -> None:
    """Compile texts before they are launched, in large units, where reading headers and linking counts once.

    Of a unit that is refused each text is compiled when it is launched, to tell whose fault it is.
    """
    heads: dict[tuple[str, str], dict[str, texts.Text]] = {}
    for text in found:
        if not _file(text).exists():
            heads.setdefault((text.language, _head(text)), {})[text.name] = text
    units = [[*same.values()][at : at + UNIT] for same in heads.values() for at in range(0, len(same), UNIT)]

    def compile_unit(unit: Sequence[texts.Text]) -> None:
        with contextlib.suppress(BuildError):
            _compile_unit(unit)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_unit, units))


class Kernel:
    """Compiled text: `entry` is the function, `shift` the size of cells of its group storage."""

    def __init__(self, text: texts.Text) -> None:
        self.file = _file(text)
        if not self.file.exists():
            _compile_unit([text])
        runtime()
        self.library = ctypes.CDLL(str(self.file))
        key = self.file.parent.name
        self.shift = ctypes.c_int.in_dll(self.library, f"emu_shift_{key}").value
        self.entry = ctypes.cast(self.library[f"emu_entry_{key}"], ctypes.c_void_p)

    def line(self, address: int) -> str:
        """Where an address of the compiled file comes from: "kernel.metal:12: `text of the line`"."""
        command = ["addr2line", "-i", "-e", str(self.file), hex(address)]
        try:
            places = _run(command).split()
        except (OSError, BuildError):
            return ""
        for place in places:
            path, _, number = place.rpartition(":")
            if Path(path).name.startswith("kernel.") and number.isdigit():
                lines = Path(path).read_text().splitlines()
                return f"{Path(path).name}:{number}: `{lines[int(number) - 1].strip()}`"
        return ""


@functools.cache
def kernel(text: texts.Text) -> Kernel:
    """The compiled kernel of a text; BuildError with the compiler's words if it is not valid."""
    return Kernel(text)
