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

from typing import Any, Literal, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, dispatch, gpu
from .op import Op
from .packed import Array
from .spec import Case, Tolerance

Interpolation = Literal["nearest", "linear"]
Accumulation = Literal["frame", "sample"]
SINE_AMPLITUDE = 0.1
NOISE_STD = 0.003
MOST_HARMONICS = 2048


def _upsample(f0: mx.array, hop: int, interpolation: Interpolation) -> mx.array:
    """(B, T) -> (B, T, hop), float32."""
    f0 = f0.astype(mx.float32)[..., None]
    if interpolation == "nearest":
        return mx.broadcast_to(f0, (*f0.shape[:2], hop))
    place = (np.arange(hop) + 0.5) / hop - 0.5
    back, ahead = (mx.array(np.maximum(p, 0), dtype=mx.float64) for p in (-place, place))
    before = mx.concatenate([f0[:, :1], f0[:, :-1]], axis=1)
    after = mx.concatenate([f0[:, 1:], f0[:, -1:]], axis=1)
    return (f0 + (before - f0) * back + (after - f0) * ahead).astype(mx.float32)


def _cycles(
    frequency: mx.array, sample_rate: int, start: mx.array, accumulation: Accumulation
) -> tuple[mx.array, mx.array]:
    """(B, T, hop) Hz, cycles before the first sample (B, 1) in double -> cycles in double.

    They are given at each sample (B, T, hop), from -0.5 to 0.5, and after each frame (B, T), from 0 to 1.
    """
    step = frequency / mx.array(sample_rate, dtype=mx.float32)
    within = mx.cumsum(step.astype(mx.float64), axis=2)
    if accumulation == "sample":
        advance = within[:, :, -1]
    else:
        advance = (step[:, :, 0] * step.shape[2] + 0.5).astype(mx.float64) - 0.5
    advance = advance - mx.round(advance)
    ends = start + mx.cumsum(advance, axis=1)
    cycles = (ends - advance)[..., None] + within
    return cycles - mx.round(cycles), ends - mx.floor(ends)


def _double(numbers: np.ndarray | float) -> mx.array:
    """Numbers of the host, one or one per row, as (1 or B, 1) in double."""
    return mx.array(np.reshape(numbers, (-1, 1)), dtype=mx.float64)


def advance_phase(
    f0: mx.array,
    *,
    hop: int,
    sample_rate: int,
    phase: np.ndarray | float = 0.0,
    interpolation: Interpolation = "nearest",
    accumulation: Accumulation = "frame",
) -> np.ndarray:
    """Return the phase (B, T) after each frame of f0 (B, T), double, in [0, 1) cycles.

    That after the last frame is the `phase` of the chunk that follows.
    """
    with mx.stream(mx.cpu):
        _, ends = _cycles(_upsample(f0, hop, interpolation), sample_rate, _double(phase), accumulation)
    return np.array(ends)


class Options(NamedTuple):
    """What a call states beside its arrays."""

    hop: int
    sample_rate: int
    phase: np.ndarray | float
    interpolation: Interpolation
    accumulation: Accumulation


def _check(
    f0: mx.array, noise: mx.array, weight: mx.array, bias: Array, offsets: Array, o: Options
) -> Options:
    op = "nsf_source"
    checks.arrays(op, f0=f0, noise=noise, weight=weight, bias=bias, offsets=offsets)
    checks.whole(op, hop=o.hop, sample_rate=o.sample_rate)
    checks.rank(op, "f0", f0, "(B, T)")
    checks.at_least(op, 1, hop=o.hop, sample_rate=o.sample_rate)
    checks.check(op, weight.ndim == 1, "weight", "of shape (H,)", tuple(weight.shape))
    batch, frames = f0.shape
    checks.shape(op, "noise", noise, (batch, frames * o.hop, weight.shape[0]))
    checks.shape(op, "bias", bias, (1,))
    checks.shape(op, "offsets", offsets, (batch, weight.shape[0]))
    finite = isinstance(o.phase, int | float | np.number | np.ndarray) and bool(np.isfinite(o.phase).all())
    checks.check(op, finite, "phase", "finite, in cycles", repr(o.phase))
    checks.check(op, np.size(o.phase) in (1, batch), "phase", "one number or one per row", o.phase)
    known = o.interpolation in ("nearest", "linear")
    checks.check(op, known, "interpolation", "'nearest' or 'linear'", repr(o.interpolation))
    whole = o.accumulation == "sample" or (o.accumulation == "frame" and o.interpolation == "nearest")
    checks.check(op, whole, "accumulation", "'sample', or 'frame' with 'nearest'", repr(o.accumulation))
    return o


def _refuses(
    f0: mx.array, noise: mx.array, weight: mx.array, bias: Array, offsets: Array, o: Options
) -> dispatch.Refusals:
    # The GPU kernel keeps the phases within a frame in shared memory then.
    many = o.interpolation == "linear" and weight.shape[0] > MOST_HARMONICS
    limit = f"more than {MOST_HARMONICS} harmonics are interpolated" if many else None
    return {"metal": limit, "cuda": limit}


def _reference(
    f0: mx.array, noise: mx.array, weight: mx.array, bias: Array, offsets: Array, o: Options
) -> mx.array:
    """The definition, in stock MLX: the phase on the CPU, as a GPU has no double."""
    batch, samples, harmonics = noise.shape
    with mx.stream(mx.cpu):
        frequency = _upsample(f0, o.hop, o.interpolation)
        shift = mx.zeros((batch, harmonics)) if offsets is None else offsets.astype(mx.float32)
        turns = [
            _cycles(
                frequency * (h + 1),
                o.sample_rate,
                _double(o.phase) * (h + 1) + shift[:, h : h + 1].astype(mx.float64),
                o.accumulation,
            )[0]
            .astype(mx.float32)
            .reshape(batch, samples)
            for h in range(harmonics)
        ]
    voiced = (frequency > 0).reshape(batch, samples)
    level = mx.where(voiced, NOISE_STD, SINE_AMPLITUDE / 3)
    y = mx.zeros((batch, samples)) if bias is None else mx.broadcast_to(bias, (batch, samples))
    for h in range(harmonics):
        sine = mx.sin(turns[h] * (2 * np.pi)) * SINE_AMPLITUDE
        y = y + weight[h] * (mx.where(voiced, sine, 0) + level * noise[:, :, h])
    return mx.tanh(y)[..., None]


def _cpu(
    f0: mx.array, noise: mx.array, weight: mx.array, bias: Array, offsets: Array, o: Options
) -> mx.array:
    hop, sample_rate, phase, interpolation, accumulation = o
    phases = [phase] if isinstance(phase, float) else np.reshape(phase, -1).tolist()
    return native.compiled.nsf_source(
        f0, noise, weight, bias, offsets, hop, sample_rate, phases, interpolation, accumulation
    )


def fixed_cycles(cycles: np.ndarray) -> np.ndarray:
    """Return the fractions of double numbers of cycles in whole 2^-64, uint64."""
    halves = (cycles - np.floor(cycles)) * 2.0**32
    high = np.floor(halves)
    low = (halves - high) * 2.0**32
    return (high.astype(np.uint64) << np.uint64(32)) + low.astype(np.uint64)


def gpu_phases(
    backend: str, f0: mx.array, start: np.ndarray, offsets: mx.array | None, o: Options
) -> mx.array:
    """f0 (B, T), cycles of each harmonic before the first sample (B, H) -> before each frame (B, H, T), 2^-64 cycles."""
    batch, frames = f0.shape
    harmonics = start.shape[1]
    return gpu.launch(
        backend,
        "nsf_source",
        "nsf_phase",
        {"f0": f0, "offsets": offsets, "start": mx.array(fixed_cycles(start))},
        sizes={"harmonics": harmonics, "frames": frames, "hop": o.hop, "sample_rate": o.sample_rate},
        options={"LINEAR": o.interpolation == "linear", "BY_FRAME": o.accumulation == "frame"},
        groups=(batch * harmonics, 1, 1),
        threads=256,
        outputs=[((batch, harmonics, frames), mx.uint64)],
    )[0]


def _gpu(
    backend: str, f0: mx.array, noise: mx.array, weight: mx.array, bias: Array, offsets: Array, o: Options
) -> mx.array:
    batch, frames = f0.shape
    harmonics = weight.shape[0]
    start = np.reshape(o.phase, (-1, 1)) * np.arange(1, harmonics + 1.0)
    phases = gpu_phases(backend, f0, np.broadcast_to(start, (batch, harmonics)), offsets, o)
    y = gpu.launch(
        backend,
        "nsf_source",
        "nsf_source",
        {"f0": f0, "noise": noise, "weight": weight, "bias": bias, "phase": phases},
        sizes={"frames": frames, "hop": o.hop, "sample_rate": o.sample_rate},
        options={"LINEAR": o.interpolation == "linear", "HARMONICS": harmonics},
        groups=(frames * batch, 1, 1),
        threads=32 if o.hop <= 64 else 128,
        outputs=[((batch, frames * o.hop, 1), mx.float32)],
    )
    return y[0]


NSF_SOURCE = Op(
    "nsf_source",
    Options,
    _check,
    _reference,
    {"cpu": _cpu, **gpu.both(_gpu)},
    refuses=_refuses,
    constants=("f0", "offsets"),
)


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

    f0 and offsets have no gradient. Asking for one is an InputError, or gives NaN on a GPU and without a kernel.

    Args:
        f0: (B, T) Hz, 0 where unvoiced.
        noise: (B, T * hop, H), standard normal.
        weight: (H,), how the harmonics are merged.
        bias: (1,) or None.
        hop: samples per frame.
        sample_rate: of the result, Hz.
        phase: cycles of the fundamental before the first sample, one number or double (B,); what
            `advance_phase` returned for the last frame of the chunk before.
        offsets: (B, H) cycles added to each harmonic, or None.
        interpolation: "nearest" or "linear".
        accumulation: what is rounded to float32, "frame" (only with "nearest") or "sample".

    Returns:
        (B, T * hop, 1) float32.

    Raises:
        InputError: a shape or value that does not fit, named with the argument.
    """
    return NSF_SOURCE(f0, noise, weight, bias, offsets, hop, sample_rate, phase, interpolation, accumulation)


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


SPEC = NSF_SOURCE.describe(
    nsf_source,
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
