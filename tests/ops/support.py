"""What the op tests share: the specs of all ops and the routes this machine can take."""

from __future__ import annotations

import mlx.core as mx

from rvc_fast import native
from rvc_fast.ops.op import specs

SPECS = specs()


# Their kernels in float32 are those of avx512, avx2 and neon.
NARROW_ISAS = ("amx", "avx512_bf16", "avx512_vnni", "avx_vnni", "neon_dot")


def isas() -> list[str]:
    """The instruction sets of this machine that have float32 kernels of their own."""
    ext = native.ext()
    return [] if ext is None else [isa for isa in ext.isas() if isa not in NARROW_ISAS]


def routes() -> list[str]:
    """ "reference", "cpu/ISA" for each of `isas()`, and "metal" or "cuda" where MLX has a GPU."""
    gpus = [name for name, module in (("metal", mx.metal), ("cuda", mx.cuda)) if module.is_available()]
    return ["reference", *(f"cpu/{isa}" for isa in isas()), *gpus]
