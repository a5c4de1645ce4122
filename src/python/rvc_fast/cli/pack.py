"""rvc-fast pack: any supported model file -> one safetensors file that loads memory-mapped."""

from __future__ import annotations

import argparse
from typing import Any

from .common import note


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    p = commands.add_parser(
        "pack",
        parents=[common],
        help="turn a voice, HuBERT or RMVPE file into one fast-loading safetensors file",
        description="Turn a voice .pth, a HuBERT/ContentVec checkpoint or folder, or an rmvpe.pt into one "
        "safetensors file: weight norm folded, config in the metadata, loaded memory-mapped.",
    )
    p.add_argument("input", metavar="MODEL", help="voice .pth, G_*.pth, HuBERT .pt or folder, rmvpe.pt")
    p.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ..weights.pack import pack_file

    checkpoint = pack_file(args.input, args.output)
    note(args, f"{checkpoint.kind} {args.input} -> {args.output}")
    return 0
