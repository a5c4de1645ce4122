"""A pickle reader that can only build data.

`torch.save` writes its objects as a pickle, and a pickle is a program: the standard reader imports the
modules and calls the functions that the file names. This one is an interpreter of its own for the opcodes
that `torch.save` emits, and it is safe for reasons that can be checked by reading this file:

- **Names stay names.** GLOBAL and STACK_GLOBAL look a dotted name up in the tables below and push a `Symbol`,
  which holds the text and nothing else. Nothing here imports, uses `getattr`, or touches a class that a file
  asked for.
- **Calls are a closed table.** REDUCE and NEWOBJ accept a `Symbol` that has an entry in `_CALLS`, or one from
  a library that fairseq checkpoints are known to mention: that makes an `Inert` record of its arguments. All
  else is refused by name.
- **Only plain values come out:** dict, list, tuple, str, bytes, int, float, bool, None, `Tensor`, `Symbol`,
  `Inert`.
- **Nothing is bigger than the file.** Lengths are checked against the bytes that are left before anything is
  read; ints are at most 32 bytes; the number of opcodes is bounded; dict keys are scalars, so hashing cannot
  blow up on shared tuples; what calls copy of other values, which a pickle may recall over and over, may not
  be more than twice the pickle; a tensor must lie inside its storage, may not repeat numbers through zero
  strides, and all of them together may not hold more than twice the file's size. The interpreter does not
  recurse.

Tensors are not read here: a `Tensor` says where its numbers lie, and `Tensor.array` maps them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_OPCODES = 1_000_000  # a training checkpoint with its optimizer state needs about 80 000
MAX_INT_BYTES = 32
MAX_DIMENSIONS = 8


class Malformed(ValueError):
    """What is wrong with a file; the public loaders add the file's name."""


def quote(value: object) -> str:
    """Return a name or number from a file as one short printable line."""
    text = (
        ascii(value)
        if isinstance(value, (str, bytes, int, float, bool, type(None)))
        else type(value).__name__
    )
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class Symbol:
    """A name a pickle mentions; never resolved to anything."""

    name: str


@dataclass(eq=False)
class Inert:
    """What stands for an object of a class we know of but do not have: its arguments and state."""

    name: str
    args: tuple[Any, ...] = ()
    state: dict[Any, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Storage:
    """A run of `numel` numbers of type `dtype` (numpy's, or "bfloat16"); `read` gets them from the archive, once."""

    key: str
    dtype: str
    numel: int
    read: Callable[[], memoryview] | None = None

    @property
    def present(self) -> bool:
        """Whether the archive holds it."""
        return self.read is not None

    def keep(self, data: memoryview) -> None:
        """Have the numbers in memory."""
        self.read = lambda: data

    def data(self) -> memoryview:
        """Return the numbers; Malformed if the archive does not hold them."""
        if self.read is None:
            raise Malformed(f"storage {quote(self.key)} is missing")
        data = self.read()
        self.keep(data)
        return data

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bfloat16" else np.dtype(self.dtype).itemsize


@dataclass(eq=False)
class Tensor:
    """A strided view of a storage, checked to lie inside it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.storage.itemsize

    def array(self) -> np.ndarray:
        """Return the numbers, read-only, as a view where alignment allows; bfloat16 becomes float32."""
        storage = self.storage
        dtype = np.dtype("<u2" if storage.dtype == "bfloat16" else storage.dtype)
        content = storage.data()
        view: np.ndarray = np.ndarray(
            self.shape,
            dtype,
            buffer=content if math.prod(self.shape) else b"",
            offset=self.offset * dtype.itemsize if math.prod(self.shape) else 0,
            strides=tuple(s * dtype.itemsize for s in self.strides),
        )
        if storage.dtype == "bfloat16":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return np.require(view, requirements=["C", "A"])


STORAGE_DTYPES = {
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "<i1",
    "torch.ByteStorage": "<u1",
    "torch.BoolStorage": "<u1",
}

# Mentioned as values (of configs, dtypes, default factories), never called.
_FLOATS = ("float16", "half", "bfloat16", "float32", "float", "float64", "double")
_INTS = ("int8", "int16", "int32", "int64", "long", "uint8", "bool")
_BUILTINS = ("list", "dict", "tuple", "set", "int", "float", "str", "bool")
_VALUES = frozenset(
    [f"torch.{name}" for name in _FLOATS + _INTS]
    + [f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS]
    + ["typing.Any", "typing.List", "typing.Dict", "typing.Optional", "typing.Union", "numpy.ndarray"]
)
_INERT_PREFIXES = ("fairseq.", "omegaconf.")
_INERT_NAMES = frozenset(
    [
        "argparse.Namespace",
        "torch.device",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
    ]
)
_NUMPY_SCALARS = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])


def _is_inert(name: str) -> bool:
    return name in _INERT_NAMES or name.startswith(_INERT_PREFIXES)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _empty_dict(machine: Machine, args: tuple[Any, ...]) -> dict[Any, Any]:
    """OrderedDict() or OrderedDict([[key, value], ...]); defaultdict(factory)."""
    result: dict[Any, Any] = {}
    if args and type(args[0]) in (list, tuple):
        machine.copy(args[0])
        for pair in args[0]:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise Malformed("an OrderedDict is built from something other than pairs")
            machine.set_item(result, pair[0], pair[1])
    return result


def _rebuild_tensor(machine: Machine, args: tuple[Any, ...]) -> Tensor:
    """torch._utils._rebuild_tensor(_v2): storage, offset, size, stride, then flags we have no use for."""
    if len(args) < 4 or not isinstance(args[0], Storage):
        raise Malformed("a tensor is built from something other than a storage, offset, size and stride")
    storage, offset, shape, strides = args[:4]
    if not _is_count(offset):
        raise Malformed(f"a tensor's offset must be a count, got {quote(offset)}")
    for what, values in (("size", shape), ("stride", strides)):
        if type(values) is not tuple or len(values) > MAX_DIMENSIONS:
            raise Malformed(f"a tensor's {what} must be a tuple of at most {MAX_DIMENSIONS} counts")
        for value in values:
            if not _is_count(value):
                raise Malformed(f"a tensor's {what} must hold counts, got {quote(value)}")
    if len(shape) != len(strides):
        raise Malformed(f"a tensor has {len(shape)} sizes but {len(strides)} strides")
    numel = math.prod(shape)
    if numel > storage.numel or math.prod(max(n, 1) for n in shape) >= 2**48:
        raise Malformed(
            f"a tensor of {numel} numbers does not fit storage {quote(storage.key)} of {storage.numel}"
        )
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if numel and last >= storage.numel:
        raise Malformed(
            f"a tensor reaches number {last} of storage {quote(storage.key)}, which holds {storage.numel}"
        )
    if numel == 0:
        strides = (0,) * len(shape)
    tensor = Tensor(storage, offset, shape, strides)
    machine.spend(tensor.nbytes)
    return tensor


def _rebuild_parameter(machine: Machine, args: tuple[Any, ...]) -> Tensor:
    if not args or not isinstance(args[0], Tensor):
        raise Malformed("a parameter is built from something other than a tensor")
    return args[0]


def _size(machine: Machine, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(args) != 1 or type(args[0]) not in (tuple, list):
        raise Malformed("torch.Size is built from something other than a tuple")
    machine.copy(args[0])
    return tuple(args[0])


def _latin1(machine: Machine, args: tuple[Any, ...]) -> bytes:
    """_codecs.encode(text, "latin1"): how protocol 2 spells bytes."""
    if len(args) != 2 or type(args[0]) is not str or args[1] != "latin1":
        raise Malformed("_codecs.encode is used for something other than bytes")
    machine.copy(args[0])
    try:
        return args[0].encode("latin1")
    except UnicodeEncodeError:
        raise Malformed("_codecs.encode is used for something other than bytes") from None


def _no_bytes(machine: Machine, args: tuple[Any, ...]) -> bytes:
    """bytes(): how protocol 2 spells b""."""
    if args:
        raise Malformed("bytes is called with arguments")
    return b""


def _numpy_dtype(machine: Machine, args: tuple[Any, ...]) -> Inert:
    if not args or type(args[0]) is not str:
        raise Malformed("numpy.dtype is built from something other than a name")
    return Inert("numpy.dtype", args)


def _numpy_scalar(machine: Machine, args: tuple[Any, ...]) -> int | float | bool:
    if (
        len(args) == 2
        and isinstance(args[0], Inert)
        and args[0].name == "numpy.dtype"
        and type(args[1]) is bytes
    ):
        code, data = args[0].args[0], args[1]
        if code in _NUMPY_SCALARS and np.dtype(code).itemsize == len(data):
            return np.frombuffer(data, np.dtype(code).newbyteorder("<"))[0].item()
    raise Malformed("a numpy scalar must be a number of 1 to 8 bytes")


_CALLS: dict[str, Callable[[Machine, tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _empty_dict,
    "collections.defaultdict": _empty_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": _size,
    "_codecs.encode": _latin1,
    "__builtin__.bytes": _no_bytes,
    "numpy.dtype": _numpy_dtype,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}


def _symbol(module: object, name: object) -> Symbol:
    if type(module) is not str or type(name) is not str:
        raise Malformed("a global's name is not text")
    full = f"{module}.{name}"
    if full in _CALLS or full in STORAGE_DTYPES or full in _VALUES or _is_inert(full):
        return Symbol(full)
    raise Malformed(f"it refers to {quote(full)}, which a checkpoint of weights has no need of; refused")


_OPCODES: dict[int, Callable[[Machine], None]] = {}


def _opcode(code: bytes) -> Callable[[Callable[[Machine], None]], Callable[[Machine], None]]:
    def register(method: Callable[[Machine], None]) -> Callable[[Machine], None]:
        _OPCODES[code[0]] = method
        return method

    return register


class Machine:
    """The interpreter of one pickle: a stack, the stacks below open marks, a memo, and a position in `data`.

    `open_storage(key, dtype, numel)` is asked for each storage; `budget` is how many bytes of tensors may be
    described.
    """

    def __init__(
        self, data: memoryview, position: int, open_storage: Callable[[str, str, int], Storage], budget: int
    ) -> None:
        self.data = data
        self.position = position
        self.open_storage = open_storage
        self.budget = budget
        self.copies = 2 * len(data)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Execute up to STOP and return the object; `position` is then just behind it."""
        for _ in range(MAX_OPCODES):
            code = self.take(1)[0]
            if code == ord("."):
                return self.pop()
            method = _OPCODES.get(code)
            if method is None:
                raise Malformed(
                    f"its pickle holds opcode 0x{code:02x}, which torch.save does not write; refused"
                )
            method(self)
        raise Malformed(f"its pickle is longer than {MAX_OPCODES} opcodes")

    def take(self, n: int) -> memoryview:
        end = self.position + n
        if n < 0 or end > len(self.data):
            raise Malformed("its pickle ends too early")
        chunk = self.data[self.position : end]
        self.position = end
        return chunk

    def unpack(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, n: int) -> str:
        try:
            return str(self.take(n), "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise Malformed("its pickle holds text that is not UTF-8") from None

    def line(self) -> str:
        # Names are short: looking no further, a missing newline does not cost a scan of the file.
        head = bytes(self.data[self.position : self.position + 256])
        n = head.find(b"\n")
        if n < 0:
            raise Malformed("its pickle holds an unfinished name")
        name = self.text(n)
        self.position += 1
        return name

    def pop(self) -> Any:
        if not self.stack:
            raise Malformed("its pickle takes from an empty stack")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise Malformed(f"its pickle adds to something that is not a {kind.__name__}")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        if not self.below:
            raise Malformed("its pickle closes a mark that was never set")
        items, self.stack = self.stack, self.below.pop()
        return items

    def spend(self, nbytes: int) -> None:
        self.budget -= nbytes
        if self.budget < 0:
            raise Malformed("its tensors hold more numbers than the file; refused")

    def copy(self, value: Sized) -> None:
        """Count a value whose items or characters are copied: each of them took a byte of the pickle at least."""
        self.copies -= len(value)
        if self.copies < 0:
            raise Malformed("its pickle copies the same values over and over; refused")

    def set_item(self, target: dict[Any, Any], key: Any, value: Any) -> None:
        if type(key) not in (str, int, float, bool, bytes, type(None)):
            raise Malformed(f"a dict key must be text or a number, got {quote(key)}")
        target[key] = value

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise Malformed("a dict is given a key without a value")
        target = self.stack[-1] if self.stack else None
        into = target.state if type(target) is Inert else self.top(dict)
        for i in range(0, len(items), 2):
            self.set_item(into, items[i], items[i + 1])

    def remember(self, index: int) -> None:
        if not self.stack:
            raise Malformed("its pickle remembers from an empty stack")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Malformed(f"its pickle recalls entry {index}, which was never stored")
        self.stack.append(self.memo[index])

    def call(self, callee: Any, args: Any) -> None:
        if type(callee) is not Symbol or type(args) is not tuple:
            raise Malformed("its pickle calls something that is not a known function; refused")
        if callee.name in _CALLS:
            self.stack.append(_CALLS[callee.name](self, args))
        elif _is_inert(callee.name):
            self.stack.append(Inert(callee.name, args))
        else:
            raise Malformed(f"its pickle calls {quote(callee.name)}; refused")

    # Framing and the stack itself.

    @_opcode(b"\x80")
    def proto(self) -> None:
        version = self.take(1)[0]
        if not 2 <= version <= 5:
            raise Malformed(f"its pickle protocol must be 2 to 5, got {version}")

    @_opcode(b"\x95")
    def frame(self) -> None:
        if self.unpack("<Q") > len(self.data) - self.position:
            raise Malformed("its pickle ends too early")

    @_opcode(b"(")
    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    @_opcode(b"0")
    def drop(self) -> None:
        self.pop()

    @_opcode(b"1")
    def drop_mark(self) -> None:
        self.pop_mark()

    # Scalars.

    @_opcode(b"N")
    def none(self) -> None:
        self.stack.append(None)

    @_opcode(b"\x88")
    def true(self) -> None:
        self.stack.append(True)

    @_opcode(b"\x89")
    def false(self) -> None:
        self.stack.append(False)

    @_opcode(b"J")
    def int4(self) -> None:
        self.stack.append(self.unpack("<i"))

    @_opcode(b"K")
    def int1(self) -> None:
        self.stack.append(self.take(1)[0])

    @_opcode(b"M")
    def int2(self) -> None:
        self.stack.append(self.unpack("<H"))

    def long(self, n: int) -> None:
        if not 0 <= n <= MAX_INT_BYTES:
            raise Malformed(f"its pickle holds an integer of {n} bytes")
        self.stack.append(int.from_bytes(self.take(n), "little", signed=True))

    @_opcode(b"\x8a")
    def long1(self) -> None:
        self.long(self.take(1)[0])

    @_opcode(b"\x8b")
    def long4(self) -> None:
        self.long(self.unpack("<i"))

    @_opcode(b"G")
    def float8(self) -> None:
        self.stack.append(self.unpack(">d"))

    @_opcode(b"X")
    def text4(self) -> None:
        self.stack.append(self.text(self.unpack("<I")))

    @_opcode(b"\x8c")
    def text1(self) -> None:
        self.stack.append(self.text(self.take(1)[0]))

    @_opcode(b"\x8d")
    def text8(self) -> None:
        self.stack.append(self.text(self.unpack("<Q")))

    @_opcode(b"B")
    def bytes4(self) -> None:
        self.stack.append(bytes(self.take(self.unpack("<I"))))

    @_opcode(b"C")
    def bytes1(self) -> None:
        self.stack.append(bytes(self.take(self.take(1)[0])))

    @_opcode(b"\x8e")
    def bytes8(self) -> None:
        self.stack.append(bytes(self.take(self.unpack("<Q"))))

    # Containers.

    @_opcode(b")")
    def empty_tuple(self) -> None:
        self.stack.append(())

    @_opcode(b"t")
    def tuple_(self) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    @_opcode(b"\x85")
    def tuple1(self) -> None:
        self.stack.append((self.pop(),))

    @_opcode(b"\x86")
    def tuple2(self) -> None:
        b, a = self.pop(), self.pop()
        self.stack.append((a, b))

    @_opcode(b"\x87")
    def tuple3(self) -> None:
        c, b, a = self.pop(), self.pop(), self.pop()
        self.stack.append((a, b, c))

    @_opcode(b"]")
    def empty_list(self) -> None:
        self.stack.append([])

    @_opcode(b"a")
    def append(self) -> None:
        item = self.pop()
        self.top(list).append(item)

    @_opcode(b"e")
    def appends(self) -> None:
        items = self.pop_mark()
        self.top(list).extend(items)

    @_opcode(b"}")
    def empty_dict(self) -> None:
        self.stack.append({})

    @_opcode(b"s")
    def setitem(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    @_opcode(b"u")
    def setitems(self) -> None:
        items = self.pop_mark()
        self.set_items(items)

    # The memo.

    @_opcode(b"q")
    def put1(self) -> None:
        self.remember(self.take(1)[0])

    @_opcode(b"r")
    def put4(self) -> None:
        self.remember(self.unpack("<I"))

    @_opcode(b"\x94")
    def memoize(self) -> None:
        self.remember(len(self.memo))

    @_opcode(b"h")
    def get1(self) -> None:
        self.recall(self.take(1)[0])

    @_opcode(b"j")
    def get4(self) -> None:
        self.recall(self.unpack("<I"))

    # Names, and what a pickle would call.

    @_opcode(b"c")
    def global_(self) -> None:
        module = self.line()
        self.stack.append(_symbol(module, self.line()))

    @_opcode(b"\x93")
    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(_symbol(module, name))

    @_opcode(b"R")
    def reduce(self) -> None:
        args, callee = self.pop(), self.pop()
        self.call(callee, args)

    @_opcode(b"\x81")
    def newobj(self) -> None:
        self.reduce()

    @_opcode(b"b")
    def build(self) -> None:
        state = self.pop()
        target = self.stack[-1] if self.stack else None
        if type(target) is Inert:
            if type(state) is dict:
                self.copy(state)
                target.state.update(state)
        elif type(target) is not dict:  # an OrderedDict's attributes (`_metadata`) carry nothing we need
            raise Malformed("its pickle sets the state of something that has none; refused")

    @_opcode(b"Q")
    def persistent_id(self) -> None:
        """("storage", type, key, location, numel), and in old files a view of it, None since 2017."""
        pid = self.pop()
        if (
            type(pid) is not tuple
            or len(pid) not in (5, 6)
            or pid[0] != "storage"
            or type(pid[1]) is not Symbol
        ):
            raise Malformed("its pickle refers to something that is not a storage")
        _, kind, key, _, numel = pid[:5]
        if kind.name not in STORAGE_DTYPES:
            raise Malformed(f"a storage's type must be one of torch's plain ones, got {quote(kind.name)}")
        if type(key) is not str or not _is_count(numel) or (len(pid) == 6 and pid[5] is not None):
            raise Malformed("its pickle refers to a storage in a way torch.save does not")
        self.stack.append(self.open_storage(key, STORAGE_DTYPES[kind.name], numel))
