"""Gradients, tangents, vmap and compile of every op on its CPU kernel, against those of its reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from support import SPECS

from rvc_fast import native, ops
from rvc_fast.bench import kernels
from rvc_fast.errors import InputError
from rvc_fast.ops.blocks import traced
from rvc_fast.ops.op import OPS
from rvc_fast.ops.spec import OpSpec, errors
from rvc_fast.ops.transforms import leaves, with_leaves

pytestmark = pytest.mark.usefixtures("ext")

# What the reference needs in all: its gradients are stock MLX, which takes seconds for more.
MOST_FLOPS = 2_000_000
# Both are sums in float32, in another order.
TOLERANCE = 2e-5

CASES = [
    pytest.param(name, index, id=f"{name}-{case.name}")
    for name, spec in SPECS.items()
    for index, case in enumerate(spec.cases)
    if spec.flops(**case.make(np.random.default_rng(0))) <= MOST_FLOPS
]


def arguments(name: str, index: int) -> dict[str, Any]:
    return SPECS[name].cases[index].make(np.random.default_rng(index))


def on(spec: OpSpec, function: Callable[..., Any], kwargs: dict[str, Any]) -> tuple[Any, list[mx.array]]:
    """The op or its reference as a function of arrays alone, its floating results as a list; and those arrays."""
    free = {n: v for n, v in kwargs.items() if n not in OPS[spec.name].constants}
    arrays = list(leaves(tuple(free.values())))

    def run(*given: mx.array) -> list[mx.array]:
        values = with_leaves(tuple(free.values()), iter(given))
        y = function(**{**kwargs, **dict(zip(free, values, strict=True))})
        return [a for a in (y if isinstance(y, tuple) else (y,)) if a.dtype != mx.int32]

    return run, arrays


def reference_of(spec: OpSpec) -> Callable[..., Any]:
    """The definition that is differentiated, as an op calls it then.

    Of MLX's `output_padding` the gradient has the wrong shape: there it is `smooth`.
    """
    op = OPS[spec.name]
    if spec.name != "conv_transpose2d":

        def definition(**kwargs: Any) -> Any:
            with traced():
                return spec.reference(**kwargs)

        return definition

    def run(x: mx.array, weight: mx.array, bias: Any = None, beside: Any = None, **options: Any) -> Any:
        one, none = (1, 1), (0, 0)
        given = {"stride": one, "padding": none, "output_padding": none, "activation": None, **options}
        assert op.smooth is not None
        return op.smooth(x, weight, bias, beside, op.options(**given))

    return run


def like(arrays: list[mx.array], seed: int) -> list[mx.array]:
    rng = np.random.default_rng(seed)
    return [mx.array(rng.standard_normal(a.shape, dtype=np.float32)) for a in arrays]


def assert_same(got: list[mx.array], want: list[mx.array], tolerance: float = TOLERANCE) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert errors(a, b)[0] <= tolerance


@pytest.mark.parametrize(("name", "index"), CASES)
def test_gradients(name: str, index: int) -> None:
    spec, kwargs = SPECS[name], arguments(name, index)
    (ours, arrays), (reference, _) = on(spec, spec.op, kwargs), on(spec, reference_of(spec), kwargs)
    cotangents = like(reference(*arrays), 1)
    values, got = mx.vjp(ours, arrays, cotangents)
    want_values, want = mx.vjp(reference, arrays, cotangents)
    assert_same(values, want_values, spec.tolerance["float32"].max_abs * 4)
    assert_same(got, want)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_tangents(name: str, index: int) -> None:
    spec, kwargs = SPECS[name], arguments(name, index)
    (ours, arrays), (reference, _) = on(spec, spec.op, kwargs), on(spec, reference_of(spec), kwargs)
    tangents = like(arrays, 2)
    got = mx.jvp(ours, arrays, tangents)[1]
    # Of a matrix of derivatives J: u . (J t) = (J' u) . t; MLX's convolutions have no tangents to compare with.
    cotangents = like(got, 4)
    gradients = mx.vjp(reference, arrays, cotangents)[1]
    left, right = (
        sum(float((a.astype(mx.float32) * b).sum()) for a, b in zip(*pair, strict=True))
        for pair in ((cotangents, got), (gradients, tangents))
    )
    size = sum(float(mx.abs(a * b).sum()) for a, b in zip(cotangents, got, strict=True))
    assert abs(left - right) <= 10 * TOLERANCE * size
    if not any(word in name for word in ("conv", "resblock")):
        assert_same(got, mx.jvp(reference, arrays, tangents)[1])


@pytest.mark.parametrize(("name", "index"), CASES)
def test_vmap(name: str, index: int) -> None:
    """Over every array at once along its last axis; and over the first one alone."""
    spec, kwargs = SPECS[name], arguments(name, index)
    ours, arrays = on(spec, spec.op, kwargs)
    three = [mx.stack([a, *like([a, a], 3)], axis=-1) for a in arrays]
    if name == "bigru":
        three = [a * 0.1 for a in three]
    want = [ours(*(a[..., i] for a in three)) for i in range(3)]
    got = mx.vmap(ours, in_axes=-1)(*three)
    assert_same(got, [mx.stack(parts) for parts in zip(*want, strict=True)])
    rest = arrays[1:]
    got = mx.vmap(ours, in_axes=(-1, *[None] * len(rest)))(three[0], *rest)
    each = [ours(three[0][..., i], *rest) for i in range(3)]
    assert_same(got, [mx.stack(parts) for parts in zip(*each, strict=True)])


@pytest.mark.parametrize(("name", "index"), CASES)
def test_compile(name: str, index: int) -> None:
    spec, kwargs = SPECS[name], arguments(name, index)
    ours, arrays = on(spec, spec.op, kwargs)
    compiled = mx.compile(ours)
    for _ in range(2):
        assert_same(compiled(*arrays), ours(*arrays), 1e-6)
        arrays = [a * 0.5 for a in arrays]


# One of each kind of packing that this machine's kernels have.
PACKED = {
    "linear": lambda: {
        "x": n(5, 24),
        "weight": ops.pack_linear(n(19, 24)),
        "bias": n(19),
        "activation": "gelu",
    },
    "conv1d": lambda: {"x": n(2, 17, 36), "weight": ops.pack_conv1d(n(54, 5, 12), groups=3), "groups": 3},
    "conv2d": lambda: {"x": n(1, 7, 6, 16), "weight": ops.pack_conv2d(n(16, 3, 3, 16)), "padding": 1},
    "conv2d direct": lambda: {"x": n(1, 7, 6, 5), "weight": ops.pack_conv2d(n(4, 3, 2, 5))},
    "conv_transpose1d": lambda: {
        "x": n(2, 9, 8),
        "weight": ops.pack_conv_transpose1d(n(6, 7, 8), stride=3),
        "stride": 3,
        "leaky": 0.1,
    },
    "conv_transpose2d": lambda: {
        "x": n(1, 4, 5, 8),
        "weight": ops.pack_conv_transpose2d(n(6, 3, 3, 8), stride=(2, 1)),
        "stride": (2, 1),
    },
    "bigru": lambda: {
        "x": n(1, 6, 16),
        "w_ih": (ops.pack_linear(n(9, 16)), ops.pack_linear(n(9, 16))),
        "w_hh": n(2, 9, 3),
        "b_ih": n(2, 9),
        "b_hh": n(2, 9),
    },
    "resblock": lambda: {"x": n(1, 30, 16), "blocks": _blocks(ops.pack_resblock)},
    "resblock direct": lambda: {
        "x": n(1, 30, 16),
        "blocks": _blocks(lambda w: ops.pack_resblock(w, algorithm="direct")),
    },
}


def n(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng(shape).standard_normal(shape, dtype=np.float32)) * 0.3


def _blocks(pack: Callable[[mx.array], Any]) -> list[Any]:
    return [
        [[ops.ResConv(pack(n(16, k, 16)), n(16), d), ops.ResConv(pack(n(16, k, 16)), None)]]
        for k, d in ((3, 1), (7, 3))
    ]


def plain_of(name: str) -> dict[str, Any]:
    """The same call with the weights that were packed."""
    with pytest.MonkeyPatch.context() as patch:
        for pack in ("linear", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "resblock"):
            patch.setattr(ops, f"pack_{pack}", lambda weight, **_: weight)
        return PACKED[name]()


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_weight_gives_gradients_of_the_rest(name: str) -> None:
    kwargs, plain = PACKED[name](), plain_of(name)
    assert any(isinstance(p, ops.PackedWeight) for p in packed_in(tuple(kwargs.values())))
    spec = SPECS[name.split()[0]]

    def loss(function: Callable[..., Any], given: dict[str, Any]) -> Callable[..., mx.array]:
        return lambda x: (function(**{**given, "x": x}) ** 2).sum()

    got, want = mx.grad(loss(spec.op, kwargs))(kwargs["x"]), mx.grad(loss(spec.reference, plain))(kwargs["x"])
    assert errors(got, want)[0] <= 1e-4
    if "bias" in kwargs:
        got, want = (
            mx.grad(lambda b, f=f, k=k: (f(**{**k, "bias": b}) ** 2).sum())(kwargs["bias"])
            for f, k in ((spec.op, kwargs), (spec.reference, plain))
        )
        assert errors(got, want)[0] <= 1e-4


def packed_in(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from packed_in(item)
    else:
        yield value


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_weight_itself_has_no_gradient(name: str) -> None:
    kwargs = PACKED[name]()
    values = tuple(kwargs.values())
    arrays = list(leaves(values))
    is_packed = [
        isinstance(p, ops.PackedWeight)
        for p in packed_in(values)
        if isinstance(p, mx.array | ops.PackedWeight)
    ]
    at = is_packed.index(True)

    def loss(data: mx.array) -> mx.array:
        given = with_leaves(values, iter([*arrays[:at], data, *arrays[at + 1 :]]))
        return SPECS[name.split()[0]].op(**dict(zip(kwargs, given, strict=True))).sum()

    with pytest.raises(InputError, match=r"\[\w+\] weight must be plain to have a gradient, got one packed"):
        mx.grad(loss)(arrays[at])


def test_packing_inside_what_is_differentiated_is_named() -> None:
    x, w = n(1, 9, 4), n(6, 3, 4)
    with pytest.raises(InputError, match=r"\[conv1d\] weight must be plain to have a gradient"):
        mx.grad(lambda w: ops.conv1d(x, ops.pack_conv1d(w)).sum())(w)


def test_the_pitch_has_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host sums the phase: a gradient of 0 would be wrong."""
    f0, noise, offsets = 100 + mx.arange(2.0)[None], n(1, 20, 3), n(1, 3)

    def loss(f0: mx.array, offsets: mx.array, noise: mx.array) -> mx.array:
        return ops.nsf_source(f0, noise, mx.ones(3), offsets=offsets, hop=10, sample_rate=1000).sum()

    for i, name in enumerate(("f0", "offsets")):
        with pytest.raises(InputError, match=rf"\[nsf_source\] {name} must be constant: it has no gradient"):
            mx.grad(loss, argnums=i)(f0, offsets, noise)
    ours = mx.grad(loss, argnums=2)(f0, offsets, noise)
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    stock = mx.grad(loss, argnums=(0, 1, 2))(f0, offsets, noise)
    assert mx.isnan(stock[0]).all()
    assert mx.isnan(stock[1]).all()
    assert errors(ours, stock[2])[0] <= TOLERANCE
    with pytest.raises(InputError, match=r"\[nsf_source\] f0 must be constant"):
        mx.jvp(lambda f0: [loss(f0, offsets, noise)], [f0], [f0])


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision(dtype: mx.Dtype) -> None:
    x, w, b = (a.astype(dtype) for a in (n(1, 9, 4), n(6, 3, 4), n(6)))
    grads = mx.grad(lambda *a: ops.conv1d(*a, activation="gelu").astype(mx.float32).sum(), argnums=(0, 1, 2))(
        x, w, b
    )
    wide = mx.grad(lambda *a: ops.conv1d(*a, activation="gelu").sum(), argnums=(0, 1, 2))(
        *(a.astype(mx.float32) for a in (x, w, b))
    )
    for got, want in zip(grads, wide, strict=True):
        assert got.dtype == dtype
        assert errors(got, want)[0] <= 0.02


def test_transforms_of_transforms() -> None:
    x, w = n(1, 9, 4), n(6, 3, 4)
    many = mx.stack([x, 2 * x])
    spec = SPECS["conv1d"]

    def second(op: Callable[..., Any]) -> mx.array:
        inner = mx.grad(lambda x: (op(x, w, activation="tanh") ** 2).sum())
        return mx.grad(lambda x: (inner(x) ** 2).sum())(x)

    assert_same([second(spec.op)], [second(spec.reference)])
    per_item = mx.vmap(mx.grad(lambda x: (ops.conv1d(x, w, activation="tanh") ** 2).sum()))
    want = [mx.grad(lambda x: (spec.reference(x, w, activation="tanh") ** 2).sum())(a) for a in many]
    assert_same([per_item(many)], [mx.stack(want)])
    through = mx.grad(lambda m: (mx.vmap(lambda x: ops.conv1d(x, w, activation="tanh"))(m) ** 2).sum())
    assert_same([through(many)], [mx.stack(want)])
    compiled = mx.compile(mx.grad(lambda x: (ops.conv1d(x, w, activation="tanh") ** 2).sum()))
    assert_same([compiled(x)], [want[0]])
    assert_same(
        [mx.grad(mx.compile(lambda x: (ops.conv1d(x, w, activation="tanh") ** 2).sum()))(x)], [want[0]]
    )
    checkpointed = mx.checkpoint(lambda x: (ops.conv1d(x, w, activation="tanh") ** 2).sum())
    assert_same([mx.grad(checkpointed)(x)], [want[0]])


def test_the_forward_pass_is_the_kernels() -> None:
    """A gradient is taken where the kernel was, not where the reference is: the same numbers as without one."""
    x, w = n(2, 31, 20), n(13, 5, 20)
    value, _ = mx.value_and_grad(lambda x: ops.conv1d(x, w).sum())(x)
    assert mx.array_equal(value, ops.conv1d(x, w).sum())
    assert not mx.array_equal(ops.conv1d(x, w), SPECS["conv1d"].reference(x, w))


def test_the_bare_kernel_has_no_gradient(ext: ModuleType) -> None:
    x, g = n(1, 9, 6), n(1, 1, 6)
    with pytest.raises(ValueError, match=r"\[wavenet_gate\] this kernel alone has no gradient"):
        mx.grad(lambda x: ext.wavenet_gate(x, g).sum())(x)


def test_rules_die_with_the_graph() -> None:
    """In whatever thread: evaluation drops the primitives on a stream's own."""
    x, w = n(1, 64, 16), n(16, 3, 16)
    step = mx.grad(lambda x: ops.conv1d(ops.conv1d(x, w), w).sum())
    for _ in range(50):
        mx.eval(step(x))


@pytest.mark.parametrize("name", ["linear", "conv1d", "conv2d", "resblock"])
def test_bench_packs_what_it_differentiates_not(name: str) -> None:
    """A case with its weights packed as for the benchmark still has a gradient by x."""
    spec = SPECS[name]
    kwargs = kernels.packed(spec, spec.cases[1].make(np.random.default_rng(0)))
    grad = mx.grad(lambda x: spec.op(**{**kwargs, "x": x}).sum())(kwargs["x"])
    assert grad.shape == kwargs["x"].shape
    assert native.ext() is not None
