"""The unpickler agrees with the standard one on data, and turns known classes into inert records."""

from __future__ import annotations

import argparse
import collections
import math
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvc_fast.weights.archive import read_torch_legacy, read_torch_zip
from rvc_fast.weights.unpickler import Inert, Machine, Malformed, Storage, Tensor

from .torch_files import Call, Encoder, Global, Object, StorageRef, rebuild, torch_legacy, torch_zip


def no_storage(key: str, dtype: str, numel: int) -> Storage:
    raise Malformed("no storage here")


def load(data: bytes) -> object:
    machine = Machine(memoryview(data), 0, no_storage, 0)
    value = machine.run()
    assert machine.position == len(data)
    return value


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
KEYS = st.text() | st.integers() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda v: (
        st.lists(v) | st.dictionaries(KEYS, v) | st.tuples(v) | st.tuples(v, v) | st.lists(v).map(tuple)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(VALUES, st.sampled_from([2, 3, 4, 5]))
def test_plain_values_are_what_was_pickled(value, protocol):
    assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("value", "want"),
    [
        (np.float32(1.5), 1.5),
        (np.int64(-3), -3),
        (np.float64(math.pi), math.pi),
        (np.bool_(True), True),
        (collections.OrderedDict(a=1, b=[2]), {"a": 1, "b": [2]}),
        (collections.defaultdict(list, a=1), {"a": 1}),
        (b"\x00\xff", b"\x00\xff"),
        (float("inf"), float("inf")),
        ([1] * 3000, [1] * 3000),
    ],
)
def test_known_types_become_plain_values(value, want, protocol):
    got = load(pickle.dumps(value, protocol))
    assert got == want
    assert type(got) is type(want)


@pytest.mark.parametrize("protocol", [2, 4])
def test_namespace_is_inert(protocol):
    got = load(pickle.dumps(argparse.Namespace(heads=4, deep=[{"a": 1}]), protocol))
    assert type(got) is Inert
    assert (got.name, got.state) == ("argparse.Namespace", {"heads": 4, "deep": [{"a": 1}]})


def test_fairseq_is_neither_needed_nor_imported():
    dictionary = Object(Global("fairseq.data.dictionary", "Dictionary"), {"symbols": ["<s>"]})
    choice = Call(Global("fairseq.dataclass.constants", "ChoiceEnum"), ("a",))
    got = load(Encoder().dump([dictionary, choice]))
    assert [type(x) for x in got] == [Inert, Inert]
    assert (got[0].state, got[1].args) == ({"symbols": ["<s>"]}, ("a",))
    assert "fairseq" not in sys.modules


def test_shared_and_recursive_structures_keep_their_shape():
    shared = [1]
    loop: list = []
    loop.append(loop)
    got = load(pickle.dumps([shared, shared, loop], 2))
    assert got[0] is got[1]
    assert got[2][0] is got[2]


def test_deep_nesting_does_not_recurse():
    depth = 50_000
    got = load(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")
    for _ in range(depth - 1):
        (got,) = got
    assert got == []


@settings(deadline=None)
@given(
    st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8]),
    st.lists(st.integers(0, 5), max_size=4),
    st.randoms(use_true_random=False),
    st.sampled_from([(torch_zip, read_torch_zip), (torch_legacy, read_torch_legacy)]),
)
def test_tensors_round_trip(dtype, shape, random, container):
    array = np.random.default_rng(random.randrange(2**32)).integers(0, 99, shape).astype(dtype)
    write, read = container
    got = read(memoryview(write({"a": array})))["a"]
    assert type(got) is Tensor
    assert got.array().dtype == dtype
    assert np.array_equal(got.array(), array)


def test_strided_views():
    """A transposed tensor, a slice and a scalar of one storage."""
    numbers = memoryview(np.arange(12, dtype="<f4").tobytes())
    storage = Storage("0", "<f4", 12, lambda: numbers)
    encoder = Encoder()
    ref = StorageRef("FloatStorage", "0", 12)
    views = [rebuild(ref, 0, (4, 3), (1, 4)), rebuild(ref, 2, (2, 2), (4, 1)), rebuild(ref, 11, (), ())]
    data = encoder.dump(views)
    a, b, c = Machine(memoryview(data), 0, lambda *_: storage, 1000).run()
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(a.array(), whole.T)
    assert np.array_equal(b.array(), whole[:2, 2:4])
    assert c.array() == 11


def test_misaligned_storages_are_copied_into_place():
    data = memoryview(b"\0" + np.arange(3, dtype="<f4").tobytes())[1:]
    array = Tensor(Storage("0", "<f4", 3, lambda: data), 0, (3,), (1,)).array()
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2]
