"""mel_stft: sound (n,) -> log mel spectrogram (frames, mels), frames = (n + 2 * pad - n_fft) // hop + 1.

y[t] = log(max(filters @ |rfft(window * x[t * hop : t * hop + n_fft])|, floor))

x may be mirrored at its ends first: centred frames have pad = n_fft // 2.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from .. import native
from . import checks, gpu
from .blocks import after, blocks
from .op import Op
from .packed import PackedWeight, Weight
from .spec import Case, Tolerance

# Frames transformed at a time: a frame's window and spectrum are 12 KB of intermediates.
BLOCK = 2048

THREADS = 128
# Complex points of a frame that fit in a group's shared memory, and those that leave room for a second frame.
MOST_POINTS = 2048
MOST_SHARED_POINTS = 1024


class Options(NamedTuple):
    """What a call states beside its arrays."""

    hop: int
    floor: float
    pad: int


def _check(x: mx.array, window: mx.array, filters: Weight, o: Options) -> Options:
    op = "mel_stft"
    checks.arrays(op, x=x, window=window, filters=filters)
    checks.packed(op, filters, beside=x)
    checks.whole(op, hop=o.hop, pad=o.pad)
    checks.finite(op, floor=o.floor)
    checks.check(op, window.ndim == 1 and window.shape[0] >= 2, "window", "of shape (n_fft,)", window.shape)
    n_fft = window.shape[0]
    checks.at_least(op, 0, pad=o.pad)
    fits = x.ndim == 1 and x.shape[0] + 2 * o.pad >= n_fft
    checks.check(op, fits, "x", f"(n,) with n + 2 * {o.pad} >= {n_fft}", tuple(x.shape))
    fits = filters.ndim == 2 and filters.shape[1] == n_fft // 2 + 1
    checks.check(op, fits, "filters", f"of shape (mels, {n_fft // 2 + 1})", tuple(filters.shape))
    checks.at_least(op, 1, hop=o.hop)
    checks.check(op, o.floor >= 2.0**-126, "floor", "a normal float32 above 0", o.floor)
    return o


def _reference(x: mx.array, window: mx.array, filters: mx.array, o: Options) -> mx.array:
    x = reflect_pad(x, o.pad, o.pad)
    n_fft = window.shape[0]
    frames = (x.shape[0] - n_fft) // o.hop + 1
    x = mx.as_strided(x, (frames, n_fft), (o.hop, 1))
    return mx.log(mx.maximum(mx.abs(mx.fft.rfft(x * window)) @ filters.T, o.floor))


def _in_blocks(x: mx.array, window: mx.array, filters: mx.array, o: Options) -> mx.array:
    """The reference, some frames after the others."""
    x = reflect_pad(x, o.pad, o.pad)
    n_fft = window.shape[0]
    out: list[mx.array] = []
    for start, end in blocks((x.shape[0] - n_fft) // o.hop + 1, BLOCK):
        part = after(x[start * o.hop : (end - 1) * o.hop + n_fft], out)
        out.append(_reference(part, window, filters, o._replace(pad=0)))
    return mx.concatenate(out)


def _cpu(x: mx.array, window: mx.array, filters: mx.array, o: Options) -> mx.array:
    x = reflect_pad(x, o.pad, o.pad) if o.pad else x
    return native.compiled.mel_stft(x, window, filters, o.hop, o.floor)


def _regroup(_: tuple[Any, ...], o: Options, inputs: list[mx.array]) -> tuple[tuple[Any, ...], Options]:
    """The kernel's input is padded already."""
    return tuple(inputs), o._replace(pad=0)


@functools.cache
def _roots(n: int) -> mx.array:
    """exp(-2 pi i k / n), (n, 2)."""
    turn = np.exp(-2j * np.pi * np.arange(n) / n)
    return mx.array(np.stack([turn.real, turn.imag], axis=1).astype(np.float32))


def _points(n_fft: int) -> int:
    """Complex points of a frame's transform: an even real one is of half its length."""
    return n_fft if n_fft % 2 else n_fft // 2


def _gpu(backend: str, x: mx.array, window: mx.array, filters: Weight, o: Options) -> mx.array:
    n_fft = window.shape[0]
    mels = filters.shape[0]
    packed = filters.data if isinstance(filters, PackedWeight) else _pack_gpu(backend, filters).data
    window = window.astype(mx.float32)
    points = _points(n_fft)
    if points > MOST_POINTS:
        # MLX's FFT, which takes long transforms through device memory.
        x = x.astype(mx.float32)
        return _in_blocks(x, window, packed[:, 2:], o)
    frames = (x.shape[0] + 2 * o.pad - n_fft) // o.hop + 1
    together = 2 if points <= MOST_SHARED_POINTS else 1
    y = gpu.launch(
        backend,
        "mel_stft",
        "mel_stft",
        {"x": x, "window": window, "roots": _roots(n_fft), "filters": packed},
        sizes={"samples": x.shape[0], "frames": frames, "mels": mels, "hop": o.hop, "pad": o.pad},
        options={"N_FFT": n_fft, "FRAMES": together, "FLOOR": float(o.floor)},
        groups=(-(-frames // together), 1, 1),
        threads=THREADS,
        outputs=[((frames, mels), mx.float32)],
    )
    return y[0]


def _pack_gpu(backend: str, filters: mx.array) -> PackedWeight:
    """Each filter after the bin of its first value that is not 0 and the end of the last one."""
    counts = filters != 0
    bins = filters.shape[1]
    first = mx.argmax(counts, axis=1)
    end = mx.where(mx.any(counts, axis=1), bins - mx.argmax(counts[:, ::-1], axis=1), 0)
    bounds = mx.stack([first, end], axis=1).astype(mx.float32)
    data = mx.concatenate([bounds, filters.astype(mx.float32)], axis=1)
    return PackedWeight("mel_stft", data, tuple(filters.shape), backend=backend)


def _unpack(filters: PackedWeight) -> mx.array:
    return filters.data[:, 2:]


def _keep(filters: mx.array) -> mx.array:
    return filters


_BACKENDS = {"cpu": _cpu, "reference": _in_blocks, **gpu.both(_gpu)}
_PACK = {"cpu": _keep, "reference": _keep, **gpu.both(_pack_gpu)}
MEL_STFT = Op(
    "mel_stft", Options, _check, _reference, _BACKENDS, pack=_PACK, unpack=_unpack, regroup=_regroup
)


def pack_mel_stft(filters: mx.array) -> Weight:
    """Rearrange filters (mels, n_fft // 2 + 1) for the backend in use."""
    checks.arrays("mel_stft", filters=filters)
    checks.rank("mel_stft", "filters", filters, "(mels, bins)")
    return MEL_STFT.packed(filters, beside=mx.float32)


def mel_stft(
    x: mx.array, window: mx.array, filters: Weight, *, hop: int, floor: float = 1e-5, pad: int = 0
) -> mx.array:
    """Log mel spectrogram; see the module's formula.

    Args:
        x: (n,) sound, n + 2 * pad >= n_fft.
        window: (n_fft,).
        filters: (mels, n_fft // 2 + 1), as `mel_filters` makes them, or what `pack_mel_stft` made of them.
        hop: samples from one frame to the next.
        floor: smallest filter output, a normal float32 above 0.
        pad: samples by which x is mirrored at both ends, as by `reflect_pad`.

    Returns:
        (frames, mels) float32, natural logarithm of magnitudes.
    """
    return MEL_STFT(x, window, filters, hop, floor, pad)


def reflect_pad(x: mx.array, left: int, right: int) -> mx.array:
    """Mirror the first axis at its ends, which are not repeated, by `left` and `right` steps.

    As PyTorch's reflect padding, which needs more than `left` and `right` steps to mirror; here a shorter
    input is mirrored back and forth, as numpy does it, and a single step is repeated.
    """
    checks.arrays("reflect_pad", x=x)
    checks.whole("reflect_pad", left=left, right=right)
    checks.check("reflect_pad", x.ndim >= 1, "x", "of shape (n, ...)", tuple(x.shape))
    length = x.shape[0]
    checks.check("reflect_pad", min(left, right) >= 0, "padding", "at least 0", (left, right))
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


def _case(
    name: str, samples: int, n_fft: int, mels: int, hop: int, pad: int = 0, benchmark: bool = False
) -> Case:
    def make(rng: np.random.Generator) -> dict[str, Any]:
        return {
            "x": mx.array(rng.standard_normal(samples, dtype=np.float32)),
            "window": mx.array(hann(n_fft)),
            "filters": mx.array(mel_filters(16000, n_fft, mels, 30, 8000)),
            "hop": hop,
            **({"pad": pad} if pad else {}),
        }

    return Case(name, make, benchmark)


def _dims(
    x: mx.array, window: mx.array, filters: mx.array, *, hop: int, floor: float = 1e-5, pad: int = 0
) -> dict[str, int]:
    """S samples, F frames of N of them, M filters of W values that are not 0, A operations of a transform."""
    n, n_fft = x.shape[0], window.shape[0]
    return {
        "S": n,
        "N": n_fft,
        "F": (n + 2 * pad - n_fft) // hop + 1,
        "M": filters.shape[0],
        "W": int(np.count_nonzero(np.array(filters))),
        "A": round(2.5 * n_fft * np.log2(n_fft)),
    }


def _flops(x: mx.array, window: mx.array, filters: mx.array, **options: Any) -> int:
    dims = _dims(x, window, filters, **options)
    return dims["F"] * (dims["A"] + 2 * filters.size)


def _bytes(x: mx.array, window: mx.array, filters: mx.array, **options: Any) -> int:
    out = _dims(x, window, filters, **options)["F"] * filters.shape[0]
    return 4 * (x.size + window.size + filters.size + out)


SPEC = MEL_STFT.describe(
    mel_stft,
    cases=(
        _case("one frame", 1024, 1024, 128, 160),
        _case("a sample short of two frames", 1183, 1024, 128, 160),
        _case("an odd window", 45 * 20, 45, 7, 11),
        _case("the shortest window", 12, 2, 1, 1),
        _case("odd sizes", 5003, 254, 31, 37),
        _case("one frame to a group", 9000, 3000, 13, 500),
        _case("a large prime", 3 * 509, 509, 9, 127),
        _case("centred frames", 2001, 512, 40, 160, pad=256),
        _case("mirrored back and forth", 5, 64, 9, 3, pad=39),
        _case("one sample", 1, 16, 3, 1, pad=9),
        _case("several blocks", 1024 + 160 * 4100, 1024, 128, 160),
        _case("10 s", 160000, 1024, 128, 160, pad=512, benchmark=True),
    ),
    dims=_dims,
    flops=_flops,
    bytes=_bytes,
    # The logarithm of a small sum of rounded terms, against values of about 10. Everything is
    # float32, whatever the arguments are.
    tolerance=dict.fromkeys(("float32", "float16", "bfloat16"), Tolerance(max_abs=1e-5, rms=1e-6)),
)
