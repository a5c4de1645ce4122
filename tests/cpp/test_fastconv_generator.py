"""The generator of the fast convolution's transforms, by itself: every variant against the definition, in double."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "src" / "cpp" / "fastconv" / "generate.py"
SPEC = importlib.util.spec_from_file_location("fastconv_generate", PATH)
generate = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = generate
SPEC.loader.exec_module(generate)


@pytest.fixture(params=generate.VARIANTS, ids=lambda v: "k{}n{}e{}".format(*v), scope="module")
def variant(request):
    return generate.design(*request.param)


def correlate(variant, x: list[float], w: list[float]) -> list[float]:
    planes = variant.forward.run(x)
    weights = [sum(a * b for a, b in zip(row, w, strict=True)) for row in variant.weights]
    return variant.inverse.run([a * b for a, b in zip(planes, weights, strict=True)])


def test_every_unit_pair_is_the_definition(variant) -> None:
    """The method is bilinear: right on every pair of unit inputs means right everywhere."""
    for i in range(variant.n):
        for j in range(variant.k):
            x = [float(a == i) for a in range(variant.n)]
            w = [float(a == j) for a in range(variant.k)]
            want = [float(t + j == i) for t in range(variant.m)]
            assert correlate(variant, x, w) == pytest.approx(want, abs=1e-12)


def test_random_signals(variant) -> None:
    rng = random.Random(7)
    x = [rng.gauss(0, 1) for _ in range(variant.n)]
    w = [rng.gauss(0, 1) for _ in range(variant.k)]
    want = [sum(w[j] * x[i + j] for j in range(variant.k)) for i in range(variant.m)]
    assert correlate(variant, x, w) == pytest.approx(want, abs=1e-12)


def test_products_are_as_few_as_promised(variant) -> None:
    assert variant.planes == 3 * variant.n_cyclic // 2 - 1 + variant.extra
    assert len(variant.forward.outputs) == variant.planes
    assert len(variant.inverse.outputs) == variant.m


def test_emitted_code_defines_each_value_before_its_use(variant) -> None:
    for program in (variant.forward, variant.inverse):
        lines = program.emit()
        defined: set[str] = set()
        loaded, stored = set(), set()
        for line in lines:
            target = re.match(r"const V (t\d+) = (.*);", line)
            used = re.findall(r"\bt\d+\b", target.group(2) if target else line)
            assert defined.issuperset(used), line
            loaded.update(re.findall(r"load\((\d+)\)", line))
            if target:
                assert target.group(1) not in defined
                defined.add(target.group(1))
            else:
                stored.add(int(re.match(r"store\((\d+),", line).group(1)))
        assert stored == set(range(len(program.outputs)))
        assert len(loaded) == len(program.inputs)


def test_a_wrong_constant_is_noticed() -> None:
    variant = generate.design(3, 2, 8)
    variant.weights[1][0] *= 1.001
    x, w = [float(i * i % 7) for i in range(variant.n)], [1.0, -2.0, 4.0]
    want = [sum(w[j] * x[i + j] for j in range(3)) for i in range(variant.m)]
    assert correlate(variant, x, w) != pytest.approx(want, abs=1e-6)
