"""nsf_source: (B, T) Hz -> (B, T * hop, 1), the excitation of a neural source filter (Wang et al. 2019).

y[n] = tanh(bias + sum_h weight[h] * s_h[n])
s_h[n] = 0.1 * voiced[n] * sin(2 pi (c_h[n] + offset[h])) + level[n] * noise[n, h]

with harmonics h = 1 .. H, c_h the running phase of h * f0 in cycles, voiced = f0 > 0 and level = 0.003 where
voiced, 0.1 / 3 elsewhere. f0 is held for the hop samples of its frame ("nearest") or runs linearly from frame
centre to frame centre ("linear", the first and last half frame constant).

The phase does not drift: fractions of a cycle are summed in double, which after an hour is off by less than
1e-8 cycles, or on a GPU in whole 2^-64 cycles, which is exact after any time; float32 then keeps 3e-8 cycles
(2e-7 rad) of it at any length. What is summed is rounded as
in the public code, whose waveform is to be met: the frequency to float32 ("sample", 6e-8 of it), or the
advance of a frame ("frame", 2.4e-7 cycles below 800 Hz: at most 2.4e-5 Hz at 100 frames per second).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import mlx.core as mx
import numpy as np

from . import dispatch, gpu
from .spec import Case, OpSpec, Tolerance

dispatch.register("nsf_source", "cpu", "metal", "cuda")

Interpolation = Literal["nearest", "linear"]
Accumulation = Literal["frame", "sample"]
SINE_AMPLITUDE = 0.1
NOISE_STD = 0.003
MOST_HARMONICS = 2048


def _upsample(f0: np.ndarray, hop: int, interpolation: Interpolation) -> np.ndarray:
    """(B, T) -> (B, T, hop), float32."""
    f0 = f0[..., None]
    if interpolation == "nearest":
        return np.broadcast_to(f0, (*f0.shape[:2], hop))
    place = (np.arange(hop) + 0.5) / hop - 0.5
    before = np.concatenate([f0[:, :1], f0[:, :-1]], axis=1)
    after = np.concatenate([f0[:, 1:], f0[:, -1:]], axis=1)
    y = f0 + (before - f0) * np.maximum(-place, 0) + (after - f0) * np.maximum(place, 0)
    return y.astype(np.float32)


def _cycles(
    frequency: np.ndarray, sample_rate: int, phase: np.ndarray | float, accumulation: Accumulation
) -> tuple[np.ndarray, np.ndarray]:
    """(B, T, hop) Hz -> phase, in cycles and double: at each sample (B, T, hop), and after the last (B,)."""
    step = frequency / np.float32(sample_rate)
    within = np.cumsum(step, axis=2, dtype=np.float64)
    if accumulation == "sample":
        advance = within[:, :, -1]
    else:
        advance = (step[:, :, 0] * np.float32(step.shape[2]) + np.float32(0.5)).astype(np.float64) - 0.5
    advance = advance - np.rint(advance)
    ends = np.reshape(phase, (-1, 1)) + np.cumsum(advance, axis=1)
    cycles = (ends - advance)[..., None] + within
    return cycles - np.rint(cycles), ends[:, -1] - np.floor(ends[:, -1])


def advance_phase(
    f0: mx.array,
    *,
    hop: int,
    sample_rate: int,
    phase: np.ndarray | float = 0.0,
    interpolation: Interpolation = "nearest",
    accumulation: Accumulation = "frame",
) -> np.ndarray:
    """Return the phase (B,) after f0 (B, T), double, in [0, 1) cycles: the next chunk's `phase`."""
    frequency = _upsample(np.array(f0.astype(mx.float32)), hop, interpolation)
    return _cycles(frequency, sample_rate, phase, accumulation)[1]


def nsf_source_reference(
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
    accumulation: Accumulation = "frame",
) -> mx.array:
    """The definition: the phase in double on the host, the rest in stock MLX."""
    frequency = _upsample(np.array(f0.astype(mx.float32)), hop, interpolation)
    batch, samples, harmonics = noise.shape
    voiced = mx.array((frequency > 0).reshape(batch, samples))
    level = mx.where(voiced, NOISE_STD, SINE_AMPLITUDE / 3)
    shift = (
        np.zeros((batch, harmonics))
        if offsets is None
        else np.array(offsets.astype(mx.float32), dtype=np.float64)
    )
    y = mx.zeros((batch, samples)) if bias is None else mx.broadcast_to(bias, (batch, samples))
    for h in range(harmonics):
        overtone = frequency * np.float32(h + 1)
        start = np.reshape(phase, -1) * (h + 1) + shift[:, h]
        cycles, _ = _cycles(overtone, sample_rate, start, accumulation)
        turns = mx.array(cycles.astype(np.float32).reshape(batch, samples))
        sine = mx.sin(turns * (2 * np.pi)) * SINE_AMPLITUDE
        y = y + weight[h] * (mx.where(voiced, sine, 0) + level * noise[:, :, h])
    return mx.tanh(y)[..., None]


def _nsf_source_cpu(
    f0: mx.array,
    noise: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    *,
    phase: np.ndarray | float,
    offsets: mx.array | None,
    **options: Any,
) -> mx.array:
    from .. import native

    phases = np.reshape(phase, -1).tolist()
    return native.ext().nsf_source(f0, noise, weight, bias, offsets, phase=phases, **options)


def fixed_cycles(cycles: np.ndarray) -> np.ndarray:
    """Return the fractions of double numbers of cycles in whole 2^-64, uint64."""
    halves = (cycles - np.floor(cycles)) * 2.0**32
    high = np.floor(halves)
    low = (halves - high) * 2.0**32
    return (high.astype(np.uint64) << np.uint64(32)) + low.astype(np.uint64)


def gpu_phases(
    backend: str,
    f0: mx.array,
    start: np.ndarray,
    offsets: mx.array | None,
    *,
    hop: int,
    sample_rate: int,
    interpolation: Interpolation,
    accumulation: Accumulation,
) -> mx.array:
    """f0 (B, T), cycles of each harmonic before the first sample (B, H) -> before each frame (B, H, T), 2^-64 cycles."""
    batch, frames = f0.shape
    harmonics = start.shape[1]
    return gpu.launch(
        backend,
        "nsf_source",
        "nsf_phase",
        {"f0": f0, "offsets": offsets, "start": mx.array(fixed_cycles(start))},
        sizes=(harmonics, frames, hop, sample_rate),
        options={"LINEAR": interpolation == "linear", "BY_FRAME": accumulation == "frame"},
        groups=(batch * harmonics, 1, 1),
        threads=256,
        outputs=[((batch, harmonics, frames), mx.uint64)],
    )[0]


def _nsf_source_gpu(
    backend: str,
    f0: mx.array,
    noise: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    *,
    phase: np.ndarray | float,
    offsets: mx.array | None,
    hop: int,
    sample_rate: int,
    interpolation: Interpolation,
    accumulation: Accumulation,
) -> mx.array:
    batch, frames = f0.shape
    harmonics = weight.shape[0]
    start = np.broadcast_to(np.reshape(phase, (-1, 1)) * np.arange(1, harmonics + 1.0), (batch, harmonics))
    phases = gpu_phases(
        backend,
        f0,
        start,
        offsets,
        hop=hop,
        sample_rate=sample_rate,
        interpolation=interpolation,
        accumulation=accumulation,
    )
    y = gpu.launch(
        backend,
        "nsf_source",
        "nsf_source",
        {"f0": f0, "noise": noise, "weight": weight, "bias": bias, "phase": phases},
        sizes=(frames, hop, sample_rate),
        options={"LINEAR": interpolation == "linear", "HARMONICS": harmonics},
        groups=(frames * batch, 1, 1),
        threads=32 if hop <= 64 else 128,
        outputs=[((batch, frames * hop, 1), mx.float32)],
    )
    return y[0]


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
    accumulation: Accumulation = "frame",
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
        accumulation: what is rounded to float32, "frame" (only with "nearest") or "sample".

    Returns:
        (B, T * hop, 1) float32.

    Raises:
        InputError: a shape or value that does not fit, named with the argument.
    """
    op = "nsf_source"
    dispatch.check_arrays(op, f0=f0, noise=noise, weight=weight, bias=bias, offsets=offsets)
    dispatch.check_whole(op, hop=hop, sample_rate=sample_rate)
    dispatch.check(op, f0.ndim == 2 and f0.shape[1] >= 1, "f0", "of shape (B, T)", tuple(f0.shape))
    dispatch.check(op, hop >= 1 and sample_rate >= 1, "hop and sample_rate", "at least 1", (hop, sample_rate))
    dispatch.check(op, weight.ndim == 1, "weight", "of shape (H,)", tuple(weight.shape))
    dispatch.check_shape(op, "noise", noise, (f0.shape[0], f0.shape[1] * hop, weight.shape[0]))
    dispatch.check_shape(op, "bias", bias, (1,))
    dispatch.check_shape(op, "offsets", offsets, (f0.shape[0], weight.shape[0]))
    finite = isinstance(phase, int | float | np.number | np.ndarray) and bool(np.isfinite(phase).all())
    dispatch.check(op, finite, "phase", "finite, in cycles", repr(phase))
    dispatch.check(op, np.size(phase) in (1, f0.shape[0]), "phase", "one number or one per row", phase)
    known = interpolation in ("nearest", "linear")
    dispatch.check(op, known, "interpolation", "'nearest' or 'linear'", repr(interpolation))
    whole = accumulation == "sample" or (accumulation == "frame" and interpolation == "nearest")
    dispatch.check(op, whole, "accumulation", "'sample', or 'frame' with 'nearest'", repr(accumulation))
    backends: dict[str, Callable[..., Any]] = {
        "cpu": _nsf_source_cpu,
        "reference": nsf_source_reference,
        **gpu.both(_nsf_source_gpu),
    }
    # The kernel keeps the phases within a frame in shared memory then.
    many = interpolation == "linear" and weight.shape[0] > MOST_HARMONICS
    limit = f"more than {MOST_HARMONICS} harmonics are interpolated" if many else None
    return dispatch.select(op, backends, {"metal": limit, "cuda": limit}, f0.dtype)(
        f0,
        noise,
        weight,
        bias,
        hop=hop,
        sample_rate=sample_rate,
        phase=phase,
        offsets=offsets,
        interpolation=interpolation,
        accumulation=accumulation,
    )


def _case(
    name: str,
    batch: int,
    length: int,
    hop: int,
    harmonics: int = 1,
    interpolation: Interpolation = "nearest",
    accumulation: Accumulation = "sample",
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
            "accumulation": accumulation,
        }

    return Case(name, make, **options)


SPEC = OpSpec(
    name="nsf_source",
    op=nsf_source,
    reference=nsf_source_reference,
    cases=(
        _case("length_1", 1, 1, 320, accumulation="frame"),
        _case("one_sample_per_frame", 1, 7, 1),
        _case("primes", 1, 53, 241, harmonics=9),
        _case("linear_odd_hop", 1, 53, 441, interpolation="linear"),
        _case("batch", 3, 17, 40, harmonics=2),
        _case("48k_10s", 1, 1000, 480, accumulation="frame", benchmark=True),
    ),
    dims=lambda f0, weight, hop, **_: {
        **dict(zip("BT", f0.shape, strict=True)),
        "P": hop,
        "H": weight.shape[0],
    },
    flops=lambda f0, noise, **_: 8 * noise.size,
    bytes=lambda f0, noise, **_: 4 * (f0.size + noise.size + noise.shape[0] * noise.shape[1]),
    # The result is float32 whatever the inputs: nothing more is lost where those are narrower.
    tolerance={name: Tolerance(max_abs=2e-6, rms=1e-6) for name in ("float32", "float16", "bfloat16")},
)
