"""The first-use check of a GPU: what is asked, kept, trusted and told, with a process of the test's own as the checker.

`tests/metal/test_trust_emulated.py` lets the real checker run kernels that have faults.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from rvc_fast import native, notes
from rvc_fast.cli import main
from rvc_fast.errors import RvcFastError
from rvc_fast.ops import dispatch, registry, trust

# Answers each task from `script.json`: a row, or how to fail. Every start is counted.
CHECKER = """
import json, os, pathlib, signal, sys, time

folder = pathlib.Path(__file__).parent
script = json.loads((folder / "script.json").read_text())
with (folder / "starts").open("a") as file:
    print(*sys.argv[3:], file=file)
time.sleep(script.get("start", 0))
if "refuse" in script:
    sys.exit(script["refuse"])
print("{}", flush=True)
for task in sys.argv[3:]:
    row = script.get(task, {"error": None, "seconds": 1.0})
    print("{}", flush=True)
    if row == "crash":  # not SIGSEGV, which a sanitizer would catch
        os.kill(os.getpid(), signal.SIGKILL)
    if row == "abort":
        print("the driver said no", file=sys.stderr, flush=True)
        os.abort()
    if row == "hang":
        time.sleep(600)
    print(json.dumps(row), flush=True)
"""

OPS = ("first", "second", "third")


def _forget() -> None:
    trust._checks.clear()
    trust._verdicts.clear()


@pytest.fixture
def checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Three ops on a machine with Metal, and a checker that does what the test says: checker(first="crash")."""
    monkeypatch.setattr(registry, "_KERNELS", {})
    monkeypatch.setattr(registry, "_OF_MLX", {})
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "metal")
    for op in OPS:
        registry.register(op, "metal")
    monkeypatch.setenv("RVC_FAST_BACKEND", "auto")
    monkeypatch.setenv("RVC_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trust, "_machine", lambda: {"chip": "Apple M9", "gpu_cores": 12, "os": "26.1 25B12"})
    program = tmp_path / "checker.py"
    program.write_text(CHECKER)
    monkeypatch.setattr(trust, "COMMAND", (sys.executable, str(program)))
    _forget()

    def write(**answers: Any) -> None:
        rows = {f"{op}:metal": answer for op, answer in answers.items() if op in OPS}
        rest = {name.replace("_", ":"): answer for name, answer in answers.items() if name not in OPS}
        (tmp_path / "script.json").write_text(json.dumps({**rows, **rest}))

    write()
    yield write
    _forget()


def _starts(tmp_path: Path) -> list[str]:
    file = tmp_path / "starts"
    return file.read_text().splitlines() if file.exists() else []


def test_a_right_kernel_is_taken_and_checked_once(checker, tmp_path, capsys):
    for op in OPS:
        backend, reason = dispatch.route(op)
        assert backend == "metal"
        assert reason.startswith("our kernel for the default device, checked on 20")
    assert "checking the GPU's kernels on Apple M9 (12 GPU cores), once" in capsys.readouterr().err
    _forget()  # as a new process
    assert dispatch.route("first").backend == "metal"
    assert len(_starts(tmp_path)) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"error": "case 'primes': it is off by 1e-3", "seconds": None}, "case 'primes': it is off by 1e-3"),
        ("crash", "its process ended with signal 9"),
        ("abort", "its process ended with signal 6: the driver said no"),
        ("hang", "it did not finish in 2 s"),
    ],
)
def test_a_bad_kernel_takes_the_reference_with_one_warning(
    checker, tmp_path, monkeypatch, answer, error, capsys
):
    monkeypatch.setattr(trust, "LIMIT", 2.0)
    checker(second=answer)
    with pytest.warns(UserWarning, match="second on Apple M9") as told:
        assert dispatch.route("second").backend == "reference"
    assert len(told) == 1, [str(w.message) for w in told]
    assert error in str(told[0].message)
    expected = "rvc_fast: second on Apple M9 (12 GPU cores): the metal kernel is not trusted: "
    assert str(told[0].message).startswith(expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert error in dispatch.route("second").reason
        # The others were checked, after a new start where the process was lost.
        assert dispatch.route("first").backend == dispatch.route("third").backend == "metal"
    lost = isinstance(answer, str)
    assert len(_starts(tmp_path)) == (2 if lost else 1)
    if lost:
        assert _starts(tmp_path)[1] == "third:reference third:metal"


def test_after_three_that_hang_the_rest_is_not_tried(checker, tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "LIMIT", 1.0)
    checker(first="hang", second_reference="hang", second="hang")
    with pytest.warns(UserWarning, match="third on .*: it was not tried: 3 before it hung"):
        assert dispatch.route("third").backend == "reference"
    assert len(_starts(tmp_path)) == 3


def test_the_fastest_is_kept(checker):
    checker(
        first={"error": None, "seconds": 1.3},
        second={"error": None, "seconds": 1.05},
        third={"error": None, "seconds": 0.5},
    )
    taken = {op: dispatch.route(op) for op in OPS}
    assert {op: r.backend for op, r in taken.items()} == {
        "first": "reference",
        "second": "metal",
        "third": "metal",
    }
    assert taken["first"].reason.startswith(
        "stock MLX is faster here, 1000.00 ms, the metal kernel 1300.00 ms"
    )


def _check(**rows: Any) -> trust.Check:
    facts = {"chip": "Apple M9", "gpu_cores": None, "backend": "metal"}
    return trust.Check("2026-01-02T03:04:05+00:00", facts, {"first": rows})


def test_the_cpu_is_taken_only_where_its_kernels_are(monkeypatch):
    right = {"error": None, "seconds": 2.0}
    check = _check(metal=right, reference=right, cpu={"error": None, "seconds": 0.1})
    monkeypatch.setattr(native, "ext", lambda: object())
    assert trust.decide(check, "first", "metal").backend == "cpu"
    monkeypatch.setattr(native, "ext", lambda: None)
    assert trust.decide(check, "first", "metal").backend == "metal"


def test_what_is_wrong_is_not_taken_for_being_fast():
    wrong = {"error": "it is off", "seconds": None}
    right = {"error": None, "seconds": 2.0}
    assert trust.decide(_check(metal=right, reference=wrong), "first", "metal").backend == "metal"
    both = trust.decide(_check(metal=wrong, reference=wrong), "first", "metal")
    assert both.backend == "reference"
    assert "stock MLX is not right on this GPU either (it is off): use the CPU" in both.reason


def test_an_op_that_the_file_lacks_is_not_trusted():
    assert trust.decide(_check(), "second", "metal").backend == "reference"


@pytest.mark.parametrize(
    ("name", "value"),
    [("chip", "Apple M10"), ("gpu_cores", 10), ("os", "26.2 25C1"), ("mlx", "1.0"), ("kernels", "other")],
)
def test_what_changes_is_checked_anew(checker, tmp_path, monkeypatch, name, value):
    dispatch.route("first")
    facts = trust.facts
    monkeypatch.setattr(trust, "facts", lambda *of: {**facts(*of), name: value})
    _forget()
    dispatch.route("first")
    assert len(_starts(tmp_path)) == 2
    monkeypatch.setattr(trust, "facts", facts)
    _forget()
    dispatch.route("first")  # that is kept beside the other
    assert len(_starts(tmp_path)) == 2


def test_each_dtype_and_tf32_have_checks_of_their_own(checker, tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_ENABLE_TF32", "0")
    dispatch.route("first")
    dispatch.route("first", dtype=mx.float16)
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")
    _forget()
    dispatch.route("first")
    assert len(_starts(tmp_path)) == 3


def test_the_digest_is_of_texts_and_code(tmp_path, monkeypatch):
    texts = trust._texts.__wrapped__
    before = texts()
    (tmp_path / "wavenet_gate").mkdir()
    (tmp_path / "wavenet_gate" / "wavenet_gate.inc").write_text("other")
    monkeypatch.setattr(trust, "kernels_dir", lambda: tmp_path)
    assert texts() != before


def test_an_explicit_backend_never_asks(checker, tmp_path, monkeypatch):
    checker(first="crash")
    for backend in ("metal", "reference"):
        monkeypatch.setenv("RVC_FAST_BACKEND", backend)
        assert dispatch.route("first").backend == backend
    assert _starts(tmp_path) == []


def test_looking_starts_nothing(checker, tmp_path):
    assert dispatch.route("first", first_use=False) == (
        "metal",
        "our kernel for the default device, not checked on this machine yet",
    )
    assert _starts(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", '{"checks": {"a": {}}}', '{"checks": {"a": {"date": 1, "facts": {}, "rows": 3}}}'],
)
def test_a_damaged_file_is_made_anew(checker, tmp_path, content):
    (tmp_path / "cache").mkdir()
    trust.path().write_text(content)
    assert dispatch.route("first").backend == "metal"
    assert len(_starts(tmp_path)) == 1
    assert json.loads(trust.path().read_text())["checks"]


def test_rows_that_were_tampered_with_are_not_read(checker, tmp_path):
    dispatch.route("first")
    content = json.loads(trust.path().read_text())
    (check,) = content["checks"].values()
    check["rows"]["first"]["metal"] = {"error": None, "seconds": "fast"}
    trust.path().write_text(json.dumps(content))
    _forget()
    dispatch.route("first")
    assert len(_starts(tmp_path)) == 2


def test_a_folder_that_cannot_be_written_costs_one_warning(checker, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RVC_FAST_CACHE", str(tmp_path / "file" / "cache"))
    checker(first="crash")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert dispatch.route("first").backend == "reference"
        assert dispatch.route("second").backend == "metal"
    texts = [str(warning.message) for warning in told]
    assert len(texts) == 2
    assert "cannot be kept" in texts[0]
    assert "this process only" in texts[0]
    assert "first on Apple M9 (12 GPU cores): the metal kernel is not trusted" in texts[1]
    assert len(_starts(tmp_path)) == 2


@pytest.mark.parametrize("how", ["refuse", "missing", "frozen"])
def test_a_check_that_cannot_be_run_trusts_nothing(checker, tmp_path, monkeypatch, how):
    checker(refuse="no Python here")
    if how == "missing":
        monkeypatch.setattr(trust, "COMMAND", (str(tmp_path / "no-such-program"),))
    if how == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.warns(UserWarning, match="the GPU cannot be checked") as told:
        assert {dispatch.route(op).backend for op in OPS} == {"reference"}
    assert len(told) == 1, [str(w.message) for w in told]
    assert not trust.path().exists()
    with pytest.raises(RvcFastError, match=r"\[trust\] the GPU cannot be checked"):
        trust.renew("metal")


USER = """
import sys
from rvc_fast.ops import dispatch, registry, trust

for op in list(registry._KERNELS):
    del registry._KERNELS[op]
dispatch._device_backend = lambda: "metal"
trust._machine = lambda: {{"chip": "Apple M9", "gpu_cores": 12, "os": "26.1 25B12"}}
registry.register("first", "metal")
trust.COMMAND = {command!r}
print(dispatch.route("first").backend)
"""


def test_two_processes_at_first_use_check_once(checker, tmp_path):
    checker(start=2.0)
    code = textwrap.dedent(USER).format(command=trust.COMMAND)
    users = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    results = [user.communicate(timeout=120) for user in users]
    assert [out for out, _ in results] == ["metal\n"] * 2, results
    assert len(_starts(tmp_path)) == 1
    said = [err for _, err in results]
    assert sum("checking the GPU's kernels" in err for err in said) == 1


def test_a_process_that_dies_while_checking_blocks_nobody(checker, tmp_path):
    checker(start=60)
    code = textwrap.dedent(USER).format(command=trust.COMMAND)
    user = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    while not _starts(tmp_path):
        time.sleep(0.05)
        assert user.poll() is None
    user.kill()
    user.wait()
    checker()
    assert dispatch.route("first").backend == "metal"


def test_info_shows_and_renews(checker, tmp_path, capsys):
    assert main(["info"]) == 0
    assert "gpu_check: not made yet" in capsys.readouterr().out
    assert _starts(tmp_path) == []
    assert main(["info", "--check"]) == 0
    out = capsys.readouterr().out
    assert "gpu_check: checked on 20" in out
    assert "Apple M9 (12 GPU cores), 26.1 25B12" in out
    checker(second={"error": "case 'batch': it is off by 1e-2", "seconds": None})
    with pytest.warns(UserWarning, match="second"):
        assert main(["info", "--check", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["gpu_check"]["rows"]["second"]["metal"]["error"] == "case 'batch': it is off by 1e-2"
    assert facts["ops"]["second"]["backend"] == "reference"
    assert len(_starts(tmp_path)) == 2


def test_quiet_says_nothing(checker, capsys):
    assert main(["info", "--check", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert notes.quiet
    notes.quiet = False


def test_there_is_nothing_to_check_without_a_gpu(capsys):
    if dispatch.gpu_backend() is not None:
        pytest.skip("there is a GPU here")
    assert main(["info", "--check"]) == 2
    assert "--check needs a GPU" in capsys.readouterr().err
    assert main(["info", "--check", "voice.pth"]) == 2
