"""The command line: one small file per command, nothing heavy imported before a command runs.

The module of a command has its name, HELP, DESCRIPTION, `add_arguments(parser)` and `run(args)`, which returns the exit code.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__, machine, notes
from ..notes import printable
from .common import describe, show_traceback, tell

# Each is a module, imported when it is asked for.
COMMANDS = ("convert", "pack", "info", "models", "verify", "bench", "demo")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others of the command line. Options have no short forms."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is not known here, so that each command says it of its own options."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        command = self.prog.partition(" ")[2]
        begin = f"[{command}] " if command else ""
        sys.exit(_fail(f"{begin}{message} ({self.prog} --help)", 2))


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the whole command line, or of `command` alone: of the others it knows the names."""
    common = _Parser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="no progress and no notes on stderr")
    common.add_argument("--debug", action="store_true", help="show a traceback when something fails")
    top = _Parser(
        prog="rvc-fast",
        description="RVC voice conversion on MLX, at waveform parity with PyTorch.",
        epilog="Exit codes: 0 all done, 1 something failed, 2 a mistake in what was asked or in a file.",
    )
    top.add_argument("--version", action="version", version=f"rvc-fast {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        if command is not None and name != command:
            commands.add_parser(name)
            continue
        module = importlib.import_module(f"{__name__}.{name}")
        added = commands.add_parser(name, parents=[common], help=module.HELP, description=module.DESCRIPTION)
        module.add_arguments(added)
        added.set_defaults(run=module.run)
    return top


def _fail(message: str, code: int) -> int:
    tell(f"rvc-fast: {' '.join(message.split())}")
    return code


def _streams() -> None:
    """Make the standard streams safe to use, however the process was started.

    A file opened later must not get the number of a stream that was closed: messages of libraries would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name or text that the terminal cannot show


def _warning(message: Warning | str, category: type[Warning], *_: object) -> str:
    """What `warnings` prints: one line, without the place in the code, which says nothing to a user."""
    text = str(message).removeprefix("rvc_fast: ")
    return printable(" ".join(f"rvc-fast: warning: {text}".split())) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _streams()
    warnings.formatwarning = _warning  # type: ignore[assignment]
    # On a GPU MLX multiplies float32 in fewer bits by default; it looks when it is imported.
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    argv = sys.argv[1:] if argv is None else argv
    command = next((a for a in argv if not a.startswith("-")), "")
    everything = not command and not {"-h", "--help"}.isdisjoint(argv)
    args = parser(None if everything else command).parse_args(argv)
    said = machine.problem()
    if said:
        return _fail(said, 1)
    notes.quiet = args.quiet
    try:
        code = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except (Exception, KeyboardInterrupt) as e:
        if args.debug:
            show_traceback()
        return _ended_by(e)


def _ended_by(error: BaseException) -> int:
    """Say in one line what ended a command, and return the exit code."""
    from ..errors import InputError

    if isinstance(error, OSError):
        _forget_stdout()
    if isinstance(error, BrokenPipeError):
        return 1
    if isinstance(error, KeyboardInterrupt):
        return _fail("interrupted", 130)
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "mlx":
        return _fail(
            f"MLX cannot be imported ({error}); on Linux it needs a backend: pip install '.[cpu]' in the folder of "
            "rvc_fast, or .[cuda12], .[cuda13] for a GPU",
            1,
        )
    return _fail(describe(error), 2 if isinstance(error, InputError) else 1)


def _forget_stdout() -> None:
    """Drop what cannot be printed any more; the interpreter would complain about it at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
