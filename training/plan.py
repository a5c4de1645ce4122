"""How much of everything: the plan that the bundled models come from, and a tiny one that tests the scripts."""

from __future__ import annotations

from dataclasses import dataclass, replace

# Targets of the voice, in the order of its speakers.
SPEAKERS = {
    "slt": "flite:slt",
    "rms": "flite:rms",
    "awb": "flite:awb",
    "heart": "hibari:heart",
}
# Made from recordings as well, but no target: the encoder learns from them.
ALSO = ("flite:kal16",)
RECORDED = ("festival:hts", "festival:ked", "pico:en-US", "pico:en-GB")
# Never heard in training, by any model: sources of the evaluation.
HELD_OUT = ("f5", "m6", "linda", "klatt2", "Michael", "steph2")
# Whispers, robots, and voices that are not like speech.
LEFT_OUT = ("whisper", "whisperf", "Demonic", "UniRobot", "anikaRobot", "croak", "announcer", "robosoft")
ACCENTS = ("en-us", "gmw/en", "en-us-nyc")


@dataclass(frozen=True)
class Training:
    """One optimisation: AdamW with a linear warm-up over the first 3 % of the steps, then a cosine to zero."""

    steps: int
    batch: int
    frames: int  # of 10 ms, in each item of a batch
    rate: float
    weight_decay: float = 0.01
    frozen: int = (
        0  # of the content encoder's first convolutions: they cost the most and have the least to learn
    )


@dataclass(frozen=True)
class VoiceTraining(Training):
    """One round of the voice's training.

    encoder: how many rounds the content encoder, whose features it learns from, has been trained; 0: it is the one that
        the rounds begin with.
    hearing: weight of the distance between what the content encoder hears in the result and in the target.
    listening: the same of the listener.
    words: weight of the cross-entropy of the phonemes that both hear in the result, against those that were said.
    strangers: items of a batch beside the others whose words no target has said: `words` alone judges them.
    emphasis: whether the distances of magnitudes lift the formants above 500 Hz, which the low ones outweigh.
    """

    encoder: int = 1
    hearing: float = 0.0
    listening: float = 0.0
    words: float = 0.0
    strangers: int = 0
    emphasis: bool = False


@dataclass(frozen=True)
class Plan:
    """Sizes of one rebuild. Every random choice follows from `seed`."""

    name: str
    seed: int
    voices: int  # how many variants speak in training, at most
    per_voice: int  # sentences of each
    per_speaker: int  # sentences of each target
    fluent: int  # sentences with small words of each voice made from recordings
    recorded: int  # sentences of each of RECORDED, half of them with small words
    mixed: int  # sentences by as many people that kokoro's voices are mixed to, two thirds of them with small words
    renderings: int  # of each target sentence, by other voices
    test_sentences: int  # of each held-out voice
    # Rounds: each goes on from the weights of the one before.
    encoder: tuple[Training, ...]
    recogniser: Training
    listener: Training
    pitch: Training
    synthesizer: tuple[VoiceTraining, ...]
    strangers: int  # sentences of the encoder's that the voice learns to say as well
    upsample_channels: int
    # Whether encoder, pitch model and voice begin with the weights in the folder `warm` of the work folder.
    warm: bool = False
    people: int = 1000  # recordings of people in the evaluation, at most
    watched: int = 1000  # held-out voices on which the progress of a synthesizer is measured, at most


# The last rounds of every voice: both judges listen, also to words that no target has said.
JUDGED = VoiceTraining(
    3000, 6, 48, 1e-3, encoder=2, hearing=3.0, listening=3.0, words=0.3, strangers=4, emphasis=True
)

FULL = Plan(
    name="full",
    seed=1,
    voices=1000,
    per_voice=10,
    per_speaker=140,
    fluent=130,
    recorded=100,
    mixed=144,
    renderings=1,
    test_sentences=12,
    encoder=(Training(1600, 16, 200, 1.5e-3), Training(1500, 16, 200, 1e-3)),
    recogniser=Training(900, 16, 200, 2e-3),
    listener=Training(1500, 24, 100, 2e-3),
    pitch=Training(2400, 12, 128, 2e-3),
    synthesizer=(
        VoiceTraining(3000, 8, 32, 1.5e-3),
        VoiceTraining(1500, 6, 48, 1e-3, hearing=3.0, emphasis=True),
        VoiceTraining(2200, 6, 48, 1e-3, encoder=2, hearing=3.0, emphasis=True),
        VoiceTraining(2350, 8, 48, 1e-3, encoder=2, hearing=3.0, emphasis=True),
        JUDGED,
    ),
    strangers=400,
    upsample_channels=128,
)

TINY = replace(
    FULL,
    name="tiny",
    people=1,
    watched=1,
    voices=3,
    per_voice=2,
    per_speaker=2,
    fluent=1,
    recorded=1,
    mixed=1,
    renderings=1,
    test_sentences=1,
    encoder=(Training(3, 2, 100, 1e-3), Training(1, 2, 100, 1e-3, frozen=2)),
    recogniser=Training(4, 2, 100, 1e-3),
    listener=Training(3, 2, 100, 1e-3),
    pitch=Training(3, 2, 64, 1e-3),
    synthesizer=(
        VoiceTraining(2, 2, 32, 1e-3),
        replace(JUDGED, steps=1, batch=2, strangers=1),
    ),
    strangers=3,
    upsample_channels=32,
)

# What the bundled models come from: see README.md. It begins with the weights of the demo voice before it.
WARM = replace(
    FULL,
    name="warm",
    warm=True,
    encoder=(Training(2000, 12, 200, 1.3e-3, frozen=2), Training(1300, 12, 200, 1.2e-3, frozen=2)),
    recogniser=Training(800, 12, 200, 1.5e-3),
    listener=Training(2200, 16, 100, 2e-3),
    synthesizer=(
        VoiceTraining(300, 6, 48, 1e-3, emphasis=True),
        VoiceTraining(400, 5, 48, 1e-3, listening=3.0, words=0.4, strangers=2, emphasis=True),
        replace(JUDGED, steps=300, batch=5, words=0.4, strangers=3),
    ),
)

PLANS = {plan.name: plan for plan in (FULL, WARM, TINY)}
