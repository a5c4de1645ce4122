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
from rvc_fast.bench import chips, limits, machine

# What a Mac's programs print, by their manuals and by what others published of theirs: not recorded on a Mac of ours.
DISPLAYS = """Graphics/Displays:

    Apple M3 Max:

      Chipset Model: Apple M3 Max
      Type: GPU
      Bus: Built-In
      Total Number of Cores: 40
      Vendor: Apple (0x106b)
      Metal Support: Metal 3
      Displays:
        Color LCD:
          Display Type: Built-in Liquid Retina XDR Display
          Resolution: 3024 x 1964 Retina
          Main Display: Yes
          Online: Yes
"""
POWER = """System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 hibernatefile        /var/vm/sleepimage
 powernap             1
 sleep                1 (sleep prevented by powerd, caffeinate)
 lowpowermode         1
 womp                 1
"""
BATTERY = """Now drawing from 'Battery Power'
 -InternalBattery-0 (id=1234567)\t84%; discharging; 5:05 remaining present: true
"""
NO_BATTERY = "Now drawing from 'AC Power'\n"
PRESSURE = "com.apple.system.thermalpressurelevel 2\n"
SAID = {
    ("sysctl", "-n", "machdep.cpu.brand_string"): "Apple M3 Max\n",
    ("sysctl", "-n", "hw.perflevel0.physicalcpu"): "12\n",
    ("sysctl", "-n", "hw.perflevel0.name"): "Performance\n",
    ("sysctl", "-n", "hw.perflevel1.physicalcpu"): "4\n",
    ("sysctl", "-n", "hw.perflevel1.name"): "Efficiency\n",
    ("system_profiler", "SPDisplaysDataType"): DISPLAYS,
    ("sw_vers", "-buildVersion"): "25F80\n",
    ("notifyutil", "-g", "com.apple.system.thermalpressurelevel"): PRESSURE,
    ("pmset", "-g", "batt"): BATTERY,
    ("pmset", "-g"): POWER,
}


def mac(command: Sequence[str], **changes: str) -> str:
    """What `machine.ask` returns on a Mac that prints this, or `changes` by a program's name."""
    return changes.get(command[0], SAID.get(tuple(command), "")).strip()


def silent(_: Sequence[str]) -> str:
    """A Mac whose programs are missing, fail or hang."""
    return ""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_mac() -> None:
    assert machine.chip("darwin", ask=mac) == "Apple M3 Max"
    assert machine.gpu_cores("darwin", ask=mac) == 40
    assert machine.cpu_cores("darwin", ask=mac) == {"Performance": 12, "Efficiency": 4}
    assert machine.thermal("darwin", ask=mac) == {
        "pressure": "heavy",
        "power_source": "Battery Power",
        "power_mode": "low",
    }


def test_a_mac_that_tells_nothing() -> None:
    assert machine.thermal("darwin", ask=silent) == {}
    assert machine.gpu_cores("darwin", ask=silent) is None
    assert machine.cpu_cores("darwin", ask=silent) == {}


def test_kinds_of_cores_have_the_names_that_the_system_gives() -> None:
    """Those of an M5 Max are called otherwise, and a level without a name still counts."""
    said = {
        "hw.perflevel0.physicalcpu": "6",
        "hw.perflevel0.name": "Super",
        "hw.perflevel1.physicalcpu": "12",
    }
    assert machine.cpu_cores("darwin", ask=lambda c: said.get(c[-1], "")) == {"Super": 6, "level 1": 12}


@pytest.mark.parametrize(
    ("program", "says", "found"),
    [
        ("notifyutil", "com.apple.system.thermalpressurelevel 0", {"pressure": "nominal"}),
        ("notifyutil", "com.apple.system.thermalpressurelevel 4", {"pressure": "sleeping"}),
        ("notifyutil", "com.apple.system.thermalpressurelevel 50", {}),  # a level of another system
        ("notifyutil", "com.apple.system.thermalpressurelevel: Failed with code 1", {}),
        ("pmset", NO_BATTERY, {"power_source": "AC Power"}),
        ("pmset", " powermode            0\n", {"power_mode": "automatic"}),
        ("pmset", " lowpowermode         0\n", {"power_mode": "automatic"}),
        ("pmset", " powermode            2\n", {"power_mode": "high"}),
        ("pmset", " highpowermode        1\n", {}),
        ("pmset", " powermode            7\n", {}),
    ],
)
def test_states_of_a_mac(program: str, says: str, found: dict[str, str]) -> None:
    assert machine.thermal("darwin", ask=lambda c: says.strip() if c[0] == program else "") == found


def test_intels_and_displays_have_no_gpu_cores_to_tell() -> None:
    without = DISPLAYS.replace("      Total Number of Cores: 40\n", "")
    assert machine.gpu_cores("darwin", ask=lambda c: mac(c, system_profiler=without)) is None
    assert machine.gpu_cores("linux", ask=mac) is None
    assert machine.cpu_cores("linux", ask=mac) == {}


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


def test_what_is_published_of_chips() -> None:
    """Spot checks against Apple's own figures: 2.6, 5.2, 10.4 and 3.6 TFLOP/s, 300 and 400 GB/s."""
    for chip, cores, teraflops in (
        ("M1", 8, 2.6),
        ("M1 Pro", 16, 5.2),
        ("M1 Max", 32, 10.4),
        ("M2", 10, 3.6),
    ):
        known = chips.published(f"Apple {chip}", cores)
        assert known is not None
        assert known.gflops == pytest.approx(1000 * teraflops, rel=0.03)
    assert chips.published("Apple M3 Max", 30) == chips.Published(300, None)
    assert chips.published("Apple M3 Max", 40) == chips.Published(400, None)


@pytest.mark.parametrize(("chip", "cores"), [("Apple M3 Max", None), ("Apple M3 Max", 33), ("Apple M9", 10)])
def test_nothing_is_said_of_chips_that_are_not_known(chip: str, cores: int | None) -> None:
    assert chips.published(chip, cores) is None


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
    assert machine.system(ask=mac) == "macOS 15.1 (25F80)"
    assert machine.system(ask=silent) == "macOS 15.1"


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
