"""Features and pitch of a sound that goes on are those of the whole, as far as the future is there."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from fakes import FakePitch, voiced_sound
from rvc_fast.features.hubert import HubertModel, load_hubert
from rvc_fast.live.features import ContinuedFeatures, Moments, WindowFeatures
from rvc_fast.live.pitch import LivePitch
from rvc_fast.resources import demo_dir
from rvc_fast.settings import Settings


@pytest.fixture(scope="module")
def model() -> HubertModel:
    return load_hubert(demo_dir() / "embedder")


def snr(got: mx.array, want: mx.array) -> float:
    a, b = np.array(got, np.float64), np.array(want, np.float64)
    return 10 * np.log10(np.sum(b * b) / max(np.sum((a - b) ** 2), 1e-30))


def test_layers_that_continue_give_the_features_of_the_whole(model: HubertModel) -> None:
    sound = mx.array(voiced_sound(2))
    frames = model.front_end(sound[None])[0]
    want, both = model.extend(frames, None, 0, "v2")
    assert snr(want, model.features(sound, "v2")) > 110
    past = [(k[:, :60], v[:, :60]) for k, v in both]
    reach = model.config.num_conv_pos_embeddings // 2
    got, _ = model.extend(frames[60 - reach :], past, reach, "v2")
    assert snr(got, want[60:]) > 110


def test_rows_that_are_all_revised_are_those_of_the_whole(
    model: HubertModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At fixed statistics of the group norm the front end gives the same, whatever the pieces."""
    sound = voiced_sound(2)
    folded = model.front_end.first.fold(mx.array(sound))
    monkeypatch.setattr(ContinuedFeatures, "_folded", lambda self: folded)
    live = ContinuedFeatures(model, "v2", None, context=200, settled=200, gate=-120)
    got = None
    for start in range(0, 50, 2):
        got = live.push(sound[start * 640 : (start + 2) * 640], 0, 2 * start)
    assert got is not None
    assert got.shape == (99, 128)
    assert snr(got, model.features(mx.array(sound), "v2")) > 90


def test_what_is_kept_does_not_grow(model: HubertModel) -> None:
    live = ContinuedFeatures(model, "v2", None, context=20, settled=5, gate=-50)
    for hop in range(30):
        rows = live.push(voiced_sound(0.08, seed=hop), max(0, 4 * hop - 3), 4 * hop + 1)
        assert rows.shape == (4 * hop + 3 - max(0, 4 * hop - 3), 128)
    assert live._past is not None
    assert live._past[0][0].shape == (1, 20, 128)
    assert live._frames is not None
    assert (
        live._frames.shape[0] == 16 + 5 + 2
    )  # the positional convolution's reach, what is revised, the look-ahead


def test_the_statistics_are_those_of_what_is_heard() -> None:
    rng = np.random.default_rng(0)
    loud = 0.1 + 0.2 * rng.standard_normal(3200)
    moments = Moments(-50, 10, 5)
    moments.push(np.full(1600, 1e-4))
    quiet, _ = moments.statistics()
    np.testing.assert_allclose(quiet, 1e-4)  # until something is heard, everything counts
    for piece in np.split(loud, 4):
        moments.push(piece)
    moments.push(np.zeros(16000))
    mean, covariance = moments.statistics()
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.full(5, 1e-4), loud]), 10)[::5]
    np.testing.assert_allclose(mean, windows.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(covariance, np.cov(windows.T, bias=True), rtol=1e-9)


def test_the_statistics_follow_a_sound_that_changes() -> None:
    moments = Moments(-50, 10, 5)
    for level, seconds in ((0.1, 60), (0.5, 120)):
        for _ in range(seconds):
            moments.push(np.full(16000, level))
    # After the first minute each second takes the place of a sixtieth of what was there.
    want = 0.5 - 0.4 * (60 / 61) ** 120
    assert moments.statistics()[0][0] == pytest.approx(want, abs=1e-3)


def test_an_embedder_without_layers_gets_the_last_seconds() -> None:
    class Counting:
        def features(self, audio: mx.array, version: str, layer: int | None = None) -> mx.array:
            lengths.append(len(audio))
            return audio[: (len(audio) - 400) // 320 * 320 + 320 : 320, None]

    lengths: list[int] = []
    live = WindowFeatures(Counting(), "v2", None, context=10)
    sound = np.arange(20 * 640, dtype=np.float32)
    for hop in range(20):
        rows = live.push(sound[640 * hop :][:640], max(0, 2 * hop - 3), max(0, 2 * hop - 1))
        np.testing.assert_array_equal(rows[:, 0], 320 * np.arange(max(0, 2 * hop - 3), 2 * hop + 1))
    assert max(lengths) == (10 + 3 + 2) * 320  # final rows, those that are not yet, and new ones


def test_each_frame_has_its_pitch() -> None:
    """The fake's pitch is told by the loudness of the frame's samples."""
    loudness = np.repeat(np.arange(60) % 7, 160).astype(np.float32)
    live = LivePitch(FakePitch(), 32)
    whole = LivePitch(FakePitch(), 96).push(loudness, 0, 0, Settings())
    for hop in range(1, 10):
        first, final = max(0, 6 * hop - 10), max(0, 6 * hop - 4)
        got = live.push(loudness[(hop - 1) * 960 : hop * 960], first, final, Settings())
        np.testing.assert_allclose(got[:-1], whole[first : 6 * hop], rtol=1e-6)


def test_a_proposed_pitch_follows_the_median_and_does_not_flutter() -> None:
    class Steady:
        def salience(self, audio: mx.array, pad: str = "reflect") -> mx.array:
            salience = np.zeros((len(audio) // 160 + 1, 360), np.float32)
            salience[:, bins[-1]] = 0.9
            return mx.array(salience)

    live = LivePitch(Steady(), 32)
    wanted = Settings(proposed_pitch="female", transpose=1)
    found = []
    bins: list[int] = []
    for hop, bin_ in enumerate([140] * 5 + [143, 142] * 40 + [170] * 300):
        bins.append(bin_)
        raw = 10 * 2 ** ((1997.3794084376191 + 20 * bin_) / 1200)
        got = live.push(np.zeros(640, np.float32), 4 * hop, 4 * hop + 4, wanted)
        found.append(round(12 * np.log2(got[0] / raw)) - 1)
    # 159 Hz is 8.1 semitones below 255 Hz, 164 Hz is 7.6: near enough. 225 Hz is 2.1, once the median is there.
    assert set(found[:85]) == {8}
    assert found[-1] == 2
