"""Gradients, tangents and `vmap` of the ops, by their references; what runs forward stays the kernel.

On the CPU each primitive of ours carries `KernelRules` if one of its inputs is being transformed (`vmap` needs none: C++
repeats the primitive for each item). On a GPU an op is a `mx.custom_function`, which knows gradients only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from .. import native
from ..errors import InputError
from .packed import PackedWeight

if TYPE_CHECKING:
    from .op import Op

# (operands, options, inputs of a primitive) -> (operands, options) that the reference takes.
KernelOperands = Callable[[tuple[Any, ...], Any, list[mx.array]], tuple[tuple[Any, ...], Any]]


def leaves(value: Any) -> Iterator[mx.array]:
    """Yield every array of nested operands; of a packed weight its data."""
    if isinstance(value, PackedWeight):
        yield value.data
    elif isinstance(value, mx.array):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item)


def with_leaves(value: Any, arrays: Iterator[mx.array]) -> Any:
    """Return the same nested operands with other arrays, in the order of `leaves`."""
    if isinstance(value, PackedWeight):
        return dataclasses.replace(value, data=next(arrays))
    if isinstance(value, mx.array):
        return next(arrays)
    if isinstance(value, tuple | list):
        items = [with_leaves(item, arrays) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def plain(op: Op, value: Any, differentiated: Sequence[mx.array]) -> Any:
    """Return nested operands with every packed weight unpacked; InputError if one of them is differentiated by."""
    if isinstance(value, PackedWeight):
        from .op import OPS

        if any(value.data is array for array in differentiated):
            raise InputError(
                f"[{op.name}] weight must be plain to have a gradient, got one packed for {value.backend}"
            )
        unpack = OPS[value.op].unpack
        assert unpack is not None
        return mx.stop_gradient(unpack(value))
    if isinstance(value, tuple | list):
        items = [plain(op, item, differentiated) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _floating(arrays: Iterable[mx.array]) -> list[mx.array]:
    return [a for a in arrays if mx.issubdtype(a.dtype, mx.floating)]


@dataclasses.dataclass
class KernelRules:
    """How the primitive of one call of an op on the CPU is differentiated."""

    op: Op
    operands: tuple[Any, ...]
    options: Any

    def _reference(self, inputs: list[mx.array], argnums: list[int]) -> Callable[..., list[mx.array]]:
        """The op's reference as a function of some of the primitive's inputs; its floating results, in float32."""

        def run(*chosen: mx.array) -> list[mx.array]:
            given = list(inputs)
            for i, array in zip(argnums, chosen, strict=True):
                given[i] = array
            if self.op.kernel_operands is None:
                operands, options = with_leaves(self.operands, iter(given)), self.options
            else:
                operands, options = self.op.kernel_operands(self.operands, self.options, given)
            reference = self.op.kernel_reference or self.op.reference
            y = reference(*plain(self.op, operands, chosen), options)
            return [a.astype(mx.float32) for a in _floating(y if isinstance(y, tuple) else (y,))]

        return run

    def vjp(self, primals: list[mx.array], cotangents: list[mx.array], argnums: list[int]) -> list[mx.array]:
        """Return the gradients of `primals[argnums]` from those of all outputs."""
        chosen = [primals[i] for i in argnums]
        return mx.vjp(self._reference(primals, argnums), chosen, _floating(cotangents))[1]

    def jvp(self, primals: list[mx.array], tangents: list[mx.array], argnums: list[int]) -> list[mx.array]:
        """Return the tangents of the floating outputs from those of `primals[argnums]`."""
        chosen = [primals[i] for i in argnums]
        return mx.jvp(self._reference(primals, argnums), chosen, tangents)[1]


def transformable(op: Op, run: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Return `run`, a kernel of ours, so that what it makes can be transformed."""

    def on_cpu(*arguments: Any) -> Any:
        rules = KernelRules(op, arguments[:-1], arguments[-1])
        return native.ext().with_rules(rules, run, *arguments)

    def on_gpu(*arguments: Any) -> Any:
        operands, options = arguments[:-1], arguments[-1]

        @mx.custom_function
        def forward(arrays: list[mx.array]) -> Any:
            return run(*with_leaves(operands, iter(arrays)), options)

        @forward.vjp
        def gradients(arrays: list[mx.array], cotangent: Any, _: Any) -> list[mx.array]:
            packed = list(_packed(operands))
            chosen = [a for a, p in zip(arrays, packed, strict=True) if not p]

            def reference(*values: mx.array) -> list[mx.array]:
                rest = iter(values)
                given = [a if p else next(rest) for a, p in zip(arrays, packed, strict=True)]
                y = op.reference(*plain(op, with_leaves(operands, iter(given)), values), options)
                return [y.astype(cotangent.dtype)]

            found = iter(mx.vjp(reference, chosen, [cotangent])[1])
            # A packed weight has no gradient: whoever asks for one is told so by every number of it.
            return [
                mx.full(a.shape, float("nan"), a.dtype) if p else next(found)
                for a, p in zip(arrays, packed, strict=True)
            ]

        return forward(list(leaves(operands)))

    return on_cpu if backend == "cpu" else on_gpu


def _packed(value: Any) -> Iterator[bool]:
    """Yield whether each of `leaves` is the data of a packed weight."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from _packed(item)
    elif isinstance(value, PackedWeight | mx.array):
        yield isinstance(value, PackedWeight)
