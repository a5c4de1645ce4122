from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

def configure(*, threads: int = 0, isa: str = "") -> None: ...
def isa() -> str: ...
def isas() -> list[str]: ...
def threads() -> int: ...
def release_scratch() -> None: ...
def bfloat16() -> bool: ...
def layout() -> str: ...
def borrow(x: np.ndarray) -> mx.array: ...
def read_arrays(fd: int, spans: list[tuple[int, int, str]]) -> list[mx.array]: ...
def fma_peak(dtype: str = "float32") -> float: ...
def int8_peak() -> float: ...
def memory_peak(kind: str, bytes: int) -> float: ...
def iir(b: np.ndarray, a: np.ndarray, x: np.ndarray, delays: np.ndarray) -> np.ndarray: ...
def signature(arguments: tuple[Any, ...]) -> bytes | None: ...
def with_rules(rules: Any, run: Callable[..., Any], *arguments: Any) -> Any: ...
def conv1d_pack(
    weight: mx.array, groups: int = 1, dtype: str = "float32", stream: mx.Stream | mx.Device | None = ...
) -> mx.array: ...
def conv1d(
    x: mx.array,
    packed: mx.array,
    bias: mx.array | None,
    residual: mx.array | None,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
    leaky: float = 1.0,
    activation: str = "",
    scale: float = 1.0,
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def bigru(
    forward: mx.array,
    backward: mx.array,
    w_hh: mx.array,
    b_hh: mx.array,
    h: mx.array,
    stream: mx.Stream | mx.Device | None = ...,
) -> tuple[mx.array, mx.array]: ...
def linear_pack(
    weight: mx.array, dtype: str = "float32", stream: mx.Stream | mx.Device | None = ...
) -> mx.array: ...
def linear(
    x: mx.array,
    packed: mx.array,
    bias: mx.array | None,
    residual: mx.array | None,
    out_channels: int,
    activation: str = "",
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def conv2d_pack(
    weight: mx.array, dtype: str = "float32", stream: mx.Stream | mx.Device | None = ...
) -> mx.array: ...
def conv2d(
    x: mx.array,
    packed: mx.array,
    bias: mx.array | None,
    residual: mx.array | None,
    out_channels: int,
    kernel: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
    activation: str = "",
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def conv_transpose1d_pack(
    weight: mx.array, stride: int = 1, dtype: str = "float32", stream: mx.Stream | mx.Device | None = ...
) -> mx.array: ...
def conv_transpose1d(
    x: mx.array,
    packed: mx.array,
    bias: mx.array | None,
    residual: mx.array | None,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    leaky: float = 1.0,
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def conv_transpose2d_pack(
    weight: mx.array,
    stride: tuple[int, int] = (1, 1),
    dtype: str = "float32",
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def conv_transpose2d(
    x: mx.array,
    packed: mx.array,
    bias: mx.array | None,
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    output_padding: tuple[int, int] = (0, 0),
    activation: str = "",
    beside: mx.array | None = None,
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def wavenet_gate(x: mx.array, g: mx.array, stream: mx.Stream | mx.Device | None = ...) -> mx.array: ...
def mel_stft(
    x: mx.array,
    window: mx.array,
    filters: mx.array,
    hop: int,
    floor: float = 1e-5,
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def nsf_source(
    f0: mx.array,
    noise: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    offsets: mx.array | None,
    hop: int,
    sample_rate: int,
    phase: list[float] = ...,
    interpolation: str = "nearest",
    accumulation: str = "frame",
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def knn(
    queries: mx.array, vectors: mx.array, k: int, stream: mx.Stream | mx.Device | None = ...
) -> tuple[mx.array, mx.array]: ...
def attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    scale: float,
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def layer_norm(
    x: mx.array,
    weight: mx.array | None = None,
    bias: mx.array | None = None,
    residual: mx.array | None = None,
    eps: float = 1e-5,
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
def relpos_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    rel_k: mx.array,
    rel_v: mx.array,
    window: int,
    stream: mx.Stream | mx.Device | None = ...,
) -> mx.array: ...
