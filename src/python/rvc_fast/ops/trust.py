"""Whether an op's GPU kernel may be trusted on this machine: the first-use check and what it found.

No kernel of ours has been measured on every chip, driver and version of MLX that it meets. So the first time that
`RVC_FAST_BACKEND=auto` would take a kernel on a GPU, every op is compared with its reference there and timed beside
stock MLX (`bench/first_use.py`), in a process of its own, because a fault of a GPU ends a process. The result is
kept in `gpu.json` in the cache folder for as long as chip, system, MLX and kernels stay the same.

`dispatch.route` asks `verdict`; nothing else does. An explicit backend never asks.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import queue
import re
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from .. import env, notes, writing
from ..errors import InputError, RvcFastError
from ..resources import kernels_dir

# What checks. It gets the GPU's backend, the dtype, and tasks "OP:BACKEND"; it prints a JSON line per task, and {} when
# it begins and whenever it gets on.
COMMAND: tuple[str, ...] = (sys.executable, "-m", "rvc_fast.bench.first_use")
# Seconds until the next line of it has to come, and after how many that did not come the rest is not tried.
LIMIT = 120.0
MOST_HUNG = 3
# Checks of other versions and dtypes that are kept in the file.
MOST_KEPT = 16
# Ops that a conversion calls a few times: there a result may be handed to the CPU and back. Handing over between
# the hundreds of launches of a network would cost more than any kernel gains.
HANDED_OVER = ("bigru", "knn", "mel_stft", "nsf_source")
# Times differ by so much from one run to the next: the kernel of the GPU's own backend needs not be faster.
CLOSE = 1.1

_UNTRIED: dict[str, Any] = {"error": "it was not checked", "seconds": None}

Rows = dict[str, dict[str, dict[str, Any]]]
"""By op and backend: `error` (None for right numbers) and `seconds` of the real shapes."""


class Verdict(NamedTuple):
    """The backend that an op should take, and why."""

    backend: str
    reason: str


@dataclass(frozen=True)
class Check:
    """What one run of the check found. `facts` are what it holds for."""

    date: str
    facts: dict[str, Any]
    rows: Rows

    @property
    def chip(self) -> str:
        """The GPU, as messages name it."""
        cores = self.facts["gpu_cores"]
        return self.facts["chip"] + (f" ({cores} GPU cores)" if cores else "")

    def failed(self) -> list[str]:
        """Return the ops whose kernel for the GPU is not right."""
        backend = self.facts["backend"]
        return [op for op, rows in self.rows.items() if rows.get(backend, _UNTRIED)["error"] is not None]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it, with the GPU's name as messages have it."""
        return {"chip": self.chip, **asdict(self)}


# What is called when what was found is no longer what counts.
_when_changed: list[Callable[[], None]] = []

_lock = threading.RLock()
_checks: dict[str, Check] = {}
_verdicts: dict[tuple[str, str, str], Verdict] = {}


def verdict(op: str, backend: str, dtype: mx.Dtype, *, run: bool = True) -> Verdict:
    """Return what `op` should take where its kernel for `backend`, "metal" or "cuda", would be next.

    The first call of a process reads what was found before on this machine; without that it runs the check, or
    says that none was made if `run` is False. A kernel that is not trusted is told of in one warning.
    """
    name = str(dtype).rpartition(".")[2]
    key = (op, backend, name)
    found = _verdicts.get(key)
    if found is not None:
        return found
    with _lock:
        check = _known(backend, name) or (_first_use(backend, name) if run else None)
        if key in _verdicts:
            return _verdicts[key]
        if check is None:
            return Verdict(backend, "not checked on this machine yet")
        found = _verdicts[key] = decide(check, op, backend)
        if check.rows.get(op, {}).get(backend, _UNTRIED)["error"] is not None:
            warnings.warn(
                f"rvc_fast: {op} on {check.chip}: {found.reason}; its reference runs instead, slower. "
                "`rvc-fast info --check` checks again",
                UserWarning,
                stacklevel=4,
            )
        return found


def decide(check: Check, op: str, backend: str) -> Verdict:
    """Return the fastest of what gives right numbers, or the reference where the GPU's kernel does not."""
    rows = check.rows.get(op, {})
    when = f"checked on {check.date[:10]}"
    error = rows.get(backend, _UNTRIED)["error"]
    if error is not None:
        also = rows.get("reference", _UNTRIED)["error"]
        neither = f"; stock MLX is not right on this GPU either ({also}): use the CPU" if also else ""
        return Verdict("reference", f"the {backend} kernel is not trusted: {error}{neither} ({when})")
    seconds = {name: row["seconds"] for name, row in rows.items() if row["error"] is None and _usable(name)}
    best = min(seconds, key=lambda name: seconds[name])
    if seconds[backend] <= CLOSE * seconds[best]:
        return Verdict(backend, when)
    names = {"reference": "stock MLX", "cpu": "the CPU's kernel"}
    times = f"{seconds[best] * 1e3:.2f} ms, the {backend} kernel {seconds[backend] * 1e3:.2f} ms"
    return Verdict(best, f"{names[best]} is faster here, {times} ({when})")


def _usable(backend: str) -> bool:
    from .. import native

    return backend != "cpu" or native.ext() is not None


def known(backend: str, dtype: str = "float32") -> Check | None:
    """Return what was found on this machine before, or None."""
    with _lock:
        return _known(backend, dtype)


def _known(backend: str, dtype: str) -> Check | None:
    if dtype not in _checks:
        check = _read().get(_key(facts(backend, dtype)))
        if check is not None:
            _checks[dtype] = check
    return _checks.get(dtype)


def when_changed(forget: Callable[[], None]) -> None:
    """Have `forget` called when the verdicts of this process change."""
    _when_changed.append(forget)


def renew(backend: str, dtype: str = "float32") -> Check:
    """Run the check now, whatever was found before, and return what it finds.

    Raises:
        RvcFastError: the check cannot be run.
    """
    with _lock:
        for key in [key for key in _verdicts if key[2] == dtype]:
            del _verdicts[key]
        with _one_process():
            _checks[dtype] = _run_and_keep(backend, dtype)
        for forget in _when_changed:
            forget()
        return _checks[dtype]


def _first_use(backend: str, dtype: str) -> Check | None:
    """Return what the check finds, or what another process found meanwhile; None if it cannot be run."""
    with _one_process():
        check = _read().get(_key(facts(backend, dtype)))  # another process may have made it meanwhile
        if check is None:
            try:
                check = _run_and_keep(backend, dtype)
            except RvcFastError as e:
                # Nothing is trusted then, and nothing kept: the next process tries again.
                warnings.warn(f"rvc_fast: {e}; all ops take stock MLX", UserWarning, stacklevel=5)
                for op, _ in tasks(backend):
                    _verdicts[op, backend, dtype] = Verdict("reference", "the GPU could not be checked")
                return None
        _checks[dtype] = check
        return check


# What a check holds for.


def facts(backend: str, dtype: str) -> dict[str, Any]:
    """Return everything that a kernel's numbers and times depend on, as JSON."""
    return {
        **_machine(),
        "backend": backend,
        "mlx": metadata.version("mlx"),
        "kernels": _texts(),
        "dtype": dtype,
        "tf32": env.tf32(),
    }


def _key(facts: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


@functools.cache
def _machine() -> dict[str, Any]:
    """Return the GPU's name, its cores where the system tells, and the system's build."""
    try:
        info = mx.device_info(mx.gpu)
    except (ValueError, RuntimeError):
        info = {}
    chip = str(info.get("device_name") or info.get("architecture") or "an unknown GPU")
    if sys.platform == "darwin":
        cores = re.search(r'"gpu-core-count" = (\d+)', _ask("ioreg", "-r", "-d", "1", "-k", "gpu-core-count"))
        build = _ask("sysctl", "-n", "kern.osversion").strip()
        return {
            "chip": chip,
            "gpu_cores": int(cores[1]) if cores else None,
            "os": f"{platform.mac_ver()[0]} {build}",
        }
    driver = Path("/proc/driver/nvidia/version")
    version = driver.read_text().splitlines()[0] if driver.is_file() else ""
    return {"chip": chip, "gpu_cores": None, "os": f"{platform.release()} {version}".strip()}


def _ask(*command: str) -> str:
    """Return what a program of the system prints, or nothing if it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    return ""


@functools.cache
def _texts() -> str:
    """Return a digest of the kernels' texts, of the code that launches them and of that which checks them."""
    digest = hashlib.blake2b(digest_size=16)
    ops = Path(__file__).parent
    files = [*kernels_dir().rglob("*"), *ops.glob("*.py"), ops.parent / "bench" / "first_use.py"]
    for file in sorted(file for file in files if file.is_file()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


# The file.


def path() -> Path:
    """Return the file that keeps what was found."""
    return Path(env.cache_dir()) / "gpu.json"


def _read() -> dict[str, Check]:
    """Return all checks of the file; none of one that is missing or damaged, since it can be made anew."""
    try:
        checks = {key: Check(**value) for key, value in json.loads(path().read_text())["checks"].items()}
        for key, check in checks.items():
            _validate(key, check)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return checks


def _validate(key: str, check: Check) -> None:
    """Raise one of `_read`'s exceptions unless a check is of the form that `decide` takes."""
    if not isinstance(check.date, str) or _key(check.facts) != key:
        raise ValueError(key)
    for rows in check.rows.values():
        for row in rows.values():
            error, seconds = row["error"], row["seconds"]
            if not (isinstance(error, str) if error is not None else isinstance(seconds, float)):
                raise ValueError(row)


def _keep(check: Check) -> None:
    """Add a check to the file; one warning if that cannot be done."""
    checks = {**_read(), _key(check.facts): check}
    latest = sorted(checks, key=lambda key: checks[key].date)[-MOST_KEPT:]
    content = {"checks": {key: asdict(checks[key]) for key in latest}}
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        with writing.replacing(path(), "trust") as (file, _):
            file.write(json.dumps(content, indent=1).encode())
    except (OSError, InputError) as e:
        warnings.warn(
            f"rvc_fast: the check of the GPU cannot be kept ({writing.reason(e)}); it holds for this process only",
            UserWarning,
            stacklevel=7,
        )


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """Let one process of a user check at a time; the lock ends with the process that holds it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, InputError):  # `_keep` says what is wrong with the folder
            path().parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(writing.alone(path(), "trust"))
        yield


# The check.


def tasks(backend: str) -> list[tuple[str, str]]:
    """Return (op, backend) of everything to be compared: for each op with a kernel for this GPU, stock MLX on the
    same GPU, the CPU's kernel where that may be taken instead, and the kernel itself."""
    from . import registry

    found = []
    for op in registry.ops():
        if backend in registry.backends(op):
            handed_over = op in HANDED_OVER and "cpu" in registry.backends(op) and _usable("cpu")
            found += [(op, name) for name in ("reference", *(["cpu"] if handed_over else []), backend)]
    return found


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _run_and_keep(backend: str, dtype: str) -> Check:
    holds_for = facts(backend, dtype)
    notes.note(
        f"checking the GPU's kernels on {Check('', holds_for, {}).chip}, once (a minute or two: an estimate, not "
        "measured on Apple hardware)"
    )
    check = Check(_now(), holds_for, _run(backend, dtype))
    _keep(check)
    return check


def _run(backend: str, dtype: str) -> Rows:
    """Compare and time everything, each in a process that is started anew after it was lost."""
    rows: Rows = {}
    left = tasks(backend)
    hung = 0
    while left:
        lost = None
        with _Child(backend, dtype, left) as child:
            while left:
                try:
                    row = child.line()
                except _Lost as e:
                    lost = e
                    break
                if row:
                    op, name = left.pop(0)
                    rows.setdefault(op, {})[name] = row
        if lost is not None:
            hung += lost.hung
            given_up = left[1:] if hung >= MOST_HUNG else []
            op, name = left.pop(0)
            rows.setdefault(op, {})[name] = {"error": str(lost), "seconds": None}
            for op, name in given_up:
                rows.setdefault(op, {})[name] = {
                    "error": f"it was not tried: {hung} before it hung",
                    "seconds": None,
                }
                left.pop(0)
    return rows


class _Lost(Exception):
    """The process that checks ended or hung in the middle of a task."""

    def __init__(self, text: str, hung: bool) -> None:
        super().__init__(text)
        self.hung = hung


class _Child:
    """A process that works through tasks; `line` gives the next result."""

    def __init__(self, backend: str, dtype: str, left: Sequence[tuple[str, str]]) -> None:
        if getattr(sys, "frozen", False):
            # There `sys.executable` is the program itself.
            raise RvcFastError("[trust] the GPU cannot be checked: this program has no Python to do it in")
        environment = {
            **os.environ,
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "RVC_FAST_BACKEND": backend,
        }
        command = [*COMMAND, backend, dtype, *(f"{op}:{name}" for op, name in left)]
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said, env=environment
            )
        except OSError as e:
            self._said.close()
            raise RvcFastError(f"[trust] the GPU cannot be checked: {command[0]}: {e.strerror}") from e
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def __enter__(self) -> _Child:
        try:
            self.line()
        except _Lost as e:
            self.__exit__()
            raise RvcFastError(f"[trust] the GPU cannot be checked: {e}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join(5)
        self._said.close()

    def line(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=LIMIT)
        except queue.Empty:
            raise _Lost(f"it did not finish in {LIMIT:g} s", hung=True) from None
        if line is None:
            code = self._process.wait()
            how = f"signal {-code}" if code < 0 else f"status {code}"
            self._said.seek(0)
            said = [text.strip() for text in self._said if text.strip()]
            raise _Lost(f"its process ended with {how}" + (f": {said[-1][:200]}" if said else ""), hung=False)
        return json.loads(line)
