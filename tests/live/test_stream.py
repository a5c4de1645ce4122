"""A live conversion: what comes back, when, and that it does not depend on how it was pushed."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, get_type_hints

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from mlx.utils import tree_flatten

import rvc_fast
from fakes import FakeEmbedder, FakeIndex, FakePitch, FakeVoice, voiced_sound
from rvc_fast import Converter
from rvc_fast.errors import InputError
from rvc_fast.live import Stream
from rvc_fast.live.noise import FrameNoise
from rvc_fast.live.speech import later_phase
from rvc_fast.pitch import f0 as contours
from rvc_fast.resources import demo_dir
from rvc_fast.settings import CHANGEABLE, LIVE, ChangeableOptions, LiveOptions, Options
from rvc_fast.synthesizer import Synthesizer, SynthesizerConfig

DEMO = demo_dir()
DECODERS: dict[str, dict[str, Any]] = {
    "HiFi-GAN": {},
    "no f0": {"use_f0": False},
    "MRF HiFi-GAN": {"vocoder": "MRF HiFi-GAN"},
    "RefineGAN": {"vocoder": "RefineGAN", "upsample_initial_channel": 256},
}


@pytest.fixture(scope="module")
def demo() -> Converter:
    return rvc_fast.load(DEMO / "voice.pth", embedder=DEMO / "embedder", pitch_model=DEMO / "rmvpe.pt")


def random_voice(demo: Converter, options: dict[str, Any]) -> Synthesizer:
    """A voice of the demo voice's sizes with another decoder and weights from a seed."""
    config = {**asdict(demo.voice.config), **options}
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.standard_normal(value.shape) / np.sqrt(max(1, value.size / value.shape[0]))).astype(
            np.float32
        )
        for name, value in tree_flatten(Synthesizer(SynthesizerConfig.from_dict(config)).parameters())
    }
    return Synthesizer.from_checkpoint(
        SimpleNamespace(config=config, tensors=tensors, packed=True, kernels=None)
    )


def fake(says: str = "f0", hop: float = 0.04, lookahead: float = 0.04, **options: Any) -> Stream:
    """A stream of fakes: the voice says the pitch in kHz, or a feature, which is a sample of the sound."""
    parts = {"voice": FakeVoice(says), "embedder": FakeEmbedder(), "pitch_model": FakePitch(), "index": None}
    given = {name: options.pop(name) for name in parts if name in options}
    one = rvc_fast.load(**{**parts, **given})
    return one.stream(sample_rate=options.pop("sample_rate", 32000), hop=hop, lookahead=lookahead, **options)


def run(stream: Stream, x: np.ndarray, *sizes: int) -> np.ndarray:
    """Push x in pieces of these sizes in turn, flush, and return all without the delay."""
    out, start = [], 0
    while start < len(x):
        for size in sizes:
            piece = x[start : start + size]
            out.append(stream.push(piece))
            assert out[-1].shape == piece.shape
            assert out[-1].dtype == np.float32
            start += size
    out.append(stream.flush())
    y = np.concatenate(out)
    assert len(y) == len(x) + stream.delay
    assert not y[: stream.delay].any()
    return y[stream.delay :]


@pytest.mark.parametrize("name", DECODERS)
def test_it_does_not_depend_on_how_it_was_pushed(demo: Converter, name: str) -> None:
    """With all settings; the sizes of 1 and 37 samples by one decoder, as they differ from no other in the models."""
    voice = random_voice(demo, DECODERS[name])
    one = Converter(voice, demo.embedder, demo.pitch_model)
    x = voiced_sound(0.7, 44100)
    pitch = {} if name == "no f0" else {"transpose": 2, "autotune": 0.5, "proposed_pitch": 200.0}

    def converted(*sizes: int) -> np.ndarray:
        return run(one.stream(sample_rate=44100, volume_envelope=0.5, speaker=1, **pitch), x, *sizes)

    want = converted(len(x))
    assert np.abs(want[4410:]).max() > 0.01
    for sizes in [(1,), (37,), (4800,)] if name == "HiFi-GAN" else []:
        np.testing.assert_array_equal(converted(*sizes), want)
    np.testing.assert_array_equal(converted(1, 37, 4800, 700, 11_000), want)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 32000, 44100, 96000])
def test_the_result_is_late_by_the_delay_and_in_time(rate: int) -> None:
    """The fake voice says the pitch, which here steps with the loudness at 0.5 s."""
    x = np.full(rate, 0.1, np.float32)
    x[rate // 2 :] = 0.9
    stream = fake(sample_rate=rate)
    assert stream.delay == pytest.approx((0.04 + 0.04) * rate, abs=0.009 * rate)
    assert stream.latency.algorithmic == stream.delay / rate
    y = run(stream, x, 1000)
    # Without the high-pass's settling at both steps the pitch is bin 100, after the step bin 100 + 20 * 0.9.
    assert y[int(0.49 * rate)] == pytest.approx(y[int(0.45 * rate)])
    rise = np.flatnonzero(y > 1.05 * y[int(0.45 * rate)])[0]
    assert rise / rate == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["HiFi-GAN", "MRF HiFi-GAN", "RefineGAN"])
def test_the_source_goes_on_as_if_there_were_no_windows(demo: Converter, name: str) -> None:
    voice = random_voice(demo, DECODERS[name])
    rng = np.random.default_rng(1)
    f0 = (rng.uniform(80, 400, 60) * (rng.random(60) < 0.8)).astype(np.float32)

    def source(first: int, stop: int, phase: float) -> np.ndarray:
        noise = FrameNoise(3).window(first, stop - first)
        window = mx.array(f0[None, first:stop])
        return np.array(voice.source(window, noise, phase)).reshape(-1, voice.hop)

    whole, phase, first = source(0, 60, 0.25), 0.25, 0
    for frames in (0, 2, 8, 8, 20):
        stop = first + frames + 12
        phase = later_phase(voice, f0[first:stop], phase, frames)
        first += frames
        # But for what the ends of a window have not got to interpolate with.
        np.testing.assert_allclose(source(first, stop, phase)[1:-1], whole[first + 1 : stop - 1], atol=1e-5)


def test_it_is_near_to_the_conversion_of_the_whole(demo: Converter) -> None:
    """Mel spectra of 64 ms, from the same noise and phase; another seed of the noise alone is 0.9 dB away."""
    x, rate = soundfile.read(DEMO / "sounds" / "speech_male.wav", dtype="float32")
    assert rate == 16000
    x = x[: 4 * rate]
    got = run(demo.stream(sample_rate=16000), x, 640)
    frames = 2 * ((len(x) - 400) // 320 + 1)
    features = mx.repeat(demo.embedder.features(mx.array(x), "v2"), 2, axis=0)
    f0 = contours.estimate(x, demo.pitch_model)[:frames]
    noise = FrameNoise(0).window(0, frames)
    speech = demo.voice.infer(
        features[None], mx.array(contours.coarse(f0)[None]), mx.array(f0[None]), 0, noise
    )
    want = rvc_fast.audio.resample(np.array(speech[0]), demo.voice.sample_rate, rate)
    assert len(want) == pytest.approx(len(got), abs=400)

    def spectrum(y: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(y[: len(want)], 1024)[::80] * np.hanning(1024)
        power = np.abs(np.fft.rfft(windows))[:, 1:449] ** 2
        return 10 * np.log10(power.reshape(-1, 64, 7).mean(axis=2) + 1e-6)

    a, b = spectrum(got), spectrum(want)
    heard = b.max(axis=1) > b.max() - 45
    distance = np.sqrt(np.square(a - b).mean(axis=1))[heard]
    assert distance.mean() < 3.0
    assert np.percentile(distance, 95) < 6.0


def test_settings_change_from_the_next_hop_on() -> None:
    stream = fake(transpose=0)
    x = np.full(32000, 0.1, np.float32)
    before = stream.push(x)[-1]
    stream.set(transpose=12, protect=0.2)
    assert stream.settings.transpose == 12
    after = stream.push(x)
    assert after[-1] == pytest.approx(2 * before, rel=1e-5)
    changed = np.flatnonzero(np.abs(after - before) > 1e-4 * before)[0]
    assert stream.delay - 0.08 * 32000 <= changed <= stream.delay
    for wrong, message in [
        ({"transpose": 99}, "transpose must be a number from -48 to 48"),
        ({"speaker": 3}, "speaker must be less than 3"),
        ({"seed": 1}, "a setting here must be one of speaker, transpose, .* got seed"),
    ]:
        with pytest.raises(InputError, match=message):
            stream.set(**wrong)
    assert stream.settings.transpose == 12
    assert stream.push(x)[-1] == pytest.approx(2 * before, rel=1e-5)


def test_retrieval_and_protection() -> None:
    """The fake index draws all features to 1; where there is no pitch they keep what `protect` says."""
    x = 0.01 * voiced_sound(1, 32000)

    def said(**options: Any) -> float:
        return float(run(fake("phone", index=FakeIndex(1.0), **options), x, 999)[16000:].mean())

    assert said(index_rate=0.0) == pytest.approx(0, abs=0.01)
    assert said(index_rate=0.5) == pytest.approx(0.5, abs=0.01)
    assert said(index_rate=0.99, f0_threshold=1.0, protect=0.2) == pytest.approx(0.99 * 0.2, abs=0.01)
    assert said(index_rate=0.99, f0_threshold=1.0, protect=0.5) == pytest.approx(0.99, abs=0.01)


def test_the_envelope_of_the_source() -> None:
    x = voiced_sound(6, 32000) * np.repeat([1, 0.1], 96_000).astype(np.float32)
    own = run(fake(volume_envelope=1.0), x, 5000)
    followed = run(fake(volume_envelope=0.0), x, 5000)
    for span in (slice(80_000, 95_000), slice(176_000, 191_000)):
        rms, wanted = (float(np.sqrt(np.square(a[span]).mean())) for a in (followed, x))
        assert rms == pytest.approx(wanted, rel=0.2)
    assert own[80_000] == pytest.approx(own[190_000], rel=0.3)


def test_digital_silence_stays_silent() -> None:
    x = np.concatenate([np.zeros(32000), np.full(32000, 0.3), np.zeros(3 * 32000)]).astype(np.float32)
    y = run(fake(), x, 640)
    assert not y[: 32000 - 2000].any()
    assert (np.abs(y[33000 : 63000 + 40000]) > 0.05).all()  # the models still see the sound for 1.28 s
    assert not y[64000 + 41600 + 640 :].any()


def test_what_a_voice_or_a_stream_cannot_do() -> None:
    mute = {"voice": FakeVoice("phone", use_f0=False), "pitch_model": None}
    with pytest.raises(InputError, match="does not follow the pitch of its input"):
        fake(transpose=3, **mute)
    stream = fake("phone", **mute)
    with pytest.raises(InputError, match="does not follow the pitch of its input"):
        stream.set(autotune=1.0)
    assert len(stream.push(np.ones(9000, np.float32))) == 9000
    for wrong, message in [
        ({"hop": 0.05}, r"hop must be a multiple of 0.02 s, got 0.05"),
        ({"hop": 0}, r"hop must be a number from 0.02 to 10, got 0"),
        ({"lookahead": 0.02}, r"lookahead must be a number from 0.04 to 10, got 0.02"),
        ({"context": 1.0, "revision": 1.02}, r"revision must be a number from 0 to 1, got 1.02"),
        ({"sample_rate": 4000}, "sample_rate must be a whole number from 8000 to 192000, got 4000"),
        ({"gate": 3}, "gate must be a number from -120 to 0, got 3"),
        ({"speaker": 7}, "speaker must be less than 3 for this voice, got 7"),
        ({"chunk": "fp16"}, "a setting here must be one of speaker, .* got chunk"),
    ]:
        with pytest.raises(InputError, match=rf"\[stream\] {message}"):
            fake(**wrong)

    class Alone:
        config, hop, sample_rate = FakeVoice().config, 320, 32000

    with pytest.raises(InputError, match=r"must have the methods phases\(f0, phase\) .* got Alone"):
        fake(voice=Alone())


def test_bad_samples_are_refused_and_the_stream_goes_on() -> None:
    x = voiced_sound(1, 32000)
    want = run(fake(), x, 3200)
    stream = fake()
    got = [stream.push(x[:9600])]
    bad = x[:640].copy()
    bad[5] = np.nan
    for wrong, message in [
        (bad, "samples must not be NaN or infinite"),
        (np.full(4, np.inf), "samples must not be NaN or infinite"),
        (x[:640].reshape(2, -1), r"samples must be \(n,\) floats .* got float32 of shape \(2, 320\)"),
        (np.ones(4, np.int16), r"samples must be \(n,\) floats .* got int16"),
    ]:
        with pytest.raises(InputError, match=message):
            stream.push(wrong)
    assert len(stream.push(np.zeros(0))) == 0
    got += [stream.push(x[9600:].astype(np.float64)), stream.flush()]
    np.testing.assert_array_equal(np.concatenate(got)[stream.delay :], want)
    for again in (lambda: stream.push(x), stream.flush):
        with pytest.raises(InputError, match="must not follow flush: open another stream"):
            again()


def test_a_damaged_voice_is_said() -> None:
    voice = FakeVoice()
    voice.infer = lambda *given: mx.full((1, 5 * 320), float("nan"))  # type: ignore[method-assign]
    with pytest.raises(InputError, match="NaN or infinite samples: its weights are damaged"):
        fake(voice=voice).push(np.ones(32000, np.float32))


def test_a_hop_that_failed_ends_the_stream() -> None:
    class Failing(FakeVoice):
        def infer(self, *given: Any, **options: Any) -> mx.array:
            if len(self.calls) == 3:
                raise MemoryError
            return super().infer(*given, **options)

    stream = fake(voice=Failing())
    with pytest.raises(MemoryError):
        stream.push(np.ones(32000, np.float32))
    assert stream.stats.hops == 4  # the first one only fills the look-ahead
    for again in (lambda: stream.push(np.ones(4, np.float32)), stream.flush):
        with pytest.raises(InputError, match="must not follow a hop that failed: open another stream"):
            again()


def test_threads_take_turns() -> None:
    stream = fake()
    with ThreadPoolExecutor(4) as pool:
        pieces = list(pool.map(lambda size: stream.push(np.ones(size, np.float32)), range(1, 300)))
    assert [len(piece) for piece in pieces] == list(range(1, 300))
    assert stream.stats.samples == sum(range(1, 300))


def test_what_is_counted() -> None:
    stream = fake(sample_rate=16000)
    assert (stream.stats.hops, stream.stats.level_in, stream.latency.compute_p99) == (0, -120, 0)
    stream.push(np.full(16000, 0.1, np.float32))
    stats, latency = stream.stats, stream.latency
    assert (stats.samples, stats.hops, stream.hop) == (16000, 25, 0.04)
    assert stats.level_in == pytest.approx(-20, abs=1e-3)
    # The voice says 10 * 2 ** ((1997.38 + 20 * bin) / 1200) / 1000, and the high-pass leaves bin 100.
    assert stats.level_out == pytest.approx(20 * np.log10(0.1005), abs=0.1)
    assert 0 < latency.compute_p50 <= latency.compute_p95 <= latency.compute_p99
    assert set(stats.seconds) == {"features", "pitch", "retrieval", "synthesis", "post"}


def test_type_checkers_and_help_know_the_settings() -> None:
    assert set(get_type_hints(LiveOptions)) == set(LIVE)
    assert set(get_type_hints(ChangeableOptions)) == set(CHANGEABLE) == set(LIVE) - {"seed"}
    whole = get_type_hints(Options)
    assert {name: whole[name] for name in LIVE} == get_type_hints(LiveOptions)
    shown = list(inspect.signature(Converter.stream).parameters)
    assert shown[-len(LIVE) :] == list(LIVE)
    assert Converter.stream.__doc__ is not None
    assert "\n    transpose: shift the pitch" in Converter.stream.__doc__
    assert "\n    chunk:" not in Converter.stream.__doc__
