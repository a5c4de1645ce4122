"""rvc-fast info: what a model file holds; without a file, what this installation runs on."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .common import print_json, table

if TYPE_CHECKING:
    from ..weights.checkpoint import Checkpoint


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    p = commands.add_parser(
        "info",
        parents=[common],
        help="what a model or index file holds, or how each op runs here and why",
        description="Without FILE: versions, devices, settings, and the route each op takes here. With FILE: its "
        "kind, config and tensors.",
    )
    p.add_argument("file", nargs="?", metavar="FILE", help="voice, HuBERT, RMVPE, packed model or .index")
    p.add_argument("--json", action="store_true", help="print JSON on stdout")
    p.set_defaults(run=run)


def _installation() -> dict[str, Any]:
    import mlx.core as mx

    from .. import __version__, env, native, ops
    from ..ops import dispatch

    assert ops  # importing the ops registers their kernels
    return {
        "rvc_fast": __version__,
        "mlx": metadata.version("mlx"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(mx.default_device()),
        "metal": mx.metal.is_available(),
        "cuda": mx.cuda.is_available(),
        "cpu_kernels": native.load()[1],
        "settings": {
            v.name: {"value": os.environ.get(v.name), "default": v.default, "help": v.help}
            for v in env.VARIABLES
        },
        "ops": {name: dispatch.route(name)._asdict() for name in dispatch.ops()},
    }


def _file(path: str) -> dict[str, Any]:
    if path.endswith(".index"):
        from ..retrieval import load_index

        index = load_index(path)
        return {"kind": "index", "type": index.kind, "vectors": index.count, "dimension": index.dim}
    from ..weights.checkpoint import load_checkpoint

    c = load_checkpoint(path)
    return {
        "kind": c.kind,
        "packed": c.packed,
        "kernels": _kernels(c) if c.packed else {},
        "tensors": len(c.tensors),
        "parameters": sum(t.size for t in c.tensors.values()),
        "dtypes": sorted({str(t.dtype) for t in c.tensors.values()}),
        "config": c.config,
        "metadata": c.metadata,
    }


def _kernels(checkpoint: Checkpoint) -> dict[str, str]:
    """Say of each file of packed weights beside a model whether it is used here, and why not."""
    from ..errors import InputError
    from ..layers import Packing
    from ..weights import kernels
    from ..weights.checkpoint import load_checkpoint
    from ..weights.models import MODELS

    said = {}
    for dtype, memory in kernels.CHOICES:
        file = kernels.file_name(checkpoint.path, dtype, memory)
        if file.exists():
            try:
                kernels.require("kernels")
                packing = Packing(memory, dtype)
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
            print(f"{indent}{key}:")
            _show(v, indent + "  ")
        else:
            print(f"{indent}{key}: {v}")


def run(args: argparse.Namespace) -> int:
    facts = _file(args.file) if args.file else _installation()
    if args.json:
        print_json(facts)
        return 0
    routes = facts.pop("ops", None)
    settings = facts.pop("settings", None)
    _show(facts)
    if settings:
        rows = [(name, s["value"] or "-", s["default"], s["help"]) for name, s in settings.items()]
        print("\n" + table(("setting", "value", "default", "what it does"), rows))
    if routes:
        taken = [(name, r["backend"], r["reason"]) for name, r in routes.items()]
        print("\n" + table(("op", "route", "why"), taken))
    return 0
