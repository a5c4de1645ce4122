"""rvc-fast pack: any supported model file -> one safetensors file of our own."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import note

HELP = "turn a voice, HuBERT or RMVPE file into one fast-loading safetensors file"
DESCRIPTION = (
    "Turn a voice .pth, a HuBERT/ContentVec checkpoint or folder, or an rmvpe.pt into one "
    "safetensors file: weight norm folded, config and checksums in the metadata."
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("input", metavar="MODEL", help="voice .pth, G_*.pth, HuBERT .pt or folder, rmvpe.pt")
    p.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    p.add_argument(
        "--kernels",
        action="store_true",
        help="write its packed weights beside it too, for this machine: it then loads many times faster",
    )
    p.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="with --kernels: of convert --dtype (float32)"
    )
    p.add_argument("--memory", choices=("normal", "low"), help="with --kernels: of convert --memory (normal)")


def run(args: argparse.Namespace) -> int:
    from ..errors import InputError
    from ..layers import Packing
    from ..ops import precision
    from ..weights.kernels import file_name
    from ..weights.pack import pack_file

    packing = None
    if args.kernels:
        packing = Packing(args.memory or "normal", precision.choose("pack", args.dtype or "float32"))
    elif args.dtype or args.memory:
        raise InputError("[pack] --dtype and --memory say how kernels are packed: give --kernels with them")
    checkpoint = pack_file(args.input, args.output, packing)
    note(args, f"{checkpoint.kind} {args.input} -> {args.output}")
    if packing is not None:
        note(args, f"packed weights -> {file_name(Path(args.output), packing)}")
    return 0
