"""An op as an object: everything there is to know of it, said once; and what happens when it is called.

A public function of `rvc_fast.ops` hands its arguments to its `Op` and does nothing else. For each signature of a call
(shapes, dtypes, options, backend and device) the arguments are checked and the backend is chosen once; the next call
of that signature goes straight to the kernel, which costs a microsecond.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from .. import native
from . import dispatch, registry, transforms
from .packed import UNPACK, PackedWeight, Weight, plain_weight
from .spec import OpSpec

# Signatures that an op remembers, some hundred bytes each; beyond that it begins anew.
MOST_VERDICTS = 4096

# Every op by its name; an op module adds its own on import.
OPS: dict[str, Op] = {}

Watcher = Callable[["Op", dict[str, Any]], None]

# What is told of every call, see `watching`.
_watcher: Watcher | None = None


class _Thread(threading.local):
    """Whether this thread is inside a call that its watcher is told of."""

    watched = False


_thread = _Thread()


def _signature_of_none(arguments: tuple[Any, ...]) -> None:
    """Without the extension every call is checked."""


def _find_signature(arguments: tuple[Any, ...]) -> bytes | None:
    """Load the extension on the first call of any op: from then on `_signature` is its own."""
    global _signature
    _signature = _signature_of_none if native.ext() is None else native.compiled.signature
    return _signature(arguments)


_signature: Callable[[tuple[Any, ...]], bytes | None] = _find_signature


@dataclass(eq=False)
class Op:
    """One op. Its functions take its operands (arrays, packed weights, None) one by one and then its options.

    name: the slug, as in error messages, folders and tests.
    options: the record of all arguments that are no operands, a NamedTuple whose fields have the arguments' names.
    check: raises for arguments that do not fit; returns the options as the functions below take them.
    reference: the definition, in stock MLX; its parameters have the operands' names.
    backends: the kernel of ours for each backend that has one. "reference" may be here too, if the definition is better
        computed in another way.
    of_mlx: for each backend whose own MLX kernels are the right ones, how they make this op.
    pack: how a weight is rearranged for each backend; on one that is not named it stays as it is.
    unpack: gives back the weight that was packed, for gradients.
    refuses: of the operands and options of a call, why a backend cannot take it; backends that can are missing or None.
    regroup: see `transforms.Definition`.
    constants: the operands that have no derivatives.
    smooth: how the CPU kernel's primitive is differentiated, if not by the reference.
    """

    name: str
    options: Any
    check: Callable[..., Any]
    reference: Callable[..., Any]
    backends: Mapping[str, Callable[..., Any]]
    of_mlx: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    pack: Mapping[str, Callable[..., Weight]] = field(default_factory=dict)
    unpack: Callable[[PackedWeight], mx.array] | None = None
    refuses: Callable[..., dispatch.Refusals] | None = None
    regroup: transforms.Regroup | None = None
    constants: tuple[str, ...] = ()
    smooth: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        self.operands = tuple(inspect.signature(self.reference).parameters)[:-1]
        self.count = len(self.operands)
        self.spec: OpSpec | None = None
        self._run = {"reference": self.reference, **self.of_mlx, **self.backends}
        self._verdicts: dict[bytes, tuple[Callable[..., Any], Any]] = {}
        ours = [backend for backend in self.backends if backend != "reference"]
        registry.register(self.name, *ours, of_mlx=tuple(self.of_mlx))
        dispatch.on_change(self._verdicts.clear)
        if self.unpack is not None:
            UNPACK[self.name] = self.unpack
        OPS[self.name] = self

    def __call__(self, *arguments: Any) -> Any:
        """Run the op on its operands and options, in the order of `operands` and of the fields of `options`."""
        if _watcher is not None and not _thread.watched:
            return self._watched(_watcher, arguments)
        signature = _signature(arguments)
        verdict = None if signature is None else self._verdicts.get(signature)
        if verdict is None:
            verdict = self._judge(arguments, signature)
        run, options = verdict
        return run(*arguments[: self.count], options)

    def _judge(self, arguments: tuple[Any, ...], signature: bytes | None) -> tuple[Callable[..., Any], Any]:
        """Check a call and choose what runs it; remembered by its signature if it has one."""
        operands, options = arguments[: self.count], self.options(*arguments[self.count :])
        options = self.check(*operands, options)
        refusals = None if self.refuses is None else self.refuses(*operands, options)
        dtype = next(transforms.leaves(operands)).dtype
        backend = dispatch.route(self.name, refusals, dtype).backend
        run = self._run[backend]
        if signature is None or signature[-1:] == b"t":
            run = self._transformable(run, backend, signature is not None)
        if signature is not None:
            if len(self._verdicts) >= MOST_VERDICTS:
                self._verdicts.clear()
            self._verdicts[signature] = run, options
        return run, options

    def _transformable(self, run: Callable[..., Any], backend: str, known: bool) -> Callable[..., Any]:
        """Return a backend's function for operands that are being transformed or compiled.

        Without the extension nobody knows whether they are (`known`): those of a GPU kernel may always be.
        """
        constants = {place: name for place, name in enumerate(self.operands) if name in self.constants}
        stock = backend not in self.backends or backend == "reference"
        if stock and not constants:
            return transforms.on_mlx(run) if known else run
        if backend != "cpu":
            return transforms.as_one_function(
                transforms.Definition(self.name, self.reference, None, constants), run
            )
        reference = self.smooth or self.reference
        return transforms.on_cpu(transforms.Definition(self.name, reference, self.regroup, constants), run)

    def _watched(self, watcher: Watcher, arguments: tuple[Any, ...]) -> Any:
        """As a call, told to the watcher; of an op that calls others only itself."""
        _thread.watched = True
        try:
            y = self(*arguments)
        finally:
            _thread.watched = False
        watcher(self, dict(zip((*self.operands, *self.options._fields), arguments, strict=True)))
        return y

    def packed(self, weight: mx.array, *options: Any, beside: mx.Dtype) -> Weight:
        """Return a weight as the backend takes it that the op takes now for arrays of the dtype `beside`."""
        backend = dispatch.route(self.name, dtype=beside).backend
        return self.pack.get(backend, plain_weight)(weight, *options)

    def describe(self, function: Callable[..., Any], **facts: Any) -> OpSpec:
        """Return the OpSpec of this op, whose public function is `function`; `facts` are the rest of its fields."""
        signature = inspect.signature(function)

        def reference(*args: Any, **kwargs: Any) -> Any:
            """The definition in stock MLX, with the public function's arguments."""
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            operands = [bound.arguments[name] for name in self.operands]
            options = self.options(*(bound.arguments[name] for name in self.options._fields))
            return self.reference(*operands, self.check(*operands, options))

        self.spec = OpSpec(name=self.name, op=function, reference=reference, **facts)
        return self.spec


def specs() -> dict[str, OpSpec]:
    """Return the OpSpec of every op by its name."""
    return {name: op.spec for name, op in sorted(OPS.items()) if op.spec is not None}


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Have `watcher(op, arguments)` called after every call of an op inside, but for those that an op makes itself."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before
