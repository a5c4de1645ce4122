"""A folder to compile and link macOS arm64 code against on Linux, of parts that packages bring.

Apple's C headers and the list of what libSystem exports come from PyPI's ziglang, the C++ headers from Debian's
libc++-19-dev. What Apple's libc++ exports is not published; MLX's own macOS binaries run on macOS 14, so every name that
they import exists there, and macos-libcxx.txt adds names that libc++ has had since C++11 and 17. A call to anything newer
does not link.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import lief

HERE = Path(__file__).resolve().parent
LIBCXX = Path("/usr/lib/llvm-19/include/c++/v1")
LIBCXX_NAME = "/usr/lib/libc++.1.dylib"
MACOS = "14.0"
FRAMEWORKS = {"Metal": "A", "Foundation": "C", "QuartzCore": "A", "Accelerate": "A"}

# Apple's newest math.h leaves these to the compiler's float.h, which clang 19's does not define.
FLOAT = """#pragma once
#ifndef INFINITY
#define INFINITY __builtin_inff()
#endif
#ifndef NAN
#define NAN __builtin_nanf("")
#endif
"""


def imports(file: Path) -> set[tuple[str, str]]:
    """Return (library, symbol) of all that a Mach-O file imports: its install name, or "" where the whole process is asked."""
    fat = lief.MachO.parse(str(file))  # kept, since what it holds lives in it
    binary = fat.at(0)
    return {(b.library.name if b.has_library else "", b.symbol.name) for b in binary.bindings if b.has_symbol}


def _stub(file: Path, install_name: str, symbols: list[str]) -> None:
    listed = ", ".join(f"'{s}'" for s in symbols)
    exports = f"exports:\n  - targets: [ arm64-macos ]\n    symbols: [ {listed} ]\n" if symbols else ""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"--- !tapi-tbd\ntbd-version: 4\ntargets: [ arm64-macos ]\ninstall-name: '{install_name}'\n{exports}...\n"
    )


def libcxx_exports(mlx: Path) -> list[str]:
    """Return the names in Apple's libc++ that code for macOS 14 may use here, given the folder of a macOS MLX."""
    used = {s for f in binaries(mlx) for library, s in imports(f) if library == LIBCXX_NAME}
    return sorted(used | set((HERE / "macos-libcxx.txt").read_text().split()))


def binaries(mlx: Path) -> list[Path]:
    """Return MLX's own Mach-O files."""
    return [*mlx.glob("lib/*.dylib"), *mlx.glob("core*.so")]


def make(sdk: Path, ziglang: Path, mlx: Path) -> None:
    """Make the folder `sdk`, given the unpacked packages ziglang and macOS mlx."""
    shutil.rmtree(sdk, ignore_errors=True)
    shutil.copytree(ziglang / "lib/libc/include/any-darwin-any", sdk / "usr/include")
    # lld 19 neither knows arm64e.x1 nor takes arm64e's symbols for arm64.
    text = (ziglang / "lib/libc/darwin/libSystem.tbd").read_text()
    text = re.sub(r"arm64e\.x1-mac(os|catalyst)", "", text).replace("arm64e-", "arm64-")
    text = re.sub(r",\s*(?=[,\]])", "", text)
    (sdk / "usr/lib").mkdir(parents=True)
    (sdk / "usr/lib/libSystem.tbd").write_text(text)
    settings = {"Version": MACOS, "MaximumDeploymentTarget": "14.99", "DefaultDeploymentTarget": MACOS}
    (sdk / "SDKSettings.json").write_text(json.dumps(settings))
    (sdk / "float.h").write_text(FLOAT)
    # Apple's availability marks on: the headers then call nothing newer than macOS 14's libc++.
    shutil.copytree(LIBCXX, sdk / "libcxx")
    site = sdk / "libcxx/__config_site"
    marks = "#define _LIBCPP_HAS_NO_VENDOR_AVAILABILITY_ANNOTATIONS"
    if marks not in site.read_text():
        raise SystemExit(f"{site} is not of the form that this script knows: {marks} is missing")
    site.write_text(site.read_text().replace(marks, ""))
    _stub(sdk / "usr/lib/libc++.tbd", LIBCXX_NAME, libcxx_exports(mlx))
    for name, version in FRAMEWORKS.items():
        folder = f"System/Library/Frameworks/{name}.framework"
        _stub(sdk / folder / f"{name}.tbd", f"/{folder}/Versions/{version}/{name}", [])
