"""What is published of Apple's chips, for a comparison with what was measured: nothing in here was measured by us."""

from __future__ import annotations

from dataclasses import dataclass

# Multiplies and adds that one core of an M1's or M2's GPU starts per clock in float32, by metal-benchmarks (128 lanes).
PER_CLOCK = 256


@dataclass(frozen=True)
class Published:
    """Bandwidth of the memory in GB/s; float32 arithmetic of the GPU in GFLOP/s, None where no one published it."""

    gbytes: float
    gflops: float | None


# Name -> (clock of the GPU in GHz or None, {cores of the GPU: GB/s}).
# GB/s: Apple's press releases and technical specifications. Of the M1 Apple never stated it: 128 bits of LPDDR4X-4266 are
# 68, and Apple calls the M2's 100 "50 percent more" and the M1 Max's 400 "nearly six times".
# Clocks: github.com/philipturner/metal-benchmarks. They give the 2.6, 5.2, 10.4 and 3.6 TFLOP/s that Apple stated for M1,
# M1 Pro, M1 Max and M2. Apple states neither clocks nor float32 arithmetic of M3 and later, so neither do we.
_CHIPS: dict[str, tuple[float | None, dict[int, float]]] = {
    "Apple M1": (1.278, {7: 68, 8: 68}),
    "Apple M1 Pro": (1.296, {14: 200, 16: 200}),
    "Apple M1 Max": (1.296, {24: 400, 32: 400}),
    "Apple M1 Ultra": (1.296, {48: 800, 64: 800}),
    "Apple M2": (1.398, {8: 100, 10: 100}),
    "Apple M2 Pro": (1.398, {16: 200, 19: 200}),
    "Apple M2 Max": (1.398, {30: 400, 38: 400}),
    "Apple M2 Ultra": (1.398, {60: 800, 76: 800}),
    "Apple M3": (None, {8: 100, 10: 100}),
    "Apple M3 Pro": (None, {14: 150, 18: 150}),
    "Apple M3 Max": (None, {30: 300, 40: 400}),
    "Apple M3 Ultra": (None, {60: 819, 80: 819}),
    "Apple M4": (None, {8: 120, 10: 120}),
    "Apple M4 Pro": (None, {16: 273, 20: 273}),
    "Apple M4 Max": (None, {32: 410, 40: 546}),
    "Apple M5": (None, {8: 153, 10: 153}),
    "Apple M5 Pro": (None, {16: 307, 20: 307}),
    "Apple M5 Max": (None, {32: 460, 40: 614}),
}


def published(chip: str, gpu_cores: int | None) -> Published | None:
    """Return what is published of a chip with so many GPU cores, or None for one that the table does not know."""
    clock, variants = _CHIPS.get(chip, (None, {}))
    if gpu_cores not in variants:
        return None
    gflops = None if clock is None else round(gpu_cores * PER_CLOCK * clock, 1)
    return Published(variants[gpu_cores], gflops)
