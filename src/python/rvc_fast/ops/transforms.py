"""Gradients, tangents and `vmap` of the ops, by their references; what runs forward stays the kernel.

On the CPU each primitive of ours carries `KernelRules` if one of its inputs is being transformed, and C++ repeats the
primitive for each item of a `vmap`. On a GPU an op that is being transformed is a `mx.custom_function` with the same rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple

import mlx.core as mx

from .. import native
from ..errors import InputError
from .blocks import traced
from .packed import UNPACK, PackedWeight, Weight
from .switch import Switch

Run = Callable[..., Any]
# (operands, options, inputs of a primitive) -> (operands, options) that the definition takes.
Regroup = Callable[[tuple[Any, ...], Any, list[mx.array]], tuple[tuple[Any, ...], Any]]


class Definition(NamedTuple):
    """What the transformations of an op go by: its reference in stock MLX, and how a primitive's inputs become operands.

    Where there is no `regroup`, the inputs are the operands that are not None, in their order. `constants` are the operands
    that nothing can be differentiated by: their names by their place.
    """

    op: str
    reference: Run
    regroup: Regroup | None = None
    constants: Mapping[int, str] = MappingProxyType({})


def _items(value: Any) -> Iterator[Weight]:
    """Yield every array and packed weight of nested operands."""
    if isinstance(value, PackedWeight | mx.array):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _items(item)


def leaves(value: Any) -> Iterator[mx.array]:
    """Yield every array of nested operands; of a packed weight its data."""
    for item in _items(value):
        yield item.data if isinstance(item, PackedWeight) else item


def _rebuilt(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """Return the same nested operands with `leaf(x)` in place of every array and packed weight x."""
    if isinstance(value, PackedWeight | mx.array):
        return leaf(value)
    if isinstance(value, tuple | list):
        items = [_rebuilt(item, leaf) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def with_leaves(value: Any, arrays: Iterator[mx.array]) -> Any:
    """Return the same nested operands with other arrays, in the order of `leaves`."""

    def leaf(x: Any) -> Any:
        return dataclasses.replace(x, data=next(arrays)) if isinstance(x, PackedWeight) else next(arrays)

    return _rebuilt(value, leaf)


def unpacked(
    definition: Definition, operands: tuple[Any, ...], differentiated: Sequence[mx.array]
) -> tuple[Any, ...]:
    """Return operands with every packed weight as it was; InputError if one of them, or a constant, is differentiated by."""

    def refuse(x: mx.array, argument: str, requirement: str) -> None:
        if any(x is array for array in differentiated):
            raise InputError(f"[{definition.op}] {argument} must be {requirement}")

    def leaf(x: Any) -> Any:
        if not isinstance(x, PackedWeight):
            return x
        refuse(x.data, "weight", f"plain to have a gradient, got one packed for {x.backend}")
        return mx.stop_gradient(UNPACK[x.op](x))

    for place, name in definition.constants.items():
        for x in leaves(operands[place]):
            refuse(x, name, "constant: it has no gradient")
    found: tuple[Any, ...] = _rebuilt(operands, leaf)
    return found


def _floating(arrays: Iterable[mx.array]) -> list[mx.array]:
    return [a for a in arrays if mx.issubdtype(a.dtype, mx.floating)]


@dataclasses.dataclass
class KernelRules:
    """How the primitive of one call of an op on the CPU, or its launches on a GPU, are differentiated."""

    definition: Definition
    operands: tuple[Any, ...]
    options: Any

    def _reference(self, inputs: list[mx.array], argnums: list[int]) -> Callable[..., list[mx.array]]:
        """The op's reference as a function of some of the primitive's inputs; its floating results, in float32."""
        _, reference, regroup, _ = self.definition

        def run(*chosen: mx.array) -> list[mx.array]:
            given = list(inputs)
            for i, array in zip(argnums, chosen, strict=True):
                given[i] = array
            if regroup is None:
                operands, options = with_leaves(self.operands, iter(given)), self.options
            else:
                operands, options = regroup(self.operands, self.options, given)
            with traced():
                y = reference(*unpacked(self.definition, operands, chosen), options)
            return [a.astype(mx.float32) for a in _floating(y if isinstance(y, tuple) else (y,))]

        return run

    def vjp(self, primals: list[mx.array], cotangents: list[mx.array], argnums: list[int]) -> list[mx.array]:
        """Return the gradients of `primals[argnums]` from those of all outputs."""
        chosen = [primals[i] for i in argnums]
        return mx.vjp(self._reference(primals, argnums), chosen, _floating(cotangents))[1]

    def jvp(self, primals: list[mx.array], tangents: list[mx.array], argnums: list[int]) -> list[mx.array]:
        """Return the tangents of the floating outputs from those of `primals[argnums]`.

        MLX's convolution has gradients but no tangents. Gradients are linear in the cotangents, by the transposed matrix of
        derivatives; the gradients of that are the tangents.
        """
        reference, chosen = self._reference(primals, argnums), [primals[i] for i in argnums]

        def gradients(*cotangents: mx.array) -> list[mx.array]:
            # Each an array of its own: of one that is returned twice MLX takes one cotangent.
            return [g + 0 for g in mx.vjp(reference, chosen, list(cotangents))[1]]

        return mx.vjp(gradients, [mx.zeros_like(y) for y in reference(*chosen)], tangents)[1]


def on_mlx(run: Run) -> Run:
    """Return `run`, which calls MLX's own operations, for operands that are being transformed."""

    def transformed(*arguments: Any) -> Any:
        with traced():
            return run(*arguments)

    return transformed


def on_cpu(definition: Definition, run: Run) -> Run:
    """Return `run`, which calls the extension's kernels, for operands that are being transformed."""
    run = on_mlx(run)

    def transformed(*arguments: Any) -> Any:
        rules = KernelRules(definition, arguments[:-1], arguments[-1])
        return native.compiled.with_rules(rules, run, *arguments)

    return transformed


_bare = Switch()


def without_rules() -> AbstractContextManager[None]:
    """Let this thread launch a GPU's kernels bare inside, without derivatives: `mx.export_function` takes them so only."""
    return _bare.on()


def as_one_function(definition: Definition, run: Run) -> Run:
    """Return `run`, an op of one result as MLX cannot transform it, for operands that are being transformed.

    That is a launch of our kernels on a GPU, or an op some of whose operands have no derivative.
    """

    def transformed(*arguments: Any) -> Any:
        if _bare.is_on:
            return run(*arguments)
        operands, options = arguments[:-1], arguments[-1]
        rules = KernelRules(definition, operands, options)
        fixed = [
            place in definition.constants or isinstance(x, PackedWeight)
            for place, operand in enumerate(operands)
            for x in _items(operand)
        ]
        free = [i for i, is_fixed in enumerate(fixed) if not is_fixed]

        def launch(arrays: list[mx.array]) -> mx.array:
            y: mx.array = run(*with_leaves(operands, iter(arrays)), options)
            return y

        forward = mx.custom_function(launch)

        @forward.vjp
        def gradients(arrays: list[mx.array], cotangent: mx.array, _: mx.array) -> list[mx.array]:
            # A packed weight and a constant have no gradient: whoever asks for one is told so by every number of it.
            found = [mx.full(a.shape, float("nan"), a.dtype) for a in arrays]
            for i, gradient in zip(
                free, rules.vjp(arrays, [cotangent.astype(mx.float32)], free), strict=True
            ):
                found[i] = gradient
            return found

        @forward.jvp
        def tangents(arrays: list[mx.array], given: list[mx.array | None]) -> mx.array:
            moved = {i: tangent for i, tangent in enumerate(given) if tangent is not None}
            return rules.jvp(arrays, list(moved.values()), list(moved))[0].astype(launch(arrays).dtype)

        @forward.vmap
        def items(arrays: list[mx.array], axes: list[int | None]) -> tuple[mx.array, int]:
            """One launch for each item, as on the CPU."""
            count = next(a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None)
            each = [
                [a if axis is None else mx.take(a, i, axis) for a, axis in zip(arrays, axes, strict=True)]
                for i in range(count)
            ]
            return mx.stack([transformed(*with_leaves(operands, iter(item)), options) for item in each]), 0

        return forward(list(leaves(operands)))

    return transformed
