"""Cuts of a corpus as a batch: other speeds, rooms, microphones and noise, with phonemes and pitch to match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from .corpus import PITCH_FRAME, RATE, Corpus

SPEED, SPREAD = (0.72, 1.38), 0.17  # bounds, and standard deviation of the logarithm


@dataclass(frozen=True)
class Cuts:
    """sound: float32 (batch, n) at 16 kHz. place: (batch,) first sample in the stream. speed: (batch,)."""

    corpus: Corpus
    sound: np.ndarray
    place: np.ndarray
    speed: np.ndarray

    def _stream(self, samples: np.ndarray) -> np.ndarray:
        return (self.place[:, None] + samples * self.speed[:, None]).astype(np.int64)

    def classes(self, samples: np.ndarray) -> np.ndarray:
        """Return the phoneme class at `samples` (frames,) of every cut: (batch, frames)."""
        return self.corpus.class_at(self._stream(samples)).astype(np.int64)

    def f0(self, frames: int) -> np.ndarray:
        """Return f0 of the first `frames` frames of 10 ms of every cut: (batch, frames)."""
        track = self.corpus.f0
        places = (self._stream(np.arange(frames) * PITCH_FRAME) + PITCH_FRAME // 2) // PITCH_FRAME
        return track[np.minimum(places, len(track) - 1)] * self.speed[:, None].astype(np.float32)


def cut(corpus: Corpus, rng: np.random.Generator, batch: int, length: int, plain: bool = False) -> Cuts:
    """Return `batch` random cuts of `length` samples, each at a speed of its own unless `plain`."""
    speed = np.ones(batch) if plain else np.exp(rng.normal(0, SPREAD, batch)).clip(*SPEED)
    spans = np.ceil(length * speed).astype(int) + 1
    place = np.empty(batch, np.int64)
    for k, i in enumerate(rng.choice(len(corpus), batch, p=corpus.chance)):
        middle = int(rng.integers(corpus.starts[i], corpus.starts[i + 1]))
        place[k] = np.clip(middle - spans[k] // 2, 0, len(corpus.sound) - spans[k])
    sound = np.empty((batch, length), np.float32)
    for row, start, span, s in zip(sound, place, spans, speed, strict=True):
        source = corpus.sound[start : start + span].astype(np.float32) / 32768
        row[:] = np.interp(np.arange(length) * s, np.arange(span), source)
    return Cuts(corpus, sound, place, speed)


def throats(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `sound` (batch, n) as if throats of another length and voices of another kind had said it, at its pitch.

    The spectral envelope is moved by up to a quarter up or down and made flatter or sharper; some voices become
    breathy above 1 to 4 kHz. Half of the rows stay as they are.
    """
    rows = np.flatnonzero(rng.random(len(sound)) < 0.5)
    if not len(rows):
        return sound
    size, hop, lifter = 512, 128, 28
    padded = np.pad(sound[rows], ((0, 0), (size, size + hop)))
    count = (padded.shape[1] - size) // hop + 1
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop][:, :count] * window
    spectrum = scipy.fft.rfft(frames.astype(np.float32), axis=2)
    magnitude = np.abs(spectrum)
    cepstrum = scipy.fft.irfft(np.log(magnitude + 1e-3), axis=2)
    cepstrum[:, :, lifter : size - lifter] = 0
    envelope = scipy.fft.rfft(cepstrum, axis=2).real
    bins = envelope.shape[2]
    for k in range(len(rows)):
        warp = np.exp(rng.normal(0, 0.1)).clip(0.8, 1.25)
        place = np.minimum(np.arange(bins) / warp, bins - 1.001)
        below = place.astype(int)
        share = (place - below).astype(np.float32)
        moved = envelope[k][:, below] * (1 - share) + envelope[k][:, below + 1] * share
        middle = moved.mean(1, keepdims=True)
        moved = middle + rng.normal(1, 0.12) * (moved - middle)
        gain = np.exp((moved - envelope[k]).clip(-2.5, 2.5))
        if rng.random() < 0.4:
            edge = int(rng.uniform(1000, 4000) / (RATE / 2) * bins)
            noise = np.exp(2j * np.pi * rng.random((count, bins - edge), dtype=np.float32))
            breath = np.float32(rng.uniform(0, 0.7))
            high = spectrum[k][:, edge:]
            spectrum[k][:, edge:] = (1 - breath) * high + breath * magnitude[k][:, edge:] * noise
        spectrum[k] *= gain
    pieces = scipy.fft.irfft(spectrum, axis=2) * window
    out = np.zeros_like(padded)
    for k in range(count):
        out[:, k * hop : k * hop + size] += pieces[:, k]
    out /= 1.5  # the sum of the squared windows
    result = sound.copy()
    result[rows] = out[:, size : size + sound.shape[1]]
    return result


def room(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `sound` (batch, n) after a random equaliser, for some a room, noise, and a random level.

    Equaliser: a smooth curve of up to 9 dB either way. Room: decaying noise, 50 to 400 ms, the direct sound
    before it. Noise: white to brown, 10 to 50 dB below the speech, on half of the cuts.
    """
    batch, length = sound.shape
    size = 1 << (length + RATE // 2 - 1).bit_length()
    spectrum = np.fft.rfft(sound, size)
    bins = spectrum.shape[1]
    for row in spectrum:
        knots = np.concatenate([rng.normal(0, 3, 6).clip(-9, 9), [0]])
        row *= 10 ** (np.interp(np.geomspace(1, bins, bins), np.geomspace(60, bins, 7), knots) / 20)
        if rng.random() < 0.2:  # a telephone, or a microphone that hears little of the highs
            edge = rng.uniform(0.42, 0.95) * bins
            row *= 1 / (1 + (np.arange(bins) / edge) ** 16)
        if rng.random() < 0.2:
            edge = rng.uniform(60, 300) / (RATE / 2) * bins
            row *= 1 / (1 + (edge / np.maximum(np.arange(bins), 1)) ** 4)
        if rng.random() < 0.3:
            n = int(rng.uniform(0.05, 0.4) * RATE)
            tail = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / n)
            tail *= rng.uniform(0.05, 0.5) / np.sqrt(np.sum(tail * tail))
            tail[0] = 1
            row *= np.fft.rfft(tail, size)
    out = np.fft.irfft(spectrum, size)[:, :length]
    level = out.std(axis=1, keepdims=True) + 1e-4
    colour = rng.uniform(0, 1, (batch, 1)).astype(np.float32)
    noise = np.fft.rfft(rng.standard_normal((batch, length), dtype=np.float32))
    noise *= np.maximum(np.arange(noise.shape[1], dtype=np.float32), 20) ** -colour
    noise = np.fft.irfft(noise, length)
    noise *= level / noise.std(axis=1, keepdims=True) * 10 ** (-rng.uniform(10, 50, (batch, 1)) / 20)
    noisy = out + np.where(rng.random((batch, 1)) < 0.5, noise, 0)
    return (noisy / level * 10 ** rng.uniform(-2, -0.8, (batch, 1))).astype(np.float32)


def glides(rng: np.random.Generator, batch: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (sound (batch, frames * 160), f0 (batch, frames)) of harmonic tones whose pitch glides and pauses."""
    f0 = np.empty((batch, frames), np.float32)
    sound = np.empty((batch, frames * PITCH_FRAME), np.float32)
    time = np.arange(frames * PITCH_FRAME) / PITCH_FRAME
    for row, track in zip(sound, f0, strict=True):
        knots = np.cumsum(np.concatenate([[rng.uniform(np.log(55), np.log(1000))], rng.normal(0, 0.12, 5)]))
        places = np.linspace(0, frames, 6)
        log_f0 = np.interp(np.arange(frames), places, knots).clip(np.log(50), np.log(1200))
        vibrato = rng.uniform(0, 0.03) * np.sin(2 * np.pi * rng.uniform(3, 7) * np.arange(frames) / 100)
        track[:] = np.exp(log_f0 + vibrato)
        fine = np.interp(time, np.arange(frames), track)
        phase = 2 * np.pi * np.cumsum(fine) / RATE
        tilt, formants = rng.uniform(0.3, 1.8), rng.uniform(200, 4000, 3)
        row[:] = 0
        for k in range(1, int(min(40, 7600 // track.max())) + 1):
            place = k * np.median(track)
            gain = k**-tilt * (0.1 + np.exp(-(((place - formants) / rng.uniform(100, 500, 3)) ** 2)).sum())
            row += gain * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
        row *= 0.1 / (row.std() + 1e-6)
        if rng.random() < 0.7:
            start = int(rng.integers(0, frames))
            stop = min(frames, start + int(rng.integers(8, 40)))
            track[start:stop] = 0
            gate = np.interp(time, np.arange(frames), track > 0)
            row *= gate
    return sound, f0
