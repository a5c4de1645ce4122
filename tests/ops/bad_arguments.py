"""Calls every public op with one bad argument at a time; prints what was not refused as it should be."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx

from rvc_fast import ops
from rvc_fast.errors import InputError

Call = dict[str, Any]
DTYPES = (mx.int32, mx.bool_, mx.complex64, mx.uint8)


def ones(*shape: int) -> mx.array:
    return mx.ones(shape) * 0.5


def good_calls() -> dict[str, tuple[Callable[..., Any], Call]]:
    """One call of each op that works, with every argument that it has."""
    conv = ops.ResConv(ones(4, 3, 4), ones(4), 2)
    calls: dict[str, Call] = {
        "attention": {"q": ones(1, 2, 3, 4), "k": ones(1, 2, 5, 4), "v": ones(1, 2, 5, 4), "scale": 0.5},
        "bigru": {
            "x": ones(1, 6, 5),
            "w_ih": ones(2, 9, 5),
            "w_hh": ones(2, 9, 3),
            "b_ih": ones(2, 9),
            "b_hh": ones(2, 9),
        },
        "conv1d": {
            "x": ones(1, 9, 4),
            "weight": ones(6, 3, 2),
            "bias": ones(6),
            "stride": 2,
            "padding": (1, 2),
            "dilation": 2,
            "groups": 2,
            "leaky": 0.1,
            "activation": "gelu",
            "residual": ones(1, 4, 6),
            "scale": 0.5,
        },
        "conv2d": {
            "x": ones(1, 9, 8, 4),
            "weight": ones(6, 3, 2, 4),
            "bias": ones(6),
            "padding": (1, 2),
            "activation": "relu",
            "residual": ones(1, 9, 11, 6),
        },
        "conv_transpose1d": {
            "x": ones(1, 9, 4),
            "weight": ones(6, 5, 4),
            "bias": ones(6),
            "stride": 2,
            "padding": 1,
            "output_padding": 1,
            "leaky": 0.1,
            "residual": ones(1, 20, 6),
        },
        "conv_transpose2d": {
            "x": ones(1, 5, 6, 4),
            "weight": ones(6, 3, 3, 4),
            "bias": ones(6),
            "stride": (2, 2),
            "padding": (1, 1),
            "output_padding": (1, 1),
            "activation": "relu",
        },
        "knn": {"queries": ones(3, 4), "vectors": ones(7, 4), "k": 2},
        "layer_norm": {
            "x": ones(2, 3, 5),
            "weight": ones(5),
            "bias": ones(5),
            "eps": 1e-5,
            "residual": ones(2, 3, 5),
        },
        "linear": {
            "x": ones(2, 3, 5),
            "weight": ones(7, 5),
            "bias": ones(7),
            "activation": "gelu",
            "residual": ones(2, 3, 7),
        },
        "mel_stft": {
            "x": ones(64),
            "window": ones(16),
            "filters": ones(3, 9),
            "hop": 4,
            "floor": 1e-5,
            "pad": 5,
        },
        "nsf_source": {
            "f0": ones(1, 5) * 200,
            "noise": ones(1, 40, 2),
            "weight": ones(2),
            "bias": ones(1),
            "hop": 8,
            "sample_rate": 16000,
            "phase": 0.5,
            "offsets": ones(1, 2),
            "interpolation": "nearest",
            "accumulation": "frame",
        },
        "pack_bigru": {"w_hh": ones(2, 9, 3)},
        "pack_conv1d": {"weight": ones(6, 3, 2), "groups": 2},
        "pack_conv2d": {"weight": ones(6, 3, 2, 4)},
        "pack_conv_transpose1d": {"weight": ones(6, 5, 4), "stride": 2},
        "pack_conv_transpose2d": {"weight": ones(6, 3, 3, 4), "stride": (2, 2)},
        "pack_linear": {"weight": ones(7, 5)},
        "pack_mel_stft": {"filters": ones(3, 9)},
        "pack_resblock": {"weight": ones(16, 3, 16), "algorithm": "auto"},
        "quantized_linear": {
            "x": ones(2, 3, 64),
            "weight": mx.ones((7, 16), mx.uint32),
            "scales": ones(7, 2),
            "biases": ones(7, 2),
            "bias": ones(7),
            "group_size": 32,
            "bits": 8,
            "activation": "gelu",
            "residual": ones(2, 3, 7),
        },
        "reflect_pad": {"x": ones(9), "left": 3, "right": 12},
        "relpos_attention": {
            "q": ones(1, 2, 7, 4),
            "k": ones(1, 2, 7, 4),
            "v": ones(1, 2, 7, 4),
            "rel_k": ones(5, 4),
            "rel_v": ones(5, 4),
            "window": 2,
        },
        "resblock_stage": {"x": ones(1, 9, 4), "blocks": [[[conv, conv]]], "slope": 0.1},
        "wavenet_gate": {"x": ones(1, 9, 6), "g": ones(1, 1, 6)},
    }
    return {name: (getattr(ops, name), arguments) for name, arguments in calls.items()}


def bad_arrays(name: str, argument: str, x: mx.array) -> Iterator[tuple[str, Any]]:
    """Everything that cannot stand in the place of x."""
    for dtype in DTYPES:
        yield f"of {dtype}", mx.ones(x.shape).astype(dtype)
    for axis in range(x.ndim):
        shape = list(x.shape)
        shape[axis] = 0
        yield f"of shape {shape}", mx.zeros(shape, x.dtype)
    if (name, argument) != ("reflect_pad", "x"):
        yield "with one dimension more", mx.ones((2, *x.shape), x.dtype)
    yield "a number", mx.array(1.0)
    for value in ([1.0, 2.0], "text", 3.0):
        yield type(value).__name__, value
    # One axis longer, where another argument says how long it is.
    free = {
        ("attention", "q"): {2},
        ("bigru", "x"): {0, 1},
        ("conv_transpose2d", "x"): {0, 1, 2},
        ("conv_transpose2d", "weight"): {1, 2},
        ("mel_stft", "window"): {0},
        ("resblock_stage", "x"): {0, 1},
        ("wavenet_gate", "x"): {0, 1},
        ("knn", "queries"): {0},
        ("knn", "vectors"): {0},
        ("linear", "x"): set(range(9)),
        ("layer_norm", "x"): set(range(9)),
        ("mel_stft", "x"): {0},
        ("mel_stft", "filters"): {0},
        ("reflect_pad", "x"): {0},
    }.get((name, argument), set())
    packs = name.startswith("pack_")
    for axis in range(x.ndim):
        if (
            axis in free
            or (packs and name not in ("pack_bigru", "pack_resblock"))
            or (name == "pack_resblock" and axis == 1)
        ):
            continue
        shape = list(x.shape)
        shape[axis] += 1
        yield f"of shape {shape}", mx.ones(shape, x.dtype)


def bad_numbers(name: str, argument: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Everything that cannot stand in the place of an option."""
    if isinstance(value, str):
        yield from ((repr(v), v) for v in ("", "swish", "nearest "))
        return
    for v in (float("nan"), "text", [1, 2, 3], mx.array(1)):
        yield repr(v), v
    zero_is_fine = {
        "pad",
        "padding",
        "output_padding",
        "left",
        "right",
        "window",
        "scale",
        "eps",
        "leaky",
        "slope",
        "phase",
    }
    if isinstance(value, float):
        yield "inf", float("inf")
        if argument not in ("scale", "phase"):
            yield "-1", -1.0
        if argument in ("leaky", "slope"):
            yield "2", 2.0
        return
    for number in (-1, 2**40, 1.5, *([] if argument in zero_is_fine else [0])):
        yield repr(number), number
        if isinstance(value, tuple):
            yield repr((1, number)), (1, number)
    if isinstance(value, tuple):
        yield "(1, 1, 1)", (1, 1, 1)


def bad_calls(name: str, good: Call) -> Iterator[tuple[str, str, Call]]:
    for argument, value in good.items():
        if isinstance(value, mx.array):
            bad = bad_arrays(name, argument, value)
        elif argument == "blocks":
            conv = value[0][0][0]
            variants = [dataclasses.replace(conv, **v) if dataclasses.is_dataclass(conv) else conv._replace(**v)
                        for v in ({"weight": ones(4, 2, 4)}, {"weight": ones(5, 3, 5)}, {"weight": [1]},
                                  {"weight": conv.weight.astype(mx.int32)}, {"weight": mx.zeros((4, 0, 4))},
                                  {"bias": ones(5)}, {"bias": 1.0}, {"dilation": 0}, {"dilation": 1.5},
                                  {"dilation": 2**40}, {"weight": ops.pack_linear(ones(4, 4))})]  # fmt: skip
            bad = itertools.chain(
                ((f"{variant}"[:60], [[[variant]]]) for variant in variants),
                [("[]", []), ("[[]]", [[]]), ("[[[]]]", [[[]]])],
            )
        else:
            bad = bad_numbers(name, argument, value)
        for what, instead in bad:
            yield argument, what, {**good, argument: instead}


def evaluate(y: Any) -> list[mx.array]:
    parts = [p.data if isinstance(p, ops.PackedWeight) else p for p in (y if isinstance(y, tuple) else (y,))]
    mx.eval(parts)
    return parts


def main() -> int:
    failures: list[str] = []
    count = 0
    calls = good_calls()
    missing = {n for n, f in vars(ops).items() if n in ops.__all__ and inspect.isfunction(f)} - set(calls)
    failures.extend(f"{name} is not tested" for name in missing - {"after", "blocks"})
    for name, (op, good) in calls.items():
        evaluate(op(**good))
        for dtype in (mx.float16, mx.bfloat16):
            half = {
                k: v.astype(dtype) if isinstance(v, mx.array) and v.dtype == mx.float32 else v
                for k, v in good.items()
            }
            if any(not mx.isfinite(part).all() for part in evaluate(op(**half))):
                failures.append(f"{name} in {dtype} gives numbers that are not finite")
        label = {"resblock_stage": "resblock"}.get(name, name.removeprefix("pack_"))
        for argument, what, arguments in bad_calls(name, good):
            count += 1
            try:
                evaluate(op(**arguments))
            except (InputError, TypeError) as e:
                message = str(e)
                told = message.startswith(f"[{label}] ") and ("got" in message or "must" in message)
                if not told:
                    failures.append(
                        f"{name}: {argument} {what}: {type(e).__name__}: {message.splitlines()[0]}"
                    )
            except Exception as e:
                failures.append(f"{name}: {argument} {what}: {type(e).__name__}: {str(e).splitlines()[0]}")
            else:
                failures.append(f"{name}: {argument} {what}: accepted")
    if failures:
        print("\n".join(failures))
        return 1
    print(f"{count} refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
