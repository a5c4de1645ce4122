"""What an `Op` keeps of a call, when it forgets, and what it tells a watcher."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast import native, ops
from rvc_fast.errors import BackendError, InputError
from rvc_fast.ops import dispatch, op
from rvc_fast.ops.wavenet_gate import WAVENET_GATE

pytestmark = pytest.mark.usefixtures("ext")

X, G = mx.ones((1, 9, 6)), mx.ones((1, 1, 6))


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The operands of every call of the gate that was checked, beginning with nothing known."""
    dispatch.forget()
    seen: list[tuple[Any, ...]] = []
    check = WAVENET_GATE.check

    def note(*arguments: Any) -> Any:
        seen.append(arguments)
        return check(*arguments)

    monkeypatch.setattr(WAVENET_GATE, "check", note)
    return seen


def test_a_signature_is_checked_once(checked: list[Any]) -> None:
    for _ in range(3):
        ops.wavenet_gate(X, G)
        ops.wavenet_gate(x=X * 2, g=G)
    assert len(checked) == 1
    for x in (X[:, :5], X.astype(mx.float16), mx.ones((2, 9, 6))):
        ops.wavenet_gate(x, G)
    assert len(checked) == 4


def test_a_bad_call_is_refused_every_time(checked: list[Any]) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=r"\[wavenet_gate\] g must be broadcastable"):
            ops.wavenet_gate(X, G[..., :4])
    assert len(checked) == 2


@pytest.mark.parametrize(
    ("good", "bad"), [(2, 2.0), (1, 1.0), (2, 2.5)], ids=["2.0 for 2", "1.0 for 1", "2.5 for 2"]
)
def test_numbers_of_another_type_are_another_signature(good: int, bad: float) -> None:
    x, w = mx.ones((1, 9, 4)), mx.ones((6, 3, 4))
    ops.conv1d(x, w, stride=good)
    with pytest.raises(InputError, match="stride must be a whole number"):
        ops.conv1d(x, w, stride=bad)  # type: ignore[arg-type]


def test_the_route_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change is seen by the next call, though the same call was made before."""
    conv1d, taken = op.OPS["conv1d"], []
    monkeypatch.setattr(conv1d, "_verdicts", {})
    for backend, run in list(conv1d._run.items()):

        def noted(*arguments: Any, backend: str = backend, run: Callable[..., Any] = run) -> mx.array:
            taken.append(backend)
            return run(*arguments)

        monkeypatch.setitem(conv1d._run, backend, noted)
    monkeypatch.delenv("RVC_FAST_BACKEND", raising=False)
    x, w = mx.ones((2, 31, 20)), mx.ones((13, 5, 20))
    ops.conv1d(x, w)
    ops.conv1d(x, w)
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    ops.conv1d(x, w)
    monkeypatch.setenv("RVC_FAST_BACKEND", "metal")
    with pytest.raises(BackendError, match="'metal' was asked for"):
        ops.conv1d(x, w)
    monkeypatch.setenv("RVC_FAST_BACKEND", "cpu")
    ops.conv1d(x, w)
    monkeypatch.delenv("RVC_FAST_BACKEND")
    ops.conv1d(x, w)
    assert taken == ["cpu", "cpu", "reference", "cpu", "cpu"]


def test_the_signature_holds_what_a_route_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, and the default device of the thread, which a stream of another device changes."""
    signature = native.ext().signature
    monkeypatch.delenv("RVC_FAST_BACKEND", raising=False)
    first = signature((X, 1))
    assert signature((X, 1)) == first
    monkeypatch.setenv("RVC_FAST_BACKEND", "cpu")
    assert signature((X, 1)) != first
    monkeypatch.delenv("RVC_FAST_BACKEND")
    assert signature((X, 1)) == first
    # The only device that every machine has a second one of is a GPU that is not there; it can be named, not used.
    before = mx.default_device()
    try:
        mx.set_default_device(mx.Device(mx.gpu, 0))
    except ValueError:
        pass
    else:
        assert signature((X, 1)) != first
    finally:
        mx.set_default_device(before)
    assert signature((X, 1)) == first


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1,), (1.0,)),
        ((1,), (True,)),
        ((0.0,), (-0.0,)),
        ((None,), (0,)),
        (("a", "b"), ("ab", "")),
        (((1, 2), 3), ((1,), 2, 3)),
        (([1],), ((1,),)),
        ((mx.ones(3),), (mx.ones((3, 1)),)),
        ((mx.ones(3),), (mx.ones(3, mx.float16),)),
        ((2**40,), (0,)),
    ],
)
def test_signatures_differ(a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
    signature = native.ext().signature
    assert signature(a) is not None
    assert signature(a) == signature(a)
    assert signature(a) != signature(b)


def test_packed_weights_differ_by_how_they_are_packed() -> None:
    signature = native.ext().signature
    weight = mx.ones((16, 3, 3, 16))
    packed = [ops.pack_conv2d(weight, algorithm=a) for a in ("direct", "winograd2", "winograd4")]
    keys = [signature((p,)) for p in (*packed, weight)]
    assert None not in keys
    assert len(set(keys)) == 4


def test_what_has_no_signature_is_checked_every_time(checked: list[Any]) -> None:
    signature = native.ext().signature
    for value in (2**70, np.ones(2), object(), {}, X.shape.__class__):
        assert signature((value,)) is None


def test_a_change_forgets(checked: list[Any]) -> None:
    ops.wavenet_gate(X, G)
    dispatch.forget()
    ops.wavenet_gate(X, G)
    assert len(checked) == 2


def test_pretending_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", "metal")
    with dispatch.pretending("metal"):
        assert dispatch.route("conv1d").backend == "metal"
    with pytest.raises(BackendError):
        ops.wavenet_gate(X, G)


def test_old_verdicts_make_room(checked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op, "MOST_VERDICTS", 3)
    for length in (*range(1, 6), 5):
        ops.wavenet_gate(mx.ones((1, length, 6)), G)
    assert len(checked) == 5
    assert len(WAVENET_GATE._verdicts) <= 3


def test_threads_share_verdicts(checked: list[Any]) -> None:
    ops.wavenet_gate(X, G)

    def work(_: int) -> None:
        for length in range(1, 40):
            assert ops.wavenet_gate(mx.ones((1, length, 6)), G).shape == (1, length, 3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


def test_a_watcher_is_told_of_calls_but_not_of_calls_inside() -> None:
    seen: list[str] = []
    x, gates = mx.ones((1, 6, 5)), mx.ones((2, 9, 5))
    with op.watching(lambda op, arguments: seen.append(f"{op.name} {sorted(arguments)[0]}")):
        ops.bigru(x, gates, mx.ones((2, 9, 3)), mx.ones((2, 9)), mx.ones((2, 9)))
        ops.linear(x, mx.ones((7, 5)))
        with pytest.raises(InputError):
            ops.linear(x, mx.ones((7, 4)))
    ops.linear(x, mx.ones((7, 5)))
    assert seen == ["bigru b_hh", "linear activation"]
