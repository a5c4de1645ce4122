"""What the cases of nsf_source do not show: the phase after an hour, and chunks."""

from __future__ import annotations

import math
from fractions import Fraction

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator

from rvc_fast.ops.nsf_source import Options, advance_phase, fixed_cycles, gpu_phases, nsf_source

LANGUAGES = ["metal", "cuda"]
HOP, RATE = 480, 48000
HOUR = 360_000


def in_fixed_point(cycles: Fraction) -> int:
    return math.floor(cycles * 2**64) % 2**64


@pytest.mark.parametrize("gpu", LANGUAGES, indirect=True)
@pytest.mark.parametrize("accumulation", ["frame", "sample"])
def test_the_phase_is_exact_after_an_hour(gpu: Emulator, accumulation: str) -> None:
    frequency, before = np.float32(441.7), 0.3
    phases = gpu_phases(
        gpu.language,
        mx.full((1, HOUR), float(frequency)),
        np.array([[before]]),
        None,
        Options(HOP, RATE, 0.0, "nearest", accumulation),
    )
    step = frequency / np.float32(RATE)
    if accumulation == "sample":
        advance = Fraction(float(step)) * HOP
    else:
        advance = Fraction(float(step * np.float32(HOP) + np.float32(0.5))) - Fraction(1, 2)
    got = np.array(phases)[0, 0]
    for frame in (0, 1, 255, 256, 100_003, HOUR - 1):
        assert int(got[frame]) == in_fixed_point(Fraction(before) + frame * advance), frame


@pytest.mark.parametrize("gpu", LANGUAGES, indirect=True)
@pytest.mark.parametrize("step", [2**-41, 1e-12, 0.1, 0.75, 3.5, 1e9, 2.0**40, -0.25, 0.0])
def test_any_advance_is_exact(gpu: Emulator, step: float) -> None:
    f0 = mx.full((1, 9), step)
    options = Options(1, 1, 0.0, "nearest", "sample")
    phases = gpu_phases(gpu.language, f0, np.zeros((1, 1)), None, options)
    exact = Fraction(float(np.float32(step)))
    assert [int(n) for n in np.array(phases)[0, 0]] == [in_fixed_point(n * exact) for n in range(9)]


@pytest.mark.parametrize("gpu", LANGUAGES, indirect=True)
@pytest.mark.parametrize("hop", [36, 441])
def test_interpolated_frequencies_are_rounded_once(gpu: Emulator, hop: int) -> None:
    frames, rate = 300, 100 * hop
    f0 = np.random.default_rng(0).uniform(60, 900, frames).astype(np.float32)
    options = Options(hop, rate, 0.0, "linear", "sample")
    phases = gpu_phases(gpu.language, mx.array(f0)[None], np.zeros((1, 1)), None, options)
    halves = 2 * np.arange(hop) + 1 - hop
    other = np.where(halves < 0, np.r_[f0[0], f0[:-1]][:, None], np.r_[f0[1:], f0[-1]][:, None])
    change = (other - f0[:, None]).astype(np.float64)
    frequency = (f0[:, None] + change * (abs(halves) / (2 * hop))).astype(np.float32)
    steps = fixed_cycles((frequency / np.float32(rate)).astype(np.float64)).reshape(frames, hop)
    # uint64 wraps as phases do.
    before = np.cumsum(steps.sum(axis=1)) - steps.sum(axis=1)
    got = np.array(phases)[0, 0]
    assert np.array_equal(got, before)


def test_fixed_cycles() -> None:
    numbers = [0.0, 0.25, -0.25, 1 - 2**-53, 0.1, 123.7, -1e-30]
    got = [int(n) for n in fixed_cycles(np.array(numbers))]
    assert got[:-1] == [in_fixed_point(Fraction(x)) for x in numbers[:-1]]
    assert got[-1] == 0


@pytest.mark.parametrize("gpu", LANGUAGES, indirect=True)
@pytest.mark.parametrize("accumulation", ["frame", "sample"])
def test_two_chunks_are_the_whole(gpu: Emulator, accumulation: str) -> None:
    rng = np.random.default_rng(0)
    f0 = mx.array(rng.uniform(80, 900, (2, 41)).astype(np.float32))
    noise = mx.array(rng.standard_normal((2, 41 * 48, 2), dtype=np.float32))
    weight, cut = mx.array([0.8, -0.6]), 17
    options = {"hop": 48, "sample_rate": 4800, "accumulation": accumulation}
    start = np.array([0.1, 0.9])
    whole = nsf_source(f0, noise, weight, phase=start, **options)
    first = nsf_source(f0[:, :cut], noise[:, : cut * 48], weight, phase=start, **options)
    phase = advance_phase(f0[:, :cut], phase=start, **options)[:, -1]
    second = nsf_source(f0[:, cut:], noise[:, cut * 48 :], weight, phase=phase, **options)
    assert len(gpu.launches) == 6
    np.testing.assert_allclose(np.array(mx.concatenate([first, second], axis=1)), np.array(whole), atol=1e-6)
