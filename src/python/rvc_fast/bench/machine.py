"""What numbers depend on: chip, system, versions, and whether the machine holds itself back."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import rvc_fast

from . import limits

PACKAGES = ("mlx", "numpy", "torch", "onnxruntime", "openvino")
TIMEOUT = 5.0
# What macOS calls its levels of thermal pressure, from 0 (libkern/OSThermalNotification.h).
THERMAL_PRESSURE = ("nominal", "moderate", "heavy", "trapping", "sleeping")
# And its power modes.
POWER_MODES = ("automatic", "low", "high")


def ask(command: Sequence[str]) -> str:
    """Return what a program of the system says, or nothing if it cannot be run in `TIMEOUT` seconds."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


Ask = Callable[[Sequence[str]], str]


def chip(system: str = sys.platform, root: Path = Path("/"), ask: Ask = ask) -> str:
    """Return the name of the processor."""
    if system == "darwin" and (name := ask(("sysctl", "-n", "machdep.cpu.brand_string"))):
        return name
    info = root / "proc/cpuinfo"
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def system(ask: Ask = ask) -> str:
    """Return the operating system, its version, and of macOS the build; of a Linux kernel only the series, the rest is
    its builder's.
    """
    if sys.platform == "darwin":
        build = ask(("sw_vers", "-buildVersion"))
        return f"macOS {platform.mac_ver()[0]}{f' ({build})' if build else ''}"
    kernel = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def gpu_cores(system: str = sys.platform, ask: Ask = ask) -> int | None:
    """Return how many cores a Mac's GPU has, or None where nobody tells."""
    said = ask(("system_profiler", "SPDisplaysDataType")) if system == "darwin" else ""
    found = re.search(r"^\s*Total Number of Cores:\s*(\d+)\s*$", said, re.M)
    return int(found[1]) if found else None


def cpu_cores(system: str = sys.platform, ask: Ask = ask) -> dict[str, int]:
    """Return the cores of each kind that a Mac's processor has, the fastest kind first, by Apple's names for them."""
    kinds: dict[str, int] = {}
    for level in itertools.count() if system == "darwin" else ():
        count = ask(("sysctl", "-n", f"hw.perflevel{level}.physicalcpu"))
        if not count.isdecimal():
            break
        kinds[ask(("sysctl", "-n", f"hw.perflevel{level}.name")) or f"level {level}"] = int(count)
    return kinds


def thermal(system: str = sys.platform, root: Path = Path("/"), ask: Ask = ask) -> dict[str, Any]:
    """Return what the system tells about being slowed down; what it does not tell is not there.

    Linux: governor, the platform's power profile, how often the cores were throttled since they were started.
    macOS: thermal pressure, power source ("AC Power", "Battery Power"), and the power mode. The pressure reads "nominal", too,
    where the system never reported any.
    """
    found: dict[str, Any] = {}
    if system == "darwin":
        level = re.search(r"level (\d+)$", ask(("notifyutil", "-g", "com.apple.system.thermalpressurelevel")))
        if level and int(level[1]) < len(THERMAL_PRESSURE):
            found["pressure"] = THERMAL_PRESSURE[int(level[1])]
        if source := re.search(r"Now drawing from '(.+)'", ask(("pmset", "-g", "batt"))):
            found["power_source"] = source[1]
        if mode := re.search(r"^\s*(?:low)?powermode\s+([012])\b", ask(("pmset", "-g")), re.M):
            found["power_mode"] = POWER_MODES[int(mode[1])]
        return found
    cpus = root / "sys/devices/system/cpu"
    governors = {_read(f) for f in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    if governors:
        found["governor"] = ", ".join(sorted(governors))
    if profile := _read(root / "sys/firmware/acpi/platform_profile"):
        found["profile"] = profile
        found["low_power"] = profile == "low-power"
    counts = [_read(f) for f in cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    if any(c.isdecimal() for c in counts):
        found["throttled"] = sum(int(c) for c in counts if c.isdecimal())
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def commit(ask: Ask = ask) -> str | None:
    """Return the commit of the source checkout, "-dirty" if it was changed, or None for an installed package."""
    root = Path(rvc_fast.__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    return ask(("git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12")) or None


def versions() -> dict[str, str]:
    """Return the versions of what takes part and is installed."""
    found = {"python": platform.python_version(), "rvc_fast": rvc_fast.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def others(root: Path = Path("/proc")) -> float | None:
    """Return the core-seconds that everyone but this process's group has used so far, or None where nobody tells.

    Between two calls that is what the numbers were disturbed by: other programs, and on a virtual machine others on
    its host.
    """
    try:
        # user, nice, system, idle, iowait, irq, softirq, steal
        everyone = [int(n) for n in (root / "stat").read_text().split(maxsplit=9)[1:9]]
    except (OSError, ValueError):
        return None
    ticks, group = sum(everyone) - sum(everyone[3:5]), str(os.getpgrp())
    for file in root.glob("[0-9]*/stat"):
        # After the name in brackets: state, parent, group, ..., user, system, user and system of children gone.
        fields = _read(file).rpartition(")")[2].split()
        if len(fields) > 14 and fields[2] == group:
            ticks -= sum(int(n) for n in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def facts(threads: int, isa: str | None) -> dict[str, Any]:
    """Return what every row of a run says of the machine."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "chip": chip(),
        "cores": os.cpu_count(),
        **{name: found for name, found in (("cpu_cores", cpu_cores()), ("gpu_cores", gpu_cores())) if found},
        "threads": threads,
        "isa": isa,
        "memory_gb": round(limits.memory_bytes() / 1e9, 1),
        "os": system(),
        "versions": versions(),
        "commit": commit(),
    }
