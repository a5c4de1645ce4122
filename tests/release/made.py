"""Wheels made once per run of the tests, and an arm64 Linux to run one of them in."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from builds import run

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "release"

# Debian 12's Python, which runs under qemu; its wheels are made for it whatever Python runs the tests.
ARM64 = "3.11"


def beside(folder: Path, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with `folder` before all else that is installed, and without the links to a checkout (-S)."""
    path = os.pathsep.join(map(str, (folder, sysconfig.get_path("purelib"))))
    return run(sys.executable, "-S", *arguments, cwd=folder, PYTHONPATH=path, **env)


@functools.cache
def dist(make: str, pythons: str = "") -> Path:
    """Return a fresh folder that `release/wheels.py` filled."""
    output = WORK / "tests" / "-".join([*make.split(), *pythons.split(",")])
    shutil.rmtree(output, ignore_errors=True)
    done = run(sys.executable, "release/wheels.py", *make.split(), "--python", pythons, "--output", output)
    if done.returncode != 0:
        pytest.fail(f"{make}: {(done.stdout + done.stderr)[-6000:]}", pytrace=False)
    return output


@functools.cache
def arm64_site() -> Path:
    """Return a folder with the arm64 wheel and all that it needs, as pip installs them."""
    (wheel,) = dist("linux-arm64", ARM64).glob("*.whl")
    # One folder for each list of requirements.
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        required = [
            line for line in archive.read(metadata).splitlines() if line.startswith(b"Requires-Dist:")
        ]
    site = WORK / f"arm64-site-{hashlib.sha256(b''.join(required)).hexdigest()[:12]}"
    if not site.exists():
        platforms = [f"--platform=manylinux{p}_aarch64" for p in ("_2_35", "_2_28", "_2_17", "2014")]
        choice = ["--target", site, "--only-binary", ":all:", "--python-version", ARM64, *platforms]
        done = run(sys.executable, "-m", "pip", "install", "-q", *choice, f"{wheel}[cpu]")
        if done.returncode != 0:
            shutil.rmtree(site, ignore_errors=True)
            pytest.fail(f"pip: {done.stderr[-4000:]}", pytrace=False)
    shutil.rmtree(site / "rvc_fast", ignore_errors=True)
    shutil.unpack_archive(wheel, site, "zip")
    return site


def arm64(*arguments: object, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run Debian's Python for arm64 under qemu with the wheel installed."""
    import debian

    packages = [f"python{ARM64}-minimal", f"libpython{ARM64}-stdlib", "libstdc++6"]
    root = debian.fetch(WORK / "arm64", packages, "arm64", ["bookworm"], needs=True)
    environment = {"PYTHONPATH": str(arm64_site()), "OPENBLAS_NUM_THREADS": "2"}
    program = ["qemu-aarch64", "-L", root, root / f"usr/bin/python{ARM64}"]
    return run(*program, "-W", "error::UserWarning", *arguments, cwd=WORK, timeout=timeout, **environment)
