from collections.abc import Callable, Sequence
from typing import Annotated, Any

import mlx.core
import numpy
from numpy.typing import NDArray

def configure(*, threads: int = 0, isa: str = "") -> None: ...
def isa() -> str: ...
def isas() -> list[str]: ...
def formats() -> list[str]: ...
def threads() -> int: ...
def release_scratch() -> None: ...
def set_ahead_limit(bytes: int) -> int: ...
def layout() -> str: ...
def start_trace() -> None: ...
def end_trace() -> list[tuple[str, float, list[list[float]]]]: ...
def borrow(x: Annotated[NDArray, {"order": "C", "device": "cpu", "writable": False}]) -> mlx.core.array: ...
def read_arrays(fd: int, spans: Sequence[tuple[int, int, str]]) -> list[mlx.core.array]: ...
def signature(arguments: tuple[object, ...]) -> bytes | None: ...
def with_rules(rules: object, run: Callable[..., Any], *arguments: object) -> Any: ...
def attention(
    q: mlx.core.array,
    k: mlx.core.array,
    v: mlx.core.array,
    scale: float,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def bigru(
    forward: mlx.core.array,
    backward: mlx.core.array,
    w_hh: mlx.core.array,
    b_hh: mlx.core.array,
    h: mlx.core.array,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> tuple[mlx.core.array, mlx.core.array]: ...
def conv1d_algorithm(shape: Sequence[int], groups: int, wanted: str, dtype: str = "float32") -> str: ...
def conv1d_pack(
    weight: mlx.core.array,
    groups: int = 1,
    algorithm: str = "direct",
    dtype: str = "float32",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def conv1d(
    x: mlx.core.array,
    packed: mlx.core.array,
    bias: mlx.core.array | None,
    residual: mlx.core.array | None,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
    leaky: float = 1.0,
    activation: str = "",
    scale: float = 1.0,
    algorithm: str = "direct",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def conv2d_algorithm(shape: Sequence[int], wanted: str, dtype: str = "float32") -> str: ...
def conv2d_pack(
    weight: mlx.core.array,
    algorithm: str = "direct",
    dtype: str = "float32",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def conv2d(
    x: mlx.core.array,
    packed: mlx.core.array,
    bias: mlx.core.array | None,
    residual: mlx.core.array | None,
    out_channels: int,
    kernel: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
    activation: str = "",
    algorithm: str = "direct",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def conv_transpose1d_pack(
    weight: mlx.core.array,
    stride: int = 1,
    dtype: str = "float32",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def conv_transpose1d(
    x: mlx.core.array,
    packed: mlx.core.array,
    bias: mlx.core.array | None,
    residual: mlx.core.array | None,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    leaky: float = 1.0,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def conv_transpose2d_pack(
    weight: mlx.core.array,
    stride: tuple[int, int] = (1, 1),
    dtype: str = "float32",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def conv_transpose2d(
    x: mlx.core.array,
    packed: mlx.core.array,
    bias: mlx.core.array | None,
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    output_padding: tuple[int, int] = (0, 0),
    activation: str = "",
    beside: mlx.core.array | None = None,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def iir(
    b: Annotated[
        NDArray[numpy.float64], {"shape": (None,), "order": "C", "device": "cpu", "writable": False}
    ],
    a: Annotated[
        NDArray[numpy.float64], {"shape": (None,), "order": "C", "device": "cpu", "writable": False}
    ],
    x: Annotated[
        NDArray[numpy.float64], {"shape": (None,), "order": "C", "device": "cpu", "writable": False}
    ],
    delays: Annotated[
        NDArray[numpy.float64], {"shape": (None,), "order": "C", "device": "cpu", "writable": False}
    ],
) -> NDArray[numpy.float64]: ...
def knn(
    queries: mlx.core.array,
    vectors: mlx.core.array,
    k: int,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> tuple[mlx.core.array, mlx.core.array]: ...
def layer_norm(
    x: mlx.core.array,
    weight: mlx.core.array | None = None,
    bias: mlx.core.array | None = None,
    residual: mlx.core.array | None = None,
    eps: float = 9.999999747378752e-06,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def linear_pack(
    weight: mlx.core.array,
    dtype: str = "float32",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def linear(
    x: mlx.core.array,
    packed: mlx.core.array,
    bias: mlx.core.array | None,
    residual: mlx.core.array | None,
    out_channels: int,
    activation: str = "",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def mel_stft(
    x: mlx.core.array,
    window: mlx.core.array,
    filters: mlx.core.array,
    hop: int,
    floor: float = 9.999999747378752e-06,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def nsf_source(
    f0: mlx.core.array,
    noise: mlx.core.array,
    weight: mlx.core.array,
    bias: mlx.core.array | None,
    offsets: mlx.core.array | None,
    hop: int,
    sample_rate: int,
    phase: Sequence[float] = [0.0],
    interpolation: str = "nearest",
    accumulation: str = "frame",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def fma_peak(dtype: str = "float32") -> float: ...
def int8_peak() -> float: ...
def memory_peak(kind: str, bytes: int) -> float: ...
def quantized_linear(
    x: mlx.core.array,
    weight: mlx.core.array,
    scales: mlx.core.array,
    biases: mlx.core.array,
    bias: mlx.core.array | None,
    residual: mlx.core.array | None,
    group_size: int,
    bits: int,
    activation: str = "",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def relpos_attention(
    q: mlx.core.array,
    k: mlx.core.array,
    v: mlx.core.array,
    rel_k: mlx.core.array,
    rel_v: mlx.core.array,
    window: int,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def resblock_algorithm(channels: int, kernel: int, wanted: str, dtype: str = "float32") -> str: ...
def resblock_pack(
    weight: mlx.core.array,
    algorithm: str,
    dtype: str = "float32",
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def resblock(
    x: mlx.core.array,
    packed: Sequence[mlx.core.array],
    biases: Sequence[mlx.core.array | None],
    convs: Sequence[tuple[int, int, str, bool, bool]],
    slope: float,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
def wavenet_gate(
    x: mlx.core.array,
    g: mlx.core.array,
    stream: mlx.core.Stream | mlx.core.ThreadLocalStream | mlx.core.Device | mlx.core.DeviceType = ...,
) -> mlx.core.array: ...
