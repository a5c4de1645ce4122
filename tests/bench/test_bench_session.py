"""What a run does: gate first, pairs that alternate, nothing lost, everything in its time."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bench_fakes import FACTS, OURS_FACTS, PEAKS, SOUND, Clock, Fake, lost, session

from rvc_fast import native
from rvc_fast.bench import limits, results, sides
from rvc_fast.bench.session import (
    SLOWER_THAN_GPU,
    SUITES,
    Options,
    check_peers,
    default_peers,
    environment,
    tasks_of,
)
from rvc_fast.bench.work import STAGES, Task, padded_seconds
from rvc_fast.bench.worker import Checked, OutOfTime
from rvc_fast.errors import InputError

DECODER = Task("stages", "decoder", 1.0)


def measure(
    peers: dict[str, dict[str, Any]] | None = None,
    tasks: tuple[Task, ...] = (DECODER,),
    ours: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[list[dict[str, Any]], list[str], Any]:
    """Run fakes and return (rows, log, session)."""
    log: list[str] = []
    clock, rows = Clock(), []
    us = Fake("ours", log, clock, **{"facts": OURS_FACTS, **(ours or {})})
    going = session(us, [Fake(n, log, clock, **o) for n, o in (peers or {}).items()], rows.append, **options)
    going.run([tasks])
    return rows, log, going


def test_a_row_is_gated_then_runs_alternate() -> None:
    rows, log, going = measure({"torch": {"seconds": [2.0]}}, repeats=3)
    assert log[:3] == ["ours facts", "ours gate", "ours check"]
    assert log[3:] == ["torch facts", "torch check"] + 3 * ["ours time", "torch time"]
    row = rows[0]
    assert row["p50_ms"] == 1000
    assert row["rtf"] == 1.0
    assert row["snr_db"] == 100
    assert row["peak_mb"] == 123
    assert row["peers"]["torch"]["ratio"] == 2
    assert row["peers"]["torch"]["p50_ms"] == 2000
    assert row["peers"]["torch"]["snr_db"] == results.quantiles([999])[1]
    # 100 GFLOP at 100 GFLOP/s is a second; 1 GB at 10 GB/s a tenth.
    assert (row["of_limit"], row["bound"]) == (1.0, "arithmetic")
    assert going.red == 0
    assert set(results.REQUIRED) <= set(row)
    json.dumps(row, allow_nan=False)


def test_ratios_are_of_pairs() -> None:
    """The clock of the machine drifts: ratios of pairs do not see it, ratios of medians would."""
    peers = {"torch": {"seconds": [9.0, 2.0, 4.0, 8.0]}}
    rows, _, _ = measure(peers, ours={"seconds": [1.0, 1.0, 2.0, 4.0]}, repeats=4)
    peer = rows[0]["peers"]["torch"]
    assert peer["ratio_p20"] == pytest.approx(2.0)
    assert peer["ratio"] == pytest.approx(2.0)


def test_several_peers_have_pairs_of_their_own() -> None:
    peers = {"torch": {"seconds": [2.0]}, "onnxruntime": {"seconds": [3.0]}}
    rows, log, _ = measure(peers, repeats=3)
    assert rows[0]["runs"] == 6
    assert log.count("ours time") == 6
    assert rows[0]["peers"]["onnxruntime"]["ratio"] == 3


def test_a_red_gate_has_no_number() -> None:
    rows, log, going = measure({"torch": {}}, ours={"snr": 79.9})
    assert rows[0]["p50_ms"] is None
    assert "79.9 dB, must be 80 dB" in rows[0]["note"]
    assert "ours time" not in log
    assert "torch check" not in log
    assert going.red == 1
    assert "79.9" in results.text(rows[0])[0]


@pytest.mark.parametrize("snr", [float("nan"), -999.0])
def test_a_gate_of_nonsense_is_red(snr: float) -> None:
    rows, _, going = measure(ours={"snr": snr})
    assert rows[0]["p50_ms"] is None
    assert going.red == 1


def test_a_peer_whose_outputs_differ_has_no_number() -> None:
    rows, log, going = measure({"torch": {"outputs": SOUND + np.float32(1e-3)}, "onnxruntime": {}}, repeats=3)
    assert "ratio" not in rows[0]["peers"]["torch"]
    assert "torch time" not in log
    assert rows[0]["peers"]["onnxruntime"]["ratio"] == 1
    assert rows[0]["p50_ms"] == 1000
    assert going.red == 1


def test_a_peer_that_states_what_it_agrees_to_has_a_number_from_there_on() -> None:
    facts = {"dtype": "float32", "agrees_to": 80.0}
    for error, timed in ((3e-6, True), (1e-3, False)):
        rows, _, _ = measure({"torch": {"outputs": SOUND + np.float32(error), "facts": facts}}, repeats=3)
        assert ("ratio" in rows[0]["peers"]["torch"]) is timed
        assert rows[0]["peers"]["torch"]["bar_db"] == 80.0


def test_a_conversion_is_compared_of_the_same_pitch_and_the_pitch_by_itself() -> None:
    rows: list[dict[str, Any]] = []
    clock, log = Clock(), []
    ours, peer = Fake("ours", log, clock, facts=OURS_FACTS), Fake("torch", log, clock)
    going = session(ours, [peer], rows.append)
    ours.pitch, peer.pitch = SOUND, SOUND + np.float32(1e-7)
    going.run([[Task("convert", "warm", 1.0)]])
    assert peer.given is SOUND
    assert "ratio" in rows[0]["peers"]["torch"]
    assert 90 < rows[0]["peers"]["torch"]["snr_db"] < 150
    peer.pitch = SOUND + np.float32(1e-3)
    going.run([[Task("convert", "warm", 1.0)]])
    assert rows[1]["peers"]["torch"]["note"] == "OUTPUTS DIFFER, not timed: must be 90 dB"


def test_a_peer_must_be_the_public_codes_model() -> None:
    rows, log, going = measure({"torch": {"facts": {"dtype": "float32", "golden_db": 89.9}}})
    assert "89.9 dB of the golden cases" in rows[0]["peers"]["torch"]["note"]
    assert "torch check" not in log
    assert going.red == 1
    rows, _, _ = measure({"torch-bf16": {"facts": {"dtype": "bfloat16", "golden_db": 19.9}}})
    assert rows[0]["peers"]["torch-bf16"]["note"].startswith("WRONG MODEL")
    rows, _, _ = measure({"torch-bf16": {"facts": {"dtype": "bfloat16", "golden_db": 20.0}}})
    assert "golden cases" not in rows[0]["peers"]["torch-bf16"].get("note", "")
    rows, _, _ = measure({"torch": {"facts": {"dtype": "float32", "golden_db": 90.0}}})
    assert rows[0]["peers"]["torch"]["golden_db"] == 90.0
    assert "ratio" in rows[0]["peers"]["torch"]


def test_a_cpu_is_not_compared_with_a_gpu() -> None:
    rows, _, going = measure({"torch": {"facts": {"dtype": "float32", "device": "gpu"}}})
    assert rows[0]["peers"]["torch"]["note"] == "left out: it runs on gpu, ours on cpu"
    assert going.red == 0


@pytest.mark.parametrize(
    "name", ["torch-cpu", "onnxruntime", "onnxruntime-coreml", "openvino", "cpu", "direct"]
)
def test_peers_named_by_their_device_are_compared_with_a_gpu(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "on_gpu", lambda: True)
    facts = {"dtype": "float32", "device": "cpu"}
    rows, _, _ = measure({name: {"facts": facts}}, (DECODER,))
    assert rows[0]["peers"][name]["ratio"] == 1
    assert rows[0]["peers"][name]["device"] == "cpu"


def test_a_row_that_the_end_of_all_time_cuts_off_is_left_out() -> None:
    fails: dict[str, BaseException] = {"time": OutOfTime("not finished when the time was over")}
    rows, _, going = measure(ours={"fails": fails}, minutes=100)
    assert rows == []
    assert going.red == 0
    assert going.left_out().startswith("left out: decoder of 1 s")
    assert going.left_out("{} minutes") == "left out: decoder of 1 s; 1 minutes"


def test_a_row_says_what_share_of_published_peaks_it_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 GFLOP and 1 GB in a second: 100 of an M1's 2617 GFLOP/s. Of an M3 only the bandwidth is known: no share."""
    monkeypatch.setattr(limits, "on_gpu", lambda: True)
    monkeypatch.setitem(FACTS, "chip", "Apple M1")
    monkeypatch.setitem(FACTS, "gpu_cores", 8)
    rows, _, _ = measure()
    assert rows[0]["published"] == pytest.approx(100 / 2617, rel=1e-3)
    assert "4% of published" in results.text(rows[0])[0]
    monkeypatch.setitem(FACTS, "chip", "Apple M3")
    rows, _, _ = measure()
    assert rows[0]["published"] is None
    monkeypatch.setitem(FACTS, "chip", "Apple M9")
    rows, _, _ = measure()
    assert "published" not in rows[0]


def test_bfloat16_is_held_to_its_own_bar() -> None:
    near = SOUND + np.float32(0.01) * np.cos(np.arange(1000, dtype=np.float32) * 7)  # about 37 dB
    rows, _, _ = measure({"torch-bf16": {"outputs": near, "facts": {"dtype": "bfloat16"}}})
    assert rows[0]["peers"]["torch-bf16"]["bar_db"] == 20
    assert "ratio" in rows[0]["peers"]["torch-bf16"]


def test_a_peer_that_is_lost_is_a_note_and_is_not_tried_longer() -> None:
    tasks = (DECODER, Task("stages", "decoder", 10.0), Task("stages", "flow", 10.0))
    fails = {"check": lost("not finished in 120 s")}
    rows, log, going = measure({"torch-compile": {"fails": fails}}, tasks, minutes=100)
    assert rows[0]["peers"]["torch-compile"]["note"] == "not finished in 120 s"
    assert "did not finish" in rows[1]["peers"]["torch-compile"]["note"]
    assert log.count("torch-compile check") == 2  # of the decoder once, of the flow once
    assert [row["p50_ms"] for row in rows] == [1000] * 3
    assert going.red == 0


def test_ours_that_is_lost_is_red() -> None:
    rows, _, going = measure(ours={"fails": {"check": lost("its process ended with status -9")}})
    assert "status -9" in rows[0]["note"]
    assert going.red == 1


def test_an_interrupt_keeps_what_was_measured() -> None:
    log: list[str] = []
    clock, rows = Clock(), []
    ours = Fake("ours", log, clock, facts=OURS_FACTS)

    def emit(row: dict[str, Any]) -> None:
        rows.append(row)
        if len(rows) == 2:
            ours.fails["time"] = KeyboardInterrupt()

    going = session(ours, [], emit, minutes=100)
    with pytest.raises(KeyboardInterrupt):
        going.run([[Task("stages", "mel", s) for s in (1.0, 2.0, 3.0, 4.0)]])
    assert [row["seconds"] for row in rows] == [1, 2]


def test_what_does_not_fit_is_left_out_and_counted() -> None:
    """A minute: the first row says how long the others take."""
    tasks = tuple(Task("stages", "decoder", s) for s in (1.0, 10.0, 600.0))
    rows, _, going = measure({}, tasks, minutes=1.0, repeats=2)
    assert [row["seconds"] for row in rows] == [1, 10]
    assert going.left_out().startswith("left out: decoder of 600 s; --minutes ")
    assert "\n" not in going.left_out()


def test_a_peer_that_does_not_fit_leaves_ours() -> None:
    rows, _, going = measure({"torch": {"seconds": [15.0]}}, (DECODER, DECODER), minutes=1.6, repeats=3)
    assert "ratio" in rows[0]["peers"]["torch"]
    assert "left out" in rows[1]["peers"]["torch"]["note"]
    assert rows[1]["p50_ms"] == 1000
    assert going.left_out().startswith("left out: peers in 1 rows; --minutes 3 ")


def test_peers_leave_time_for_the_rows_of_ours_to_come() -> None:
    tasks = (DECODER, *(Task("stages", "decoder", s) for s in (1.0, 2.0, 3.0)))
    rows, _, _ = measure({"torch": {"seconds": [4.0]}}, tasks, minutes=0.75)
    assert [row["p50_ms"] for row in rows] == [1000] * 4


def test_what_a_first_run_made_is_not_expected_again() -> None:
    class Exporting(Fake):
        def check(self, task: Task, outputs: bool, pitch: np.ndarray | None = None) -> Checked:
            self.clock.now += 29
            return replace(super().check(task, outputs, pitch), seconds=30.0)

    clock, log, rows = Clock(), [], []
    ours = Fake("ours", log, clock, facts=OURS_FACTS)
    going = session(ours, [Exporting("onnxruntime", log, clock)], rows.append, minutes=3)
    going.run([[DECODER, Task("stages", "flow", 1.0)]])
    assert "ratio" in rows[1]["peers"]["onnxruntime"]


def test_nothing_is_left_out_when_there_is_time() -> None:
    _, _, going = measure({"torch": {"seconds": [2.0]}})
    assert going.left_out() == ""


def test_groups_share_the_time_and_what_is_late_gets_the_rest() -> None:
    """The long row does not fit in its group's share; the short ones after it still come, then it does."""
    log: list[str] = []
    clock, rows = Clock(), []
    ours = Fake("ours", log, clock, facts=OURS_FACTS)
    going = session(ours, [], rows.append, minutes=1)
    long = Task("stages", "decoder", 60.0)  # expected to take 20 s and more
    going.run([[DECODER], [long], [Task("stages", "flow", s) for s in (1.0, 2.0)]])
    assert [row["name"] for row in rows] == ["decoder", "flow", "flow", "decoder"]
    assert going.left_out() == ""


def test_fewer_pairs_when_time_runs_out() -> None:
    rows, log, _ = measure({"torch": {"seconds": [10.0]}}, minutes=1.0, repeats=50)
    assert 3 <= log.count("torch time") < 6
    assert rows[0]["peers"]["torch"]["runs"] == log.count("torch time")


def test_long_pairs_are_fewer() -> None:
    for seconds, pairs in ((1.0, 5), (3.0, 3), (25.0, 3)):
        rows, _, _ = measure({"onnxruntime": {"seconds": [seconds]}}, minutes=100)
        assert rows[0]["peers"]["onnxruntime"]["runs"] == pairs
    rows, _, _ = measure(
        {"onnxruntime": {"seconds": [25.0]}}, (Task("stages", "decoder", 60.0),), minutes=100
    )
    assert rows[0]["peers"]["onnxruntime"]["runs"] == 1
    rows, _, _ = measure({"onnxruntime": {"seconds": [25.0]}}, minutes=100, repeats=7)
    assert rows[0]["peers"]["onnxruntime"]["runs"] == 7


def test_a_long_first_run_counts_if_nothing_was_made_in_it() -> None:
    """Of torch the second task's, its weights being there; torch.compile makes something for each shape."""
    tasks = (Task("stages", "decoder", 60.0), Task("stages", "decoder", 61.0))
    for name, runs in (("torch", 1), ("torch-compile", 2)):
        rows, log, _ = measure({name: {"seconds": [25.0]}}, tasks, minutes=100)
        assert log.count(f"{name} time") == runs
        assert [row["peers"][name]["ratio"] for row in rows] == [25, 25]
        assert "(once)" in results.text(rows[1])[1]


def test_a_peer_is_not_begun_that_would_be_given_up() -> None:
    rows, log, _ = measure({"mlx": {}}, (Task("stages", "decoder", 3600.0),), minutes=1000)
    assert rows[0]["peers"]["mlx"]["note"].startswith("left out: a run takes about ")
    assert "mlx check" not in log


def test_long_rows_are_run_once() -> None:
    rows, log, _ = measure({}, (Task("stages", "mel", 60.0),), ours={"seconds": [25.0]})
    assert rows[0]["runs"] == 1
    assert rows[0]["p50_ms"] == 25000
    assert "ours time" not in log


STAGE_NAMES = ("warm", "hubert", "rmvpe", "text_encoder", "flow", "decoder", "retrieval")
# Seconds of work per padded second of sound, as two cores took them.
COSTS = {
    "ours": (0.3, 0.05, 0.035, 0.007, 0.004, 0.16, 0.01),
    "torch": (1.2, 0.07, 0.055, 0.03, 0.006, 1.1, 0.018),
    "onnxruntime": (0.9, 0.08, 0.045, 0.02, 0.005, 0.8, 0.012),
}


class Paced(Fake):
    """A side that takes what `costs` say, times `slowness`; beside the runs `aside`, or 1.5 s: inputs, comparisons, an
    export, the pauses of short runs.
    """

    slowness, costs = 1.0, COSTS
    aside: dict[str, float] = {"onnxruntime": 7}  # noqa: RUF012

    def check(self, task: Task, outputs: bool, pitch: np.ndarray | None = None) -> Checked:
        costs = {"cold start": 0.8, "batch": 0.3} | dict(zip(STAGE_NAMES, self.costs[self.name], strict=True))
        length = 1 if task.seconds is None else padded_seconds(task.seconds)
        self.seconds = [self.slowness * costs.get(task.name, 0.01) * length * task.batch]
        self.clock.now += self.slowness * self.aside.get(self.name, 1.5)
        return super().check(task, outputs, pitch)


QUICK = {
    "suites": ("stages", "convert"),
    "seconds": (10.0,),
    "fewest": 1,
    "batch": 1,
    "minutes": 3.0,
    "limit": 45.0,
}


def paced(peers: tuple[str, ...], **options: Any) -> tuple[dict[tuple[str, float | None], Any], float]:
    """Return the rows of a run of paced sides by name and seconds, and how long it took."""
    clock, rows, log = Clock(), [], []
    going = session(Paced("ours", log, clock, facts=OURS_FACTS), [Paced(n, log, clock) for n in peers],
                    rows.append, **options)  # fmt: skip
    going.run(tasks_of(going.options))
    return {(row["name"], row["seconds"]): row for row in rows}, clock.now


def test_quick_on_two_cores_has_whole_conversions_beside_a_peer() -> None:
    found, seconds = paced(("torch", "onnxruntime"), **QUICK)
    assert seconds <= 3 * 60
    assert "ratio" in found["warm", 10]["peers"]["torch"]
    assert {("cold start", 1), *((name, 10) for name in STAGE_NAMES)} <= set(found)


def test_quick_on_a_gpu_has_stock_mlx_pytorch_and_the_cpu_beside_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is ten times those two cores; Core ML takes half a minute to compile. No chip's times."""
    slower = {"ours": 1, "mlx": 2, "torch": 3, "cpu": 8, "onnxruntime-coreml": 5, "torch-cpu": 30}
    costs = {name: tuple(0.1 * times * c for c in COSTS["ours"]) for name, times in slower.items()}
    monkeypatch.setattr(Paced, "costs", costs)
    monkeypatch.setattr(Paced, "aside", {"onnxruntime-coreml": 30.0})
    monkeypatch.setattr(limits, "on_gpu", lambda: True)
    monkeypatch.setitem(PEAKS, "fma_gflops", 1500.0)
    found, seconds = paced(tuple(slower)[1:], **QUICK)
    assert seconds <= 3 * 60
    for name in ("mlx", "torch", "cpu"):
        assert "ratio" in found["warm", 10]["peers"][name], name
        assert "ratio" in found["decoder", 10]["peers"][name], name
    assert {("cold start", 1), *((name, 10) for name in STAGE_NAMES)} <= set(found)


@pytest.mark.parametrize("slowness", [1.0, 1.7])
def test_a_default_run_of_two_cores_ends_in_15_minutes(
    slowness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a worse day `slowness` times as slow."""
    monkeypatch.setattr(Paced, "slowness", slowness)
    names = STAGE_NAMES
    clock, rows, log = Clock(), [], []
    ours = Paced("ours", log, clock, facts=OURS_FACTS)
    peers = [Paced(name, log, clock) for name in ("torch", "onnxruntime")]
    groups = tasks_of(Options())
    going = session(ours, peers, rows.append)
    going.run(groups)
    assert clock.now <= 15 * 60
    found = {(row["name"], row["seconds"]): row for row in rows}
    count = sum(t.suite == "kernels" for t in itertools.chain(*groups))
    assert sum(row["suite"] == "kernels" for row in rows) > (count - 1 if slowness == 1 else count / 2)
    for name in (*names, "mel"):
        assert {(name, 1), (name, 10), (name, 60)} <= set(found)
        if name in ("warm", "decoder") or slowness == 1:
            assert "ratio" in found[name, 10]["peers"]["torch"]
        assert name in ("hubert", "warm", "decoder") or (name, 600) in found
    assert {"cold start", "batch"} <= {row["name"] for row in rows}


def test_a_row_says_what_others_used_meanwhile() -> None:
    rows: list[dict[str, Any]] = []
    ours = Fake("ours", [], Clock(), facts=OURS_FACTS)
    used = iter((100.0, 103.0, 103.0, None))
    going = session(ours, [], rows.append)
    going.others = lambda: next(used)
    going.run([[DECODER, DECODER]])
    assert [row["others"] for row in rows] == [0.25, None]  # 3 of 6 s of 2 cores
    assert results.disturbance(rows) == 0.25


def test_progress_says_what_and_how_long() -> None:
    said: list[str] = []
    log: list[str] = []
    going = session(Fake("ours", log, Clock(), facts=OURS_FACTS), [], lambda _: None)
    going.progress = said.append
    going.run([[DECODER, DECODER]])
    assert said[0].startswith("[1/2, 0:00, about ")
    assert said[0].endswith(" left] decoder, its source included, 1 s: correctness")
    assert said[-1].startswith("[2/2, 0:11, about 0:0")
    assert said[-1].endswith("1 s: run 5 of 5")


def test_the_tasks_are_everything() -> None:
    groups = tasks_of(Options(stages=tuple(STAGES)))
    tasks = list(itertools.chain(*groups))
    assert {t.suite for t in tasks} == set(SUITES)
    assert {t.name for t in tasks if t.suite == "stages"} == set(STAGES)
    assert {t.seconds for t in tasks if t.name == "decoder"} == {1, 10, 60, 600}
    assert {t.seconds for t in tasks if t.name == "resblocks"} == {1, 10}
    assert [t.seconds for t in tasks if t.name == "warm"] == [10, 1, 60, 600]
    assert [t.batch for t in tasks if t.name == "batch"] == [4]
    assert all(t.batch == 1 for t in tasks if t.suite == "kernels")
    assert [group[0].suite for group in groups] == ["convert", "convert", "kernels", "convert", "convert"]
    assert [group[0].seconds for group in groups] == [10, 1, None, 60, 600]
    assert "resblocks" not in {t.name for t in itertools.chain(*tasks_of(Options()))}


def test_kernels_alone_come_in_batches_too() -> None:
    (tasks,) = tasks_of(Options(suites=("kernels",), ops=("wavenet_gate",), batch=3))
    assert {t.batch for t in tasks} == {1, 3}
    assert {t.name.partition("/")[0] for t in tasks} == {"wavenet_gate"}
    assert len({t.name for t in tasks_of(Options(suites=("kernels",), ops=("resblock",)))[0]}) == 5


def test_what_cannot_be_measured_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"op must be one of attention, .*, got 'conv3d'"):
        tasks_of(Options(suites=("kernels",), ops=("conv3d",)))
    with pytest.raises(InputError, match="layer_norm has no float16 on the backend"):
        tasks_of(Options(suites=("kernels",), ops=("layer_norm",), dtype="float16"))
    with pytest.raises(InputError, match="only a GPU computes in float16"):
        tasks_of(Options(suites=("stages",), dtype="float16"))
    monkeypatch.setenv("RVC_FAST_BACKEND", "cuda")
    with pytest.raises(InputError, match="backend 'cuda' was asked for"):
        tasks_of(Options(suites=("stages",)))
    with pytest.raises(InputError, match="backend 'cuda' was asked for"):
        tasks_of(Options(suites=("kernels",), ops=("linear",)))


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"torch needs torch, not installed: pip install 'rvc-fast\[bench\]'"
    ):
        check_peers(["torch"])
    with pytest.raises(InputError, match="onnxruntime needs torch, onnx, onnxruntime"):
        check_peers(["onnxruntime"])
    check_peers(["mlx"])
    assert default_peers() == ()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    check_peers(["torch", "onnxruntime"])
    assert default_peers() == ("torch", "onnxruntime", "openvino")
    with pytest.raises(InputError, match=r"against must be of torch, .*, got 'jax'"):
        check_peers(["jax"])


def test_default_peers_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Mac all of them, elsewhere without Core ML, and only what is installed."""
    monkeypatch.setattr(limits, "on_gpu", lambda: True)
    monkeypatch.setattr(native, "ext", lambda: object())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_peers() == ("mlx", "torch", "cpu", "onnxruntime-coreml", "torch-cpu")
    check_peers([*default_peers(), "onnxruntime", "direct"])
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_peers() == ("mlx", "torch", "cpu", "torch-cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(native, "ext", lambda: None)
    assert default_peers() == ("mlx",)


def test_peers_that_a_machine_cannot_have_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(limits, "on_gpu", lambda: False)
    for name, said in (("onnxruntime-coreml", "which only macOS has"), ("torch-cpu", "here torch runs on the CPU"),
                       ("cpu", "here ours runs on the CPU")):  # fmt: skip
        with pytest.raises(InputError, match=f"{name} .*{said}"):
            check_peers([name])
    monkeypatch.setattr(native, "ext", lambda: None)
    monkeypatch.setattr(native, "load", lambda: (None, "there are none"))
    with pytest.raises(InputError, match="direct needs the compiled kernels: there are none"):
        check_peers(["direct"])


def test_what_gpu_rows_are_expected_to_take_is_guessed_for_every_peer() -> None:
    assert set(SLOWER_THAN_GPU) == set(sides.PEERS)


def test_every_side_has_the_same_threads() -> None:
    for name in ("rvc_fast", "torch", "onnxruntime", "mlx"):
        given = environment(name, 3)
        assert {given[k] for k in given if k.endswith("THREADS")} == {"3"}
        assert given["OMP_NUM_THREADS"] == "3"
    assert environment("mlx", 3)["RVC_FAST_BACKEND"] == "reference"
    assert environment("cpu", 3)["RVC_FAST_BACKEND"] == environment("direct", 3)["RVC_FAST_BACKEND"] == "cpu"
