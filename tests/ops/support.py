"""What the op tests share: the specs of all ops and the routes this machine can take."""

from __future__ import annotations

import importlib
import pkgutil

import mlx.core as mx

import rvc_fast.ops
from rvc_fast import native
from rvc_fast.ops.spec import OpSpec


def all_specs() -> dict[str, OpSpec]:
    """Every `SPEC` of the modules of rvc_fast.ops, by the module's name."""
    names = [m.name for m in pkgutil.iter_modules(rvc_fast.ops.__path__)]
    modules = {name: importlib.import_module(f"rvc_fast.ops.{name}") for name in names}
    return {name: module.SPEC for name, module in modules.items() if hasattr(module, "SPEC")}


SPECS = all_specs()


# Their kernels in float32 are those of avx512.
BFLOAT16_ISAS = ("amx", "avx512_bf16")


def isas() -> list[str]:
    """The instruction sets of this machine that have float32 kernels of their own."""
    ext = native.ext()
    return [] if ext is None else [isa for isa in ext.isas() if isa not in BFLOAT16_ISAS]


def routes() -> list[str]:
    """ "reference", "cpu/ISA" for each of `isas()`, and "metal" or "cuda" where MLX has a GPU."""
    gpus = [name for name, module in (("metal", mx.metal), ("cuda", mx.cuda)) if module.is_available()]
    return ["reference", *(f"cpu/{isa}" for isa in isas()), *gpus]
