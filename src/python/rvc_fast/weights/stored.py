"""Weights as they lie in a file, and the numbers that they stand for.

A file keeps a weight in one of three ways: as numbers; as numbers and a gain, which is a weight norm or a batch norm
that was not multiplied in, so that half-precision numbers stay half as large; or as codes of groups, in the convention
of MLX's affine quantisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import FileFormatError, InputError

StoredDtype = Literal["float32", "float16", "bfloat16"]

BFLOAT16 = np.dtype([("bfloat16", "<u2")])
"""The bits of bfloat16 numbers: NumPy has no such type."""

BITS, GROUP_SIZES = (4, 8), (32, 64, 128)
"""What we read of MLX's affine quantisation."""

_GAIN, _SCALES, _BIASES = ".gain", ".scales", ".biases"


@dataclass(frozen=True)
class Quantization:
    """MLX's affine quantisation: each group of a row is scale * code + bias, codes of so many bits."""

    bits: int = 8
    group_size: int = 64

    @classmethod
    def from_dict(cls, what: str, values: object) -> Quantization:
        """Take the `quantization` of a config; FileFormatError for one that is not read."""
        got: Mapping[str, Any] = values if isinstance(values, Mapping) else {}
        bits, size, mode = got.get("bits", ""), got.get("group_size", ""), got.get("mode", "affine")
        for name, value, known in (
            ("bits", bits, BITS),
            ("group_size", size, GROUP_SIZES),
            ("mode", mode, ("affine",)),
        ):
            if type(value) not in (int, str) or value not in known:
                raise FileFormatError(
                    f"[{what}] {name} of its quantization must be {' or '.join(map(str, known))}, "
                    f"got {str(value)[:40]!r}: pack the original model anew"
                )
        return cls(int(bits), int(size))

    def as_dict(self) -> dict[str, Any]:
        """Return it as MLX's configs have it."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": "affine"}


@dataclass(frozen=True)
class Codes:
    """The scales and biases (O, C / group size) of a quantised weight (O, C), and how it was quantised."""

    quantization: Quantization
    scales: np.ndarray
    biases: np.ndarray


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file.

    values: float32, float16 or `BFLOAT16`; of a quantised weight (O, C) uint32 (O, C * bits / 32), the first code in the
        lowest bits.
    gain: what the values are multiplied by, of one of these three types and of the same rank, or None.
    codes: what else a quantised weight has, or None.
    """

    values: np.ndarray
    gain: np.ndarray | None = None
    codes: Codes | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the numbers that it stands for."""
        shape = self.values.shape
        return shape if self.codes is None else (*shape[:-1], shape[-1] * 32 // self.codes.quantization.bits)

    @property
    def plain(self) -> bool:
        """Whether its values are the numbers that it stands for, in a type of NumPy's."""
        return self.gain is None and self.codes is None and self.values.dtype != BFLOAT16

    def value(self) -> np.ndarray:
        """Return the numbers that it stands for, float32."""
        if self.codes is not None:
            return _decoded(self.values, self.codes)
        values = as_float32(self.values)
        return values if self.gain is None else values * as_float32(self.gain)

    def __str__(self) -> str:
        """What `rvc-fast info` says of it."""
        if self.codes is not None:
            q = self.codes.quantization
            return f"int{q.bits} in groups of {q.group_size}"
        name = _name(self.values)
        return name if self.gain is None else f"{name}, {_name(self.gain)} gain"


def _name(values: np.ndarray) -> str:
    return "bfloat16" if values.dtype == BFLOAT16 else str(values.dtype)


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return numbers as float32, without a copy if they are."""
    if values.dtype == BFLOAT16:
        return (values["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def _decoded(words: np.ndarray, codes: Codes) -> np.ndarray:
    """Return the float32 numbers (O, C) of codes, group by group: scale * code + bias."""
    octets = np.ascontiguousarray(words).astype("<u4", copy=False).view(np.uint8)
    if codes.quantization.bits == 4:
        octets = np.stack([octets & 15, octets >> 4], axis=-1).reshape(len(octets), -1)
    groups = octets.reshape(*codes.scales.shape, codes.quantization.group_size).astype(np.float32)
    groups *= as_float32(codes.scales)[..., None]
    groups += as_float32(codes.biases)[..., None]
    return groups.reshape(len(octets), -1)


def stored(what: str, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, Stored]:
    """Return the tensors of a model, by the names of its parameters.

    Args:
        what: the kind of model, for messages.
        tensors: under the names of our modules; those called X.gain, X.scales and X.biases belong to X.weight.
        config: may have MLX's `quantization`, which has entries of layers that differ from the rest.

    Raises:
        FileFormatError: parts of a weight that do not fit each other, or a quantisation that is not read.
    """
    found: dict[str, Stored] = {}
    for name, values in tensors.items():
        stem, _, last = name.rpartition(".")
        if last in ("gain", "scales", "biases") and f"{stem}.weight" in tensors:
            continue
        gain, scales, biases = (
            tensors.get(stem + part) if last == "weight" else None for part in (_GAIN, _SCALES, _BIASES)
        )
        if scales is not None:
            found[name] = _quantized(what, stem, values, scales, biases, config.get("quantization"))
            if gain is not None:
                raise FileFormatError(f"[{what}] tensor {name!r} must not have both a gain and scales")
            continue
        if values.dtype == np.uint32 and last == "weight":
            raise FileFormatError(f"[{what}] tensor {stem + _SCALES!r} is missing")
        for part, array in ((name, values), (stem + _GAIN, gain)):
            if array is not None and array.dtype.kind != "f" and array.dtype != BFLOAT16:
                raise FileFormatError(
                    f"[{what}] tensor {part!r} must be of floating-point numbers, got {array.dtype}"
                )
        if gain is not None:
            fits = gain.ndim == values.ndim and all(
                a in (1, b) for a, b in zip(gain.shape, values.shape, strict=True)
            )
            if not fits:
                raise FileFormatError(
                    f"[{what}] tensor {stem + _GAIN!r} of shape {gain.shape} does not fit {values.shape}"
                )
        found[name] = Stored(values, gain)
    return found


def _quantized(
    what: str, stem: str, words: np.ndarray, scales: np.ndarray, biases: np.ndarray | None, stated: object
) -> Stored:
    own = stated.get(stem) if isinstance(stated, Mapping) else None
    quantization = Quantization.from_dict(what, stated if own is None else own)
    if biases is None:
        raise FileFormatError(f"[{what}] tensor {stem + _BIASES!r} is missing")
    if words.dtype != np.uint32 or words.ndim != 2:
        raise FileFormatError(f"[{what}] tensor {stem + '.weight'!r} must be uint32 of two dimensions")
    if scales.dtype.kind not in "fV" or biases.dtype != scales.dtype:
        raise FileFormatError(
            f"[{what}] tensors {stem + _SCALES!r} and {stem + _BIASES!r} must be of one floating-point type"
        )
    columns = words.shape[1] * 32 // quantization.bits
    wanted = words.shape[0], columns // quantization.group_size
    if columns % quantization.group_size or scales.shape != wanted or biases.shape != wanted:
        raise FileFormatError(
            f"[{what}] tensors {stem + _SCALES!r} and {stem + _BIASES!r} must be of shape {wanted} for groups of "
            f"{quantization.group_size} and {quantization.bits} bits, got {scales.shape} and {biases.shape}"
        )
    return Stored(words, codes=Codes(quantization, scales, biases))


def checked_gains(what: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return tensors whose gains make finite numbers of their weights; FileFormatError otherwise."""
    for name, gain in tensors.items():
        weight = name.removesuffix(_GAIN) + ".weight"
        if name.endswith(_GAIN) and weight in tensors:
            with np.errstate(all="ignore"):
                largest = np.float32(np.abs(tensors[weight]).max()) * np.abs(gain).max()
            if not np.isfinite(largest):
                raise FileFormatError(f"[{what}] tensor {weight!r} holds numbers that are not finite")
    return tensors


def narrowest(values: np.ndarray) -> np.ndarray:
    """Return float32 or float16 numbers in the first of float16, bfloat16 and float32 that holds each of them exactly."""
    if values.dtype != np.float32:
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if np.array_equal(half.astype(np.float32), values):
        return half
    bits = np.ascontiguousarray(values).view(np.uint32)
    return values if (bits & 0xFFFF).any() else (bits >> 16).astype(np.uint16).view(BFLOAT16)


def rounded(name: str, values: np.ndarray, dtype: StoredDtype) -> np.ndarray:
    """Return float32 numbers rounded to nearest in `dtype`; InputError if float16 cannot hold one of them."""
    if dtype == "float32":
        return values
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).view(BFLOAT16)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(f"[pack] tensor {name!r} has numbers beyond float16: give --dtype bfloat16")
    return half


def quantized(weight: np.ndarray, quantization: Quantization, dtype: StoredDtype) -> Stored:
    """Return a weight (O, C), float32, as codes; scales and biases are rounded to `dtype`."""
    import mlx.core as mx

    with mx.stream(mx.cpu):
        parts = mx.quantize(mx.array(weight), quantization.group_size, quantization.bits)
        mx.eval(parts)
    words, scales, biases = (np.array(part) for part in parts)
    codes = Codes(quantization, rounded("scales", scales, dtype), rounded("biases", biases, dtype))
    return Stored(words, codes=codes)


def parts(name: str, tensor: Stored) -> dict[str, np.ndarray]:
    """Return the tensors of a file that keep one parameter."""
    stem = name.removesuffix(".weight")
    arrays = {name: tensor.values}
    if tensor.gain is not None:
        arrays[stem + _GAIN] = tensor.gain
    if tensor.codes is not None:
        arrays |= {stem + _SCALES: tensor.codes.scales, stem + _BIASES: tensor.codes.biases}
    return arrays
