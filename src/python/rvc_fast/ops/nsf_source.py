"""nsf_source: (B, T) Hz -> (B, T * hop, 1), the excitation of a neural source filter decoder (Wang et al. 2019).

y[n] = tanh(bias + sum_h weight[h] * (0.1 * voiced[n] * sin(2 pi (h * c[n] + offset[h])) + level[n] * noise[n, h]))

with harmonics h = 1 .. H, c the running phase of f0 in cycles, voiced = f0 > 0 and level = 0.003 where voiced,
0.1 / 3 elsewhere. f0 is held for the hop samples of its frame ("nearest") or runs linearly from frame
centre to frame centre ("linear", the first and last half frame constant).
"""

from __future__ import annotations

from typing import Any, Literal

import mlx.core as mx
import numpy as np

from . import dispatch
from .spec import Case, OpSpec, Tolerance

dispatch.register("nsf_source")

Interpolation = Literal["nearest", "linear"]
SINE_AMPLITUDE = 0.1
NOISE_STD = 0.003


def _upsample(f0: np.ndarray, hop: int, interpolation: Interpolation) -> np.ndarray:
    """(B, T) -> (B, T, hop) in double."""
    f0 = f0.astype(np.float64)[..., None]
    if interpolation == "nearest":
        return np.broadcast_to(f0, (*f0.shape[:2], hop))
    place = (np.arange(hop) + 0.5) / hop - 0.5
    before = np.concatenate([f0[:, :1], f0[:, :-1]], axis=1)
    after = np.concatenate([f0[:, 1:], f0[:, -1:]], axis=1)
    return f0 + (before - f0) * np.maximum(-place, 0) + (after - f0) * np.maximum(place, 0)


def _cycles(
    frequency: np.ndarray, sample_rate: int, phase: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """(B, T, hop) Hz -> phase of the fundamental at each sample (B, T, hop) and after the last (B,), modulo 1.

    Only the fractions of the frames are accumulated, in double: after an hour the phase is off by less than
    1e-8 cycles, so what float32 makes of it (3e-8 cycles, 2e-7 rad) is the whole error at any length.
    """
    within = np.cumsum(frequency / sample_rate, axis=2)
    advance = within[:, :, -1]
    ends = np.reshape(phase, (-1, 1)) + np.cumsum(advance - np.rint(advance), axis=1)
    starts = ends - (advance - np.rint(advance))
    cycles = starts[..., None] + within
    return cycles - np.rint(cycles), ends[:, -1] - np.floor(ends[:, -1])


def advance_phase(
    f0: mx.array,
    *,
    hop: int,
    sample_rate: int,
    phase: np.ndarray | float = 0.0,
    interpolation: Interpolation = "nearest",
) -> np.ndarray:
    """Return the phase (B,) in cycles, double, in [0, 1), after f0 (B, T): where the next chunk continues."""
    frequency = _upsample(np.array(f0), hop, interpolation)
    return _cycles(frequency, sample_rate, phase)[1]


def nsf_source_reference(
    f0: mx.array,
    noise: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    *,
    hop: int,
    sample_rate: int,
    phase: np.ndarray | float,
    offsets: mx.array | None,
    interpolation: Interpolation,
) -> mx.array:
    """The definition: phase in double on the host, the rest in stock MLX."""
    frequency = _upsample(np.array(f0), hop, interpolation)
    cycles, _ = _cycles(frequency, sample_rate, phase)
    batch, samples, harmonics = noise.shape
    voiced = mx.array((frequency > 0).reshape(batch, samples))
    level = mx.where(voiced, NOISE_STD, SINE_AMPLITUDE / 3)
    y = mx.zeros((batch, samples)) if bias is None else mx.broadcast_to(bias, (batch, samples))
    for h in range(harmonics):
        turn = cycles.reshape(batch, samples) * (h + 1)
        if offsets is not None:
            turn += np.array(offsets[:, h : h + 1], dtype=np.float64)
        turn -= np.rint(turn)
        sine = mx.sin(mx.array(turn.astype(np.float32)) * (2 * np.pi)) * SINE_AMPLITUDE
        y = y + weight[h] * (mx.where(voiced, sine, 0) + level * noise[:, :, h])
    return mx.tanh(y)[..., None]


def nsf_source(
    f0: mx.array,
    noise: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    *,
    hop: int,
    sample_rate: int,
    phase: np.ndarray | float = 0.0,
    offsets: mx.array | None = None,
    interpolation: Interpolation = "nearest",
) -> mx.array:
    """Sines at f0 and its harmonics plus noise, merged into one excitation; see the module's formula.

    Args:
        f0: (B, T) Hz, 0 where unvoiced.
        noise: (B, T * hop, H), standard normal.
        weight: (H,), how the harmonics are merged.
        bias: (1,) or None.
        hop: samples per frame.
        sample_rate: of the result, Hz.
        phase: cycles of the fundamental before the first sample, one number or double (B,); what
            `advance_phase` returned for the chunk before.
        offsets: (B, H) cycles added to each harmonic, or None.
        interpolation: "nearest" or "linear".

    Returns:
        (B, T * hop, 1) float32. The phase is exact to 2e-7 rad at any length, see `_cycles`.

    Raises:
        InputError: a shape or value that does not fit, named with the argument.
    """
    op = "nsf_source"
    dispatch.check(op, f0.ndim == 2 and f0.shape[1] >= 1, "f0", "of shape (B, T)", tuple(f0.shape))
    dispatch.check(op, hop >= 1 and sample_rate >= 1, "hop and sample_rate", "at least 1", (hop, sample_rate))
    dispatch.check(op, weight.ndim == 1, "weight", "of shape (H,)", tuple(weight.shape))
    dispatch.check_shape(op, "noise", noise, (f0.shape[0], f0.shape[1] * hop, weight.shape[0]))
    dispatch.check_shape(op, "bias", bias, (1,))
    dispatch.check_shape(op, "offsets", offsets, (f0.shape[0], weight.shape[0]))
    dispatch.check(op, np.size(phase) in (1, f0.shape[0]), "phase", "one number or one per row", phase)
    known = interpolation in ("nearest", "linear")
    dispatch.check(op, known, "interpolation", "'nearest' or 'linear'", repr(interpolation))
    return dispatch.select(op, {"reference": nsf_source_reference})(
        f0,
        noise,
        weight,
        bias,
        hop=hop,
        sample_rate=sample_rate,
        phase=phase,
        offsets=offsets,
        interpolation=interpolation,
    )


def _case(
    name: str,
    batch: int,
    length: int,
    hop: int,
    harmonics: int = 1,
    interpolation: Interpolation = "nearest",
    **options: Any,
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        f0 = rng.uniform(60, 900, (batch, length)) * (rng.random((batch, length)) < 0.7)
        return {
            "f0": mx.array(f0.astype(np.float32)),
            "noise": mx.array(rng.standard_normal((batch, length * hop, harmonics), dtype=np.float32)),
            "weight": mx.array(rng.standard_normal(harmonics, dtype=np.float32)),
            "bias": mx.array(rng.standard_normal(1, dtype=np.float32)),
            "hop": hop,
            "sample_rate": 100 * hop,
            "phase": 0.25,
            "offsets": mx.array(rng.random((batch, harmonics), dtype=np.float32)),
            "interpolation": interpolation,
        }

    return Case(name, make, **options)


SPEC = OpSpec(
    name="nsf_source",
    op=nsf_source,
    reference=nsf_source_reference,
    cases=(
        _case("length_1", 1, 1, 320),
        _case("one_sample_per_frame", 1, 7, 1),
        _case("primes", 1, 53, 241, harmonics=9),
        _case("linear_odd_hop", 1, 53, 441, interpolation="linear"),
        _case("batch", 3, 17, 40, harmonics=2),
        _case("48k_10s", 1, 1000, 480, benchmark=True),
    ),
    flops=lambda f0, noise, **_: 8 * noise.size,
    bytes=lambda f0, noise, **_: 4 * (f0.size + noise.size + noise.shape[0] * noise.shape[1]),
    tolerance={"float32": Tolerance(max_abs=4e-6, rms=2e-6)},
)
