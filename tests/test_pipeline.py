"""The signal path with models whose outputs can be foreseen."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeEmbedder, FakeIndex, FakePitch, FakeVoice, scipys_high_pass, voiced_sound
from rvc_fast import pipeline
from rvc_fast.errors import InputError
from rvc_fast.noise import SeededNoise
from rvc_fast.pitch import f0 as pitch
from rvc_fast.pitch.rmvpe import decode_salience
from rvc_fast.settings import CHUNKINGS, WINDOW, Chunking, Settings

SHORT = Chunking(1, 1, 4, 5)


def convert(sound: np.ndarray, voice: FakeVoice, f0: np.ndarray | None = None, **options) -> np.ndarray:
    index = options.pop("index", None)
    return pipeline.run(
        sound,
        voice=voice,
        embedder=FakeEmbedder(),
        noise=SeededNoise(0),
        f0=None if f0 is None else lambda _: f0,
        pitch_model=None if f0 is not None else FakePitch(),
        index=index,
        settings=Settings(**{"chunk": SHORT, **options}),
    ).samples


class Hum(FakeVoice):
    """Says 0.5 whatever it hears, as real voices hum in silence."""

    def infer(self, phone, pitch, f0, speaker, noise, part) -> mx.array:
        return mx.full((1, len(range(phone.shape[1])[part]) * self.hop), 0.5)


@pytest.mark.parametrize("seconds", [0.01, 0.3, 4.0, 20.0])
@pytest.mark.parametrize("value", [0.0, -0.0, 1e-9])
def test_digital_silence_stays_silent(seconds: float, value: float) -> None:
    out = convert(np.full(round(16000 * seconds), value, np.float32), Hum(), volume_envelope=1.0)
    assert len(out) > 0
    assert not out.any()


@pytest.mark.parametrize("hop", [320, 400, 480])
def test_silence_within_a_sound_begins_and_ends_where_the_models_see_only_zeros(hop: int) -> None:
    """Twenty chunks, each 10 to 20 ms short: what is silent is found in each of them."""
    noise = (0.3 * np.random.default_rng(0).standard_normal(16000 * 4)).astype(np.float32)
    zeros = np.zeros(16000 * 30, np.float32)
    sound = np.concatenate([zeros, noise, zeros, noise])
    out = convert(sound, Hum(hop=hop))
    sight = pipeline.SIGHT / 16000

    def at(start: float, stop: float) -> np.ndarray:
        return np.abs(out[round(start * 100 * hop) : round(stop * 100 * hop)])

    lost = 0.02 * len(out) / (100 * hop) / 3  # of the chunks before
    assert at(0, 30 - sight - lost - 0.03).max() == 0
    assert at(30 - sight + 0.03, 34 + sight - lost - 0.03).min() == 0.5
    assert at(34 + sight + 0.03, 64 - sight - lost - 0.03).max() == 0
    assert at(64 - sight + 0.03, 999).min() == 0.5
    assert np.abs(np.diff(out)).max() <= 0.5 / hop * 1.01, "an edge clicks"


@pytest.mark.parametrize("value", [2e-8, 1e-7, -3e-5])
def test_what_is_quiet_is_no_digital_silence(value: float) -> None:
    assert np.abs(convert(np.full(64000, value, np.float32), Hum())).min() == 0.5


def test_a_gap_that_the_models_see_across_is_left_alone() -> None:
    sound = voiced_sound(8)
    sound[32000 : 32000 + 2 * pipeline.SIGHT] = 0
    assert pipeline.find_silences(sound) == ()
    sound[32000 : 32000 + 2 * pipeline.SIGHT + 2 * WINDOW] = 0
    ((start, stop),) = pipeline.find_silences(sound)
    assert 0 < stop - start <= 2 * WINDOW


def test_silences_are_found_at_every_place_and_length() -> None:
    for length in (1, 159, 160, 161, 40961, 100000):
        for heard in {0, length // 2, length - 1}:
            sound = np.zeros(length, np.float32)
            sound[heard] = 1
            for start, stop in pipeline.find_silences(sound):
                assert not (start - pipeline.SIGHT <= heard < stop + pipeline.SIGHT)
    assert pipeline.find_silences(np.zeros(5, np.float32)) == ((-np.inf, np.inf),)


def ramp(sound: np.ndarray, pad: int = 100) -> np.ndarray:
    """A pitch that tells which frame of the padded sound it is."""
    return np.arange(len(sound) // WINDOW + 2 * pad, dtype=np.float32)


def test_profiles() -> None:
    assert CHUNKINGS["fp16"] == Chunking(3, 10, 60, 65)
    assert CHUNKINGS["fp32"] == Chunking(1, 6, 38, 41)
    assert CHUNKINGS["small"] == Chunking(1, 5, 30, 32)


@settings(deadline=None)
@given(
    length=st.integers(400, 2_000_000),
    cuts=st.lists(st.integers(1, 12499), max_size=8, unique=True).map(sorted),
    pad=st.integers(1, 300).map(lambda frames: frames * WINDOW),
)
def test_chunks_cover_every_sample_and_frame_once(length: int, cuts: list[int], pad: int) -> None:
    cuts = [cut * WINDOW for cut in cuts if cut * WINDOW < length]
    chunks = pipeline.chunks_of(length, cuts, pad)
    covered = 0
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        assert chunk.samples.start == covered
        assert chunk.frames.start * WINDOW == covered
        # Without padding on both sides; all but the last chunk have one window more at the end.
        covered = chunk.samples.stop - 2 * pad - (0 if last else WINDOW)
        assert chunk.frames.stop == (covered + 2 * pad) // WINDOW
    assert covered == length


@settings(max_examples=20, deadline=None)
@given(seconds=st.integers(300, 2500), seed=st.integers(0, 99), classic=st.booleans())
def test_cuts_are_the_quietest_points(seconds: int, seed: int, classic: bool) -> None:
    signal = np.random.default_rng(seed).standard_normal(seconds * 160 + seed)
    cuts = pipeline.find_cuts(signal, SHORT, "classic" if classic else "applio")
    assert len(cuts) == (0 if len(signal) + 160 <= 80000 else (len(signal) - 1) // 64000)
    if not cuts:
        return
    padded = np.pad(signal, 80, mode="reflect")
    s = np.abs(np.convolve(np.abs(padded) if classic else padded, np.ones(160), "valid"))
    for number, cut in enumerate(cuts, 1):
        t = number * 64000
        area = s[t - 16000 : min(t + 16000, len(signal))]
        assert cut == (t - 16000 + int(np.argmin(area))) // 160 * 160


def test_the_limit_counts_the_padding() -> None:
    assert not pipeline.find_cuts(np.ones(80000 - 160), SHORT)
    assert pipeline.find_cuts(np.ones(80000 - 159), SHORT)


def test_the_first_of_equal_points_is_taken() -> None:
    assert pipeline.find_cuts(np.zeros(100000), SHORT) == [48000]


def test_where_applio_and_classic_differ() -> None:
    # A loud alternating stretch sums to zero; a quiet constant one does not.
    signal = np.full(100000, 0.1)
    signal[60000:61000] = np.tile([1.0, -1.0], 500)
    assert 60000 <= pipeline.find_cuts(signal, SHORT, "applio")[0] < 61000
    assert pipeline.find_cuts(signal, SHORT, "classic") == [48000]


def test_the_sound_is_high_passed_and_padded_by_reflection() -> None:
    sound = voiced_sound(2) + np.float32(0.2)
    prepared = pipeline.prepare(sound, Settings())
    signal = scipys_high_pass(sound).astype(np.float32)
    np.testing.assert_array_equal(prepared.signal, signal)
    np.testing.assert_array_equal(prepared.padded, np.pad(signal, 16000, mode="reflect"))
    assert prepared.frames == 400


@pytest.mark.parametrize("seconds", [0.5, 3.0, 11.3, 20.01])
def test_every_frame_is_rendered_where_it_belongs(seconds: float) -> None:
    sound, voice = voiced_sound(seconds), FakeVoice("f0")
    out = convert(sound, voice, ramp(sound))
    frames = out.reshape(-1, voice.hop)
    np.testing.assert_array_equal(frames, frames[:, :1].repeat(voice.hop, axis=1))
    chunks = pipeline.prepare(sound, Settings(chunk=SHORT)).chunks
    assert len(voice.calls) == len(chunks)
    expected = []
    for chunk in chunks:
        samples = chunk.samples.stop - chunk.samples.start
        count = min(chunk.frames.stop - chunk.frames.start, 2 * ((samples - 400) // 320 + 1))
        expected.extend(range(chunk.frames.start + 100, chunk.frames.start + count - 100))
    spoken = np.concatenate([np.array(call.f0[0])[100:-100] for call in voice.calls])
    np.testing.assert_array_equal(spoken, expected)
    # The scheme loses one or two frames at the end of each chunk, and no others.
    assert 0 <= len(sound) // WINDOW - len(expected) <= 2 * len(chunks)
    assert len(frames) == len(expected)


def test_features_reach_the_voice_in_place() -> None:
    sound, voice = voiced_sound(11), FakeVoice("phone", hop=160)
    out = convert(sound, voice, ramp(sound))
    signal = pipeline.prepare(sound, Settings(chunk=SHORT)).signal
    # A frame's feature is the sample 200 after its start, held for 320.
    end = voice.calls[0].phone.shape[1] * 160 - 32000
    np.testing.assert_allclose(out[:end:320], signal[200 : end + 200 : 320][: len(out[:end:320])], atol=1e-6)


def test_pitch_reaches_the_voice_transposed_and_binned() -> None:
    sound, voice = voiced_sound(1), FakeVoice()
    f0 = np.full(300, 220, np.float32)
    f0[150:] = 0
    convert(sound, voice, f0, transpose=12.0, f0_points=np.array([[0.0, 330.0], [0.1, 330.0]]))
    call = voice.calls[0]
    np.testing.assert_allclose(np.array(call.f0[0])[:150], [440] * 100 + [330] * 11 + [440] * 39, rtol=1e-6)
    mel = 1127 * np.log(1 + np.array([440, 50, 1100]) / 700)
    assert call.pitch[0, 0].item() == round((mel[0] - mel[1]) * 254 / (mel[2] - mel[1]) + 1)
    assert (np.array(call.pitch)[0, 150:] == 1).all()
    assert not np.array(call.f0)[0, 150:].any()


def test_proposed_pitch_adds_to_the_transposition_and_autotune_comes_last() -> None:
    sound, voice = voiced_sound(1), FakeVoice()
    convert(sound, voice, np.full(300, 128, np.float32), proposed_pitch="female", transpose=1.0, autotune=1.0)
    # 128 Hz + 12 + 1 semitones is 271.2 Hz; the nearest note is 277.18 Hz.
    np.testing.assert_allclose(np.array(voice.calls[0].f0), 277.18, rtol=1e-6)


def test_retrieval_and_protection() -> None:
    sound, voice, index = voiced_sound(1), FakeVoice(), FakeIndex(5.0)
    f0 = np.full(300, 200, np.float32)
    f0[100:200] = 0
    f0[200:210] = 0.5
    convert(sound, voice, f0, index=index, index_rate=0.75, protect=0.2, exact_search=True)
    convert(sound, voice, f0, index=None)
    blended, own = (np.array(call.phone[0]) for call in voice.calls)
    rate = np.where((f0 < 1)[: len(own), None], 0.75 * 0.2, 0.75)
    np.testing.assert_allclose(blended, rate * 5 + (1 - rate) * own, rtol=1e-5, atol=1e-5)
    assert index.exact == [True]


@pytest.mark.parametrize("options", [{"index_rate": 0.0}, {"index": None}])
def test_no_retrieval(options: dict) -> None:
    sound, voice, index = voiced_sound(1), FakeVoice(), FakeIndex(5.0)
    convert(sound, voice, ramp(sound), **{"index": index, **options})
    assert index.exact == []
    assert np.abs(np.array(voice.calls[0].phone)).max() < 1


def test_protection_off() -> None:
    sound, voice = voiced_sound(1), FakeVoice()
    convert(sound, voice, np.zeros(300), index=FakeIndex(5.0), index_rate=1.0, protect=0.5)
    np.testing.assert_allclose(np.array(voice.calls[0].phone), 5)


def test_a_voice_without_pitch() -> None:
    sound, voice = voiced_sound(6), FakeVoice("phone", use_f0=False)
    out = pipeline.run(
        sound,
        voice=voice,
        embedder=FakeEmbedder(),
        noise=SeededNoise(0),
        index=FakeIndex(),
        settings=Settings(chunk=SHORT),
    ).samples
    assert [call.f0 for call in voice.calls] == [None, None]
    assert len(out) > 5.9 * voice.sample_rate


def test_estimated_pitch_depends_on_the_semantics() -> None:
    for semantics, pad in [("applio", "reflect"), ("classic", "zeros")]:
        model = FakePitch()
        options = Settings(semantics=semantics)
        prepared = pipeline.prepare(voiced_sound(1), options)
        assert len(pipeline.estimate_pitch(prepared, model, options)) == 300
        assert model.pad == pad


def test_volume_and_peak() -> None:
    sound, voice = voiced_sound(3), FakeVoice("f0")
    loud = convert(sound, voice, np.full(500, 5000, np.float32))
    np.testing.assert_allclose(loud, 0.99, rtol=1e-6)
    soft = convert(sound, voice, np.full(500, 100, np.float32), volume_envelope=0.0)
    wanted = np.sqrt(np.mean(pipeline.prepare(sound, Settings()).signal[16000:32000] ** 2))
    assert soft[len(soft) // 2] == pytest.approx(wanted, rel=0.2)


def test_estimate() -> None:
    model = FakePitch()
    contour = pitch.estimate(voiced_sound(2), model, pad="zeros")
    assert (len(contour), contour.dtype, model.calls, model.pad) == (201, np.float32, 1, "zeros")
    expected = decode_salience(np.array(model.salience(mx.array(voiced_sound(2)))), 0.03)
    np.testing.assert_array_equal(contour, expected)
    assert (contour > 0).all()
    assert not pitch.estimate(voiced_sound(2), model, threshold=0.95).any()


@pytest.mark.parametrize("length", [1, 2, 17, 160, 399])
@pytest.mark.parametrize("chunk", ["fp32", "fp16", Chunking(0.01, 0.1, 1, 1)])
def test_the_shortest_sounds_keep_their_length(length: int, chunk: str | Chunking) -> None:
    voice = FakeVoice("noise")
    out = pipeline.run(
        np.full(length, 0.1, np.float32),
        voice=voice,
        embedder=FakeEmbedder(),
        noise=SeededNoise(0),
        pitch_model=FakePitch(),
        settings=Settings(chunk=chunk, volume_envelope=0.5),
    ).samples
    assert len(out) == 2 * length
    assert np.isfinite(out).all()


@pytest.mark.parametrize("length", [400, 559, 560, 720, 16001])
def test_short_sounds_are_not_empty(length: int) -> None:
    out = convert(np.zeros(length, np.float32), FakeVoice("noise"))
    assert 0 < len(out) <= 2 * length
    assert np.isfinite(out).all()


def test_no_samples() -> None:
    with pytest.raises(InputError, match="no samples"):
        convert(np.zeros(0, np.float32), FakeVoice())


def test_damaged_weights_are_named() -> None:
    voice = FakeVoice("f0")
    infer = voice.infer
    voice.infer = lambda *given: mx.full_like(infer(*given), float("nan"))
    with pytest.raises(InputError, match="weights are damaged"):
        convert(voiced_sound(1), voice)


def test_what_does_not_fit_is_named() -> None:
    sound = voiced_sound(1)
    with pytest.raises(InputError, match=r"f0 must have 300 values for this sound, got 299"):
        convert(sound, FakeVoice(), np.ones(299))
    with pytest.raises(InputError, match="needs a pitch model"):
        pipeline.run(sound, voice=FakeVoice(), embedder=FakeEmbedder(), noise=SeededNoise(0))
    with pytest.raises(InputError, match="features of 16 values, the embedder gives 8"):
        convert(sound, FakeVoice(dim=16), ramp(sound))


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("speaker", [-1, 1.5, "0", True]),
        ("transpose", [49, -49, float("nan"), "4"]),
        ("index_rate", [-0.1, 1.1]),
        ("protect", [-0.1, 0.6]),
        ("volume_envelope", [-0.1, 1.1]),
        ("autotune", [-0.1, 1.1]),
        ("f0_threshold", [-0.1, 1.1]),
        ("proposed_pitch", ["child", 10, float("inf")]),
        ("chunk", ["huge", 3]),
        ("semantics", ["modern", None]),
    ],
)
def test_settings_are_checked(option: str, values: list) -> None:
    for value in values:
        with pytest.raises(InputError, match=rf"\[convert\] {option} must be"):
            Settings(**{option: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_pad": 0}, "x_pad"),
        ({"x_pad": 0.005}, "x_pad"),
        ({"x_pad": 1.0001}, "multiple of 0.01"),
        ({"x_query": 2.5}, "x_center / 2"),
        ({"x_max": 3}, "x_max"),
        ({"x_center": float("nan")}, "x_center"),
    ],
)
def test_chunkings_are_checked(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SHORT, **change)
