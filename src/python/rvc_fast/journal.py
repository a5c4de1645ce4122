"""What became of every sound of a batch, on disk: whoever is stopped midway goes on where he was.

A journal is a file of JSON lines, one for each sound: `input`, `output`, `ok`, `error`, `seconds`, `size` of the output
in bytes, and `made_of`, a digest of the sound's bytes, of all settings and of the models' files. A line is added when
its output stands under its name, in one write. What is not a whole line, because the machine or the process ended
there, does not count. When a journal is opened and closed it is written anew, so that it has one line of each sound, the
last one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from . import __version__, writing
from .errors import InputError

_BLOCK = 1 << 20
_BEGIN = b'{"input": '


class Journal:
    """The journal of a folder. One process at a time has it; others wait.

    InputError where it cannot be read or written.
    """

    def __init__(self, path: Path, settings: object, files: Iterable[str]) -> None:
        """Arguments: the journal's file, what the sounds are converted by, and the files that are read for all of them."""
        self._path = path
        self._common = hashlib.blake2b(digest_size=16)
        self._common.update(repr((__version__, settings)).encode())
        for name, stamp in _stamps(files):
            self._common.update(f"\0{name}\0{stamp}".encode(errors="surrogateescape"))
        self._lines: dict[tuple[str, str | None], dict[str, Any]] = {}
        self._digests: dict[str, str | None] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Journal:
        with self._stack:
            self._stack.enter_context(writing.alone(self._path, "convert"))
            self._lines = {(line["input"], line["output"]): line for line in _read(self._path)}
            self._write()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None:
                self._write()

    def _write(self) -> None:
        with writing.replacing(self._path, "convert") as (file, _):
            for line in self._lines.values():
                file.write(_text(line))

    def has(self, source: str, target: str) -> bool:
        """Whether the output was made before, of this very sound in this way, and is still of the size it had."""
        made_of = self._made_of(source)  # before it is converted, for `add` too
        line = self._lines.get((source, target), {})
        try:
            whole = os.stat(target).st_size == line.get("size")
        except OSError:
            return False
        return whole and line.get("ok") is True and line.get("made_of") == made_of is not None

    def add(self, source: str, target: str | None, seconds: float, error: str | None = None) -> None:
        """Write down what became of a sound: its output stands, or there was an error."""
        line: dict[str, Any] = {
            "input": source,
            "output": target,
            "ok": error is None,
            "error": error,
            "seconds": round(seconds, 4),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self._lines[source, target] = line
        try:
            if error is None and target is not None:
                line["size"] = os.stat(target).st_size
                line["made_of"] = self._made_of(source)
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                data = _text(line)
                if os.write(handle, data) != len(data):
                    raise OSError(28, os.strerror(28))
            finally:
                os.close(handle)
        except OSError as e:
            raise InputError(
                f"[convert] cannot write {writing.shown(self._path)}: {writing.reason(e)}"
            ) from e

    def _made_of(self, source: str) -> str | None:
        """Return the digest of a sound and of all that it is converted by; None if it cannot be read."""
        if source not in self._digests:
            digest = self._common.copy()
            try:
                with open(source, "rb") as file:
                    while block := file.read(_BLOCK):
                        digest.update(block)
                self._digests[source] = digest.hexdigest()
            except OSError:
                self._digests[source] = None
        return self._digests[source]


def _stamps(files: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Yield names of files, and of those in folders, with what changes when they do."""
    for name in files:
        found = sorted(Path(name).iterdir()) if os.path.isdir(name) else [Path(name)]
        for file in found:
            with contextlib.suppress(OSError):  # `load` says what is wrong
                stat = file.stat()
                yield os.path.realpath(file), f"{stat.st_size} {stat.st_mtime_ns}"


def _text(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal; none if there is none. InputError for a file that is no journal."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as e:
        raise InputError(f"[convert] cannot read {writing.shown(path)}: {writing.reason(e)}") from e
    lines = []
    for text in data.split(b"\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if (
            isinstance(line, dict)
            and isinstance(line.get("input"), str)
            and isinstance(line.get("output"), str | None)
        ):
            lines.append(line)
    if data and not data.startswith(_BEGIN):
        raise InputError(f"[convert] {writing.shown(path)} is not a journal of --resume: remove or rename it")
    return lines
