"""The layers the models are built of: `mlx.nn`-like modules over `rvc_fast.ops`, their weights packed once.

A layer holds `weight` as a plain parameter until `load` replaces it by the kernel's own layout; before that it
works too, packing on every call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from . import native, ops
from .errors import FileFormatError, InputError
from .ops.epilogue import Activation
from .ops.packed import Weight
from .ops.precision import FLOAT32, FLOATS, Precision, mlx_dtype

if TYPE_CHECKING:
    from .weights.kernels import Kernels
    from .weights.stored import Stored

Memory = Literal["normal", "low"]


@dataclass(frozen=True)
class Packing:
    """How a model's weights are packed.

    memory: "normal" lets a kernel hold more than the weights where that makes it faster (the decoder's residual
        blocks take about four times their size, the pitch network's convolutions about twice, those of flow and text
        encoder between two and three times), "low" does not.
    precision: the number formats of its layers, from `ops.precision.choose`.
    """

    memory: Memory = "normal"
    precision: Precision = FLOAT32

    def __post_init__(self) -> None:
        if self.memory not in ("normal", "low"):
            raise InputError(f"[load] memory must be 'normal' or 'low', got {self.memory!r}")

    def of_layer(self, path: str, float_parts: tuple[str, ...]) -> Packing:
        """Return how the layer of this name is packed in a model whose `float_parts` stay in float32."""
        if self.precision.weights not in FLOATS and path.startswith(float_parts):
            return replace(self, precision=replace(self.precision, weights="float32"))
        return self


NORMAL = Packing()


class Layer(nn.Module):
    """Base of the modules that have a `Precision`.

    narrow: names of the parameters that are kept in the format of its activations; the others stay float32.
    """

    narrow: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self._precision = FLOAT32

    @property
    def precision(self) -> Precision:
        """The number formats that it computes in."""
        return self._precision

    def receive(self, x: mx.array) -> mx.array:
        """Return an input in the format of its activations: itself, unless it comes from a float32 island."""
        return x.astype(mlx_dtype(self._precision.activations))

    def adapt(self, precision: Precision) -> None:
        """Compute in these number formats from now on."""
        self._precision = precision
        for name in self.narrow:
            if name in self:
                self[name] = self[name].astype(mlx_dtype(precision.activations))


class PackedLayer(Layer):
    """Base of the layers whose weight has a kernel layout. Subclasses define `_pack`."""

    narrow = ("bias",)

    def __init__(self, shape: tuple[int, ...], bias: bool):
        super().__init__()
        self.weight = mx.zeros(shape)
        if bias:
            self.bias = mx.zeros((shape[0],))
        self._packed: Weight | None = None

    def _pack(self, weight: mx.array, packing: Packing) -> Weight:
        raise TypeError(f"{type(self).__name__} does not say how its weight is packed")

    def pack(self, packing: Packing) -> None:
        """Replace the `weight` parameter by the kernel's layout of it."""
        if self._packed is None:
            self._packed = self._pack(self.pop("weight"), packing)

    def adapt(self, precision: Precision) -> None:
        """As of a `Layer`, with its weight in the format that it was packed in."""
        if isinstance(self._packed, ops.PackedWeight):
            precision = replace(precision, weights=self._packed.dtype)
        super().adapt(precision)

    def packed_form(self, packing: Packing) -> Weight:
        """Return what `pack` would make, its memory not computed."""
        return self._pack(self.weight, packing)

    def adopt(self, packed: ops.PackedWeight) -> None:
        """Replace the `weight` parameter by one that is packed already, of the form that `packed_form` tells."""
        del self.weight
        self._packed = packed

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its weight, before or after packing."""
        return tuple(self.operands[0].shape)

    @property
    def packed(self) -> mx.array | None:
        """The memory of the packed weight, or None before packing."""
        return self._packed.data if isinstance(self._packed, ops.PackedWeight) else self._packed

    @property
    def operands(self) -> tuple[Weight, mx.array | None]:
        """(packed or plain weight, bias or None)."""
        return self.weight if self._packed is None else self._packed, self.get("bias")


class Linear(PackedLayer):
    """x @ weight.T + bias, weight (O, C)."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__((out_channels, in_channels), bias)

    def _pack(self, weight: mx.array, packing: Packing) -> Weight:
        return ops.pack_linear(weight, dtype=packing.precision.weights)

    def __call__(
        self, x: mx.array, *, activation: Activation | None = None, residual: mx.array | None = None
    ) -> mx.array:
        return ops.linear(self.receive(x), *self.operands, activation=activation, residual=residual)


class Conv1d(PackedLayer):
    """`ops.conv1d` with its weight (O, K, C // groups)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__((out_channels, kernel_size, in_channels // groups), bias)
        self._options: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
        }

    def _pack(self, weight: mx.array, packing: Packing) -> Weight:
        o = self._options
        fast = o["stride"] == o["dilation"] == 1 and packing.memory != "low"
        return ops.pack_conv1d(
            weight,
            groups=o["groups"],
            algorithm="auto" if fast else "direct",
            dtype=packing.precision.weights,
        )

    def __call__(
        self,
        x: mx.array,
        *,
        leaky: float | None = None,
        activation: Activation | None = None,
        residual: mx.array | None = None,
        scale: float = 1.0,
    ) -> mx.array:
        return ops.conv1d(
            self.receive(x),
            *self.operands,
            leaky=leaky,
            activation=activation,
            residual=residual,
            scale=scale,
            **self._options,
        )


class ResConv1d(PackedLayer):
    """A convolution of a residual block, weight (C, K, C): run as part of its stage, by `ops.resblock_stage`."""

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1):
        super().__init__((channels, kernel_size, channels), bias=True)
        self._dilation = dilation

    def _pack(self, weight: mx.array, packing: Packing) -> Weight:
        return ops.pack_resblock(
            weight,
            algorithm="direct" if packing.memory == "low" else "auto",
            dtype=packing.precision.weights,
        )

    @property
    def conv(self) -> ops.ResConv:
        """What `ops.resblock_stage` takes."""
        return ops.ResConv(*self.operands, self._dilation)


class _Transposed(PackedLayer):
    """A transposed convolution: the op `convolve` with a weight that `pack_weight` packs for its stride."""

    convolve: Callable[..., mx.array]
    pack_weight: Callable[..., Weight]

    def __init__(self, shape: tuple[int, ...], bias: bool, **options: Any):
        super().__init__(shape, bias)
        self._options = options

    def _pack(self, weight: mx.array, packing: Packing) -> Weight:
        return self.pack_weight(weight, stride=self._options["stride"], dtype=packing.precision.weights)


class ConvTranspose1d(_Transposed):
    """`ops.conv_transpose1d` with its weight (O, K, C)."""

    convolve, pack_weight = staticmethod(ops.conv_transpose1d), staticmethod(ops.pack_conv_transpose1d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        bias: bool = True,
    ):
        shape = out_channels, kernel_size, in_channels
        super().__init__(shape, bias, stride=stride, padding=padding, output_padding=output_padding)

    def __call__(
        self, x: mx.array, *, leaky: float | None = None, residual: mx.array | None = None
    ) -> mx.array:
        return self.convolve(self.receive(x), *self.operands, leaky=leaky, residual=residual, **self._options)


class Conv2d(PackedLayer):
    """`ops.conv2d` with its weight (O, KH, KW, C)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
    ):
        super().__init__((out_channels, *kernel_size, in_channels), bias)
        self._padding = padding

    def _pack(self, weight: mx.array, packing: Packing) -> Weight:
        algorithm = "direct" if packing.memory == "low" else "auto"
        return ops.pack_conv2d(weight, algorithm=algorithm, dtype=packing.precision.weights)

    def __call__(
        self, x: mx.array, *, activation: Activation | None = None, residual: mx.array | None = None
    ) -> mx.array:
        return ops.conv2d(
            self.receive(x),
            *self.operands,
            padding=self._padding,
            activation=activation,
            residual=residual,
        )


class ConvTranspose2d(_Transposed):
    """`ops.conv_transpose2d` with its weight (O, KH, KW, C)."""

    convolve, pack_weight = staticmethod(ops.conv_transpose2d), staticmethod(ops.pack_conv_transpose2d)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        output_padding: tuple[int, int] = (0, 0),
        bias: bool = True,
    ):
        shape = out_channels, *kernel_size, in_channels
        super().__init__(shape, bias, stride=stride, padding=padding, output_padding=output_padding)

    def __call__(
        self, x: mx.array, *, activation: Activation | None = None, beside: mx.array | None = None
    ) -> mx.array:
        return self.convolve(
            self.receive(x), *self.operands, activation=activation, beside=beside, **self._options
        )


class LayerNorm(Layer):
    """`ops.layer_norm` with its weight and bias (C,). Inside it is float32."""

    narrow = ("weight", "bias")

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = mx.ones((channels,))
        self.bias = mx.zeros((channels,))
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return ops.layer_norm(self.receive(x), self.weight, self.bias, eps=self._eps)


class Embedding(Layer):
    """A table of rows (count, width), looked up by whole numbers."""

    narrow = ("weight",)

    def __init__(self, count: int, width: int):
        super().__init__()
        self.weight = mx.zeros((count, width))

    def __call__(self, rows: mx.array) -> mx.array:
        return self.weight[rows]


def packed_layers(model: nn.Module) -> dict[str, ops.PackedWeight]:
    """Return the packed weights of a loaded model by the names of their layers."""
    layers = {path: layer._packed for path, layer in model.named_modules() if isinstance(layer, PackedLayer)}
    return {path: packed for path, packed in layers.items() if isinstance(packed, ops.PackedWeight)}


def multiplied_in(model: nn.Module, packing: Packing) -> dict[str, tuple[str, str]]:
    """Return for each layer of a loaded model in which number format it multiplies, and why in this one."""
    wanted = packing.precision.weights
    found: dict[str, tuple[str, str]] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, PackedLayer) and layer.packed is not None:
            taken = layer.precision.weights
            if taken == wanted:
                reason = "as dtype asks"
            elif packing.of_layer(path, model.float_parts) != packing:
                reason = f"{wanted} would cost too much accuracy"
            else:
                reason = f"{wanted} is not faster in this shape"
            found[path] = taken, reason
    return found


def adapt(model: nn.Module, precision: Precision) -> None:
    """Make all layers of a packed model compute in these number formats."""
    for module in model.modules():
        if isinstance(module, Layer):
            module.adapt(precision)


def _values(what: str, name: str, stored: Stored) -> np.ndarray:
    """Return the numbers of a tensor; FileFormatError if gains or scales make them greater than float32 holds."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored.value()
    if (stored.gain is not None or stored.codes is not None) and not np.isfinite(values).all():
        raise FileFormatError(f"[{what}] tensor {name!r} stands for numbers that are not finite")
    return values


def _pack_from(what: str, path: str, layer: PackedLayer, stored: Stored, packing: Packing) -> None:
    """Pack a layer's weight, without a copy of the tensor if a kernel of ours reads it."""
    form = layer.packed_form(packing)
    packs = isinstance(form, ops.PackedWeight) and form.backend == "cpu"
    tensor = np.ascontiguousarray(
        stored.values if packs and stored.plain else _values(what, f"{path}.weight", stored)
    )
    lent = packs and tensor.dtype in (np.float32, np.float16)
    layer.weight = native.compiled.borrow(tensor) if lent else mx.array(tensor)
    layer.pack(packing)
    mx.eval(layer.packed)  # while the tensor is here


Tensors = dict[str, np.ndarray]


def sanitized(kind: str, sanitize: Callable[[Tensors], Tensors], tensors: Tensors) -> Tensors:
    """Return `sanitize(tensors)`; FileFormatError if their shapes do not fit each other."""
    try:
        return sanitize(tensors)
    except FileFormatError:
        raise
    except (ValueError, IndexError) as e:
        raise FileFormatError(f"[{kind}] the tensors' shapes do not fit each other: {e}") from e


def load(
    model: nn.Module,
    tensors: dict[str, Stored],
    what: str,
    packing: Packing,
    kernels: Kernels | None = None,
) -> None:
    """Give a new model its parameters, exactly these, and pack it.

    Layer by layer, so that plain and packed weights are never in memory together. With `kernels` the packed
    weights are those; `model.kernels` says where they came from, None if they were packed.

    Raises:
        FileFormatError: a tensor that is missing, left over, of another shape or not finite, named.
        kernels.Unfit: `kernels` are not what the layers take.
    """
    wanted = {name: tuple(value.shape) for name, value in tree_flatten(model.parameters())}
    for name in wanted.keys() - tensors.keys():
        raise FileFormatError(f"[{what}] tensor {name!r} is missing")
    for name, tensor in tensors.items():
        if name not in wanted:
            raise FileFormatError(f"[{what}] tensor {name!r} has no place in the model")
        if tensor.shape != wanted[name]:
            raise FileFormatError(
                f"[{what}] tensor {name!r} must be of shape {wanted[name]}, got {tensor.shape}"
            )
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, PackedLayer)}
    ready: dict[str, ops.PackedWeight] = {}
    if kernels is not None:
        forms = {
            path: layer.packed_form(packing.of_layer(path, model.float_parts))
            for path, layer in layers.items()
        }
        # An op that takes its weight as it is has nothing on disk.
        ready = kernels.fit(
            {path: form for path, form in forms.items() if isinstance(form, ops.PackedWeight)}
        )
    rest = dict(tensors)
    for path, layer in layers.items():
        tensor = rest.pop(f"{path}.weight")
        if path in ready:
            layer.adopt(ready[path])
        else:
            _pack_from(what, path, layer, tensor, packing.of_layer(path, model.float_parts))
    model.load_weights(
        [(name, mx.array(_values(what, name, tensor))) for name, tensor in rest.items()], strict=False
    )
    adapt(model, packing.precision)
    mx.eval([layer.packed for layer in layers.values()], model.parameters())
    model.kernels = None if kernels is None else kernels.path
