"""What the JSON files of a golden folder may hold: every value is checked before anything is drawn or computed.

A schema is a type, a `Number`, a `List`, a dict of the keys that there must be, `Optional` for one that may be missing,
`Each` for a dict whose keys are free, or a tuple for a list of as many entries.
"""

from __future__ import annotations

import math
import reprlib
from typing import Any, NamedTuple

from ..errors import FileFormatError

# Numbers that the tensors of one manifest may have together: the largest published model has 95 million.
MOST_NUMBERS = 400_000_000


class Number(NamedTuple):
    """A finite number from `low` to `high`, a whole one if `whole`."""

    low: float = -1e9
    high: float = 1e9
    whole: bool = False


class List(NamedTuple):
    """A list of at most `most` entries of one schema."""

    entry: Any
    most: int


class Optional(NamedTuple):
    """A key that may be missing or null."""

    schema: Any


class Each(NamedTuple):
    """A dict with keys of the file's own."""

    schema: Any


SIZE = Number(0, MOST_NUMBERS, whole=True)
SHAPE = List(SIZE, 8)
TENSOR = {
    "shape": SHAPE,
    "dist": str,
    **{name: Optional(Number()) for name in ("scale", "shift", "low", "high", "value")},
}
MANIFEST = {
    "seed": Number(0, 2**63, whole=True),
    "kind": str,
    "config": dict,
    "tensors": Each(TENSOR),
    "probe": Optional({"name": str, "sum": Number(-1e12, 1e12)}),
    "use_f0": Optional(bool),
    "vocoder": Optional(str),
}
_SECONDS = Number(0.01, 3600)
CASES = Each(
    {
        "noise": Optional(List((str, SHAPE), 1000)),
        "sid": Optional(Number(0, 1e6, whole=True)),
        "snr_fp32_vs_fp64_db": Optional(Number()),
        "hubert": Optional(str),
        "synth": Optional(str),
        "index": Optional(str),
        "pitch": Optional(Number()),
        **{name: Optional(Number()) for name in ("index_rate", "protect", "volume_envelope")},
        **{name: Optional(_SECONDS) for name in ("x_pad", "x_query", "x_center", "x_max")},
    }
)


def check(value: Any, schema: Any, at: str) -> None:
    """Raise FileFormatError "[verify] AT must be ..." unless a value that JSON gave fits the schema."""

    def require(fits: bool, wanted: str) -> None:
        if not fits:
            raise FileFormatError(f"[verify] {at} must be {wanted}, got {reprlib.repr(value)}")

    if isinstance(schema, type):
        require(type(value) is schema, {str: "text", bool: "true or false", dict: "an object"}[schema])
    elif isinstance(schema, Number):
        is_number = type(value) is int or (type(value) is float and not schema.whole)
        fits = is_number and math.isfinite(value) and schema.low <= value <= schema.high
        kind = "a whole number" if schema.whole else "a number"
        require(fits, f"{kind} from {schema.low:g} to {schema.high:g}")
    elif isinstance(schema, List):
        require(type(value) is list and len(value) <= schema.most, f"a list of at most {schema.most} entries")
        for i, entry in enumerate(value):
            check(entry, schema.entry, f"{at}[{i}]")
    elif isinstance(schema, Each):
        require(type(value) is dict, "an object")
        for name, entry in value.items():
            check(entry, schema.schema, f"{at}, {name[:80]!r}")
    elif isinstance(schema, tuple):  # after the classes above, which are tuples too
        require(type(value) is list and len(value) == len(schema), f"a list of {len(schema)} entries")
        for i, (entry, wanted) in enumerate(zip(value, schema, strict=True)):
            check(entry, wanted, f"{at}[{i}]")
    else:
        require(type(value) is dict, "an object")
        for name, wanted in schema.items():
            if isinstance(wanted, Optional):
                if value.get(name) is not None:
                    check(value[name], wanted.schema, f"{at}, {name!r}")
            else:
                require(name in value, f"an object with {name!r}")
                check(value[name], wanted, f"{at}, {name!r}")
