"""The converter with models whose outputs can be foreseen, and sounds of every kind."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest
import soundfile

import rvc_fast
from fakes import DIM, FakeEmbedder, FakeIndex, FakePitch, FakeVoice, voiced_sound
from rvc_fast import audio
from rvc_fast.audio import read_mono, write_audio
from rvc_fast.converter import ConversionResult, Converter, load
from rvc_fast.errors import InputError, RvcFastError
from rvc_fast.noise import SeededNoise
from rvc_fast.ops import dispatch
from rvc_fast.settings import Chunking

SHORT = Chunking(1, 1, 4, 5)


def converter(says: str = "f0", **options) -> Converter:
    parts = {"voice": FakeVoice(says), "embedder": FakeEmbedder(), "pitch_model": FakePitch(), **options}
    return load(**parts)


def test_a_file_becomes_a_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "in.flac", np.stack([voiced_sound(6, 44100)] * 2, axis=1), 44100)
    seen: list[tuple[str, int, int]] = []
    result = converter().convert(tmp_path / "in.flac", chunk=SHORT, progress=lambda *a: seen.append(a))
    assert result.sample_rate == 32000
    assert result.samples.dtype == np.float32
    assert result.duration == pytest.approx(6, abs=0.04)
    assert result.f0.shape == (600,)
    assert set(result.timings) == {"read", "features", "pitch", "retrieval", "synthesis", "post"}
    assert result.realtime_factor == pytest.approx(sum(result.timings.values()) / result.duration)
    assert seen == [
        *[("features", 1, 2), ("features", 2, 2), ("pitch", 1, 1)],
        *[("synthesis", 1, 2), ("synthesis", 2, 2)],
    ]
    result.save(tmp_path / "out.wav")
    samples, rate = read_mono(tmp_path / "out.wav")
    assert rate == 32000
    np.testing.assert_allclose(samples, result.samples, atol=1 / 32000)


class LoudVoice(FakeVoice):
    """Says a square wave of full scale, whose peaks grow when it is resampled."""

    def infer(self, phone, pitch, f0, speaker, noise, part) -> mx.array:
        samples = np.arange(phone.shape[1] * self.hop).reshape(-1, self.hop)[part].ravel()
        return mx.array(np.sign(np.sin(0.31 * samples + 0.1)).astype(np.float32) * 7)[None]


@pytest.mark.parametrize("rate", [None, 8000, 22050, 44100, 96000])
@pytest.mark.parametrize("options", [{}, {"volume_envelope": 0.0}], ids=["plain", "envelope"])
def test_no_step_after_the_limit_goes_beyond_it(tmp_path: Path, rate: int | None, options: dict) -> None:
    loud = converter(voice=LoudVoice())
    result = loud.convert(voiced_sound(2), sample_rate=16000, output_rate=rate, **options)
    limit = np.nextafter(np.float32(0.99), np.float32(1))
    assert (0 if options else 0.9) < np.abs(result.samples).max() <= limit
    for name in ("x.wav", "x.flac", "x.aiff"):
        result.save(tmp_path / name)
        assert np.abs(read_mono(tmp_path / name)[0]).max() <= 0.99


@pytest.mark.parametrize("call", ["convert", "forget"])
@pytest.mark.parametrize("where", ["progress", "noise"])
def test_a_callback_that_calls_the_converter_gets_an_error(call: str, where: str) -> None:
    sound = voiced_sound(1)
    one = converter()

    class Noise(SeededNoise):
        def normal(self, shape: tuple[int, ...]) -> mx.array:
            again()
            return super().normal(shape)

    def again(*_: object) -> None:
        one.forget() if call == "forget" else one.convert(sound, sample_rate=16000)

    options = {"progress": again} if where == "progress" else {"noise": Noise(0)}
    with pytest.raises(RvcFastError, match="must not call its Converter"):
        one.convert(sound, sample_rate=16000, **options)
    assert one.convert(sound, sample_rate=16000).duration > 0.9  # and it works on


FORK = """
import os, sys
sys.path.insert(0, {tests!r})
import numpy as np
from fakes import FakeEmbedder, FakePitch, FakeVoice
import rvc_fast
from rvc_fast.errors import RvcFastError

def load():
    return rvc_fast.load(FakeVoice(), embedder=FakeEmbedder(), pitch_model=FakePitch())

def convert(one):
    return one.convert(np.ones(8000, np.float32), sample_rate=16000)

before = {before}
pid = os.fork()
if pid == 0:
    try:
        {after}
        os._exit(0)
    except RvcFastError as e:
        print(e, flush=True)
        os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize(
    ("before", "after", "works"),
    [
        ("load()", "convert(before)", False),
        ("load()", "load()", False),
        ("load()", "before.forget()", False),
        ("convert(load())", "convert(load())", False),
        ("load()._lock.acquire()", "load()", False),
        ("None", "convert(load())", True),
    ],
)
def test_after_a_fork_it_works_or_says_why_not(before: str, after: str, works: bool) -> None:
    code = FORK.format(tests=str(Path(__file__).parent), before=before, after=after)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == (0 if works else 7), run.stderr
    assert ("start processes by 'spawn'" in run.stdout) == (not works)
    assert run.stdout.count("\n") == (0 if works else 1)


class SilentEmbedder(FakeEmbedder):
    """Gives one frame for any sound, so that all of the output lies in the padding."""

    def features(self, audio: mx.array, version: str, layer: int | None = None) -> mx.array:
        return super().features(audio, version, layer)[:1]


@pytest.mark.parametrize("rate", [None, 44100])
def test_a_result_without_samples_is_an_error(rate: int | None) -> None:
    with pytest.raises(InputError, match="without samples"):
        converter(embedder=SilentEmbedder()).convert(voiced_sound(1), sample_rate=16000, output_rate=rate)


def test_arrays_of_every_kind_agree() -> None:
    sound = voiced_sound(1.5)
    expected = converter().convert(sound, sample_rate=16000).samples
    for other in (mx.array(sound), sound.astype(np.float64), sound[:, None], np.stack([sound] * 8, axis=1)):
        np.testing.assert_allclose(converter().convert(other, sample_rate=16000).samples, expected, atol=1e-6)
    # Another rate of the same sound gives nearly the same pitch.
    other = converter().convert(voiced_sound(1.5, 192000), sample_rate=192000)
    assert len(other.samples) == len(expected)


def test_loud_sounds_are_scaled_first() -> None:
    sound = voiced_sound(1)
    sound /= np.abs(sound).max()
    one = converter("phone").convert(sound * 0.95, sample_rate=16000, chunk=SHORT).samples
    two = converter("phone").convert(sound * 40, sample_rate=16000, chunk=SHORT).samples
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_output_rate() -> None:
    sound = voiced_sound(2)
    plain = converter().convert(sound, sample_rate=16000)
    up = converter().convert(sound, sample_rate=16000, output_rate=48000)
    assert up.sample_rate == 48000
    assert len(up.samples) == -(-len(plain.samples) * 48000 // 32000)
    assert up.duration == pytest.approx(plain.duration, abs=1e-4)


def test_only_what_changed_is_computed() -> None:
    subject = converter("phone", index=FakeIndex())
    sound = voiced_sound(7)

    def calls(**options) -> tuple[int, int, int]:
        before = subject.embedder.calls, subject.pitch_model.calls, len(subject.voice.calls)
        subject.convert(sound, sample_rate=16000, **{"chunk": SHORT, **options})
        after = subject.embedder.calls, subject.pitch_model.calls, len(subject.voice.calls)
        return tuple(a - b for a, b in zip(after, before, strict=True))

    assert calls() == (2, 1, 2)
    for options in (
        {"transpose": 5.0},
        {"index_rate": 0.1},
        {"exact_search": True},
        {"protect": 0.1},
        {"speaker": 2},
        {"seed": 7},
        {"autotune": 1.0},
        {"proposed_pitch": "male"},
        {"volume_envelope": 0.3},
        {"output_rate": 16000},
        {"f0": np.full(700, 100.0)},
    ):
        assert calls(**options) == (0, 0, 2), options
    subject.index = FakeIndex(3.0)
    assert calls() == (0, 0, 2)
    assert calls(f0_threshold=0.5) == (0, 1, 2)
    assert calls(f0_threshold=0.5) == (0, 0, 2)
    assert calls(chunk=Chunking(1, 1, 3, 4)) == (3, 1, 3)
    assert calls(chunk=Chunking(1, 1, 3, 4), semantics="classic") == (3, 1, 3)
    sound = voiced_sound(7, seed=1)
    assert calls() == (2, 1, 2)
    sound = voiced_sound(7)
    assert calls() == (2, 1, 2)
    subject.forget()
    assert calls() == (2, 1, 2)


def test_what_is_kept_gives_the_same_as_anew() -> None:
    subject, sound = converter("phone", index=FakeIndex()), voiced_sound(6)
    options = {"sample_rate": 16000, "transpose": 3.0, "index_rate": 0.4, "protect": 0.2, "seed": 3}
    subject.convert(sound, sample_rate=16000)
    again = subject.convert(sound, **options)
    anew = converter("phone", index=FakeIndex()).convert(sound, **options)
    np.testing.assert_array_equal(again.samples, anew.samples)
    np.testing.assert_array_equal(again.f0, anew.f0)


def test_results_do_not_share_memory_with_what_is_kept() -> None:
    subject, sound = converter(), voiced_sound(1)
    first = subject.convert(sound, sample_rate=16000)
    kept = first.f0.copy()
    first.f0[:] = 0
    np.testing.assert_array_equal(subject.convert(sound, sample_rate=16000).f0, kept)


def test_a_failure_leaves_nothing_half_done() -> None:
    subject, sound = converter(), voiced_sound(6)

    class Stop(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done == 1:
            raise Stop

    with pytest.raises(Stop):
        subject.convert(sound, sample_rate=16000, chunk=SHORT, progress=stop)
    expected = converter().convert(sound, sample_rate=16000, chunk=SHORT)
    np.testing.assert_array_equal(
        subject.convert(sound, sample_rate=16000, chunk=SHORT).samples, expected.samples
    )


def test_threads_take_turns() -> None:
    subject = converter("noise")
    sounds = [voiced_sound(1 + i / 4, seed=i) for i in range(4)]
    expected = [
        converter("noise").convert(s, sample_rate=16000, seed=i).samples for i, s in enumerate(sounds)
    ]
    got: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        for _ in range(3):
            got[i] = subject.convert(sounds[i], sample_rate=16000, seed=i).samples

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, samples in enumerate(expected):
        np.testing.assert_array_equal(got[i], samples)


def test_the_seed_is_the_noise() -> None:
    sound = voiced_sound(1)
    by_seed = [converter("noise").convert(sound, sample_rate=16000, seed=s).samples for s in (1, 1, 2)]
    np.testing.assert_array_equal(by_seed[0], by_seed[1])
    assert not np.array_equal(by_seed[0], by_seed[2])
    given = converter("noise").convert(sound, sample_rate=16000, noise=SeededNoise(2)).samples
    np.testing.assert_array_equal(given, by_seed[2])
    with pytest.raises(InputError, match=r"methods normal\(shape\).*got ndarray$"):
        converter().convert(sound, sample_rate=16000, noise=np.ones(3))  # type: ignore[arg-type]


def test_a_given_contour_is_used_and_returned() -> None:
    sound = voiced_sound(2)
    f0 = np.linspace(100, 300, 200, dtype=np.float32)
    subject = converter()
    result = subject.convert(sound, sample_rate=16000, f0=mx.array(f0), transpose=12.0)
    assert subject.pitch_model.calls == 0
    np.testing.assert_allclose(result.f0, 2 * f0, rtol=1e-6)
    spoken = np.array(subject.voice.calls[0].f0[0])
    np.testing.assert_allclose(spoken[100:298], 2 * f0[:198], rtol=1e-6)
    np.testing.assert_allclose(spoken[:100], 2 * f0[100:0:-1], rtol=1e-6)
    for length in (199, 203, 0):
        with pytest.raises(InputError, match="one value per 10 ms"):
            subject.convert(sound, sample_rate=16000, f0=np.ones(length))


def test_an_f0_file_replaces_its_span(tmp_path: Path) -> None:
    (tmp_path / "f0.csv").write_text("0.5,440\n1.0,440\n")
    subject = converter()
    result = subject.convert(
        voiced_sound(2), sample_rate=16000, f0=np.full(200, 100.0), f0_file=tmp_path / "f0.csv", transpose=12
    )
    np.testing.assert_allclose(result.f0, [200] * 50 + [440] * 51 + [200] * 99, rtol=1e-6)
    with pytest.raises(InputError, match="cannot read"):
        subject.convert(voiced_sound(1), sample_rate=16000, f0_file=tmp_path / "none.csv")


def test_a_voice_without_pitch() -> None:
    subject = load(FakeVoice("phone", use_f0=False), embedder=FakeEmbedder())
    result = subject.convert(voiced_sound(1), sample_rate=16000)
    assert result.f0 is None
    assert subject.voice.calls[0].pitch is None
    for option in ({"transpose": 2.0}, {"autotune": 0.5}, {"proposed_pitch": "male"}, {"f0": np.ones(100)}):
        with pytest.raises(InputError, match="does not follow the pitch"):
            subject.convert(voiced_sound(1), sample_rate=16000, **option)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_silent_and_constant_sounds(value: float) -> None:
    result = converter("phone").convert(np.full(16000, value, np.float32), sample_rate=16000)
    assert result.duration == pytest.approx(1, abs=0.03)
    assert np.abs(result.samples).max() < 1e-3


@pytest.mark.parametrize("rate", [8000, 16000, 48000, 192000])
def test_one_sample(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.array([0.5]), rate)
    result = converter("noise").convert(tmp_path / "x.wav")
    assert len(result.samples) == (4 if rate == 8000 else 2)
    assert result.f0.shape == (1,)
    result.save(tmp_path / "y.wav")


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.array([0.1, np.nan], np.float32), "NaN or infinite"),
        (np.array([0.1, np.inf], np.float32), "NaN or infinite"),
        (np.zeros(0, np.float32), "not empty"),
        (np.zeros((2, 3, 4), np.float32), "got shape"),
        (np.zeros(100, np.int16), "floats"),
        (np.zeros(100, complex), r"floats .*, got complex128"),
        (mx.zeros(100, mx.int16), r"floats .*, got int16"),
        (mx.zeros(100, mx.complex64), r"floats .*, got complex64"),
        (mx.zeros(100, mx.bool_), r"floats .*, got bool"),
        (np.zeros((1, 16000), np.float32), r"got shape \(1, 16000\): transpose them"),
        (mx.zeros((2, 16000)), r"got shape \(2, 16000\): transpose them"),
        (np.array([0.1, -1e30], np.float32), r"full scale of 1\.0, got 1e\+30"),
        (np.array([0.1, 1e300]), r"full scale of 1\.0, got 1e\+300"),
    ],
)
def test_bad_arrays(sound: np.ndarray | mx.array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        converter().convert(sound, sample_rate=16000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": None}, "sample_rate must be given"),
        ({"sample_rate": 0}, "sample_rate must be"),
        ({"sample_rate": 44100.0}, "sample_rate must be"),
        ({"output_rate": 10}, "output_rate must be"),
        ({"seed": -1}, "seed must be"),
        ({"speaker": 3}, "speaker must be less than 3"),
        ({"transpose": 100}, "transpose must be"),
        ({"f0": [[1.0]]}, "f0 must be"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        converter().convert(voiced_sound(1), **{"sample_rate": 16000, **options})


def test_a_rate_beside_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must not be given with a file"):
        converter().convert(tmp_path / "x.wav", sample_rate=16000)


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=f"features of {DIM} values, the index has 5"):
        converter(index=FakeIndex(dim=5))
    with pytest.raises(InputError, match="the embedder gives 5"):
        converter(embedder=FakeEmbedder(dim=5)).convert(voiced_sound(1), sample_rate=16000)
    with pytest.raises(InputError, match="needs a pitch model"):
        Converter(FakeVoice(), FakeEmbedder())


def test_models_are_looked_for_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = ModuleType("rvc_fast.weights.registry")
    asked: list[str] = []

    def locate(name: str) -> Path:
        asked.append(name)
        return Path("/models", name)

    registry.locate = registry.find = locate
    monkeypatch.setitem(sys.modules, "rvc_fast.weights.registry", registry)
    embedder, model = FakeEmbedder(768), FakePitch()
    monkeypatch.setattr(
        "rvc_fast.features.hubert.load_hubert", lambda path, _: {Path("/models/contentvec"): embedder}[path]
    )
    monkeypatch.setattr(
        "rvc_fast.pitch.rmvpe.load_rmvpe", lambda path, _: {Path("/models/rmvpe"): model}[path]
    )
    subject = load(FakeVoice(dim=768))
    assert (subject.embedder, subject.pitch_model) == (embedder, model)
    load(FakeVoice(use_f0=False, dim=768), embedder=embedder)
    assert asked == ["contentvec", "rmvpe"]


def test_public_names() -> None:
    assert rvc_fast.load is load
    assert rvc_fast.Converter is Converter
    assert rvc_fast.ConversionResult is ConversionResult


def test_a_warm_up_converts_once_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "metal")
    subject = converter()

    def calls() -> tuple[int, int, int]:
        return subject.embedder.calls, subject.pitch_model.calls, len(subject.voice.calls)

    subject.warm()
    assert calls() == (1, 1, 1)
    subject.warm()
    assert calls() == (1, 1, 1)
    subject.convert(np.zeros(4800, np.float32), sample_rate=16000)
    assert calls() == (2, 2, 2)
    converted = converter()
    converted.convert(voiced_sound(1), sample_rate=16000)
    converted.warm()
    assert converted.embedder.calls == 1


def test_a_warm_up_does_nothing_on_a_cpu() -> None:
    subject = converter()
    subject.warm()
    assert subject.embedder.calls == subject.pitch_model.calls == len(subject.voice.calls) == 0


def test_load_warms_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "metal")
    parts = {"embedder": FakeEmbedder(), "pitch_model": FakePitch()}
    for warm in (False, True):
        subject = rvc_fast.load(FakeVoice(), **parts, warm=warm)
        assert len(subject.voice.calls) == warm


def test_a_failed_warm_up_is_raised_and_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "metal")
    subject = converter()
    infer = subject.voice.infer

    def fail(*_: object) -> None:
        raise RuntimeError("the kernel does not compile")

    subject.voice.infer = fail
    with pytest.raises(RuntimeError, match="the kernel does not compile"):
        subject.warm()
    subject.voice.infer = infer
    subject.warm()
    assert len(subject.voice.calls) == 1


def test_a_file_is_read_while_the_converter_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_device_backend", lambda: "metal")
    subject, sound = converter(), voiced_sound(1)
    started, was_read = threading.Event(), threading.Event()
    infer = subject.voice.infer

    def wait(*arguments: object) -> mx.array:
        started.set()
        # Would time out if the file were read only after the warm-up.
        assert was_read.wait(20)
        return infer(*arguments)

    def read(path: str, strict: bool) -> tuple[np.ndarray, int]:
        assert started.wait(20)
        was_read.set()
        return sound, 16000

    subject.voice.infer = wait
    monkeypatch.setattr(audio, "read_mono", read)
    with ThreadPoolExecutor(1) as worker:
        warming = worker.submit(subject.warm)
        result = subject.convert("a.wav")
        warming.result()
    assert len(subject.voice.calls) == 2
    np.testing.assert_array_equal(result.samples, converter().convert(sound, sample_rate=16000).samples)
