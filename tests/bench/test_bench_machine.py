"""What the system tells about itself, by made-up systems; peaks and the roofline."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rvc_fast import native
from rvc_fast.bench import limits, machine


def mac(command: Sequence[str]) -> str:
    """What a Mac says."""
    said = {
        ("sysctl", "-n", "machdep.cpu.brand_string"): "Apple M3 Max",
        (
            "pmset",
            "-g",
            "therm",
        ): "Note: No thermal warning level has been recorded\n\tCPU_Speed_Limit \t= 87",
        ("pmset", "-g"): "Currently in use:\n powernap 1\n lowpowermode         1\n sleep 1",
    }
    return said[tuple(command)]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_mac() -> None:
    assert machine.chip("darwin", ask=mac) == "Apple M3 Max"
    assert machine.thermal("darwin", ask=mac) == {"speed_limit_percent": 87, "low_power": True}
    assert machine.thermal("darwin", ask=lambda _: "") == {}


def test_linux(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", "processor : 0\nmodel name\t: Some CPU @ 3 GHz\n")
    for cpu, count in ((0, 3), (1, 4)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}"
        write(folder / "cpufreq/scaling_governor", "powersave\n")
        write(folder / "thermal_throttle/core_throttle_count", f"{count}\n")
    write(tmp_path / "sys/firmware/acpi/platform_profile", "low-power\n")
    assert machine.chip("linux", tmp_path) == "Some CPU @ 3 GHz"
    assert machine.thermal("linux", tmp_path) == {
        "governor": "powersave",
        "profile": "low-power",
        "low_power": True,
        "throttled": 7,
    }


def test_a_system_that_tells_nothing(tmp_path: Path) -> None:
    assert machine.thermal("linux", tmp_path) == {}
    assert machine.chip("linux", tmp_path)


def test_programs_that_fail_hang_or_are_missing_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TIMEOUT", 0.3)
    assert machine.ask([sys.executable, "-c", "print('yes')"]) in ("yes", "")
    assert machine.ask([sys.executable, "-c", "print('no'); raise SystemExit(1)"]) == ""
    assert machine.ask(["there is no such program"]) == ""
    start = time.monotonic()
    assert machine.ask([sys.executable, "-c", "import time; time.sleep(60)"]) == ""
    assert time.monotonic() - start < 20


def test_facts_are_those_of_a_row() -> None:
    facts = machine.facts(2, "avx2")
    assert facts["versions"]["mlx"]
    assert facts["memory_gb"] > 0.1
    assert (facts["threads"], facts["isa"]) == (2, "avx2")


def test_roofline() -> None:
    # 2 GFLOP at 100 GFLOP/s take 20 ms, 0.5 GB at 10 GB/s 50 ms.
    assert limits.roofline(2e9, 5e8, 0.1, 100, 10) == (pytest.approx(0.5), "memory")
    assert limits.roofline(2e10, 5e8, 0.1, 100, 10) == (pytest.approx(2.0), "arithmetic")
    assert limits.roofline(2e9, 5e8, 0.1, None, 10) is None
    assert limits.roofline(2e9, 5e8, 0.1, 100, None) is None


def test_published_peaks_are_sane() -> None:
    for name, peak in limits.PUBLISHED.items():
        assert name.startswith("Apple M")
        assert 2000 < peak.gflops < 30000
        assert 60 <= peak.gbytes <= 900
        assert 15 < peak.gflops / peak.gbytes < 45, "a ridge unlike that of any such chip"
        assert peak.note


def test_peaks_can_be_measured() -> None:
    ext = native.ext()
    if ext is None:
        pytest.skip(native.load()[1])
    assert ext.int8_peak() == 0 or ext.int8_peak() > 1e9
    assert ext.memory_peak("read", 1 << 22) > 1e7
    assert ext.memory_peak("copy", 1 << 22) > 1e7
    assert limits.arithmetic("float32") > 0.1
    assert limits.arithmetic("float16") is None


def test_memory_peak_refuses_what_it_cannot_measure() -> None:
    ext = native.ext()
    if ext is None:
        pytest.skip(native.load()[1])
    with pytest.raises(ValueError, match='kind must be read or copy, got "write"'):
        ext.memory_peak("write", 1 << 22)
    with pytest.raises(ValueError, match="at least two pages per thread"):
        ext.memory_peak("read", 100)


def test_the_system_is_named_without_its_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-13-somebody")
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"PRETTY_NAME": "Some Linux 12"})
    assert machine.system() == "Some Linux 12, Linux 6.1"
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    assert machine.system() == "macOS 15.1"


def test_what_others_use_is_all_but_this_group(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    (tmp_path / "stat").write_text(f"cpu  {5 * ticks} 0 {ticks} 999 999 0 0 {2 * ticks} 7 7\ncpu0 1\n")
    for pid, group, used in ((1, os.getpgrp(), ticks), (2, os.getpgrp() + 1, ticks)):
        (tmp_path / str(pid)).mkdir()
        fields = f"S 1 {group} 0 0 0 0 0 0 0 0 {used} {used} {used} 0 20 0"
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a name) with) {fields}\n")
    assert machine.others(tmp_path) == 8 - 3
    assert machine.others(tmp_path / "none") is None


def test_what_others_use_is_not_what_we_use() -> None:
    before, start = machine.others(), time.monotonic()
    if before is None:
        pytest.skip("the system does not tell")
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    after, cores = machine.others(), os.cpu_count() or 1
    assert after is not None
    assert -0.1 <= after - before <= cores * (time.monotonic() - start) - 0.5 + 0.1
