"""Compiles CUDA text with nvcc for three generations of GPUs, against the headers of MLX's own CUDA wheel.

MLX compiles custom kernels at run time with headers that sit as strings in its library. `fetch` takes them out of the wheel
of the version that the project pins; run this file to do so (90 MB are downloaded, 15 MB kept under build/).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

MLX = "0.32.4"
BUILD = Path(__file__).resolve().parents[3] / "build"
HEADERS = BUILD / f"mlx-cuda-{MLX}"
ARCHITECTURES = ("sm_80", "sm_90", "sm_120")
# The oldest that MLX runs on, without the tensor cores' instructions for 16 x 16 factors and bfloat16.
OLDEST = "sm_75"
# Registers of a multiprocessor: a group that needs more of them does not start.
REGISTERS = 65536
STATIC_SHARED = 48 * 1024
INCLUDES = ("mlx/include/cccl/", "mlx/include/mlx/backend/cuda/device/")
# Texts that are compiled together.
UNIT = 32
# Where the kernel's namespace begins in generated text.
OPENED = "namespace mlx::core::cu {\n\nnamespace cg = cooperative_groups;\n\n"
# Headers among the library's strings, by a line that only they have.
EMBEDDED = {
    "utils.cuh": b"This file must not include any host-only code",
    "complex.cuh": b"struct is_complex",
}
# What the library's own generator of kernel text is made of, so that texts.py can be compared with it.
FRAGMENTS = (
    '\n#include "mlx/backend/cuda/device/utils.cuh"\n\n#include <cooperative_groups.h>\n\n',
    OPENED,
    "    const __grid_constant__ Shape ",
    "    const __grid_constant__ Strides ",
    "    const __grid_constant__ int ",
    "  constexpr int {} = {};\n",
    "  constexpr bool {} = {};\n",
    "  using {} = {};\n",
    "\n}\n\n} // namespace mlx::core::cu\n",
)


def fetch(wheel: Path | None = None) -> None:
    """Put the headers of MLX's CUDA wheel into `HEADERS`; without `wheel` pip downloads it."""
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        if wheel is None:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*pip, f"mlx-cuda-13=={MLX}", "--dest", folder], check=True)
            (wheel,) = Path(folder).glob("*.whl")
        part = Path(folder) / "headers"
        with zipfile.ZipFile(wheel) as archive:
            library = archive.read("mlx/lib/libmlx.so")
            for name in archive.namelist():
                if name.startswith(INCLUDES) and not name.endswith("/"):
                    archive.extract(name, part)
        for fragment in FRAGMENTS:
            if library.find(fragment.encode() + b"\0") < 0:
                raise RuntimeError(f"{wheel.name} generates kernels without {fragment!r}")
        for name, mark in EMBEDDED.items():
            at = library.find(mark)
            start, end = library.rfind(b"\0", 0, at) + 1, library.find(b"\0", at)
            target = part / "mlx/include/mlx/backend/cuda/device" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(library[start:end])
        part.rename(HEADERS)


def find() -> str | None:
    """Return the path of nvcc, of the system or of NVIDIA's packages for Python, or None."""
    packaged = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin" / "nvcc"
    return shutil.which("nvcc") or (str(packaged) if packaged.is_file() else None)


@dataclass(frozen=True)
class Resources:
    """What a kernel takes on one generation of GPUs, as ptxas counts it."""

    architecture: str
    registers: int
    shared: int
    spilled: int

    def problems(self, threads: int) -> list[str]:
        """What would make a launch with groups of `threads` fail or crawl."""
        found = []
        allocated = -(-self.registers // 8) * 8 * threads
        if allocated > REGISTERS:
            found.append(f"{self.registers} registers of {threads} threads: there are {REGISTERS}")
        if self.shared > STATIC_SHARED:
            found.append(f"{self.shared} bytes of static shared memory: there are {STATIC_SHARED}")
        if self.spilled:
            found.append(f"{self.spilled} bytes of registers are spilled to memory")
        return found


class Refused(Exception):
    """nvcc's errors and warnings."""


def head(source: str) -> str:
    """What stands before the kernel; all of the text if directives in the kernel might change what follows it."""
    before, opened, kernel = source.partition(OPENED)
    return before if opened and not re.search(r"^[ \t]*#", kernel, re.M) else source


def function(source: str) -> str:
    """The kernel's name in its text."""
    found = re.search(r"__global__ void (\w+)\(\n", source)
    if found is None:
        raise RuntimeError("no kernel in the text")
    return found[1]


def compile_text(nvcc: str, source: str, architectures: tuple[str, ...] = ARCHITECTURES) -> list[Resources]:
    """Compile for all architectures; warnings are errors. The result is kept for the same text."""
    return compile_unit(nvcc, [source], architectures)[0]


def compile_unit(
    nvcc: str, sources: Sequence[str], architectures: tuple[str, ...] = ARCHITECTURES
) -> list[list[Resources]]:
    """Compile texts of one head together: to read MLX's headers takes longer than most kernels."""
    source = sources[0] + "".join(s[len(head(s)) :] for s in sources[1:])
    key = sha256(f"{nvcc}{MLX}{architectures}{source}".encode()).hexdigest()[:20]
    folder = BUILD / "emulator" / "nvcc"
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / f"{key}.txt"
    if not report.exists():
        text = folder / f"{key}.cu"
        text.write_text(source)
        # Only text that tells these architectures apart needs a pass of the front end for each.
        if re.search(r"__CUDA_ARCH__(?! >= 800\b)", source):
            code = [f"-gencode=arch={a.replace('sm', 'compute')},code={a}" for a in architectures]
        else:
            first = architectures[0].replace("sm", "compute")
            code = [f"-gencode=arch={first},code=[{','.join(architectures)}]"]
        include = HEADERS / "mlx" / "include"
        command = [nvcc, "-std=c++17", "-fatbin", *code, f"-I{include}", f"-I{include / 'cccl'}"]
        # The words of kernels for both languages are constants, of which not every kernel uses all.
        command += ["-Xptxas=-v", "-Werror=all-warnings", "-diag-suppress=177", str(text)]
        with tempfile.TemporaryDirectory(dir=folder) as part:
            done = subprocess.run([*command, "-o", f"{part}/k.fatbin"], capture_output=True, text=True)
            if done.returncode:
                raise Refused(f"{text}: {done.stderr.strip()[:3000]}")
            (Path(part) / "report").write_text(done.stderr)
            (Path(part) / "report").rename(report)
    return [read_report(report.read_text(), architectures, function(s)) for s in sources]


def read_report(
    report: str, architectures: tuple[str, ...] = ARCHITECTURES, name: str = ""
) -> list[Resources]:
    """Read what ptxas -v says of the kernel `name`, or of the one there is, for each architecture."""
    found = []
    for block in report.split("Compiling entry function")[1:]:
        entry = re.match(r" '(\w+)' for '(sm_\d+)'", block)
        registers = re.search(r"Used (\d+) registers", block)
        if entry is None or registers is None:
            raise RuntimeError(f"cannot read what ptxas says: {block}")
        # A mangled name has the length of each of its parts before it.
        if name and f"{len(name)}{name}E" not in entry[1]:
            continue
        shared = re.search(r"(\d+) bytes smem", block)
        spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", block))
        found.append(Resources(entry[2], int(registers[1]), int(shared[1]) if shared else 0, spilled))
    if sorted(r.architecture for r in found) != sorted(architectures):
        raise RuntimeError(f"ptxas reports {[r.architecture for r in found]} for {name or 'the kernel'}")
    return found


class Compiler:
    """Compiles texts behind the tests that execute them, those of one head together."""

    def __init__(self, nvcc: str) -> None:
        self.nvcc = nvcc
        self._pool = ThreadPoolExecutor(2)
        self._names: dict[str, str] = {}
        self._threads: dict[str, int] = {}
        # The texts of each head that wait for more of them.
        self._waiting: dict[str, list[str]] = {}
        self._units: list[tuple[list[str], Future[list[list[Resources]]]]] = []

    def add(self, name: str, source: str, threads: int) -> None:
        """Compile a text, once, that is launched with so many threads a group."""
        self._threads[source] = max(threads, self._threads.get(source, 0))
        if source in self._names:
            return
        waiting = self._waiting.setdefault(head(source), [])
        # Tests that change a text may have two of one name.
        if len(waiting) == UNIT or name in (self._names[s] for s in waiting):
            self._submit(waiting)
        self._names[source] = name
        waiting.append(source)

    def _submit(self, waiting: list[str]) -> None:
        self._units.append((waiting[:], self._pool.submit(compile_unit, self.nvcc, waiting[:])))
        waiting.clear()

    def problems(self) -> tuple[int, list[str]]:
        """Wait for all; return how many there were, and what is wrong with them."""
        for waiting in self._waiting.values():
            if waiting:
                self._submit(waiting)
        found = []
        for sources, future in self._units:
            try:
                compiled = [*zip(sources, future.result(), strict=True)]
            except Refused:
                # Alone, to tell whose fault it is.
                compiled, refused = [], []
                for source in sources:
                    try:
                        compiled.append((source, compile_text(self.nvcc, source)))
                    except Refused as error:
                        refused.append(f"{self._names[source]}: {error}")
                found += refused or [f"texts that compile alone are refused together: {future.exception()}"]
            found += [
                f"{self._names[source]} on {r.architecture}: {p}"
                for source, resources in compiled
                for r in resources
                for p in r.problems(self._threads[source])
            ]
        return len(self._names), found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="the wheel, if it is at hand")
    wheel = parser.parse_args(argv).wheel
    if not HEADERS.exists():
        fetch(wheel)
    print(HEADERS)


if __name__ == "__main__":
    main()
