"""How every file of ours comes to be: whole or not at all, and never in the place of what must not be replaced.

A file is written under a short hidden name beside its target and renamed when everything, closing included, went
well. The hidden name is random, so that threads, processes and containers that share a folder never meet. It is
removed if anything fails and if the process is ended by SIGTERM or SIGHUP. What a killed process has left is removed
by the next one that writes into the folder: whoever uses a hidden file holds a lock on it, and the system takes that
lock away with the process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import InputError
from .notes import note

_HIDDEN = ".rvc_fast-"
_OURS = re.compile(re.escape(_HIDDEN) + r"[0-9a-f]{16}(\.\w{1,16})?")
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def reason(error: BaseException) -> str:
    """Return the system's own words for what went wrong, without the file's name in front."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__


Name = str | os.PathLike[str]
Sources = Iterable[Name] | Mapping[object, Name]
"""Files and folders that a result is made of, or what `identities` gave of them, for many results."""


def identity(path: Name) -> object:
    """Return what is the same for two names of one file, whether it is there already or not."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return os.fspath(path) if "\0" in os.fspath(path) else os.path.realpath(path)
    return found.st_dev, found.st_ino


def identities(sources: Iterable[Name]) -> dict[object, Name]:
    """Return the names of files, and of the files in folders, by their identity."""
    return {identity(file): file for source in sources for file in _files(source)}


def check(path: Name, what: str, sources: Sources = (), result_of: Name | None = None) -> Path:
    """Return the file that a result for `path` takes the place of: `path`, or what a link beside it points to.

    A target may be missing or a plain file that may be written. InputError, which begins with "[`what`]", for a
    folder, a device or a pipe, for a link to another folder, for a name in a folder that does not exist, and for one of
    `sources` or a file of one of them.
    `result_of` is the one that the message names, if it is not the file itself.
    """
    begin = f"[{what}] cannot write {shown(path)}"
    try:
        named = Path(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
        target = Path(os.path.realpath(path))
        if target.parent != named.parent:
            raise InputError(f"{begin}: it is a link to {shown(target)}; name that file, or remove the link")
        try:
            mode = target.stat().st_mode
        except FileNotFoundError:
            if not target.parent.exists():
                raise InputError(
                    f"{begin}: the folder {shown(os.path.dirname(path))} does not exist"
                ) from None
            return target
        if stat.S_ISDIR(mode):
            raise InputError(f"{begin}: it is a folder")
        if not stat.S_ISREG(mode):
            raise InputError(f"{begin}: it is a device or a pipe, which is not replaced by a file")
        read = sources if isinstance(sources, Mapping) else identities(sources)
        source = read.get(identity(target))
        if source is not None:
            result = "its own result"
            if result_of is not None and result_of != source:
                result = f"the result of {shown(result_of)}"
            raise InputError(f"{begin}: {shown(source)} would be overwritten by {result}")
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{begin}: {reason(e)}") from e
    return target


def _files(source: Name) -> Iterable[Name]:
    """Return the file, or the files of the folder."""
    return [file for file in Path(source).iterdir() if file.is_file()] if os.path.isdir(source) else [source]


def shown(path: Name) -> str:
    """Return a path as one printable line."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)


@contextmanager
def replacing(
    path: Name,
    what: str,
    sources: Sources = (),
    suffix: str = "",
) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield a new file, open for writing, and its hidden path; it takes the place of `path` if nothing fails.

    What `path` may be is said at `check`. `suffix` ends the hidden path, for programs that go by it. InputError if
    the system fails.
    """
    target = check(path, what, sources)
    try:
        with _hidden(target.parent, suffix) as (name, handle):
            # Not closed before it is renamed: with it the lock would be gone, and another process might sweep.
            with os.fdopen(handle, "w+b", closefd=False) as file:
                yield file, name
            os.close(
                os.dup(handle)
            )  # asks the file system for the errors that it keeps until a file is closed
            os.replace(name, target)
    except OSError as e:
        raise InputError(f"[{what}] cannot write {shown(path)}: {reason(e)}") from e


def check_folder(path: Name, what: str) -> None:
    """Raise the InputError that `replacing` would raise later, before there is anything to write."""
    target = check(path, what)
    try:
        with _hidden(target.parent):
            pass
    except OSError as e:
        raise InputError(f"[{what}] cannot write {shown(path)}: {reason(e)}") from e


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a new folder of the system's folder for temporary files, which is gone afterwards."""
    with _hidden(Path(tempfile.gettempdir()), make=lambda name: name.mkdir(0o700)) as (folder, _):
        yield folder


@contextmanager
def alone(path: Name, what: str) -> Iterator[None]:
    """Let one thread of one process at a time make the file at `path`; the others wait, and say so."""
    path = Path(os.path.realpath(path))
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    name = path.with_name(f"{_HIDDEN}{digest}.lock")
    try:
        handle = _wait_for(name, path)
    except OSError as e:
        raise InputError(f"[{what}] cannot write {shown(path)}: {reason(e)}") from e
    try:
        with _removed_when_ended(name):
            yield
    finally:
        _remove(name)
        os.close(handle)


def _wait_for(name: Path, path: Path) -> int:
    """Return the locked handle of the file `name`, made if need be, when nobody else has it any more."""
    said = False
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if not _lock(handle):
                if not said:
                    note(f"waiting for another process or thread that makes {shown(path)}")
                said = True
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is(name, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # whoever had it has removed it: a new one counts


def _lock(handle: int) -> bool:
    """Take the lock of an open file; False if somebody else has it. Where a file system has no locks, all get it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno not in _NO_LOCKS:
            raise
    return True


def _is(name: Path, handle: int) -> bool:
    """Whether the open file still has its name."""
    try:
        return os.path.samestat(name.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _make(name: Path) -> None:
    # As `open` does: with the permissions that files usually get here.
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))


@contextmanager
def _hidden(
    folder: Path, suffix: str = "", make: Callable[[Path], None] = _make
) -> Iterator[tuple[Path, int]]:
    """Yield the path of a new hidden file (or folder) and a locked handle of it; it is gone afterwards."""
    _sweep(folder)
    while True:
        name = folder / f"{_HIDDEN}{secrets.token_hex(8)}{suffix}"
        with _removed_when_ended(name):
            try:
                handle = _made_and_locked(name, make)
                if handle is not None:
                    try:
                        yield name, handle
                        return
                    finally:
                        os.close(handle)
            finally:
                _remove(name)


def _made_and_locked(name: Path, make: Callable[[Path], None]) -> int | None:
    """Make a file or folder and return its locked handle; None if it was swept before it was locked."""
    make(name)
    try:
        handle = os.open(name, (os.O_RDWR if make is _make else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _lock(handle) and _is(name, handle):
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _remove(name: Path) -> None:
    try:
        name.unlink()
    except FileNotFoundError:
        pass
    except OSError:
        shutil.rmtree(name, ignore_errors=True)  # a folder


_swept: set[Path] = set()


def _sweep(folder: Path) -> None:
    """Remove what killed processes have left in a folder; once for each folder that this process writes to."""
    if folder in _swept:
        return
    _swept.add(folder)
    try:
        with os.scandir(folder) as entries:
            left = [Path(entry.path) for entry in entries if _OURS.fullmatch(entry.name)]
    except PermissionError:
        return  # a folder may be one to write to and not to read
    for name in left:
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # of another user, or gone
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(name)
        except OSError:
            pass  # in use, or there are no locks here to tell
        finally:
            os.close(handle)


_unfinished: set[Path] = set()


@contextmanager
def _removed_when_ended(name: Path) -> Iterator[None]:
    """Within, SIGTERM and SIGHUP remove a file before they end the process as they always do.

    Python lets only the main thread set what a signal does, and what the program has set for one itself stays.
    """
    mine = []
    if threading.current_thread() is threading.main_thread():
        mine = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
    _unfinished.add(name)
    try:
        for number in mine:
            signal.signal(number, _end)
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
        _unfinished.discard(name)


def _end(number: int, _frame: object) -> None:
    for name in list(_unfinished):
        _remove(name)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
