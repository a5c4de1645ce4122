"""The containers weights come in: PyTorch's zip and its older stream of pickles, and safetensors.

Of a file only those parts are read that are asked for (`Contents`): opening one costs its directory, and a training
checkpoint's optimizer state is never read. Nothing is memory-mapped: a process that looks at a mapped file is ended by
the system (SIGBUS) when another one truncates it.

Sizes are checked against the file before anything is made of them. Nothing is decompressed: torch.save stores, so a
compressed entry is refused, and with it every zip bomb. CRCs of zip files are not compared: torch writes wrong ones on
request. Our own files have checksums of each tensor, which are compared when the tensor is read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from .. import writing
from ..writing import shown as shown
from .unpickler import Machine, Malformed, Storage, quote

KERNELS_FORMAT = "rvc_fast kernels"
"""What a file of packed weights calls itself in its metadata."""

MAX_ENTRIES = 100_000
MAX_JSON = 4 << 20  # values take up to thirty times the memory of their text
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_SAFETENSORS_DTYPES = {
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "<i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "<u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "<u1",
    "BF16": "<u2",
}


def code_of(dtype: np.dtype[Any]) -> str:
    """Return the code of a type; a type of NumPy's with a field "bfloat16" is BF16."""
    if dtype.names == ("bfloat16",):
        return "BF16"
    return next(code for code, known in _SAFETENSORS_DTYPES.items() if np.dtype(known) == dtype)


class Contents:
    """The bytes of an open file, or a part of them. Slices are read when their bytes are asked for.

    What is read is a copy, which stays as it is whatever becomes of the file. Malformed if the file has become shorter.
    """

    def __init__(self, handle: int, begin: int, end: int) -> None:
        self._handle, self._begin, self._end = handle, begin, end

    def __len__(self) -> int:
        return self._end - self._begin

    def __getitem__(self, part: slice) -> Contents:
        begin, end, _ = part.indices(len(self))
        return Contents(self._handle, self._begin + begin, self._begin + max(begin, end))

    def __bytes__(self) -> bytes:
        return bytes(self.read())

    def read(self) -> memoryview:
        """Return the bytes, read-only."""
        memory = np.empty(len(self), np.uint8)
        view = memory.data
        at = 0
        while at < len(view):
            got = os.preadv(self._handle, [view[at:]], self._begin + at)
            if got == 0:
                raise Malformed("it became shorter while it was read")
            at += got
        return view.toreadonly()


Bytes = memoryview | Contents


def memory(data: Bytes) -> memoryview:
    """Return bytes that are in memory."""
    return data.read() if isinstance(data, Contents) else data


@contextmanager
def opened(path: Path) -> Iterator[Contents]:
    """Yield the contents of a file, which can be read until the end of the block; Malformed if it is empty."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise Malformed("it is empty")
        yield Contents(file.fileno(), 0, size)


def _zip_entries(data: Bytes) -> dict[str, Bytes]:
    """Return a zip file's entries; Malformed unless they are stored, distinct and disjoint."""
    tail = bytes(data[-(22 + 65535) :])
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise Malformed("it is a zip archive without a directory: probably truncated")
    disk, start_disk, _, count, size, start = struct.unpack_from("<4H2I", tail, at + 4)
    if count == 0xFFFF or 0xFFFFFFFF in (size, start):
        raise Malformed("it is a zip64 archive (over 4 GiB), which is not supported")
    end = len(data) - len(tail) + at
    if disk or start_disk or start + size > end or count * 46 > size or count > MAX_ENTRIES:
        raise Malformed("its zip directory does not fit the file: probably truncated")
    entries: dict[str, Bytes] = {}
    spans = []
    directory = bytes(data[start : start + size])
    at = 0
    for _ in range(count):
        if at + 46 > size or directory[at : at + 4] != b"PK\x01\x02":
            raise Malformed("its zip directory is damaged")
        _, _, flags, method, _, _, _, packed, unpacked, n_name, n_extra, n_comment = struct.unpack_from(
            "<6H3I3H", directory, at + 4
        )
        (header,) = struct.unpack_from("<I", directory, at + 42)
        if at + 46 + n_name > size:
            raise Malformed("its zip directory is damaged")
        name = directory[at + 46 : at + 46 + n_name].decode("utf-8", "replace")
        at += 46 + n_name + n_extra + n_comment
        if method != 0 or packed != unpacked or flags & 1:
            raise Malformed(
                f"its zip entry {quote(name)} is compressed or encrypted, which torch.save never does"
            )
        local = bytes(data[header : header + 30])
        if header + 30 > start or local[:4] != b"PK\x03\x04":
            raise Malformed(f"its zip entry {quote(name)} has no header")
        begin = header + 30 + sum(struct.unpack_from("<2H", local, 26))
        if begin + unpacked > start:
            raise Malformed(f"its zip entry {quote(name)} of {unpacked} bytes does not fit the file")
        if name in entries:
            raise Malformed(f"its zip entry {quote(name)} is there twice")
        entries[name] = data[begin : begin + unpacked]
        spans.append((header, begin + unpacked, name))
    spans.sort()
    for (_, stop, _), (begin, _, name) in itertools.pairwise(spans):
        if begin < stop:
            raise Malformed(f"its zip entry {quote(name)} overlaps another one")
    return entries


def read_torch_zip(data: Bytes) -> Any:
    """Return what `torch.save` (1.6 and later) was given, as plain values and `Tensor`s."""
    entries = _zip_entries(data)
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Malformed(
            f"it is a zip archive with {len(pickles)} data.pkl inside, not a torch.save file; "
            "if it holds models, unpack it first"
        )
    root = pickles[0][: -len("data.pkl")]
    if f"{root}constants.pkl" in entries:
        raise Malformed("it is a TorchScript archive, not a checkpoint of weights")
    order = bytes(entries.get(f"{root}byteorder", b"little"))
    if order != b"little":
        raise Malformed(f"its byte order must be little, got {quote(order)}")
    storages: dict[str, Storage] = {}

    def open_storage(key: str, dtype: str, numel: int) -> Storage:
        known = storages.get(key)
        if known is not None:
            if (known.dtype, known.numel) != (dtype, numel):
                raise Malformed(f"storage {quote(key)} is described in two ways")
            return known
        content = entries.get(f"{root}data/{key}")
        if content is None:
            raise Malformed(f"storage {quote(key)} is missing")
        storage = storages[key] = Storage(key, dtype, numel, lambda: memory(content))
        if numel * storage.itemsize > len(content):
            raise Malformed(f"storage {quote(key)} should hold {numel} numbers, but has {len(content)} bytes")
        return storage

    return Machine(memory(entries[pickles[0]]), 0, open_storage, 2 * len(data)).run()


def read_torch_legacy(data: Bytes) -> Any:
    """Return what `torch.save` before 1.6 was given.

    The file is a row of pickles (magic number, version, system, object, storage keys), then for each key an
    i64 count and the numbers. All of it is read.
    """
    data = memory(data)
    storages: dict[str, Storage] = {}

    def open_storage(key: str, dtype: str, numel: int) -> Storage:
        storage = storages.setdefault(key, Storage(key, dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise Malformed(f"storage {quote(key)} is described in two ways")
        return storage

    machine = Machine(data, 0, open_storage, 2 * len(data))

    def load() -> Any:
        machine.memo, machine.stack, machine.below = {}, [], []
        return machine.run()

    if load() != LEGACY_MAGIC:
        raise Malformed("it is a pickle, but not one of torch.save's")
    version, system = load(), load()
    if version != 1001 or type(system) is not dict or system.get("little_endian") is not True:
        raise Malformed("it is an old torch.save file of an unknown version or byte order")
    result, keys = load(), load()
    if type(keys) is not list:
        raise Malformed("its list of storages is damaged")
    for key in keys:
        storage = storages.get(key) if type(key) is str else None
        if storage is None or storage.present:
            raise Malformed(f"its list of storages is damaged at {quote(key)}")
        if machine.unpack("<q") != storage.numel:
            raise Malformed(f"storage {quote(key)} does not have its {storage.numel} numbers")
        nbytes = storage.numel * storage.itemsize
        if nbytes > len(data) - machine.position:
            raise Malformed(f"storage {quote(key)} does not fit the file: probably truncated")
        storage.keep(machine.take(nbytes))
    return result


def is_torch_legacy(data: Bytes) -> bool:
    """Whether the bytes start with the magic number of torch.save before 1.6."""
    return bytes(data[: len(_LEGACY_START)]) == _LEGACY_START


def is_safetensors(data: Bytes) -> bool:
    """Whether the bytes start like a safetensors file: a length, then an object in JSON."""
    return (
        len(data) > 9
        and bytes(data[8:10]) in (b'{"', b"{}", b"{ ", b"{\n")
        and int.from_bytes(bytes(data[:8]), "little") < 1 << 40
    )


class Entry(NamedTuple):
    """A tensor of a safetensors file: its type's code, its shape, and where in the file its bytes are."""

    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


def safetensors_directory(data: Bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return ({name: entry}, metadata); every entry fits its type, lies within the file and overlaps no other."""
    length = int.from_bytes(bytes(data[:8]), "little")
    if length > len(data) - 8 or length > MAX_JSON:
        raise Malformed(f"its safetensors header of {length} bytes does not fit the file: probably truncated")
    try:
        header = json.loads(bytes(data[8 : 8 + length]))
    except (ValueError, RecursionError):
        raise Malformed("its safetensors header is not JSON") from None
    if type(header) is not dict:
        raise Malformed("its safetensors header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict or any(type(value) is not str for value in metadata.values()):
        raise Malformed("its safetensors metadata must be text")
    room = len(data) - 8 - length
    entries: dict[str, Entry] = {}
    for name, entry in header.items():
        try:
            code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise Malformed(f"its safetensors entry {quote(name)} is damaged") from None
        if any(type(n) is not int or not 0 <= n < 2**48 for n in (*shape, begin, end)) or len(shape) > 8:
            raise Malformed(
                f"its safetensors entry {quote(name)} has a shape or place that is not made of counts"
            )
        if str(code) not in _SAFETENSORS_DTYPES:
            raise Malformed(f"tensor {quote(name)} has the unsupported type {quote(code)}")
        if math.prod(max(n, 1) for n in shape) >= 2**48:
            raise Malformed(f"tensor {quote(name)} is larger than the file")
        itemsize = np.dtype(_SAFETENSORS_DTYPES[code]).itemsize
        if not begin <= end <= room or end - begin != math.prod(shape) * itemsize:
            raise Malformed(
                f"tensor {quote(name)} of shape {shape} does not fit the file: probably truncated"
            )
        entries[name] = Entry(code, shape, 8 + length + begin, 8 + length + end)
    spans = sorted((entry.begin, entry.end, name) for name, entry in entries.items())
    for (_, stop, _), (begin, _, name) in itertools.pairwise(spans):
        if begin < stop:
            raise Malformed(f"tensor {quote(name)} overlaps another one")
    return entries, metadata


def read_safetensors(
    data: Bytes,
    entries: Mapping[str, Entry],
    checksums: Mapping[str, str] | None = None,
    bfloat16: np.dtype[Any] | None = None,
) -> dict[str, np.ndarray]:
    """Return the tensors of a file's directory, read-only; bfloat16 becomes float32, or its bits this type of two bytes.

    checksums: each tensor's, as `checksum` gives them; Malformed for one that differs or is missing.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, (code, shape, begin, end) in entries.items():
        content = memory(data[begin:end])
        if checksums is not None and checksums.get(name) != checksum(content):
            raise Malformed(
                f"tensor {quote(name)} does not have its checksum: the file is damaged, pack or copy it again"
            )
        dtype = np.dtype(_SAFETENSORS_DTYPES[code])
        array = np.frombuffer(content, dtype).reshape(shape) if end > begin else np.zeros(shape, dtype)
        if code == "BF16" and bfloat16 is not None:
            array = array.view(bfloat16)
        elif code == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = np.require(array, requirements=["A"])
    return arrays


def checksum(data: Any) -> str:
    """Return the XXH3 of 64 bits of an array or a memoryview: about 10 GB per second on one core."""
    return xxhash.xxh3_64_hexdigest(data)


def safetensors_identity(data: Bytes) -> str:
    """Return what tells this safetensors file from any other without reading all of it.

    A digest of its size, its header (which in a packed model holds a digest of all tensors) and both ends of
    every tensor, should someone have put other tensors below the same header.
    """
    entries, _ = safetensors_directory(data)
    length = 8 + int.from_bytes(bytes(data[:8]), "little")
    digest = hashlib.blake2b(len(data).to_bytes(8, "little"), digest_size=16)
    digest.update(bytes(data[:length]))
    for _, _, begin, end in sorted(entries.values(), key=lambda entry: entry.begin):
        digest.update(bytes(data[begin : min(begin + 1024, end)]))
        digest.update(bytes(data[max(begin, end - 1024) : end]))
    return digest.hexdigest()


class Part(NamedTuple):
    """A tensor to write: its type's code, its shape and its bytes."""

    code: str
    shape: tuple[int, ...]
    content: memoryview


def write_safetensors(
    path: Path, tensors: Mapping[str, Part], metadata: Mapping[str, str], sources: Iterable[Path] = ()
) -> None:
    """Write a safetensors file, tensors in their order, see `writing.replacing`; InputError where that cannot be."""
    entries: dict[str, Any] = {}
    at = 0
    for name, (code, shape, content) in tensors.items():
        entries[name] = {"dtype": code, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    header = json.dumps({**entries, "__metadata__": dict(metadata)}).encode()
    header += b" " * (-len(header) % 8)
    start = len(header).to_bytes(8, "little") + header
    replace_file(path, itertools.chain([start], (part.content for part in tensors.values())), sources)


def replace_file(path: Path, parts: Iterable[bytes | memoryview], sources: Iterable[Path] = ()) -> None:
    """Write a file, see `writing.replacing`; InputError where that cannot be."""
    with writing.replacing(path, "weights", sources) as (file, _):
        for part in parts:
            file.write(part)
