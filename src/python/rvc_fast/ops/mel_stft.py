"""mel_stft: sound (n,) -> log mel spectrogram (frames, mels), frames = (n - n_fft) // hop + 1.

y[t] = log(max(filters @ |rfft(window * x[t * hop : t * hop + n_fft])|, floor))

Centred frames are the caller's: `reflect_pad(x, n_fft // 2, n_fft // 2)` first.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from . import dispatch
from .blocks import after, blocks
from .spec import Case, OpSpec, Tolerance

dispatch.register("mel_stft", "cpu")

# Frames transformed at a time: a frame's window and spectrum are 12 KB of intermediates.
BLOCK = 2048


def mel_stft_reference(
    x: mx.array, window: mx.array, filters: mx.array, *, hop: int, floor: float = 1e-5
) -> mx.array:
    """The definition, in stock MLX."""
    n_fft = window.shape[0]
    frames = (x.shape[0] - n_fft) // hop + 1
    x = mx.as_strided(x, (frames, n_fft), (hop, 1))
    return mx.log(mx.maximum(mx.abs(mx.fft.rfft(x * window)) @ filters.T, floor))


def _mel_stft_blocks(x: mx.array, window: mx.array, filters: mx.array, *, hop: int, floor: float) -> mx.array:
    n_fft = window.shape[0]
    out: list[mx.array] = []
    for start, end in blocks((x.shape[0] - n_fft) // hop + 1, BLOCK):
        part = after(x[start * hop : (end - 1) * hop + n_fft], out)
        out.append(mel_stft_reference(part, window, filters, hop=hop, floor=floor))
    return mx.concatenate(out)


def _mel_stft_cpu(x: mx.array, window: mx.array, filters: mx.array, *, hop: int, floor: float) -> mx.array:
    from .. import native

    return native.ext().mel_stft(x, window, filters, hop=hop, floor=floor)


def mel_stft(x: mx.array, window: mx.array, filters: mx.array, *, hop: int, floor: float = 1e-5) -> mx.array:
    """Log mel spectrogram of sound that is padded already; see the module's formula.

    Args:
        x: (n,) float32, n >= n_fft.
        window: (n_fft,).
        filters: (mels, n_fft // 2 + 1), as `mel_filters` makes them.
        hop: samples from one frame to the next.
        floor: smallest filter output, a normal float32 above 0.

    Returns:
        (frames, mels) float32, natural logarithm of magnitudes.
    """
    check = dispatch.check
    dispatch.check_arrays("mel_stft", x=x, window=window, filters=filters)
    dispatch.check_whole("mel_stft", hop=hop)
    dispatch.check_finite("mel_stft", floor=floor)
    check("mel_stft", window.ndim == 1 and window.shape[0] >= 2, "window", "of shape (n_fft,)", window.shape)
    n_fft = window.shape[0]
    check("mel_stft", x.ndim == 1 and x.shape[0] >= n_fft, "x", f"(n,) with n >= {n_fft}", tuple(x.shape))
    fits = filters.ndim == 2 and filters.shape[1] == n_fft // 2 + 1
    check("mel_stft", fits, "filters", f"of shape (mels, {n_fft // 2 + 1})", tuple(filters.shape))
    check("mel_stft", hop >= 1, "hop", "at least 1", hop)
    check("mel_stft", floor >= 2.0**-126, "floor", "a normal float32 above 0", floor)
    run = dispatch.select("mel_stft", {"cpu": _mel_stft_cpu, "reference": _mel_stft_blocks})
    return run(x, window, filters, hop=hop, floor=floor)


def reflect_pad(x: mx.array, left: int, right: int) -> mx.array:
    """Mirror the first axis at its ends, which are not repeated, by `left` and `right` steps.

    As PyTorch's reflect padding, which needs more than `left` and `right` steps to mirror; here a shorter
    input is mirrored back and forth, as numpy does it, and a single step is repeated.
    """
    dispatch.check_arrays("reflect_pad", x=x)
    dispatch.check_whole("reflect_pad", left=left, right=right)
    dispatch.check("reflect_pad", x.ndim >= 1, "x", "of shape (n, ...)", tuple(x.shape))
    length = x.shape[0]
    dispatch.check("reflect_pad", min(left, right) >= 0, "padding", "at least 0", (left, right))
    period = max(2 * (length - 1), 1)

    def mirrored(start: int, count: int) -> mx.array:
        at = np.arange(start, start + count) % period
        return x[mx.array(np.minimum(at, period - at) if length > 1 else at)]

    parts = [mirrored(-left, left)] if left else []
    return mx.concatenate([*parts, x, mirrored(length, right)] if right else [*parts, x])


def hann(n: int) -> np.ndarray:
    """Periodic Hann window, (n,) float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)).astype(np.float32)


def mel_filters(sample_rate: int, n_fft: int, mels: int, low: float, high: float) -> np.ndarray:
    """Triangular filters evenly spaced in HTK's mel, 2595 log10(1 + f / 700), each of area 1 in Hz (Slaney).

    The same as librosa's `filters.mel(htk=True)`. Frequencies in Hz; returns (mels, n_fft // 2 + 1) float32.
    """
    first, last = (2595 * np.log10(1 + f / 700) for f in (low, high))
    edges = 700 * (10 ** (np.linspace(first, last, mels + 2) / 2595) - 1)
    bins = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    width = np.diff(edges)
    rising = (bins - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins) / width[1:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * area[:, None]).astype(np.float32)


def _case(name: str, samples: int, n_fft: int, mels: int, hop: int, benchmark: bool = False) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        return {
            "x": mx.array(rng.standard_normal(samples, dtype=np.float32)),
            "window": mx.array(hann(n_fft)),
            "filters": mx.array(mel_filters(16000, n_fft, mels, 30, 8000)),
            "hop": hop,
        }

    return Case(name, make, benchmark)


def _frames(x: mx.array, window: mx.array, hop: int) -> int:
    return (x.shape[0] - window.shape[0]) // hop + 1


def _flops(x: mx.array, window: mx.array, filters: mx.array, *, hop: int, floor: float = 1e-5) -> int:
    n = window.shape[0]
    return _frames(x, window, hop) * int(2.5 * n * np.log2(n) + 2 * filters.size)


def _bytes(x: mx.array, window: mx.array, filters: mx.array, *, hop: int, floor: float = 1e-5) -> int:
    return 4 * (x.size + window.size + filters.size + _frames(x, window, hop) * filters.shape[0])


SPEC = OpSpec(
    name="mel_stft",
    op=mel_stft,
    reference=mel_stft_reference,
    cases=(
        _case("one frame", 1024, 1024, 128, 160),
        _case("a sample short of two frames", 1183, 1024, 128, 160),
        _case("an odd window", 45 * 20, 45, 7, 11),
        _case("the shortest window", 12, 2, 1, 1),
        _case("odd sizes", 5003, 254, 31, 37),
        _case("several blocks", 1024 + 160 * 4100, 1024, 128, 160),
        _case("10 s", 161024, 1024, 128, 160, benchmark=True),
    ),
    flops=_flops,
    bytes=_bytes,
    # The logarithm of a small sum of rounded terms, against values of about 10.
    tolerance={"float32": Tolerance(max_abs=1e-5, rms=1e-6)},
)
