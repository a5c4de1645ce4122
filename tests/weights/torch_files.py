"""Files as torch.save writes them, made without torch, and pickles that it would never write."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass
class Raw:
    """Opcodes to put in as they are; they must leave one value on the stack."""

    code: bytes


@dataclass
class Global:
    """A name: b"c" MODULE NAME."""

    module: str
    name: str


@dataclass
class Call:
    """REDUCE of a callee and a tuple of arguments."""

    callee: Any
    args: tuple[Any, ...] = ()


@dataclass
class Object:
    """NEWOBJ of a class, then BUILD with a state."""

    cls: Global
    state: Any


@dataclass
class StorageRef:
    """A persistent id, stated freely."""

    kind: str
    key: Any
    numel: Any


@dataclass
class Bf16:
    """A bfloat16 tensor, given by its bits."""

    bits: np.ndarray


class Encoder:
    """Values -> opcodes of protocol 2; `storages` collects the bytes of tensors in the order of their keys."""

    def __init__(self) -> None:
        self.storages: list[bytes] = []
        self.numels: list[int] = []

    def dump(self, value: Any) -> bytes:
        return b"\x80\x02" + self.encode(value) + b"."

    def encode(self, value: Any) -> bytes:
        e = self.encode
        match value:
            case Raw(code):
                return code
            case None:
                return b"N"
            case bool():
                return b"\x88" if value else b"\x89"
            case int():
                if -(2**31) <= value < 2**31:
                    return b"J" + struct.pack("<i", value)
                data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
                return b"\x8a" + bytes([len(data)]) + data
            case float():
                return b"G" + struct.pack(">d", value)
            case str():
                data = value.encode()
                return b"X" + struct.pack("<I", len(data)) + data
            case tuple():
                return b"(" + b"".join(map(e, value)) + b"t"
            case list():
                return b"](" + b"".join(map(e, value)) + b"e"
            case dict():
                return b"}(" + b"".join(e(k) + e(v) for k, v in value.items()) + b"u"
            case Global(module, name):
                return f"c{module}\n{name}\n".encode()
            case Call(callee, args):
                return e(callee) + e(args) + b"R"
            case Object(cls, state):
                return e(cls) + b")\x81" + e(state) + b"b"
            case StorageRef(kind, key, numel):
                return e(("storage", Global("torch", kind), key, "cpu", numel)) + b"Q"
            case Bf16(bits):
                return self.tensor(bits, "BFloat16Storage")
            case np.ndarray():
                return self.tensor(value, STORAGES[value.dtype.name])
            case _:
                raise TypeError(type(value))

    def tensor(self, array: np.ndarray, kind: str) -> bytes:
        key = str(len(self.storages))
        self.storages.append(np.ascontiguousarray(array).tobytes())
        self.numels.append(array.size)
        strides = tuple(s // array.itemsize for s in np.ascontiguousarray(array).strides)
        ref = StorageRef(kind, key, array.size)
        return self.encode(rebuild(ref, 0, array.shape, strides if array.ndim else ()))


def rebuild(storage: Any, offset: Any, size: Any, stride: Any) -> Call:
    """The call by which a pickle spells a tensor."""
    hooks = Call(Global("collections", "OrderedDict"))
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), (storage, offset, size, stride, False, hooks))


def zip_bytes(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def torch_zip(value: Any, root: str = "archive", **more: bytes) -> bytes:
    """The bytes of torch.save(value) today."""
    encoder = Encoder()
    entries = {f"{root}/data.pkl": encoder.dump(value), f"{root}/byteorder": b"little"}
    entries |= {f"{root}/data/{i}": data for i, data in enumerate(encoder.storages)}
    return zip_bytes(entries | {f"{root}/version": b"3\n"} | {f"{root}/{k}": v for k, v in more.items()})


def torch_legacy(value: Any) -> bytes:
    """The bytes of torch.save(value) before 1.6."""
    encoder = Encoder()
    body = encoder.dump(value)
    system = {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    head = b"".join(Encoder().dump(v) for v in (LEGACY_MAGIC, 1001, system))
    # The magic number's opcode is LONG1 with ten bytes, which is how files are recognised.
    keys = Encoder().dump([str(i) for i in range(len(encoder.storages))])
    data = (struct.pack("<q", n) + d for n, d in zip(encoder.numels, encoder.storages, strict=True))
    return head + body + keys + b"".join(data)


def seeded(manifest: Path, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Small random numbers in the shapes of a golden manifest."""
    rng = np.random.default_rng(0)
    tensors = json.loads(manifest.read_text())["tensors"]
    return {k: rng.standard_normal(t["shape"]).astype(dtype) for k, t in tensors.items()}
