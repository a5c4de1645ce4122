"""The ops written down once more, in float64 NumPy: what the kernels are measured against.

MLX has no float64 convolution, and a float32 reference has a rounding error as large as the kernel's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import erf

Array = np.ndarray


def _epilogue(
    y: Array,
    bias: Array | None = None,
    activation: str | None = None,
    residual: Array | None = None,
    scale: float = 1.0,
) -> Array:
    y = y if bias is None else y + bias
    if activation == "relu":
        y = np.maximum(y, 0)
    elif activation == "sigmoid":
        y = 1 / (1 + np.exp(-y))
    elif activation == "tanh":
        y = np.tanh(y)
    elif activation == "gelu":
        y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
    return (y if residual is None else y + residual) * scale


def _leaky(x: Array, slope: float | None) -> Array:
    return x if slope is None else np.where(x > 0, x, x * slope)


def _conv(x: Array, w: Array, stride: tuple[int, int], dilation: tuple[int, int], groups: int) -> Array:
    """(B, H, W, C) * (O, KH, KW, C / groups), no padding."""
    span = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[1:3], strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, span, axis=(1, 2))
    windows = windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    b, h, wd, c = windows.shape[:4]
    parts = []
    for g in range(groups):
        part = windows[:, :, :, g * c // groups : (g + 1) * c // groups]
        weight = w[g * w.shape[0] // groups : (g + 1) * w.shape[0] // groups]
        rows = part.reshape(b * h * wd, -1)
        parts.append(rows @ weight.transpose(0, 3, 1, 2).reshape(len(weight), -1).T)
    return np.concatenate(parts, axis=1).reshape(b, h, wd, -1)


def _conv_transpose(x: Array, w: Array, stride: Any, padding: Any, output_padding: Any) -> Array:
    """PyTorch's definition, by adding each input's contribution where it falls."""
    b, h, wd, _ = x.shape
    o, kh, kw, _ = w.shape
    full = np.zeros(
        (b, (h - 1) * stride[0] + kh + output_padding[0], (wd - 1) * stride[1] + kw + output_padding[1], o)
    )
    for i in range(kh):
        for j in range(kw):
            rows, columns = slice(i, i + h * stride[0], stride[0]), slice(j, j + wd * stride[1], stride[1])
            full[:, rows, columns][:, :h, :wd] += x @ w[:, i, j].T
    return full[:, padding[0] : full.shape[1] - padding[0], padding[1] : full.shape[2] - padding[1]]


def conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int = 1,
    groups: int = 1,
    leaky: float | None = None,
    **rest: Any,
) -> Array:
    pad = (padding, padding) if isinstance(padding, int) else padding
    x = np.pad(_leaky(x, leaky), ((0, 0), pad, (0, 0)))
    y = _conv(x[:, None], weight[:, None], (1, stride), (1, dilation), groups)[:, 0]
    return _epilogue(y, bias, **rest)


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, *, padding: int | tuple[int, int] = 0, **rest: Any
) -> Array:
    pad = (padding, padding) if isinstance(padding, int) else padding
    x = np.pad(x, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0)))
    return _epilogue(_conv(x, weight, (1, 1), (1, 1), 1), bias, **rest)


def conv_transpose1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    leaky: float | None = None,
    **rest: Any,
) -> Array:
    x = _leaky(x, leaky)[:, None]
    y = _conv_transpose(x, weight[:, None], (1, stride), (0, padding), (0, output_padding))
    return _epilogue(y[:, 0], bias, **rest)


def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    output_padding: tuple[int, int] = (0, 0),
    beside: Array | None = None,
    **rest: Any,
) -> Array:
    y = _epilogue(_conv_transpose(x, weight, stride, padding, output_padding), bias, **rest)
    return y if beside is None else np.concatenate([y, beside], axis=-1)


def linear(x: Array, weight: Array, bias: Array | None = None, **rest: Any) -> Array:
    return _epilogue(x @ weight.T, bias, **rest)


def quantized_linear(
    x: Array, weight: Array, scales: Array, biases: Array, *, group_size: int, bits: int, **rest: Any
) -> Array:
    codes = weight.astype(np.uint64)[:, :, None] >> np.arange(0, 32, bits, dtype=np.uint64) & np.uint64(
        2**bits - 1
    )
    groups = codes.reshape(*scales.shape, group_size)
    w = groups * scales[:, :, None] + biases[:, :, None]
    return _epilogue(x @ w.reshape(len(w), -1).T, **rest)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def bigru(x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> Array:
    batch, length, _ = x.shape
    hidden = w_hh.shape[2]
    y = np.zeros((batch, length, 2 * hidden))
    for d, steps in enumerate((range(length), reversed(range(length)))):
        h = np.zeros((batch, hidden))
        for t in steps:
            outer, inner = x[:, t] @ w_ih[d].T + b_ih[d], h @ w_hh[d].T + b_hh[d]
            (r, z, n), (hr, hz, hn) = (np.split(part, 3, axis=1) for part in (outer, inner))
            update = _sigmoid(z + hz)
            h = (1 - update) * np.tanh(n + _sigmoid(r + hr) * hn) + update * h
            y[:, t, d * hidden : (d + 1) * hidden] = h
    return y


def knn(queries: Array, vectors: Array, k: int) -> tuple[Array, Array]:
    """Distances from differences, of 64 more than asked for that a product in float64 finds."""
    product = (vectors**2).sum(1) - 2 * queries @ vectors.T
    near = np.sort(np.argsort(product, axis=1)[:, : k + 64], axis=1)
    d2 = np.full((len(queries), max(k, near.shape[1])), np.inf)
    rows = np.full(d2.shape, -1)
    d2[:, : near.shape[1]] = [((vectors[of] - q) ** 2).sum(1) for of, q in zip(near, queries, strict=True)]
    rows[:, : near.shape[1]] = near
    order = np.argsort(d2, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(d2, order, 1), np.take_along_axis(rows, order, 1)


def mel_stft(
    x: Array, window: Array, filters: Array, *, hop: int, floor: float = 1e-5, pad: int = 0
) -> Array:
    x = np.pad(x, pad, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(x, len(window))[::hop]
    return np.log(np.maximum(np.abs(np.fft.rfft(frames * window)) @ filters.T, floor))


def nsf_source(
    f0: Array,
    noise: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    hop: int,
    sample_rate: int,
    phase: Any = 0.0,
    offsets: Array | None = None,
    interpolation: str = "nearest",
    accumulation: str = "frame",
) -> Array:
    """Sample by sample; only what the op's documentation says is rounded is float32."""
    y = np.zeros(noise.shape[:2])
    for b, row in enumerate(f0):
        place = np.arange(len(row) * hop)
        if interpolation == "linear":
            place = (place + 0.5) / hop - 0.5
        else:
            place = place // hop
        frequency = np.interp(place, np.arange(len(row)), row).astype(np.float32)
        for h, w in enumerate(weight):
            step = (frequency * np.float32(h + 1) / np.float32(sample_rate)).reshape(-1, hop)
            within = step.astype(np.float64).cumsum(1)
            advance = within[:, -1]
            if accumulation == "frame":
                advance = (step[:, 0] * np.float32(hop) + np.float32(0.5)).astype(np.float64) - 0.5
            before = np.concatenate([[0], advance.cumsum()[:-1]])
            cycles = (within + before[:, None]).reshape(-1) + np.resize(phase, len(f0))[b] * (h + 1)
            sine = np.sin(2 * np.pi * (cycles + (0 if offsets is None else offsets[b, h])))
            voiced = frequency > 0
            y[b] += w * (0.1 * voiced * sine + np.where(voiced, 0.003, 0.1 / 3) * noise[b, :, h])
    return np.tanh(y if bias is None else y + bias)[..., None]


def wavenet_gate(x: Array, g: Array) -> Array:
    a, b = np.split(x + g, 2, axis=2)
    return np.tanh(a) / (1 + np.exp(-b))


def attention(q: Array, k: Array, v: Array, *, scale: float) -> Array:
    scores = (q @ k.swapaxes(-1, -2)) * scale
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True) @ v


def layer_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float = 1e-5,
    residual: Array | None = None,
) -> Array:
    x = x if residual is None else x + residual
    x = x - x.mean(axis=-1, keepdims=True)
    y = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def relpos_attention(q: Array, k: Array, v: Array, rel_k: Array, rel_v: Array, window: int) -> Array:
    length = q.shape[2]
    distance = np.arange(length) - np.arange(length)[:, None]
    near = abs(distance) <= window
    row = np.where(near, distance + window, 0)
    q = q / np.sqrt(q.shape[3])
    scores = q @ k.swapaxes(-1, -2)
    scores += np.where(near, np.take_along_axis(q @ rel_k.T, np.broadcast_to(row, scores.shape), -1), 0)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    by_distance = np.zeros((*p.shape[:3], 2 * window + 1))
    for i in range(length):
        by_distance[:, :, i, row[i, near[i]]] = p[:, :, i, near[i]]
    return p @ v + by_distance @ rel_v


def resblock(x: Array, blocks: Any, slope: float) -> Array:
    """The mean of residual blocks; a step of a block is a chain of convolutions that is added to its input."""
    total = np.zeros_like(x)
    for block in blocks:
        y = x
        for step in block:
            z = y
            for conv in step:
                weight, bias = (
                    None if a is None else np.array(a, np.float64) for a in (conv.weight, conv.bias)
                )
                reach = conv.dilation * (weight.shape[1] // 2)
                z = conv1d(z, weight, bias, padding=reach, dilation=conv.dilation, leaky=slope)
            y = y + z
        total = total + y
    return total / len(blocks)


EXACT: dict[str, Callable[..., Array]] = {
    "attention": attention,
    "bigru": bigru,
    "conv1d": conv1d,
    "conv2d": conv2d,
    "conv_transpose1d": conv_transpose1d,
    "conv_transpose2d": conv_transpose2d,
    "knn": knn,
    "layer_norm": layer_norm,
    "linear": linear,
    "mel_stft": mel_stft,
    "nsf_source": nsf_source,
    "quantized_linear": quantized_linear,
    "relpos_attention": relpos_attention,
    "resblock": resblock,
    "wavenet_gate": wavenet_gate,
}
