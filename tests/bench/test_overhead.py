"""`python -m benchmarks.overhead` measures what it says; how fast a call is, is for a quiet machine to say."""

from __future__ import annotations

import pytest

from benchmarks import overhead
from rvc_fast import native
from rvc_fast.ops.op import OPS, specs

pytestmark = pytest.mark.skipif(native.ext() is None, reason="there is no extension to compare with")


@pytest.mark.parametrize("op", sorted(specs()))
def test_every_op_is_compared_with_its_native_calls(op: str) -> None:
    """The extension does the same with the arguments that were noted, and is what takes the time."""
    spec = specs()[op]
    found = overhead.measure(spec, rounds=2, calls=5)
    assert 0 < found.native < 10_000
    assert found.ours > 0
    assert "cpu" in OPS[op].backends


def test_native_calls_are_noted_with_positional_arguments() -> None:
    recorder = overhead.Recorder(native.ext())
    assert recorder.isa() == native.ext().isa()
    assert [args for _, args in recorder.calls] == [()]
