"""The command line: one small file per command, nothing heavy imported before a command runs."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__, notes
from . import bench, convert, demo, info, models, pack, verify
from .common import one_line

COMMANDS = (convert, pack, info, models, verify, bench, demo)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="no progress and no notes on stderr")
    common.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    top = argparse.ArgumentParser(
        prog="rvc-fast",
        description="RVC voice conversion on MLX, at waveform parity with PyTorch.",
        epilog="Exit codes: 0 all done, 1 something failed, 2 a mistake in what was asked or in a file.",
    )
    top.add_argument("--version", action="version", version=f"rvc-fast {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands, common)
    return top


def _fail(message: str, code: int) -> int:
    print(f"rvc-fast: {one_line(message)}", file=sys.stderr)
    return code


def _warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning as one line, without the place in the code that it comes from."""
    text = str(message).removeprefix("rvc_fast: ")
    print(f"rvc-fast: warning: {one_line(text)}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    # On a GPU MLX multiplies float32 in fewer bits by default; it looks when it is imported.
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    args = parser().parse_args(argv)
    notes.quiet = args.quiet
    warnings.showwarning = _warn
    if args.debug:
        return args.run(args)
    from ..errors import InputError, RvcFastError

    try:
        return args.run(args)
    except InputError as e:
        return _fail(str(e), 2)
    except RvcFastError as e:
        return _fail(str(e), 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our stdout is gone; keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:
        return _fail(f"internal error: {type(e).__name__}: {e} (run with --debug for the traceback)", 1)
