"""The kernels one by one: the cases of their OpSpecs that are marked for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from .. import ops
from ..errors import BackendError, InputError
from ..ops import dispatch, precision
from ..ops.resblock import ResConv
from ..ops.spec import Case, OpSpec
from ..verify.golden import EXACT_DB

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
# SNR in dB against the reference in float32, which has a rounding error of its own, where the spec has no tolerance
# for the dtype.
BARS = {"float32": 100.0, "bfloat16": 35.0, "int8": 30.0, "bfloat16x2": 95.0}
# Of a peer's outputs against ours.
PEER_BARS = {"float32": 90.0, "bfloat16": 35.0, "float16": 50.0, "int8": 30.0, "bfloat16x2": 95.0}

PACK: dict[str, Callable[..., ops.Weight]] = {
    "conv_transpose1d": lambda k, dtype: ops.pack_conv_transpose1d(
        k["weight"], stride=k.get("stride", 1), dtype=dtype
    ),
    "conv_transpose2d": lambda k, dtype: ops.pack_conv_transpose2d(
        k["weight"], stride=k.get("stride", (1, 1)), dtype=dtype
    ),
    "linear": lambda k, dtype: ops.pack_linear(k["weight"], dtype=dtype),
}


def residual_stage(channels: int, length: int) -> Case:
    """Return a decoder's stage of residual blocks, (1, length, channels)."""

    def make(rng: np.random.Generator) -> dict[str, Any]:
        def conv(kernel: int, dilation: int) -> ResConv:
            weight = rng.standard_normal((channels, kernel, channels), dtype=np.float32)
            weight *= np.float32(0.5 / np.sqrt(channels * kernel))
            bias = rng.standard_normal(channels, dtype=np.float32)
            return ResConv(mx.array(weight), mx.array(bias), dilation)

        blocks = [[[conv(k, d), conv(k, 1)] for d in (1, 3, 5)] for k in (3, 7, 11)]
        x = mx.array(rng.standard_normal((1, length, channels), dtype=np.float32))
        return {"x": x, "blocks": blocks, "slope": 0.1}

    return Case(f"{channels} channels, 1 s at 48 kHz", make, benchmark=True)


# The residual stages of a 48 kHz voice; too long for the tests, whose reference is stock MLX.
RESIDUAL_STAGES = tuple(
    residual_stage(c, n) for c, n in ((256, 1200), (128, 12000), (64, 24000), (32, 48000))
)


def cases(spec: OpSpec) -> list[Case]:
    """Return the cases of an op that are worth a number."""
    marked = [case for case in spec.cases if case.benchmark]
    return marked + (list(RESIDUAL_STAGES) if spec.name == "resblock" else [])


def has(spec: OpSpec, dtype: str) -> bool:
    """Whether the op can be run in `dtype` by the backend that it takes now.

    The CPU's kernels multiply in what a weight is packed for, x remaining float32; elsewhere all arrays are
    of the dtype.
    """
    if dtype == "float32":
        return True
    if dispatch.route(spec.name).backend == "cpu":
        packs = {*PACK, "conv2d", "resblock"}
        if dtype in ("int8", "bfloat16x2"):
            packs = {"conv1d", "linear"}
        return spec.name in packs and dispatch.dtype_missing(dtype) is None
    return dtype in spec.tolerance


def _can(spec: OpSpec, dtype: str) -> bool:
    try:
        return has(spec, dtype)
    except BackendError:
        return False


def choose(specs: dict[str, OpSpec], names: Sequence[str], dtype: str) -> list[OpSpec]:
    """Return the specs of the ops asked for, or of all that have `dtype`; InputError for what cannot be."""
    for name in names:
        if name not in specs:
            raise InputError(f"[bench] op must be one of {', '.join(sorted(specs))}, got {name!r}")
        try:
            backend = dispatch.route(name).backend
        except BackendError as e:
            raise InputError(str(e)) from e
        if not has(specs[name], dtype):
            raise InputError(f"[bench] {name} has no {dtype} on the backend {backend} here")
    chosen = [specs[n] for n in names] if names else [s for _, s in sorted(specs.items()) if _can(s, dtype)]
    if not chosen:
        raise InputError(f"[bench] no op has {dtype} here")
    return chosen


def bar(spec: OpSpec, dtype: str) -> float:
    """Return the SNR in dB against the reference below which there is no number."""
    if dtype in BARS and (dtype == "float32" or dtype not in spec.tolerance):
        return BARS[dtype]
    return -20 * math.log10(spec.tolerance[dtype].rms)


def snr_db(rms: float) -> float:
    """Return a relative RMS error as a signal-to-noise ratio; 999 for none, -999 for results of another shape or NaN."""
    if not math.isfinite(rms):
        return -EXACT_DB
    return -20 * math.log10(rms) if rms > 0 else EXACT_DB


def _cast(value: Any, dtype: mx.Dtype) -> Any:
    if isinstance(value, mx.array):
        return value.astype(dtype) if mx.issubdtype(value.dtype, mx.floating) else value
    if isinstance(value, ResConv):
        return ResConv(*(_cast(v, dtype) for v in value))
    if isinstance(value, list | tuple):
        return type(value)(_cast(v, dtype) for v in value)
    return value


def arguments(spec: OpSpec, case: Case, dtype: str = "float32") -> dict[str, Any]:
    """Return the arguments of a case, floating arrays rounded to the dtype where the route takes it in arrays."""
    kwargs = case.make(np.random.default_rng(0))
    if dtype == "float32" or dispatch.route(spec.name).backend == "cpu":
        return kwargs
    return rounded(kwargs, dtype)


def rounded(kwargs: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Return the same arguments with their floating arrays in the dtype."""
    return {name: _cast(value, DTYPES[dtype]) for name, value in kwargs.items()}


def widened(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the same arguments in float32, for the reference."""
    return rounded(kwargs, "float32")


def packed(
    spec: OpSpec, kwargs: dict[str, Any], dtype: str = "float32", algorithm: str = "auto"
) -> dict[str, Any]:
    """Return the arguments with weights packed as loading a model would, everything evaluated."""
    given = dict(kwargs)
    known = precision.check("bench", dtype)
    if spec.name in PACK:
        given["weight"] = PACK[spec.name](kwargs, known)
    elif spec.name == "conv1d":
        fits = algorithm == "auto" or dispatch.route(spec.name).backend == "cpu"
        dense = kwargs.get("stride", 1) == kwargs.get("dilation", 1) == 1
        given["weight"] = ops.pack_conv1d(
            kwargs["weight"],
            groups=kwargs.get("groups", 1),
            algorithm=algorithm if fits and dense else "direct",
            dtype=known,
        )
    elif spec.name == "conv2d":
        fits = algorithm == "auto" or dispatch.route(spec.name).backend == "cpu"
        given["weight"] = ops.pack_conv2d(
            kwargs["weight"], algorithm=algorithm if fits else "direct", dtype=known
        )
    elif spec.name == "resblock":

        def pack(conv: ResConv) -> ResConv:
            assert isinstance(conv.weight, mx.array)
            return conv._replace(weight=ops.pack_resblock(conv.weight, algorithm=algorithm, dtype=known))

        given["blocks"] = [[[pack(conv) for conv in step] for step in block] for block in kwargs["blocks"]]
    evaluate(given)
    return given


def evaluate(value: Any) -> None:
    """Wait for every array in nested arguments, packed weights included."""
    if isinstance(value, mx.array):
        mx.eval(value)
    elif isinstance(value, ops.PackedWeight):
        mx.eval(value.data)
    elif isinstance(value, dict):
        evaluate(list(value.values()))
    elif isinstance(value, list | tuple):
        for v in value:
            evaluate(v)
