"""Whether this machine can run or build rvc_fast, in one line that says what to do if not.

Asked by the Makefile, by pip's build (release/backend.py), by `rvc-fast` and by `import rvc_fast`: all before anything else
is imported, so this file is plain Python that even version 3.6 reads.

    python machine.py [build]      prints the problem and exits with 1 if there is one
"""

import os
import platform
import shutil
import subprocess
import sys
from typing import Optional

PYTHON = (3, 10)
MACOS = 14


def _first_line(*command: str) -> Optional[str]:
    """Return the first line that a program prints, or None if it fails or is missing."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="replace").partition("\n")[0].strip()


def _macos() -> Optional[str]:
    # Not platform.mac_ver(): a Python built for an old macOS is told 10.16.
    version = _first_line("sw_vers", "-productVersion") or platform.mac_ver()[0]
    major = version.partition(".")[0]
    if major.isdigit() and int(major) < MACOS:
        return "MLX needs macOS {} or newer, this is macOS {}: update macOS".format(MACOS, version)
    return None


def _intel() -> Optional[str]:
    if platform.machine() == "arm64":
        return None
    if _first_line("sysctl", "-n", "sysctl.proc_translated") == "1":
        return (
            "this Python ({}) is one for Intel, which Rosetta translates, and MLX has none of those: use a Python for "
            "Apple silicon (from python.org, or `brew install python` with the brew in /opt/homebrew), in a new .venv"
        ).format(sys.executable)
    return (
        "MLX does not run on Macs with an Intel processor; rvc_fast needs a Mac with Apple silicon, or Linux"
    )


def problem(build: bool = False) -> Optional[str]:
    """Return the sentence that says what is missing to run here, or with `build` to compile here; None if nothing is."""
    if sys.version_info < PYTHON:
        return (
            "rvc_fast needs Python {}.{} or newer, and {} is {}: install a newer one (python.org, `brew install python`, "
            "`apt install python3`) and name it, as in `make demo PYTHON=python3.13`"
        ).format(PYTHON[0], PYTHON[1], sys.executable, platform.python_version())
    if platform.system() == "Darwin":
        said = _intel() or _macos()
        if said:
            return said
        if build and not os.environ.get("CXX") and _first_line("xcode-select", "-p") is None:
            return (
                "there is no C++ compiler: run `xcode-select --install`, or install without the CPU kernels, which the GPU "
                "does not need: `pip install . -C pure=true`"
            )
    elif (
        build
        and not os.environ.get("CXX")
        and not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"))
    ):
        return (
            "there is no C++ compiler: install one (`apt install g++`), or install without the CPU kernels, with which the "
            "CPU is much slower: `pip install . -C pure=true`"
        )
    return None


if __name__ == "__main__":
    said = problem(build=sys.argv[1:] == ["build"])
    if said:
        sys.exit("rvc_fast: " + said)
