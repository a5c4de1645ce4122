"""The real thing on small work: our side, its process, its models and inputs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast import native
from rvc_fast.bench import kernels, limits, models, sides, work
from rvc_fast.bench.session import environment
from rvc_fast.bench.sides import Ours, counted, sample, takes_part
from rvc_fast.bench.work import Task
from rvc_fast.bench.worker import Local, Lost, OutOfTime, Remote, loops
from rvc_fast.features.hubert import HubertConfig
from rvc_fast.ops.op import specs
from rvc_fast.pitch.rmvpe import RmvpeConfig
from rvc_fast.synthesizer import SynthesizerConfig

GATE = Task("kernels", f"wavenet_gate/{kernels.cases(specs()['wavenet_gate'])[0].name}")


def manifest(golden: Path, name: str) -> tuple[dict, dict[str, tuple[int, ...]]]:
    m = json.loads((golden / f"{name}.json").read_text())
    return m["config"], {k: tuple(t["shape"]) for k, t in m["tensors"].items()}


def test_seeded_models_have_the_public_names_and_shapes(golden: Path) -> None:
    config, want = manifest(golden, "hubert_tiny")
    want.pop("masked_spec_embed")
    assert dict(models.hubert_shapes(HubertConfig.from_dict(config))) == want
    config, want = manifest(golden, "rmvpe_tiny")
    assert dict(models.rmvpe_shapes(RmvpeConfig.from_dict(config))) == want
    config, want = manifest(golden, "synth_tiny_32k")
    width = want["enc_p.emb_phone.weight"][1]
    assert (
        dict(models.voice_shapes(SynthesizerConfig.from_dict({**config, "text_enc_hidden_dim": width})))
        == want
    )


def test_inputs_are_the_same_for_everyone_who_asks() -> None:
    for stage in work.STAGES:
        first, second = (list(work.inputs(stage, 0.5)) for _ in range(2))
        assert len(first) == 1
        for a, b in zip(first[0], second[0], strict=True):
            np.testing.assert_array_equal(a, b)
    phone, pitch = next(work.inputs("text_encoder", 0.5))
    z, speaker, f0, noise = next(work.inputs("decoder", 0.5))
    frames = phone.shape[1]
    assert phone.shape == (1, frames, 768)
    assert pitch.shape == f0.shape == (1, frames)
    assert z.shape == (1, 192, frames)
    assert noise.shape == (1, 480 * frames, 1)
    assert speaker.shape == (1,)
    assert 1 <= pitch.min() < pitch.max() <= 255
    assert (f0 == 0).any()
    with pytest.raises(ValueError, match="nonsense"):
        next(work.inputs("nonsense", 0.5))


def test_long_sounds_come_in_chunks() -> None:
    assert len(list(work.inputs("hubert", 60.0))) == 2
    assert len(list(work.inputs("rmvpe", 60.0))) == 1
    for seconds in (1.0, 40.0, 60.0, 130.0):
        computed = sum(len(sound) for (sound,) in work.inputs("hubert", seconds)) / 16000
        assert work.padded_seconds(seconds) == pytest.approx(computed, abs=0.1)


def test_who_takes_part() -> None:
    def who(suite: str, name: str) -> list[str]:
        return [p for p in sides.PEERS if takes_part(p, Task(suite, name))]

    torch = ["torch", "torch-cpu", "torch-compile", "torch-bf16"]
    assert who("kernels", "linear/x") == ["mlx", "cpu"]
    assert who("kernels", "resblock/x") == ["mlx", "cpu", "direct"]
    assert who("stages", "hubert") == [p for p in sides.PEERS if p != "direct"]
    assert who("stages", "decoder") == [p for p in sides.PEERS if not p.endswith("-int8")]
    assert who("stages", "mel") == [*torch, "mlx", "cpu"]
    assert who("convert", "warm") == [
        *torch,
        "onnxruntime",
        "onnxruntime-int8",
        "onnxruntime-coreml",
        "openvino",
        "openvino-bf16",
        "openvino-int8",
        "mlx",
        "cpu",
    ]
    assert who("convert", "cold start") == who("convert", "batch") == []


def test_bars() -> None:
    decoder, warm = Task("stages", "decoder", 1.0), Task("convert", "warm", 1.0)
    assert sides.bar(decoder, "float32", "float32") == 90
    assert sides.bar(decoder, "float32", "bfloat16") == 20
    assert sides.bar(warm, "float32") == 80
    assert sides.bar(warm, "bfloat16") is None
    assert sides.peer_bar(warm, "float32", "float32") == 90
    assert sides.peer_bar(warm, "float32", "bfloat16") is None
    assert sides.peer_bar(GATE, "float32", "float32") == 90


def test_pitch_remembers_and_may_be_told() -> None:
    class Model:
        def salience(self, audio: mx.array, pad: str = "reflect") -> mx.array:
            return 2 * audio

    pitch = sides.Pitch(Model())
    assert np.array_equal(np.array(pitch.salience(mx.array([1.0]))), [2])
    pitch.instead = np.array([7], np.float32)
    assert np.array_equal(np.array(pitch.salience(mx.array([3.0]))), [7])
    assert np.array_equal(pitch.found, [6])


@pytest.mark.parametrize("op", ["linear", "bigru", "relpos_attention"])
def test_work_is_counted_as_the_specs_say_it(op: str) -> None:
    """Through the public function, and of an op that calls another only once."""
    spec = specs()[op]
    case = spec.cases[1]
    kwargs = case.make(np.random.default_rng(0))
    task = Task("kernels", f"{op}/{kernels.cases(spec)[0].name}", batch=2)
    run = Ours()._kernel(task)
    with counted() as done:
        run()
    marked = kernels.cases(spec)[0].make(np.random.default_rng(0))
    assert done.flops == 2 * spec.flops(**marked)
    assert done.bytes == 2 * spec.bytes(**marked)
    with counted() as nothing:
        pass
    assert nothing.flops == 0
    spec.op(**kwargs)
    assert done.flops == 2 * spec.flops(**marked), "counting has ended"


def test_a_kernel_is_gated_checked_and_timed() -> None:
    side = Local("rvc_fast")
    snr, bar = side.gate(GATE)
    assert snr >= bar == 100
    checked = side.check(GATE, True)
    assert len(checked.outputs) == 1
    assert checked.flops > 0
    assert 0 < side.time(3) < 5
    assert side.peak_mb() > 10


def test_a_broken_kernel_turns_the_gate_red(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = specs()["wavenet_gate"]
    broken = type(spec)(**{**vars(spec), "op": lambda **k: spec.op(**k) * 1.001})
    monkeypatch.setattr(sides, "specs", lambda: {"wavenet_gate": broken})
    snr, bar = Ours().gate(GATE)
    assert snr < bar


def test_nonsense_is_a_number_that_json_has() -> None:
    assert kernels.snr_db(float("inf")) == kernels.snr_db(float("nan")) == -999
    assert kernels.snr_db(0.0) == 999
    assert kernels.snr_db(1e-6) == pytest.approx(120)


def test_retrieval_gives_what_was_recorded() -> None:
    task = Task("stages", "retrieval", 1.0)
    snr, bar = Ours().gate(task)
    assert snr >= bar


@pytest.mark.slow
def test_a_full_size_voice_gives_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_CACHE", str(tmp_path))
    ours = Ours()
    for stage in ("text_encoder", "flow", "decoder"):
        snr, bar = ours.gate(Task("stages", stage, 10.0))
        assert snr >= bar
    assert models.present("voice")
    assert not models.present("hubert"), "only what is needed is made"
    for damaged in (b"not a model", models.path("voice").read_bytes()[:1000]):
        models.path("voice").write_bytes(damaged)
        assert not models.present("voice"), "it would be made again"
    (run,) = ours.runs(Task("stages", "flow", 1.0))
    wrong = sample([y * 1.001 for y in ours.outputs(Task("stages", "flow", 1.0), run())])
    assert sides.agreement(wrong, sides.recorded("flow")) < bar


def test_equally_near_vectors_may_be_swapped_and_no_more() -> None:
    rng = np.random.default_rng(0)
    want = [rng.standard_normal((2000, 8)).astype(np.float32), np.ones(5000, np.float32)]
    got = [x + 1e-6 for x in want]
    assert sides.agreement(got, want) > 110
    got[0][7] = want[0][8]
    assert sides.agreement(got, want) < 50
    assert sides.agreement(got, want, 1e-3) > 110
    got[0][900:903] = 0
    assert sides.agreement(got, want, 1e-3) < 50


def test_a_side_in_its_own_process() -> None:
    side = Remote("rvc_fast", "float32", environment("rvc_fast", 1), 100)
    try:
        assert side.facts() == {"dtype": "float32", "backend": sides.backends(), "device": limits.device()}
        got = side.check(GATE, True)
        want = Local("rvc_fast").check(GATE, True)
        assert sides.agreement(got.outputs, want.outputs) > 100
        assert side.time(2) > 0
        with pytest.raises(Lost, match="StopIteration"):
            side.check(Task("kernels", "wavenet_gate/no such case"), True)
        assert side.time(1) >= 0, "an error does not end the process"
        side.limit = 1e-4
        start = time.monotonic()
        with pytest.raises(Lost, match="not finished in 0 s"):
            side.check(GATE, True)
        assert time.monotonic() - start < 10
        side.limit = 100
        assert side.facts()["dtype"] == "float32", "it starts again"
        side._process.kill()
        with pytest.raises(Lost, match="its process ended with status -9"):
            side.facts()
    finally:
        side.stop()


def test_no_call_outlives_the_deadline() -> None:
    side = Remote("rvc_fast", "float32", environment("rvc_fast", 1), 100, deadline=time.monotonic() + 100)
    try:
        side.facts()
        side.deadline = time.monotonic() + 1e-4
        with pytest.raises(OutOfTime, match="not finished when the time was over"):
            side.check(GATE, True)
        with pytest.raises(OutOfTime):
            side.facts()
        assert side._process is None, "no process is started for nothing"
    finally:
        side.stop()


def test_ours_on_the_cpu_beside_ours_on_a_gpu() -> None:
    """Its process moves MLX to the CPU by itself: on a machine with a GPU that is not the default device."""
    side = Remote("cpu", "float32", environment("cpu", 1), 100)
    try:
        if native.ext() is None:
            pytest.skip(native.load()[1])
        assert side.facts() == {"dtype": "float32", "backend": sides.backends(), "device": "cpu"}
        assert side.gate(GATE)[0] > 100
    finally:
        side.stop()


def test_notes_do_not_say_whose_machine_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are sent to others; errors name files, files lie in a home folder."""
    home = str(Path.home())
    side = Remote("rvc_fast", "float32", environment("rvc_fast", 1), 100)
    try:
        with pytest.raises(Lost) as error:
            side.check(Task("stages", f"{home}/stage", 0.1), True)
        assert home not in str(error.value)
        assert "~/stage" in str(error.value)
    finally:
        side.stop()


def test_short_runs_are_repeated() -> None:
    assert loops(1.0) == 1
    assert loops(0.01) == 10
    assert loops(0.0) > 1000
