"""Weights rearranged once for a kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx

from .precision import Dtype, mlx_dtype

# Half a tile: what is missing to a whole one is multiplied as zeros.
NARROW_LEAST = 16
# Products of so many codes (up to 255 times 127) have a sum that int32 holds.
INT8_MOST = (2**31 - 1) // (255 * 127)


@dataclass(frozen=True)
class PackedWeight:
    """A weight in the layout of the kernel of `backend`.

    `shape` is the shape of the array it was made from (MLX layout, channels last), `groups` its groups and
    `stride` the strides of a transposed convolution, whose layout depends on them;
    `algorithm` names what the kernel will do with `data` ("direct" multiplies taps one by one), `dtype` what it multiplies in;
    sums are float32. `form` is all of this but `data`, in bytes.
    """

    op: str
    data: mx.array
    shape: tuple[int, ...]
    groups: int = 1
    algorithm: str = "direct"
    stride: tuple[int, ...] = ()
    dtype: Dtype = "float32"
    backend: str = "cpu"
    form: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        facts = (
            self.op,
            self.shape,
            self.groups,
            self.algorithm,
            self.stride,
            self.dtype,
            self.backend,
            self.data.shape,
            self.data.dtype,
        )
        object.__setattr__(self, "form", repr(facts).encode())

    @property
    def ndim(self) -> int:
        """Of the array it was made from, as `shape`."""
        return len(self.shape)


Array = mx.array | None
"""An operand that may be left out."""

Weight = mx.array | PackedWeight

# For each op that packs a weight what gives it back as it was.
UNPACK: dict[str, Callable[[PackedWeight], mx.array]] = {}


def faster_dtype(dtype: Dtype, channels: int, outputs: int) -> Dtype:
    """Return "float32" where bfloat16 or int8 would be slower: too few channels or outputs (of a group) for their tiles.

    And where there are so many channels that sums of int8 products would not fit.
    """
    too_long = dtype == "int8" and channels > INT8_MOST
    return "float32" if min(channels, outputs) < NARROW_LEAST or too_long else dtype


def plain_weight(weight: mx.array, *options: object) -> mx.array:
    """Return the weight in the dtype that is the last option. Where MLX's own kernels multiply, this is all that
    packing does."""
    return weight.astype(mlx_dtype(options[-1]))  # type: ignore[arg-type]
