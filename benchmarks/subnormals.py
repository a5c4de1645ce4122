"""What numbers near zero cost: `python -m benchmarks.subnormals`.

Arithmetic with subnormal numbers is many times slower on some CPUs. The kernels avoid it by reading them as zeros. Three
inputs that are full of them, or make them, against ordinary ones of the same size: processor time of all threads, the
median of alternating runs, and the ratio of the two.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from rvc_fast import audio, ops

Run = Callable[[], object]


class Pair(NamedTuple):
    """The same work on ordinary numbers and on ones near zero."""

    ordinary: Run
    near_zero: Run


def attention(deviation: float) -> Run:
    """Relative attention of 10 s whose scores have this deviation: a softmax of large ones is mostly near zero."""
    rng = np.random.default_rng(0)
    scale = deviation**0.5
    q, k, v = (mx.array(rng.standard_normal((1, 2, 1198, 96), dtype=np.float32)) for _ in range(3))
    q, k = q * scale, k * scale
    tables = [mx.array(rng.standard_normal((21, 96), dtype=np.float32) * 0.1) for _ in range(2)]
    mx.eval(q, k, v, tables)
    return lambda: mx.eval(ops.relpos_attention(q, k, v, *tables, 10))


def linear(power: int) -> Run:
    """A layer of HuBERT on 10 s of numbers times 2**power."""
    rng = np.random.default_rng(0)
    x = mx.array(rng.standard_normal((1, 599, 768), dtype=np.float32)) * 2.0**power
    weight = ops.pack_linear(mx.array(rng.standard_normal((3072, 768), dtype=np.float32) * 0.02))
    mx.eval(x, weight.data)
    return lambda: mx.eval(ops.linear(x, weight))


def high_pass(silent: bool) -> Run:
    """The high-pass of 60 s: a tone throughout, or digital silence after its first second."""
    sound = np.sin(np.arange(16000 * 60) * 0.1)
    if silent:
        sound[16000:] = 0
    return lambda: audio.high_pass(sound)


CASES = {
    "relpos_attention, scores of deviation 64 against 1": Pair(attention(1), attention(64)),
    "linear, input x 2^-120 against x 1": Pair(linear(0), linear(-120)),
    "high-pass, silence after a tone against a tone": Pair(high_pass(False), high_pass(True)),
}


def seconds(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what numbers near zero cost.")
    parser.add_argument("--repeats", type=int, default=9, help="alternating runs (default: 9)")
    repeats = parser.parse_args().repeats
    print("| work | ordinary, ms | near zero, ms | ratio |\n|---|---|---|---|")
    for name, pair in CASES.items():
        for run in pair:
            run()
        times = [[seconds(run) for run in pair] for _ in range(repeats)]
        ordinary, near_zero = (statistics.median(t[i] for t in times) for i in (0, 1))
        print(f"| {name} | {ordinary * 1e3:.1f} | {near_zero * 1e3:.1f} | {near_zero / ordinary:.2f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
