"""Generate the transforms of the fast convolution: straight-line code for one tile, one SIMD lane per channel.

A tile turns n = N + e inputs into m = n - k + 1 outputs of a correlation with k taps,
y_i = sum_j w_j x_(i+j), through P = 1.5 N - 1 + e products per channel pair instead of m * k:

- forward: the n inputs become P planes;
- product: plane p is multiplied with weight plane p (a matrix product over channels);
- inverse: the P products become the m outputs.

The method joins two classical ones. Modulo z^N - 1 the correlation is cyclic: a real FFT whose middle bins take
three real products each (Gauss). Modulo E(z) = z * prod(z^2 - rho^2), and with the point at infinity, it is
Toom-Cook evaluation at e extra real points {0, infinity, +-rho, ...}. The Chinese remainder theorem joins the
two, and because E divides out of the cyclic part, its inputs are filtered with E's coefficients first:

    z_j = sum_i E_i x_(j+i)  for j < N,     Z = rfft(z),     u_j = x_(j+N) - x_j  for j < e.

Derivation and measured accuracy: Winograd, "Arithmetic Complexity of Computations" (1980), chapter III, for the
polynomial products; the choice of points is ours. Large points are replaced by their reciprocals where only a
scale differs, which keeps every factor near one: that is what bounds the float32 error.

Run as a program it writes the codelets of all `VARIANTS` as C++; as a module it is what the tests import.
"""

from __future__ import annotations

import argparse
import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Positive members of the pairs +-rho, by number of extra points (0 and infinity count as two of them).
EXTRA_POINTS: dict[int, tuple[float, ...]] = {
    2: (),
    4: (0.5,),
    6: (0.55, 1 / 0.55),
    8: (0.45, 1 / 0.45, 0.72),
    10: (0.4, 1 / 0.4, 0.7, 1 / 0.7),
}

# (taps k, cyclic length N, extra points e).
VARIANTS: tuple[tuple[int, int, int], ...] = (
    (3, 2, 6),
    (3, 2, 8),
    (3, 4, 10),
    (5, 4, 6),
    (7, 8, 10),
    (7, 16, 10),
    (7, 32, 2),
    (7, 32, 6),
    (7, 64, 2),
    (11, 16, 10),
    (11, 32, 2),
    (11, 32, 6),
    (11, 32, 10),
    (11, 64, 2),
)


@dataclass(frozen=True)
class Term:
    """A signed reference to a computed value; signs are pushed along and cost nothing until stored."""

    value: int
    sign: int = 1

    def __neg__(self) -> Term:
        return Term(self.value, -self.sign)


# One operation: (name, operands). "in" takes an input number, "mul" a factor, "fma" adds operand 1 * factor to
# operand 0.
Op = tuple[str, tuple[int, ...], float]


class Program:
    """A straight-line program over real numbers: additions, products with constants, fused multiply-adds."""

    def __init__(self, inputs: int):
        self.ops: list[Op] = [("in", (i,), 0.0) for i in range(inputs)]
        self.outputs: list[Term] = []
        # Operations before this one are placed right before their first use instead of in program order.
        self.lazy = inputs

    @property
    def inputs(self) -> list[Term]:
        return [Term(i) for i, op in enumerate(self.ops) if op[0] == "in"]

    def _new(self, name: str, operands: tuple[int, ...], factor: float = 0.0) -> int:
        self.ops.append((name, operands, factor))
        return len(self.ops) - 1

    def add(self, a: Term, b: Term) -> Term:
        if a.sign == b.sign:
            return Term(self._new("add", (a.value, b.value)), a.sign)
        plus, minus = (a, b) if a.sign > 0 else (b, a)
        return Term(self._new("sub", (plus.value, minus.value)))

    def sub(self, a: Term, b: Term) -> Term:
        return self.add(a, -b)

    def mul(self, a: Term, factor: float) -> Term:
        return Term(self._new("mul", (a.value,), a.sign * factor))

    def fma(self, total: Term, a: Term, factor: float) -> Term:
        """total + a * factor"""
        if factor in (1.0, -1.0):
            return self.add(total, a if factor > 0 else -a)
        return Term(self._new("fma", (total.value, a.value), total.sign * a.sign * factor), total.sign)

    def combine(self, factors: Sequence[float], terms: Sequence[Term]) -> Term:
        """sum(factor * term), plain additions first."""
        pairs = sorted(
            ((f, t) for f, t in zip(factors, terms, strict=True) if f != 0), key=lambda p: abs(p[0]) != 1
        )
        (factor, term), *rest = pairs
        if factor in (1.0, -1.0):
            total = term if factor > 0 else -term
        else:
            total = self.mul(term, factor)
        for factor, term in rest:
            total = self.fma(total, term, factor)
        return total

    def live(self) -> list[int]:
        """The values that the outputs need, in program order."""
        needed = {t.value for t in self.outputs}
        for value in range(len(self.ops) - 1, -1, -1):
            name, operands, _ = self.ops[value]
            if value in needed and name != "in":
                needed.update(operands)
        return sorted(needed)

    def run(self, inputs: Sequence[float]) -> list[float]:
        """Execute in double precision; what the tests compare with the definition."""
        values: dict[int, float] = {}
        for v in self.live():
            name, operands, factor = self.ops[v]
            a = inputs[operands[0]] if name == "in" else values[operands[0]]
            b = values[operands[1]] if len(operands) > 1 else 0.0
            values[v] = {
                "in": a,
                "add": a + b,
                "sub": a - b,
                "mul": a * factor,
                "fma": a + b * factor,
            }[name]
        return [t.sign * values[t.value] for t in self.outputs]

    def emit(self) -> list[str]:
        """Return C++ statements over `load(i)` and `store(i, value)`."""
        lines: list[str] = []
        placed: set[int] = set()
        stores: dict[int, list[tuple[int, int]]] = {}
        for i, t in enumerate(self.outputs):
            stores.setdefault(t.value, []).append((i, t.sign))

        def place(v: int) -> None:
            if v in placed:
                return
            name, operands, factor = self.ops[v]
            if name != "in":
                for operand in operands:
                    place(operand)
            placed.add(v)
            t = [f"t{operand}" for operand in operands]
            expression = {
                "in": lambda: f"load({operands[0]})",
                "add": lambda: f"{t[0]} + {t[1]}",
                "sub": lambda: f"{t[0]} - {t[1]}",
                "mul": lambda: f"{t[0]} * splat({factor!r}f)",
                "fma": lambda: f"{t[1]} * splat({factor!r}f) + {t[0]}",
            }[name]()
            lines.append(f"const V t{v} = {expression};")
            lines.extend(f"store({i}, {'' if s > 0 else '-'}t{v});" for i, s in stores.get(v, ()))

        for v in self.live():
            if v >= self.lazy:
                place(v)
        for term in self.outputs:
            place(term.value)
        return lines


Complex = tuple[Term, Term | None]


def _rfft(p: Program, z: list[Term]) -> list[Complex]:
    """Real FFT by halves: bins 0 .. N/2 as (real, imaginary or None)."""
    n = len(z)
    if n == 2:
        return [(p.add(z[0], z[1]), None), (p.sub(z[0], z[1]), None)]
    even, odd = _rfft(p, z[0::2]), _rfft(p, z[1::2])
    bins: list[Complex] = [(z[0], None)] * (n // 2 + 1)
    bins[0] = (p.add(even[0][0], odd[0][0]), None)
    bins[n // 2] = (p.sub(even[0][0], odd[0][0]), None)
    bins[n // 4] = (even[n // 4][0], -odd[n // 4][0])
    for f in range(1, n // 4):
        re, im = odd[f]
        assert im is not None
        even_im = even[f][1]
        assert even_im is not None
        c, s = math.cos(2 * math.pi * f / n), -math.sin(2 * math.pi * f / n)
        if 8 * f == n:
            tr, ti = p.mul(p.add(re, im), c), p.mul(p.sub(im, re), c)
        else:
            tr, ti = p.fma(p.mul(re, c), im, -s), p.fma(p.mul(im, c), re, s)
        bins[f] = (p.add(even[f][0], tr), p.add(even_im, ti))
        bins[n // 2 - f] = (p.sub(even[f][0], tr), p.sub(ti, even_im))
    return bins


def _irfft(p: Program, bins: list[Complex]) -> list[Term]:
    """Inverse of `_rfft`, without the factor 1/N (the weights carry it)."""
    n = 2 * (len(bins) - 1)
    if n == 2:
        return [p.add(bins[0][0], bins[1][0]), p.sub(bins[0][0], bins[1][0])]
    even: list[Complex] = [bins[0]] * (n // 4 + 1)
    odd: list[Complex] = [bins[0]] * (n // 4 + 1)
    even[0] = (p.add(bins[0][0], bins[n // 2][0]), None)
    odd[0] = (p.sub(bins[0][0], bins[n // 2][0]), None)
    for f in range(1, n // 4):
        (yr, yi), (hr, hi) = bins[f], bins[n // 2 - f]
        assert yi is not None
        assert hi is not None
        even[f] = (p.add(yr, hr), p.sub(yi, hi))
        dr, di = p.sub(yr, hr), p.add(yi, hi)
        c, s = math.cos(2 * math.pi * f / n), math.sin(2 * math.pi * f / n)
        if 8 * f == n:
            odd[f] = (p.mul(p.sub(dr, di), c), p.mul(p.add(dr, di), c))
        else:
            odd[f] = (p.fma(p.mul(dr, c), di, -s), p.fma(p.mul(di, c), dr, s))
    middle_re, middle_im = bins[n // 4]
    assert middle_im is not None
    # Bin N/4 becomes the last, real bin of both halves: its wave is Re(Y i^j), the real part at even j, minus the
    # imaginary part at odd j.
    even[n // 4] = (middle_re, None)
    odd[n // 4] = (-middle_im, None)
    result = [bins[0][0]] * n
    result[0::2], result[1::2] = _irfft(p, even), _irfft(p, odd)
    return result


def _times(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Product of two polynomials, coefficients ascending."""
    out = [0.0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return out


def _at(polynomial: Sequence[float], point: complex) -> complex:
    value: complex = 0
    for c in reversed(polynomial):
        value = value * point + c
    return value


@dataclass(frozen=True)
class Variant:
    """One algorithm: tile sizes, the two transforms, and the weight transform.

    `weights[p][j]` is the factor of tap j in weight plane p.
    """

    k: int
    n_cyclic: int
    extra: int
    forward: Program
    inverse: Program
    weights: list[list[float]]

    @property
    def n(self) -> int:
        return self.n_cyclic + self.extra

    @property
    def m(self) -> int:
        return self.n - self.k + 1

    @property
    def planes(self) -> int:
        return len(self.weights)

    @property
    def name(self) -> str:
        return f"k{self.k}n{self.n_cyclic}e{self.extra}"


def design(k: int, n_cyclic: int, extra: int) -> Variant:
    """Derive the transforms of one variant."""
    rhos = EXTRA_POINTS[extra]
    n = n_cyclic + extra
    m = n - k + 1
    e_poly = [0.0, 1.0]
    for rho in rhos:
        e_poly = _times(e_poly, [-rho * rho, 0.0, 1.0])

    def powers(point: complex) -> list[complex]:
        return [point**j for j in range(k)]

    forward = Program(n)
    x = forward.inputs
    z = [forward.combine(e_poly, x[j : j + len(e_poly)]) for j in range(n_cyclic)]
    forward.lazy = len(forward.ops)
    bins = _rfft(forward, z)
    outputs: list[Term] = []
    weights: list[list[float]] = []
    for f, (re, im) in enumerate(bins):
        point = cmath.exp(2j * math.pi * f / n_cyclic)
        row = [v / _at(e_poly, point) / n_cyclic for v in powers(point)]
        if im is None:
            outputs.append(re)
            weights.append([v.real for v in row])
        else:
            # (a + ib)(c + id) by three real products: k1 = c (a + b), k2 = a (d - c), k3 = b (c + d).
            outputs += [forward.add(re, im), re, im]
            weights.append([2 * v.real for v in row])
            weights.append([2 * (v.imag - v.real) for v in row])
            weights.append([2 * (v.real + v.imag) for v in row])
    u = [forward.sub(x[j + n_cyclic], x[j]) for j in range(extra)]
    at_zero = e_poly[1:]
    outputs.append(forward.combine(at_zero, u[: len(at_zero)]))
    weights.append([-1 / at_zero[0]] + [0.0] * (k - 1))
    outputs.append(forward.combine(e_poly, u[: len(e_poly)]))
    weights.append([0.0] * (k - 1) + [1.0])
    for rho in rhos:
        rest = [0.0, 1.0]
        for other in rhos:
            if other != rho:
                rest = _times(rest, [-other * other, 0.0, 1.0])
        even = forward.combine(rest, u[1 : 1 + len(rest)])
        odd = forward.combine(rest, u[: len(rest)])
        scale = rho ** (m - 1) if rho > 1 else 1.0
        for point in (rho, -rho):
            outputs.append(forward.fma(even, odd, point))
            factor = scale / (point**n_cyclic - 1) / (2 * point * _at(rest, point).real)
            weights.append([(v * factor).real for v in powers(point)])
    forward.outputs = outputs

    inverse = Program(len(weights))
    products = inverse.inputs
    cursor = 0
    result: list[Complex] = []
    for f in range(n_cyclic // 2 + 1):
        if f in (0, n_cyclic // 2):
            result.append((products[cursor], None))
            cursor += 1
        else:
            k1, k2, k3 = products[cursor : cursor + 3]
            result.append((inverse.sub(k1, k3), inverse.add(k1, k2)))
            cursor += 3
    cyclic = _irfft(inverse, result)
    zero, infinity = products[cursor : cursor + 2]
    pairs = []
    for i, rho in enumerate(rhos):
        plus, minus = products[cursor + 2 + 2 * i : cursor + 4 + 2 * i]
        pairs.append((rho, inverse.add(plus, minus), inverse.sub(plus, minus)))
    for i in range(m):
        y = cyclic[i % n_cyclic]
        for rho, even, odd in pairs:
            y = inverse.fma(y, odd if i % 2 else even, rho ** (i - (m - 1) if rho > 1 else i))
        if i == 0:
            y = inverse.add(y, zero)
        if i == m - 1:
            y = inverse.add(y, infinity)
        inverse.outputs.append(y)
    return Variant(k, n_cyclic, extra, forward, inverse, weights)


def emit_codelets(variants: Sequence[Variant]) -> str:
    """Return the C++ text of the transforms: two function templates per variant.

    The including file defines the vector `V` and `splat`; `load(i)` and `store(i, V)` are callables, so that the
    memory layout, the leaky ReLU and the epilogue stay out of the generated code.
    """
    out = ["// Generated by generate.py; do not edit.\n"]
    for v in variants:
        for direction, program in (("forward", v.forward), ("inverse", v.inverse)):
            body = "\n  ".join(program.emit())
            out.append(
                f"template <class Load, class Store>\n"
                f"static RVC_INLINE void {direction}_{v.name}(Load load, Store store) {{\n  {body}\n}}\n"
            )
    return "\n".join(out)


def emit_variants(variants: Sequence[Variant]) -> str:
    """Return the C++ text of what every instruction set shares: the weight transforms and a row of
    FASTCONV_VARIANTS per variant."""
    out = ["// Generated by generate.py; do not edit.\n#pragma once\n\nnamespace rvc_fast {\n"]
    for v in variants:
        rows = ",\n    ".join("{" + ", ".join(repr(f) for f in row) + "}" for row in v.weights)
        out.append(f"inline constexpr double weights_{v.name}[{v.planes}][{v.k}] = {{\n    {rows}}};\n")
    table = " \\\n".join(f"  X({v.name}, {v.k}, {v.n}, {v.m}, {v.planes})" for v in variants)
    out.append(f"// X(name, taps, inputs, outputs, planes)\n#define FASTCONV_VARIANTS(X) \\\n{table}\n")
    out.append("}  // namespace rvc_fast\n")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write fastconv_codelets.inc and fastconv_variants.h.")
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    variants = [design(*v) for v in VARIANTS]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "fastconv_codelets.inc").write_text(emit_codelets(variants))
    (directory / "fastconv_variants.h").write_text(emit_variants(variants))


if __name__ == "__main__":
    main()
