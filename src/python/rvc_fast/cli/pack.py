"""rvc-fast pack: any supported model file -> one safetensors file of our own."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import note

HELP = "turn a voice, HuBERT or RMVPE file into one fast-loading safetensors file"
DESCRIPTION = (
    "Turn a voice .pth, a HuBERT/ContentVec checkpoint or folder, or an rmvpe.pt into one "
    "safetensors file, config and checksums in the metadata. Numbers stay in the precision that they have, "
    "unless --dtype or -q says otherwise."
)


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("input", metavar="MODEL", help="voice .pth, G_*.pth, HuBERT .pt or folder, rmvpe.pt")
    p.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    p.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        help="round all numbers of the file to it (without it each tensor stays exactly as it is); "
        "--kernels-dtype is what packed weights multiply in",
    )
    p.add_argument(
        "-q",
        "--quantize",
        action="store_true",
        help="quantise linear layers as MLX does; the rest is float16, or --dtype",
    )
    p.add_argument("--q-bits", type=int, choices=(4, 8), help="with -q: bits of a number (8)")
    p.add_argument(
        "--q-group-size", type=int, choices=(32, 64, 128), help="with -q: numbers that share a scale (64)"
    )
    p.add_argument("--q-mode", choices=("affine",), help="with -q: the kind of quantisation (affine)")
    p.add_argument(
        "--kernels",
        action="store_true",
        help="write its packed weights beside it too, for this machine: it then loads many times faster",
    )
    p.add_argument(
        "--kernels-dtype",
        choices=("float32", "bfloat16", "int8", "bfloat16x2"),
        help="with --kernels: pack them for convert --dtype (float32)",
    )
    p.add_argument(
        "--kernels-memory",
        choices=("normal", "low"),
        help="with --kernels: pack them for convert --memory (normal)",
    )
    # An earlier name, known only to say the new one.
    p.add_argument("--memory", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    from ..errors import InputError
    from ..layers import Packing
    from ..ops import precision
    from ..weights.kernels import file_name
    from ..weights.pack import Storage, pack_file
    from ..weights.stored import Quantization

    if args.memory is not None:
        raise InputError(
            "[pack] --memory is --kernels-memory now, and what --dtype was for packed weights is --kernels-dtype"
        )
    packing = None
    if args.kernels:
        chosen = precision.choose("pack", args.kernels_dtype or "float32")
        packing = Packing(args.kernels_memory or "normal", chosen)
    elif args.kernels_dtype or args.kernels_memory:
        raise InputError(
            "[pack] --kernels-dtype and --kernels-memory say how kernels are packed: give --kernels with them"
        )
    quantization = None
    if args.quantize:
        quantization = Quantization(args.q_bits or 8, args.q_group_size or 64)
    elif args.q_bits or args.q_group_size or args.q_mode:
        raise InputError(
            "[pack] --q-bits, --q-group-size and --q-mode say how to quantise: give -q with them"
        )
    checkpoint = pack_file(args.input, args.output, packing, Storage(args.dtype, quantization))
    note(args, f"{checkpoint.kind} {args.input} -> {args.output}")
    if packing is not None:
        note(args, f"packed weights -> {file_name(Path(args.output), packing)}")
    return 0
