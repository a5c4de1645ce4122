"""rvc-fast info: what a model file holds; without a file, what this installation runs on."""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
from typing import TYPE_CHECKING, Any

from .common import plain, print_json, show, table

if TYPE_CHECKING:
    from ..weights.checkpoint import Checkpoint
    from ..weights.stored import Stored


HELP = "what a model or index file holds, or how each op runs here and why"
DESCRIPTION = (
    "Without FILE: versions, devices, settings, the route each op takes here, and what the first-use "
    "check of the GPU found. With FILE: its kind, config and tensors."
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("file", nargs="?", metavar="FILE", help="voice, HuBERT, RMVPE, packed model or .index")
    p.add_argument("--json", action="store_true", help="print JSON on stdout")
    p.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "int8", "bfloat16x2"),
        help="with FILE: tell of each layer in what it multiplies with convert --dtype (float32)",
    )
    p.add_argument(
        "--check",
        action="store_true",
        help="compare every GPU kernel with its reference now and time it; exit code 1 if one is not right",
    )


def _installation() -> dict[str, Any]:
    from importlib import metadata

    import mlx.core as mx

    from .. import __version__, env, native, ops
    from ..ops import dispatch, precision, registry, trust

    assert ops  # importing the ops registers their kernels
    backend = dispatch.gpu_backend()
    check = None if backend is None else trust.known(backend)
    routed = registry.ops() if dispatch.backend_missing() is None else ()
    return {
        "rvc_fast": __version__,
        "mlx": metadata.version("mlx"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(mx.default_device()),
        "metal": mx.metal.is_available(),
        "cuda": mx.cuda.is_available(),
        "cpu_kernels": native.load()[1],
        **({} if backend is None else {"gpu_check": None if check is None else check.as_dict()}),
        "settings": {
            v.name: {"value": os.environ.get(v.name), "default": v.default, "help": v.help}
            for v in env.VARIABLES
        },
        "dtypes": {dtype: precision.usable(dtype) for dtype in precision.DTYPES},
        "ops": {name: dispatch.route(name, first_use=False)._asdict() for name in routed},
    }


def _file(path: str, dtype: str | None = None) -> dict[str, Any]:
    if path.endswith(".index"):
        from ..errors import InputError
        from ..retrieval import load_index

        if dtype:
            raise InputError("[info] --dtype is of models: an index has none")

        index = load_index(path)
        return {"kind": "index", "type": index.kind, "vectors": index.count, "dimension": index.dim}
    from ..weights.checkpoint import load_checkpoint

    c = load_checkpoint(path)
    tensors = _stored(c)
    return {
        "kind": c.kind,
        "packed": c.packed,
        "kernels": _kernels(c) if c.packed else {},
        "tensors": len(c.tensors),
        "parameters": sum(math.prod(t.shape) for t in tensors.values()),
        "stored_as": sorted({str(t) for t in tensors.values()}),
        "config": c.config,
        "metadata": c.metadata,
        "layers": _layers(c, tensors, dtype or "float32"),
    }


def _stored(checkpoint: Checkpoint) -> dict[str, Stored]:
    from ..weights.models import MODELS
    from ..weights.stored import stored

    cls = MODELS[checkpoint.kind]
    tensors = checkpoint.tensors if checkpoint.packed else cls.sanitize(checkpoint.tensors)
    return stored(checkpoint.kind, tensors, checkpoint.config)


def _layers(checkpoint: Checkpoint, tensors: dict[str, Stored], dtype: str) -> dict[str, dict[str, str]]:
    """Tell of each layer what its weight is stored as, what it multiplies in, and why."""
    from ..layers import Packing, multiplied_in
    from ..ops import precision
    from ..weights.models import MODELS

    packing = Packing(precision=precision.choose("info", dtype))
    model = MODELS[checkpoint.kind].from_checkpoint(checkpoint, packing)
    return {
        path: {"stored_as": str(tensors[f"{path}.weight"]), "multiplied_in": taken, "why": why}
        for path, (taken, why) in multiplied_in(model, packing).items()
    }


def _kernels(checkpoint: Checkpoint) -> dict[str, str]:
    """Say of each file of packed weights beside a model whether it is used here, and why not."""
    from ..errors import InputError
    from ..ops import precision
    from ..weights import kernels
    from ..weights.checkpoint import load_checkpoint
    from ..weights.models import MODELS

    said = {}
    for packing in kernels.CHOICES:
        file = kernels.file_name(checkpoint.path, packing)
        if file.exists():
            try:
                kernels.require("kernels")
                precision.check("load", packing.precision.weights)
                MODELS[checkpoint.kind].from_checkpoint(
                    load_checkpoint(checkpoint.path, packing=packing), packing
                )
                said[file.name] = "used"
            except (kernels.Unfit, InputError) as e:
                said[file.name] = f"not used: {e}"
    return said


def _show(value: dict[str, Any], indent: str = "") -> None:
    for key, v in value.items():
        if isinstance(v, dict):
            show(f"{indent}{_line(key)}:")
            _show(v, indent + "  ")
        else:
            show(f"{indent}{_line(key)}: {_line(v)}")


def _line(value: object) -> str:
    """Return a value as one line, so that no part of it looks like another fact."""
    return str(value).replace("\n", "\\n")


def _check() -> int:
    """Check the GPU anew; return how many of its kernels are not right."""
    from ..errors import InputError
    from ..ops import dispatch, trust

    backend = dispatch.gpu_backend()
    if backend is None:
        raise InputError("[info] --check needs a GPU: MLX's default device is the CPU here")
    return len(trust.renew(backend).failed())


def _show_check(check: dict[str, Any] | None) -> None:
    """Print what was found of each op: errors, and milliseconds of its real shapes."""
    if check is None:
        print("gpu_check: not made yet; the first use of the GPU makes it, or rvc-fast info --check")
        return
    print(f"gpu_check: checked on {check['date']}: {check['chip']}, {check['facts']['os']}")
    backend = check["facts"]["backend"]
    rows = []
    for op, found in check["rows"].items():
        ms = [
            "-" if found.get(name, {}).get("seconds") is None else f"{found[name]['seconds'] * 1e3:.2f}"
            for name in (backend, "reference", "cpu")
        ]
        rows.append((op, *ms, found.get(backend, {}).get("error") or "right"))
    show("\n" + table(("op", f"{backend}, ms", "stock MLX, ms", "CPU, ms", "result"), rows))


def _show_layers(layers: dict[str, dict[str, str]]) -> None:
    """Print how layers are stored and multiply, those that differ only in their numbers on one line."""
    alike: dict[tuple[str, ...], int] = {}
    for path, facts in layers.items():
        key = re.sub(r"\b\d+\b", "*", path), *facts.values()
        alike[key] = alike.get(key, 0) + 1
    rows = [(name, str(count), *facts) for (name, *facts), count in alike.items()]
    show("\n" + table(("layer", "how many", "stored as", "multiplied in", "why"), rows))


def _print(facts: dict[str, Any]) -> None:
    """Print facts as text: tables of the GPU's check, the settings, the routes and the layers come last."""
    checked = "gpu_check" in facts
    check = facts.pop("gpu_check", None)
    routes = facts.pop("ops", None)
    settings = facts.pop("settings", None)
    layers = facts.pop("layers", None)
    if layers and isinstance(quantization := facts["config"].get("quantization"), dict):
        # How single layers differ stands in the table of the layers.
        general = {key: value for key, value in quantization.items() if not isinstance(value, dict)}
        facts["config"] = facts["config"] | {"quantization": general}
    _show(plain(facts))
    if checked:
        _show_check(check)
    if settings:
        rows = [(name, s["value"] or "-", s["default"], s["help"]) for name, s in settings.items()]
        show("\n" + table(("setting", "value", "default", "what it does"), rows))
    if routes:
        taken = [(name, r["backend"], r["reason"]) for name, r in routes.items()]
        show("\n" + table(("op", "route", "why"), taken))
    if layers:
        _show_layers(layers)


def run(args: argparse.Namespace) -> int:
    from .. import device
    from ..errors import InputError
    from ..ops import dispatch

    device.use_for_process()
    if args.check and args.file:
        raise InputError("[info] --check is of this machine: give it no FILE")
    if args.dtype and not args.file:
        raise InputError("[info] --dtype is of a model: give FILE with it")
    code = 1 if args.check and _check() else 0
    facts = _file(args.file, args.dtype) if args.file else _installation()
    if args.json:
        print_json(facts)
    else:
        _print(facts)
    if not args.file:
        dispatch.check_backend("info")  # without it there are no routes to print
    return code
