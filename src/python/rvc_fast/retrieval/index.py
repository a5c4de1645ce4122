"""Reading faiss .index files: flat and IVF-flat, in today's spelling and the older ones.

faiss itself is not used: beside another user of OpenMP in one process it crashes on macOS. The layout is that
    of faiss's `impl/index_write.cpp`; all numbers are little-endian and packed. Every count is checked against the
    bytes that are left before anything is made of it.

A file is read, not mapped: a process that looks at a mapped file is ended by the system (SIGBUS) when another one
truncates it, as a training that writes its index anew does. faiss has no checksums; every number is checked instead.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import FileFormatError, InputError
from ..filekinds import stranger
from ..ops.knn import knn, knn_in_lists
from . import search

_FLAT = ("IxF2", "IxFl", "IxFI")
_IVF = ("IwFl", "IvFl", "IvFL")
# Other kinds of faiss by the beginnings of their codes.
_OTHERS = {
    "IHN": "HNSW",
    "IwPQ": "IVF-PQ",
    "IvPQ": "IVF-PQ",
    "IwQR": "IVF-PQ with refinement",
    "IwPf": "IVF-PQ",
    "IwS": "IVF with scalar quantization",
    "IvS": "IVF with scalar quantization",
    "IxSQ": "scalar quantization",
    "IxPT": "a transformed index (OPQ, PCA)",
    "IxM": "an index with an id map",
    "IxP": "PQ",
    "IxRF": "a refined index",
    "IxH": "LSH",
    "IN": "NSG or NN-descent",
    "IB": "a binary index",
}
_MAX_DIM = 1 << 16
_KEPT_BYTES = 1 << 28  # an index up to this size is copied into memory by its first exact search
_MAX_NUMBER = 1e15  # so that no squared distance overflows


DEVICE_BYTES = 1 << 30
"""A larger index is not copied to a GPU; the CPU searches it."""


class _Malformed(ValueError):
    """What is wrong with an index; `load_index` adds the file's name."""


@dataclass(frozen=True)
class _Header:
    kind: str
    dim: int
    count: int


@dataclass(frozen=True)
class DeviceVectors:
    """The vectors of an index in a GPU's memory.

    vectors: (count, dim) float32, in the order of the lists.
    centroids, list_of: of an IVF index, the lists' middles (lists, dim) float32 and each vector's list (count,) int32.
    nprobe: how many lists a search visits.
    """

    vectors: mx.array
    centroids: mx.array | None
    list_of: mx.array | None
    nprobe: int

    def search(self, queries: mx.array, k: int, *, exact: bool = False) -> tuple[mx.array, mx.array]:
        """Return (d2 (n, k) float32, rows of `vectors` (n, k) int32), nearest first, not evaluated yet.

        As `Index.search` for queries (n, dim) float32, but with rows instead of ids.
        """
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise InputError(
                f"[retrieval] queries must be (n, {self.vectors.shape[1]}), got {tuple(queries.shape)}"
            )
        if exact or self.centroids is None or self.list_of is None:
            return knn(queries, self.vectors, k)
        return knn_in_lists(queries, self.vectors, k, self.centroids, self.list_of, self.nprobe)


class Index:
    """The vectors of an index file, and the search that faiss would do over them.

    Attributes:
        kind: "Flat" or "IVF-Flat".
        dim: width of the vectors.
        count: how many there are.
        nprobe: how many lists a search visits, as stored in the file (0 for "Flat").
    """

    def __init__(
        self,
        kind: str,
        numbers: np.ndarray,
        starts: np.ndarray,
        ids: np.ndarray,
        dim: int,
        centroids: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
        nprobe: int = 0,
    ) -> None:
        """Wrap the parts of a file.

        Args:
            kind: "Flat" or "IVF-Flat".
            numbers: (m,) float32, a view of the file in which every vector is `dim` numbers in a row.
            starts: (count,) int64, where in `numbers` each row begins; rows are in the order of the lists.
            ids: (count,) int64, distinct, each row's id.
            dim: width of the vectors.
            centroids: (lists, dim) float32, for IVF.
            sizes: (lists,) int64, rows per list, for IVF.
            nprobe: lists a search visits, for IVF.
        """
        self.kind = kind
        self.dim = dim
        self.count = len(starts)
        self.nprobe = nprobe
        self._windows = np.lib.stride_tricks.sliding_window_view(numbers, dim)
        self._starts = starts
        self._ids = ids
        self._order = np.argsort(ids)
        self._sorted_ids = ids[self._order]
        self._kept: dict[int, mx.array] | None = {} if 4 * self.count * dim <= _KEPT_BYTES else None
        self._device: DeviceVectors | None = None
        self._centroids = centroids
        self._bounds = None if sizes is None else np.concatenate([[0], np.cumsum(sizes)])

    def search(
        self, queries: np.ndarray, k: int = 8, *, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k nearest vectors of each query by squared L2 distance, nearest first.

        Args:
            queries: (n, dim) float32.
            k: how many.
            exact: compare with every vector; otherwise, as faiss does, with those of the `nprobe` lists whose
                centroids are nearest. No difference for a flat index.

        Returns:
            (d2 (n, k) float32, ids (n, k) int64). Where there are fewer than k, ids are -1 and distances inf.

        Raises:
            InputError: queries of another width, not finite, or k < 1.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"[retrieval] queries must be (n, {self.dim}), got {queries.shape}")
        if not _is_sane(queries.reshape(-1)):
            raise InputError(f"[retrieval] queries must be finite and at most {_MAX_NUMBER:g} in size")
        if k < 1:
            raise InputError(f"[retrieval] k must be at least 1, got {k}")
        if len(queries) == 0:
            return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
        if exact or self._centroids is None or self._bounds is None:
            d2, rows = search.exhaustive(queries, self.rows, self.count, k, self._kept)
        else:
            lists = search.nearest_lists(queries, self._centroids, self.nprobe)
            d2, rows = search.in_lists(queries, lists, self.rows, self._bounds, k)
        ids = np.where(rows < 0, np.int64(-1), self._ids[rows])
        order = np.lexsort((ids, d2))
        return np.take_along_axis(d2, order, 1), np.take_along_axis(ids, order, 1)

    def on_device(self) -> DeviceVectors | None:
        """Return the vectors in the memory of MLX's default device, kept after the first call; None if too large."""
        if 4 * self.count * self.dim > DEVICE_BYTES:
            return None
        if self._device is None:
            lists = None if self._bounds is None else np.diff(self._bounds)
            self._device = DeviceVectors(
                mx.array(self.rows(slice(None))),
                None if self._centroids is None else mx.array(self._centroids),
                None if lists is None else mx.array(np.repeat(np.arange(len(lists), dtype=np.int32), lists)),
                self.nprobe,
            )
        return self._device

    def rows(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return the vectors at these places in the file's order, (..., dim) float32, copied."""
        return self._windows[self._starts[rows]]

    def vectors(self, ids: np.ndarray) -> np.ndarray:
        """Return the vectors with these ids, (..., dim) float32; InputError for an id that is not there."""
        ids = np.asarray(ids, np.int64)
        known = self._ids[self._order]
        place = np.minimum(np.searchsorted(known, ids), self.count - 1)
        if not (known[place] == ids).all():
            raise InputError(
                f"[retrieval] ids must be those of the index, got {ids[known[place] != ids].flat[0]}"
            )
        return self.rows(self._order[place])


class _Reader:
    """A cursor over the file's bytes that knows how much is left."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def skip(self, nbytes: int, what: str) -> int:
        """Step over `nbytes` and return where they begin."""
        if nbytes > len(self.data) - self.at:
            left = len(self.data) - self.at
            raise _Malformed(
                f"its {what} should take {nbytes} bytes, but {left} are left: truncated or damaged"
            )
        begin, self.at = self.at, self.at + nbytes
        return begin

    def number(self, layout: str, what: str) -> int:
        value: int = struct.unpack_from(layout, self.data, self.skip(struct.calcsize(layout), what))[0]
        return value

    def array(self, dtype: str, n: int, what: str) -> np.ndarray:
        begin = self.skip(n * np.dtype(dtype).itemsize, what)
        return np.frombuffer(self.data, dtype, n, begin)

    def vector(self, dtype: str, what: str) -> np.ndarray:
        """A count (u64), then as many numbers."""
        return self.array(dtype, self.number("<Q", what), what)

    def fourcc(self, what: str) -> str:
        begin = self.skip(4, what)
        return bytes(self.data[begin : begin + 4]).decode("latin1")


def load_index(path: str | os.PathLike[str]) -> Index:
    """Read a faiss .index file (Flat or IVF-Flat with L2 distances).

    Raises:
        InputError: there is no such file, or it cannot be opened.
        FileFormatError: it is damaged, holds no vectors, or is an index of another kind; the message is one
        line.
    """
    path = Path(path)
    shown = str(path) if str(path).isprintable() else ascii(str(path))
    try:
        with path.open("rb") as file:
            data = memoryview(file.read())
        if len(data) == 0:
            raise _Malformed("it is empty")
        return _read(_Reader(data))
    except _Malformed as e:
        raise FileFormatError(f"[retrieval] cannot load {shown}: {e}") from None
    except OSError as e:
        raise InputError(f"[retrieval] cannot open {shown}: {e.strerror or e}") from None


def _read(reader: _Reader) -> Index:
    header = _read_header(reader, (*_FLAT, *_IVF), "kind")
    return _read_flat(reader, header) if header.kind in _FLAT else _read_ivf(reader, header)


def _read_header(reader: _Reader, kinds: tuple[str, ...], what: str) -> _Header:
    kind = reader.fourcc(what)
    if kind not in kinds:
        if kind[0] == "I" and kind.isalnum() and kind.isascii():
            got = next((name for start, name in _OTHERS.items() if kind.startswith(start)), "another kind")
            wanted = "a Flat or IVF-Flat index" if what == "kind" else "Flat"
            raise _Malformed(
                f"its {what} must be {wanted} of faiss, got {got} ({kind!r}): train it anew as IVF-Flat"
            )
        raise _Malformed(
            stranger(bytes(reader.data[:1024])) or f"it is no faiss index, its {what} reads {kind!a}"
        )
    dim, count = reader.number("<i", "width"), reader.number("<q", "count")
    reader.skip(16, "header")
    trained, metric = reader.number("<B", "header"), reader.number("<i", "metric")
    if not 1 <= dim <= _MAX_DIM:
        raise _Malformed(f"its vectors must be 1 to {_MAX_DIM} wide, got {dim}")
    if metric != 1 or kind == "IxFI":
        got = "inner product" if kind == "IxFI" or metric == 0 else f"faiss's number {metric}"
        raise _Malformed(f"its metric must be L2, got {got}")
    if trained != 1:
        raise _Malformed("it is not trained")
    # A float32 per number is the least that any of these kinds stores.
    if not 0 <= count <= len(reader.data) // (4 * dim):
        raise _Malformed(f"its count of vectors cannot be {count} in {len(reader.data)} bytes")
    return _Header(kind, dim, count)


def _read_matrix(reader: _Reader, header: _Header, what: str) -> np.ndarray:
    numbers = reader.vector("<f4", what)
    if len(numbers) != header.count * header.dim:
        raise _Malformed(f"its {what} should be {header.count} x {header.dim} numbers, got {len(numbers)}")
    return _checked(numbers, what)


def _is_sane(numbers: np.ndarray) -> bool:
    blocks = (numbers[i : i + (1 << 18)] for i in range(0, len(numbers), 1 << 18))
    # NaN compares false.
    return all(block.max() <= _MAX_NUMBER and block.min() >= -_MAX_NUMBER for block in blocks)


def _checked(numbers: np.ndarray, what: str) -> np.ndarray:
    if not _is_sane(numbers):
        raise _Malformed(f"its {what} hold NaN, infinity or numbers beyond {_MAX_NUMBER:g}")
    return numbers


def _read_flat(reader: _Reader, header: _Header) -> Index:
    numbers = _read_matrix(reader, header, "vectors")
    _require_vectors(header.count)
    ids = np.arange(header.count, dtype=np.int64)
    return Index("Flat", numbers, ids * header.dim, ids, header.dim)


def _require_vectors(count: int) -> None:
    if count == 0:
        raise _Malformed("it holds no vectors: this is a trained_*.index, use the added_*.index beside it")


def _read_ivf(reader: _Reader, header: _Header) -> Index:
    nlist, nprobe = reader.number("<Q", "list count"), reader.number("<Q", "nprobe")
    coarse = _read_header(reader, _FLAT, "coarse quantizer")
    if coarse.dim != header.dim or coarse.count != nlist or nlist == 0:
        raise _Malformed(
            f"its coarse quantizer must be {nlist} x {header.dim} numbers, got {coarse.count} x {coarse.dim}"
        )
    if nprobe == 0:
        raise _Malformed("its nprobe must be at least 1, got 0")
    centroids = np.array(_read_matrix(reader, coarse, "centroids"), np.float32).reshape(nlist, header.dim)
    read_lists = _read_lists if header.kind == "IwFl" else _read_old_lists
    sizes, id_parts, places = read_lists(reader, header, nlist)
    if sum(sizes.tolist()) != header.count:
        raise _Malformed(f"its lists hold {sum(sizes.tolist())} vectors, its header says {header.count}")
    _require_vectors(header.count)

    ids = np.concatenate(id_parts)
    if len(np.unique(ids)) != header.count or int(ids.min()) < 0:
        raise _Malformed("its ids must be distinct and not negative")
    # All lists begin at the same place modulo 4, so that one array of float32, aligned or not, spans them.
    base = min(places)
    numbers = np.frombuffer(reader.data, "<f4", (len(reader.data) - base) // 4, base)
    begins = (np.array(places, np.int64) - base) // 4
    filled = sizes[sizes > 0]
    within = np.arange(header.count) - np.repeat(np.cumsum(filled) - filled, filled)
    starts = np.repeat(begins, filled) + within * header.dim
    for begin, size in zip(begins.tolist(), filled.tolist(), strict=True):
        _checked(numbers[begin : begin + size * header.dim], "vectors")
    return Index("IVF-Flat", numbers, starts, ids, header.dim, centroids, sizes, min(nprobe, nlist))


_Lists = tuple[np.ndarray, list[np.ndarray], list[int]]


def _read_direct_map(reader: _Reader) -> None:
    """Step over the map from id to place: we make our own."""
    kind = reader.number("<B", "direct map")
    reader.vector("<i8", "direct map")
    if kind == 2:
        reader.skip(16 * reader.number("<Q", "direct map"), "direct map")
    elif kind > 2:
        raise _Malformed(f"its direct map must be of type 0, 1 or 2, got {kind}")


def _read_lists(reader: _Reader, header: _Header, nlist: int) -> _Lists:
    """Return (size of each list, ids and file position of each that is not empty)."""
    _read_direct_map(reader)
    storage = reader.fourcc("lists")
    if storage != "ilar":
        raise _Malformed(f"its lists must be stored as 'ilar', got {storage!a}")
    stored, code_size = reader.number("<Q", "lists"), reader.number("<Q", "lists")
    if (stored, code_size) != (nlist, 4 * header.dim):
        raise _Malformed(
            f"its {stored} lists of {code_size}-byte vectors do not fit {nlist} of {4 * header.dim}"
        )
    layout = reader.fourcc("lists")
    if layout == "full":
        sizes = reader.vector("<u8", "list sizes")
        if len(sizes) != nlist:
            raise _Malformed(f"its {len(sizes)} list sizes should be {nlist}")
    elif layout == "sprs":
        pairs = reader.vector("<u8", "list sizes")
        if len(pairs) % 2 or (len(pairs) and int(pairs[::2].max()) >= nlist):
            raise _Malformed("its list sizes name lists that are not there")
        sizes = np.zeros(nlist, np.uint64)
        sizes[pairs[::2].astype(np.int64)] = pairs[1::2]
    else:
        raise _Malformed(f"its list sizes must be 'full' or 'sprs', got {layout!a}")
    sizes = _checked_sizes(sizes, header.count)
    ids, places = [], []
    for size in sizes[sizes > 0].tolist():
        places.append(reader.skip(size * code_size, "vectors"))
        ids.append(reader.array("<i8", size, "ids"))
    return sizes, ids, places


def _read_old_lists(reader: _Reader, header: _Header, nlist: int) -> _Lists:
    """IvFl and IvFL: all ids, the direct map, then all vectors, counted in numbers (IvFl) or bytes (IvFL)."""
    ids = [reader.vector("<i8", "ids") for _ in range(nlist)]
    _read_direct_map(reader)
    places = []
    per_vector = header.dim * (1 if header.kind == "IvFl" else 4)
    for part in ids:
        if reader.number("<Q", "vectors") != len(part) * per_vector:
            raise _Malformed(f"one of its lists does not hold its {len(part)} vectors")
        place = reader.skip(4 * header.dim * len(part), "vectors")
        if len(part):
            places.append(place)
    sizes = _checked_sizes(np.array([len(part) for part in ids], np.uint64), header.count)
    return sizes, [part for part in ids if len(part)], places


def _checked_sizes(sizes: np.ndarray[Any, Any], count: int) -> np.ndarray:
    if int(sizes.max()) > count:
        raise _Malformed(f"one of its lists claims {int(sizes.max())} vectors of {count}")
    return sizes.astype(np.int64)
