"""The training scripts: the tiny plan from beginning to end, and their parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import rvc_fast
from rvc_fast import pipeline
from rvc_fast.features.hubert import load_hubert
from rvc_fast.pitch.rmvpe import decode_salience
from rvc_fast.settings import Settings

ROOT = Path(__file__).resolve().parents[2]

for module in ("torch", "parselmouth"):
    if os.environ.get("CI"):
        __import__(module)  # .ci/run installs them
    else:
        pytest.importorskip(module, reason="the training scripts need the extra `train`")

import torch  # noqa: E402

from training import (  # noqa: E402
    augment,
    content,
    corpus,
    loop,
    people,
    pitch,
    plan,
    speakers,
    synthesizer,
    text,
    words,
)
from training.plan import SPEAKERS, TINY, Training, VoiceTraining  # noqa: E402


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder after the one command."""
    work = tmp_path_factory.mktemp("training")
    command = [sys.executable, "-m", "training", "--plan", "tiny", "--work", str(work)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in all" in done.stdout
    return work / "tiny"


def test_one_command_writes_models_that_the_engine_loads(rebuilt: Path) -> None:
    models = rebuilt / "models"
    converter = rvc_fast.load(
        models / "voice.pth", embedder=models / "embedder", pitch_model=models / "rmvpe.pt"
    )
    assert converter.voice.config.spk_embed_dim == len(SPEAKERS)
    result = converter.convert(
        np.random.default_rng(0).standard_normal(16000) * 0.1, sample_rate=16000, speaker=2
    )
    assert result.sample_rate == corpus.TARGET_RATE
    assert np.isfinite(result.samples).all()
    assert result.samples.std() > 1e-4
    found = json.loads((rebuilt / "evaluation.json").read_text())
    assert list(found["speakers"]) == list(SPEAKERS)
    assert 0 < found["size, MB"] <= 20
    assert all(0 <= row["harmonic share"] <= 1 for row in found["speakers"].values())
    assert not list(rebuilt.glob("*.checkpoint"))


def test_features_of_training_are_those_of_a_conversion(rebuilt: Path) -> None:
    encoder = content.encoder()
    encoder.load_state_dict(torch.load(rebuilt / "encoder2.pt"))
    encoder.eval()
    sound = corpus.Corpus.load(rebuilt / "data" / "test.npz").utterance(0)
    want = synthesizer.features(encoder, sound)
    prepared = pipeline.prepare(sound, Settings())
    model = load_hubert(rebuilt / "models" / "embedder")
    got = np.array(model.features(mx.array(prepared.padded), "v2"))
    got = got[prepared.pad // corpus.FRAME :][: len(want)]
    assert got.shape == want.shape
    # The engine's weights are rounded to half precision.
    assert 10 * np.log10(np.mean(want**2) / np.mean((got - want) ** 2)) > 40


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    training = Training(steps=6, batch=2, frames=1, rate=1e-2)

    def run(path: Path, stop: int | None) -> list[torch.Tensor]:
        torch.manual_seed(5)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))

        def loss(step: int) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            x = np.random.default_rng(step).standard_normal((2, 4), dtype=np.float32)
            return model(torch.from_numpy(x)).square().mean()

        loop.fit(model, training, loss, path, seed=3)
        return list(model.state_dict().values())

    want = run(tmp_path / "whole.pt", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken.pt", 4)
    assert (tmp_path / "broken.checkpoint").is_file()
    got = run(tmp_path / "broken.pt", None)
    assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))
    assert not (tmp_path / "broken.checkpoint").exists()


def test_cuts_carry_their_phonemes_and_pitch(rebuilt: Path) -> None:
    data = corpus.Corpus.load(rebuilt / "data" / "speech.npz")
    cuts = augment.cut(data, np.random.default_rng(0), 2, 16000)
    for row in range(2):
        middle = int(cuts.place[row] + 8000 * cuts.speed[row])
        assert cuts.classes(np.array([8000]))[row, 0] == data.class_at(np.array([middle]))[0]
        source = data.f0[(middle + 80) // 160]
        assert cuts.f0(100)[row, 50] == pytest.approx(source * cuts.speed[row])


def test_another_throat_says_the_same_at_the_same_pitch() -> None:
    t = np.arange(2 * corpus.RATE) / corpus.RATE
    tone = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 40)).astype(np.float32)
    sounds = np.stack([0.1 * tone] * 12)
    others = augment.throats(sounds, np.random.default_rng(0))
    assert others.shape == sounds.shape
    changed = np.abs(others - sounds).max(axis=1) > 0.01
    assert 3 <= changed.sum() <= 9
    for other in others[changed]:
        f0 = corpus.praat_f0(other, corpus.RATE, 200)[20:180]
        assert np.median(np.abs(f0 / 140 - 1)) < 0.01


def test_glides_have_the_pitch_that_they_state() -> None:
    sound, f0 = augment.glides(np.random.default_rng(1), 4, 128)
    for row, track in zip(sound, f0, strict=True):
        found = corpus.praat_f0(row, corpus.RATE, 128)
        both = (found > 0) & (track > 0) & (track < 550)
        if both.sum() > 20:
            cents = np.abs(1200 * np.log2(found[both] / track[both]))
            assert np.median(np.minimum(cents % 1200, 1200 - cents % 1200)) < 15


def test_salience_decodes_to_its_pitch() -> None:
    f0 = np.array([0.0, 61.3, 220.0, 777.7], np.float32)
    assert decode_salience(pitch.salience(f0)) == pytest.approx(f0, rel=2e-3)


@pytest.mark.parametrize("seed", range(20))
def test_distance_is_levenshteins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (list(map(int, rng.integers(0, 4, rng.integers(1, 9)))) for _ in range(2))
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (x != y))
    assert content.distance(a, b) == table[-1, -1]


def test_decoding_ignores_a_flicker_and_silence() -> None:
    log_p = np.full((12, len(text.CLASSES)), -8.0)
    for t, c in enumerate([text.SILENCE] * 2 + [5] * 4 + [7] + [5] * 2 + [9] * 3):
        log_p[t, c] = 0 if c != 7 else -4.5
    log_p[6, 5] = -5.0
    assert content.decode(log_p) == [5, 9]


def test_warping_moves_phonemes_onto_the_targets_times() -> None:
    found = np.repeat(np.arange(3, dtype=np.float32), [4, 2, 6])[:, None]
    classes = np.array([1, 2, 3])
    source = (np.array([0, 4, 6]) * corpus.FRAME, classes)
    target = (np.array([0, 2, 8]) * corpus.FRAME, classes)
    moved = synthesizer.warp(found, source, target, 12)
    assert moved is not None
    assert moved[[0, 4, 10], 0] == pytest.approx([0, 1, 2], abs=0.3)
    assert synthesizer.warp(found, source, (target[0], classes + 1), 12) is None


def test_an_untrained_voice_repeats_with_its_source_and_not_with_its_frames() -> None:
    torch.manual_seed(0)
    voice = synthesizer.model(TINY).eval()
    rng = np.random.default_rng(0)
    found = np.repeat(rng.standard_normal((20, content.CONFIG.hidden_size)), 5, axis=0).astype(np.float32)
    harmonic, comb = synthesizer.probe(voice, found, np.ones(200, bool))
    assert harmonic > 0.5
    assert comb < 0.2


@pytest.mark.parametrize("kind", [content.encoder, content.Listener])
def test_a_voice_at_24_khz_is_heard_as_at_16_khz(kind: Callable[[], torch.nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind().eval()

    def chord(rate: int) -> torch.Tensor:
        t = torch.arange(rate // 2) / rate
        return sum(torch.sin(2 * torch.pi * f * t) for f in (220, 1300, 5000))[None]

    with torch.inference_mode():
        got = synthesizer.Judges.layers(network, chord(24000))[-1]
        want = content.scores(network, chord(16000))
        other = content.scores(network, chord(16000) * torch.randn(8000))
    assert (got - want).abs().mean() < 0.1 * (got - other).abs().mean()


def test_items_of_the_voice_carry_their_phonemes_and_pitch(rebuilt: Path) -> None:
    encoder = content.encoder().eval()
    encoder.load_state_dict(torch.load(rebuilt / "encoder2.pt"))
    corpora = {path.stem: corpus.Corpus.load(path) for path in (rebuilt / "data").glob("*.npz")}
    target, heard = corpora["target"], content.material(corpora)
    material = synthesizer.Material(encoder, target, corpora["renderings"], rebuilt / "features2.npz")
    strangers = synthesizer.Strangers(encoder, heard, target, TINY.strangers, rebuilt / "strangers2.npz")
    cuts, sound = material.batch(np.random.default_rng(0), 2, 7, 30, 240)
    assert sound.shape == (2, 30 * 240)
    for k, row in enumerate(cuts.rows):
        assert row.corpus is target
        place = row.samples[0] // corpus.PITCH_FRAME + 7
        got = corpus.praat_f0(sound[k].numpy(), corpus.TARGET_RATE, 30)
        want = target.f0[place : place + 30]
        both = (got > 0) & (want > 0)
        assert np.median(np.abs(got[both] / want[both] - 1)) < 0.02
        assert cuts.f0[k, 7:37].numpy() == pytest.approx(want)
    both_kinds = cuts + strangers.batch(np.random.default_rng(1), 3)
    places = np.arange(4) * 2000
    for row, classes in zip(both_kinds.rows, both_kinds.classes(places), strict=True):
        want = row.corpus.class_at(np.minimum(row.samples[0] + places, row.samples[1]))
        assert classes.tolist() == want.tolist()
    for row in both_kinds.rows[2:]:
        assert row.corpus is heard
        voiced = row.f0[row.f0 > 0]
        assert 0.6 < np.median(voiced) / strangers.medians[row.speaker] < 1.6


def test_the_judges_like_what_was_said_better(rebuilt: Path) -> None:
    listener = content.Listener()
    listener.load_state_dict(torch.load(rebuilt / "listener.pt"))
    encoder = content.encoder()
    training = VoiceTraining(1, 1, 48, 1e-3, hearing=1.0, listening=1.0, words=1.0)
    judges = synthesizer.Judges(encoder, listener, training)
    target = corpus.Corpus.load(rebuilt / "data" / "target.npz")
    sound = torch.from_numpy(target.wide_utterance(0))[None, :12000]
    want = torch.from_numpy(target.wide_utterance(1))[None, :12000]
    heard = int(content.scores(listener, torch.from_numpy(target.utterance(0)[None, :8000]))[0, 12].argmax())

    class Said:
        def __init__(self, phoneme: int) -> None:
            self.phoneme = phoneme

        def classes(self, samples: np.ndarray) -> torch.Tensor:
            return torch.full((1, len(samples)), self.phoneme)

    with torch.inference_mode():
        same, other = (float(judges(sound, w, Said(heard), 0)) for w in (sound, want))
        wrong = float(judges(sound, sound, Said((heard + 1) % len(text.CLASSES)), 0))
    assert same < other
    assert same < wrong


def test_emphasis_hears_a_formant_beside_a_louder_low_tone() -> None:
    t = torch.arange(9600) / corpus.TARGET_RATE
    want = torch.sin(2 * torch.pi * 300 * t) + 0.1 * torch.sin(2 * torch.pi * 2500 * t)
    without = torch.sin(2 * torch.pi * 300 * t)
    plain, lifted = (synthesizer.SpectralLoss(e)(without[None], want[None]) for e in (False, True))
    assert lifted > plain + 0.2


def test_phonemes_of_all_synthesizers_meet_in_arpabet() -> None:
    def names(mnemonic: str) -> list[str]:
        return [text.CLASSES[c] for c in text.espeak_classes(mnemonic)]

    assert names("I2") == ["ih"]
    assert names("A@") == ["aa", "r"]
    assert text.espeak_classes("_:") == [text.SILENCE]
    assert text.CLASSES[text.arpabet_class("AH")] == text.CLASSES[text.arpabet_class("ax")] == "ah"
    assert text.arpabet_class("pau") == text.arpabet_class("SIL") == text.SILENCE


def test_an_unknown_phoneme_is_an_error() -> None:
    with pytest.raises(ValueError, match="in no class"):
        text.espeak_classes("Q!")
    with pytest.raises(ValueError, match="in no class"):
        text.arpabet_class("QQ")


@pytest.mark.parametrize("voice", [*plan.SPEAKERS.values(), "festival:hts", "festival:ked"])
def test_voices_made_from_recordings_say_when_they_say_what(voice: str) -> None:
    line = corpus.Line("She saw six ships.", voice, 165, 50, 50)
    said = corpus.said_by(line)
    assert said is not None
    samples, rate, events = said
    names = [text.CLASSES[c] for _, c in events if c != text.SILENCE]
    assert names == ["sh", "iy", "s", "ao", "s", "ih", "k", "s", "sh", "ih", "p", "s"]
    onsets = np.array([time for time, _ in events])
    assert (np.diff(onsets) > 0).all()
    assert onsets[-1] < len(samples) / rate
    # In its middle, of a fricative little is below 1.2 kHz, of a vowel nearly all.
    power = []
    for number, (time, c) in enumerate(events[:-1]):
        if text.CLASSES[c] in ("s", "sh", "ao", "iy"):
            start, stop = round(time * rate), round(events[number + 1][0] * rate)
            third = (stop - start) // 3
            part = samples[start + third : stop - third]
            spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)))) ** 2
            low = spectrum[: len(part) * 1200 // rate].sum() / spectrum.sum()
            power.append((text.CLASSES[c] in ("s", "sh"), low))
    assert max(low for hiss, low in power if hiss) < 0.5
    assert min(low for hiss, low in power if not hiss) > 0.5


def test_kokoros_model_is_joined_before_processes_speak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that joined it at once would take each other's file away."""
    monkeypatch.setenv("KOKORO_JA_CACHE", str(tmp_path))
    speakers.prepare(["flite:slt", "pico:en-US"])
    assert not list(tmp_path.rglob("*.onnx"))
    speakers.prepare(["flite:slt", "kokoro:7"])
    assert len(list(tmp_path.rglob("*.onnx"))) == 1


def test_kokoros_people_are_many() -> None:
    sounds = []
    for person in range(2):
        samples, rate, phones = speakers.sound("Six ships.", f"kokoro:{person}", 1.2)
        assert (rate, phones) == (24000, None)
        assert 0.5 < len(samples) / rate < 4
        sounds.append(samples)
    length = min(map(len, sounds))
    assert np.corrcoef(sounds[0][:length], sounds[1][:length])[0, 1] < 0.9


@pytest.mark.parametrize("voice", ["pico:en-US", "pico:en-GB"])
def test_pocketsphinx_finds_the_phones_of_pico(voice: str) -> None:
    said = corpus.said_by(corpus.Line("She saw six ships on the river.", voice, 165, 50, 50))
    assert said is not None
    names = [text.CLASSES[c] for _, c in said[2] if c != text.SILENCE]
    assert names[:12] == ["sh", "iy", "s", "ao", "s", "ih", "k", "s", "sh", "ih", "p", "s"]


def test_joined_corpora_are_those_that_they_come_from(rebuilt: Path) -> None:
    parts = [corpus.Corpus.load(rebuilt / "data" / f"{name}.npz") for name in ("speech", "target")]
    whole = corpus.Corpus.join(parts)
    assert len(whole) == sum(map(len, parts))
    for i in (0, len(parts[1]) - 1):
        assert np.array_equal(whole.utterance(len(parts[0]) + i), parts[1].utterance(i))
        for a, b in zip(whole.spoken(len(parts[0]) + i), parts[1].spoken(i), strict=True):
            assert np.array_equal(a, b)
    some = whole.part([len(parts[0]), 0])
    for i, j in ((0, len(parts[0])), (1, 0)):
        assert np.array_equal(some.utterance(i), whole.utterance(j))
        assert np.array_equal(some.pitch(i), whole.pitch(j))
        for a, b in zip(some.spoken(i), whole.spoken(j), strict=True):
            assert np.array_equal(a, b)
    assert whole.chance.sum() == pytest.approx(1)
    heart, slt = (whole.chance[whole.voice == plan.SPEAKERS[n]].sum() for n in ("heart", "slt"))
    assert heart == pytest.approx(slt * corpus.SHARES["hibari:heart"])


def test_word_errors_are_counted() -> None:
    assert words.plain("Sense, and O'Brien's cold-hearted men.") == [
        "sense",
        "and",
        "o'brien's",
        "cold",
        "hearted",
        "men",
    ]
    assert words.errors(["a", "b", "c", "d"], ["a", "c", "d"]) == 1
    assert words.errors(["a", "b"], ["x", "a", "y", "b"]) == 2
    assert words.errors([], ["a"]) == 1


def test_a_recording_that_is_missing_names_its_package() -> None:
    recording = people.Recording("nobody", people.PROMPTS / "nothing.g722", "")
    with pytest.raises(FileNotFoundError, match="apt install asterisk-core-sounds-en-g722"):
        people.sound(recording)
