"""Files made to run code, to read elsewhere or to take memory: one clear line each, and nothing else."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hostile import refused
from rvc_fast.errors import FileFormatError
from rvc_fast.weights import load_checkpoint, save_packed
from tests.fuzz import seeds

from .torch_files import (
    Call,
    Encoder,
    Global,
    Object,
    Raw,
    StorageRef,
    rebuild,
    torch_legacy,
    torch_zip,
    zip_bytes,
)

GOLDEN = Path(__file__).parents[1] / "golden"
MARKER = "touched_by_a_pickle"
TOUCH = f"touch {MARKER}"


class Runs:
    """What the standard pickler makes of a class that wants a call at loading."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


def refuse(tmp_path: Path, data: bytes, words: str = "cannot load", name: str = "a.pth") -> str:
    """Load `data` and check that it fails as it should; return the message."""
    path = tmp_path / name
    path.write_bytes(data)
    modules, files = set(sys.modules), set(tmp_path.iterdir())
    message = refused(load_checkpoint, path, data, words, 4_000_000 + 300 * len(data))
    assert len(message) < 400 + len(str(path))
    assert set(sys.modules) == modules
    assert set(tmp_path.iterdir()) == files
    assert not Path(MARKER).exists()
    return message


def stack_global(module: str, name: str) -> bytes:
    """STACK_GLOBAL of two texts."""
    parts = (b"\x8c" + bytes([len(text.encode())]) + text.encode() for text in (module, name))
    return b"".join(parts) + b"\x93"


def both(code: bytes) -> list[bytes]:
    """A pickle inside today's container and inside the old one."""
    legacy = torch_legacy({})
    head = legacy[: -len(Encoder().dump({}) + Encoder().dump([]))]
    return [zip_bytes({"a/data.pkl": code, "a/version": b"3"}), head + code]


CALLS = {
    "os.system": pickle.dumps(Runs(__import__("os").system, TOUCH), 2),
    "os.system, protocol 4": pickle.dumps(Runs(__import__("os").system, TOUCH), 4),
    "eval": pickle.dumps({"weight": Runs(eval, f"open({MARKER!r}, 'w')")}, 2),
    "exec, protocol 4": pickle.dumps([Runs(exec, f"open({MARKER!r}, 'w')")], 4),
    "subprocess": pickle.dumps(Runs(subprocess.Popen, ["touch", MARKER]), 2),
    "getattr": pickle.dumps(Runs(getattr, "text", "__class__"), 2),
    "__import__": pickle.dumps(Runs(__import__, "antigravity"), 2),
    "nested": pickle.dumps(Runs(print, Runs(eval, "1"), Runs(__import__("os").system, TOUCH)), 2),
    "import of a fresh module": Encoder().dump(Global("antigravity", "fly")),
    "import within fairseq's name": Encoder().dump(Call(Global("fairseq", "x"), ())),
    "import within omegaconf's name": Encoder().dump(Call(Global("omegaconfig.x", "y"), ())),
    "dotted name": b"\x80\x04" + stack_global("collections", "OrderedDict.__init__.__globals__") + b".",
    "beside an allowed name": b"\x80\x04" + stack_global("torch._utils", "os.system") + b")R.",
    "beyond an allowed name": b"\x80\x04" + stack_global("torch", "_utils._rebuild_tensor_v2.x.y") + b".",
    "empty module": b"\x80\x04" + stack_global("", "eval") + b".",
    "lookalike of an allowed name": b"\x80\x04" + stack_global("collections", "OrderedDict\u200b") + b".",
    "newline in a name": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
    "STACK_GLOBAL of a memoised pair": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93)R.",
    "STACK_GLOBAL of bytes": b"\x80\x04C\x02osC\x06system\x93.",
    "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
    "STACK_GLOBAL of itself": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x93.",
    "STACK_GLOBAL of nothing": b"\x80\x04\x93.",
    "REDUCE of text": Encoder().dump(Call("os.system", ("true",))),
    "REDUCE of an object": Encoder().dump(Call(Object(Global("argparse", "Namespace"), {}), ())),
    "REDUCE of a storage type": Encoder().dump(Call(Global("torch", "FloatStorage"), (10**12,))),
    "REDUCE of a builtin type": Encoder().dump(Call(Global("builtins", "list"), ())),
    "REDUCE with a list": b"\x80\x02ccollections\nOrderedDict\n]R.",
    "bytes of a size": Encoder().dump(Call(Global("__builtin__", "bytes"), (10**12,))),
    "encode by another codec": Encoder().dump(Call(Global("_codecs", "encode"), ("a", "rot13"))),
    "encode of the unencodable": Encoder().dump(Call(Global("_codecs", "encode"), ("\u20ac", "latin1"))),
    "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(X\x04\x00\x00\x00true\x85t\x81.",
    "NEWOBJ of a storage": b"\x80\x02ctorch\nFloatStorage\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"\x80\x02Pstorage\n.",
    "protocol 0": pickle.dumps({"a": 1}, 0),
    "protocol 9": b"\x80\x09N.",
    "BUILD of text": b"\x80\x02X\x01\x00\x00\x00a}b.",
    "BUILD of a list": b"\x80\x02]}b.",
    "BUILD of a name": b"\x80\x02ctorch\nFloatStorage\n}X\x05\x00\x00\x00dtypeX\x01\x00\x00\x00asb.",
    "BUILD of nothing": b"\x80\x02}b.",
    "BUILD with slots": b"\x80\x02ccollections\nOrderedDict\n)R}}\x86b.",
    "__setstate__ by name": b"\x80\x02cbuiltins\nsetattr\n.",
    "numpy reconstruct of a callable": Encoder().dump(
        Call(Global("numpy.core.multiarray", "_reconstruct"), (Global("os", "system"), (0,), "b"))
    ),
    "numpy scalar of objects": Encoder().dump(
        Call(Global("numpy.core.multiarray", "scalar"), (Call(Global("numpy", "dtype"), ("O8",)), "12345678"))
    ),
    "numpy load": Encoder().dump(Call(Global("numpy", "load"), ("a.npy",))),
    "torch load": Encoder().dump(Call(Global("torch.serialization", "load"), ("a.pth",))),
    "a whole module": Encoder().dump(Object(Global("torch.nn.modules.linear", "Linear"), {})),
}


# What happens to those that are no attempt at a call, or one that is merely of no effect.
WORDS = {
    "import within fairseq's name": "must hold a dict of tensors, got Inert|too early",
    "STACK_GLOBAL of bytes": "name is not text",
    "STACK_GLOBAL of numbers": "name is not text",
    "STACK_GLOBAL of nothing": "empty stack",
    "bytes of a size": "bytes is called with arguments",
    "encode by another codec": "_codecs.encode is used for",
    "encode of the unencodable": "_codecs.encode is used for",
    "protocol 9": "protocol must be 2 to 5",
    "BUILD with slots": "no dict of tensors|too early",
    "numpy scalar of objects": "numpy scalar must be a number",
}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_called(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for i, data in enumerate(both(CALLS[name])):
        refuse(tmp_path, data, WORDS.get(name, "refused$"), f"{i}.pth")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("os.system", "'posix.system'|'nt.system'"),
        ("eval", "'__builtin__.eval'"),
        ("getattr", "'__builtin__.getattr'"),
    ],
)
def test_the_message_names_the_culprit(tmp_path, code, name):
    refuse(tmp_path, both(CALLS[code])[0], f"refers to ({name})")


def test_the_file_itself_cannot_break_the_line(tmp_path):
    message = refuse(
        tmp_path, both(Encoder().dump(Raw(b"\x8c\x05a\nb\x1b[\x8c\x01x\x93")))[0], name="a\nb.pth"
    )
    assert message.isprintable()


def refer(key: str = "0", kind: str = "FloatStorage", numel: object = 4) -> StorageRef:
    return StorageRef(kind, key, numel)


TENSORS = {
    "larger than its storage": rebuild(refer(), 0, (5,), (1,)),
    "far larger": rebuild(refer(), 0, (2**40,), (1,)),
    "larger than any number": rebuild(refer(), 0, (2**62, 2**62), (1, 1)),
    "overflowing to a small product": rebuild(refer(), 0, (2**32, 2**32), (0, 0)),
    "beyond the end by offset": rebuild(refer(), 1, (4,), (1,)),
    "beyond the end by stride": rebuild(refer(), 0, (2, 2), (3, 1)),
    "huge stride": rebuild(refer(), 0, (2,), (2**40,)),
    "overflowing stride": rebuild(refer(), 0, (2,), (2**62,)),
    "negative stride": rebuild(refer(), 3, (4,), (-1,)),
    "negative offset": rebuild(refer(), -1, (4,), (1,)),
    "huge offset": rebuild(refer(), 2**63, (1,), (1,)),
    "negative size": rebuild(refer(), 0, (-4,), (1,)),
    "two negative sizes": rebuild(refer(), 0, (-2, -2), (2, 1)),
    "expanded": rebuild(refer(), 0, (1000,), (0,)),
    "sizes of bool": rebuild(refer(), 0, (True,), (1,)),
    "sizes of floats": rebuild(refer(), 0, (2.0,), (1,)),
    "sizes that are a list": rebuild(refer(), 0, [2], (1,)),
    "fewer strides than sizes": rebuild(refer(), 0, (2, 2), (1,)),
    "too many axes": rebuild(refer(), 0, (1,) * 64, (1,) * 64),
    "empty but huge": rebuild(refer(), 0, (0, 2**47, 2**47), (1, 1, 1)),
    "of a storage that is text": rebuild("0", 0, (1,), (1,)),
    "of a tensor": rebuild(rebuild(refer(), 0, (4,), (1,)), 0, (4,), (1,)),
    "storage larger than its entry": rebuild(refer(numel=5), 0, (4,), (1,)),
    "storage of negative size": rebuild(refer(numel=-1), 0, (), ()),
    "storage of huge size": rebuild(refer(numel=2**61), 0, (4,), (1,)),
    "storage of a wider type": rebuild(refer(kind="DoubleStorage"), 0, (4,), (1,)),
    "storage of an unknown type": rebuild(refer(kind="QInt8Storage"), 0, (4,), (1,)),
    "storage of no storage type": rebuild(refer(kind="Size"), 0, (4,), (1,)),
    "storage that is missing": rebuild(refer(key="7"), 0, (4,), (1,)),
    "storage outside the folder": rebuild(refer(key="../../data.pkl"), 0, (4,), (1,)),
    "storage by number": rebuild(StorageRef("FloatStorage", 0, 4), 0, (4,), (1,)),
    "storage in two types": [
        rebuild(refer(), 0, (4,), (1,)),
        rebuild(refer(kind="IntStorage"), 0, (4,), (1,)),
    ],
    "persistent id of another sort": Raw(Encoder().encode(("module", "os", "system")) + b"Q"),
    "persistent id that is text": Raw(Encoder().encode("storage") + b"Q"),
    "parameter of text": Call(Global("torch._utils", "_rebuild_parameter"), ("a", True, None)),
    "no arguments": Call(Global("torch._utils", "_rebuild_tensor_v2")),
    "size of text": Call(Global("torch", "Size"), ("abc",)),
}


TENSOR_WORDS = {
    "larger than any number": "size must hold counts",
    "overflowing stride": "stride must hold counts, got 4611686018427387904",
    "huge offset": "offset must be a count, got 9223372036854775808",
    "negative stride": "stride must hold counts, got -1",
    "negative offset": "offset must be a count, got -1",
    "expanded": "1000 numbers does not fit storage '0' of 4",
    "storage larger than its entry": "should hold 5 numbers, but has 16 bytes|does not have its 5 numbers",
    "storage of huge size": "in a way torch.save does not",
    "storage of a wider type": "should hold 4 numbers, but has 16 bytes|does not fit the file",
    "storage of an unknown type": "refers to 'torch.QInt8Storage'",
    "storage in two types": "storage '0' is described in two ways",
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_stay_inside_their_storages(tmp_path, name):
    code = Encoder().dump({"unet.encoder.bn.weight": TENSORS[name]})
    data = zip_bytes({"a/data.pkl": code, "a/data/0": struct.pack("<4f", 1, 2, 3, 4)})
    words = TENSOR_WORDS.get(name, "cannot load")
    refuse(tmp_path, data, words)
    keys = Encoder().dump(["0"]) + struct.pack("<q4f", 4, 1, 2, 3, 4)
    refuse(tmp_path, both(code)[1] + keys, words, "b.pth")


def test_many_tensors_of_one_storage(tmp_path):
    """A storage described over and over would fill memory once each tensor is folded or copied."""
    numbers = np.zeros(100_000, np.float32)
    view = rebuild(refer(numel=numbers.size), 0, numbers.shape, (1,))
    code = Encoder().dump({f"unet.{i}": view for i in range(100)})
    data = zip_bytes({"a/data.pkl": code, "a/data/0": numbers.tobytes()})
    refuse(tmp_path, data, "more numbers than the file")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_not_a_number(tmp_path, bad, dtype):
    tensors = {"unet.encoder.bn.weight": np.ones(70_000, dtype)}
    tensors["unet.encoder.bn.weight"][69_999] = bad
    words = "tensor 'unet.encoder.bn.weight' holds NaN, infinity"
    refuse(tmp_path, torch_zip(tensors), words)
    save_packed(tmp_path / "b.safetensors", "rmvpe", tensors, {})
    refuse(tmp_path, (tmp_path / "b.safetensors").read_bytes(), words, "c.safetensors")


def test_numbers_that_float32_cannot_hold(tmp_path, recwarn):
    tensors = {"unet.encoder.bn.weight": np.array([1, -1e300])}
    refuse(tmp_path, torch_zip(tensors), "numbers beyond float32")
    assert not recwarn.list


# Pickles that state sizes, and for some of them the words of the message.
SIZES: dict[str, bytes | tuple[bytes, str]] = {
    "long of 2 GiB": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "integer of 2147483647 bytes"),
    "long of negative size": (b"\x80\x02\x8b\xff\xff\xff\xff.", "integer of -1 bytes"),
    "long of 200 bytes": (b"\x80\x02\x8a\xc8" + b"\x7f" * 200 + b".", "integer of 200 bytes"),
    "text of 4 GiB": (b"\x80\x02X\xff\xff\xff\xff.", "ends too early"),
    "text of 2^63": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "text of 2^64": b"\x80\x04\x8d" + b"\xff" * 8 + b".",
    "bytes of 4 GiB": b"\x80\x03B\xff\xff\xff\xff.",
    "bytes of 2^63": (b"\x80\x04\x8e" + b"\xff" * 8 + b".", "ends too early"),
    "bytearray of 2^63": b"\x80\x05\x96" + b"\xff" * 8 + b".",
    "frame of 2^63": (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "ends too early"),
    "text that is not UTF-8": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "decimal digits": b"\x80\x02I" + b"9" * 100_000 + b"\n.",
    "name without end": (b"\x80\x02c" + b"a" * 100_000, "unfinished name"),
    "memo that was never set": b"\x80\x02h\x07.",
    "memo of nothing": b"\x80\x02q\x07.",
    "mark that was never set": b"\x80\x02t.",
    "unended": b"\x80\x02}",
    "empty": b"",
    "stack underflow": (b"\x80\x020000.", "empty stack"),
    "key without value": b"\x80\x02}(K\x01u.",
    "append to a dict": b"\x80\x02}K\x01a.",
    "item of a list": b"\x80\x02]K\x01K\x02s.",
    "append to nothing": b"\x80\x02(K\x01e.",
    "key that is a list": b"\x80\x02}]K\x01s.",
    "key that is a tuple": b"\x80\x02}))\x86K\x01s.",
    "key that holds itself": (b"\x80\x02}]q\x00h\x00\x85sN.", "dict key must be text or a number, got list"),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_checked_before_anything_is_made(tmp_path, name):
    case = SIZES[name]
    code, words = case if isinstance(case, tuple) else (case, "cannot load")
    for i, data in enumerate(both(code)):
        refuse(tmp_path, data, words, f"{i}.pth")


def test_tuples_of_tuples_cannot_take_exponential_time(tmp_path):
    """60 levels of (x, x): hashing or printing it would take 2^60 steps."""
    nested = b")" + b"q\x00h\x00\x86" * 60
    refuse(tmp_path, both(b"\x80\x02}" + nested + b"K\x01s.")[0], "dict key")
    refuse(tmp_path, both(b"\x80\x02" + nested + b".")[0], "got tuple")
    refuse(tmp_path, both(b"\x80\x02" + nested + b"q\x01cos\nsystem\n.")[0], "refers to 'os.system'")
    refuse(tmp_path, both(b"\x80\x02}X\x01\x00\x00\x00a" + nested + b"s.")[0], "no dict of tensors")


ORDERED = b"ccollections\nOrderedDict\nq\x01"
COPIES = {
    "pairs": (ORDERED + b"](" + b"K\x01K\x02\x86" * 1000 + b"eq\x00", b"h\x01h\x00\x85R"),
    "sizes": (b"ctorch\nSize\nq\x01](" + b"K\x01" * 1000 + b"eq\x00", b"h\x01h\x00\x85R"),
    "text": (
        b"c_codecs\nencode\nq\x01X\xe8\x03\x00\x00" + b"a" * 1000 + b"q\x00",
        b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R",
    ),
    "states": (
        b"cargparse\nNamespace\nq\x01}("
        + b"".join(b"M" + struct.pack("<H", i) + b"N" for i in range(1000))
        + b"uq\x00",
        b"h\x01)\x81h\x00b",
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_value_is_not_copied_over_and_over(tmp_path, name):
    """Each copy of a remembered value takes a few bytes of the pickle and a thousand times as much memory."""
    value, copy = COPIES[name]
    refuse(
        tmp_path, both(b"\x80\x02(" + value + copy * 1000 + b"t.")[0], "copies the same values over and over"
    )
    message = refuse(tmp_path, both(b"\x80\x02(" + value + copy + b"t.")[0], "cannot load", "b.pth")
    assert "copies" not in message


def test_a_header_of_json_takes_bounded_memory(tmp_path):
    refuse(tmp_path, safetensors('{"a":[' + "[]," * 2_000_000 + "[]]}"), "header of 6000010 bytes")


def test_a_name_in_a_decoder_cannot_break_the_line(tmp_path):
    tensors = seeds.voice()["weight"] | {"dec.a\nb.weight": np.ones(3, np.float16)}
    message = refuse(tmp_path, torch_zip({"model": tensors}), r"has 'dec\.a\\nb'")
    assert message.isprintable()


def test_a_dict_that_holds_itself(tmp_path):
    loop = b"\x80\x02}q\x00(X\x05\x00\x00\x00modelh\x00X\x06\x00\x00\x00weighth\x00u."
    refuse(tmp_path, both(loop)[0], "no dict of tensors")


def test_endless_opcodes(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(both(b"\x80\x02" + b"N0" * 600_000 + b".")[0])
    with pytest.raises(FileFormatError, match="longer than 1000000 opcodes"):
        load_checkpoint(path)


# Archives


def voice() -> bytes:
    return (GOLDEN / "voice_tiny_32k.pth").read_bytes()


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("end", [True, False], ids=["start lost", "end lost"])
def test_truncated(tmp_path, share, end):
    data = voice()
    cut = int(len(data) * share)
    refuse(tmp_path, data[cut:] if end else data[:cut] or b"P")
    legacy = torch_legacy({"unet.encoder.bn.weight": np.ones(5000, np.float32)})
    cut = int(len(legacy) * share)
    refuse(tmp_path, legacy[cut:] if end else legacy[:cut], name="b.pth") if cut else None


def test_zip_bomb(tmp_path):
    zeros = zip_bytes({"a/data.pkl": Encoder().dump({}), "a/data/0": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert len(zeros) < 100_000
    refuse(tmp_path, zeros, "compressed")


def directory(data: bytes) -> int:
    return struct.unpack_from("<I", data, data.rindex(b"PK\x05\x06") + 16)[0]


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_lying_archives(tmp_path):
    good = torch_zip({"unet.encoder.bn.weight": np.ones(4, np.float32)})
    first = directory(good)
    end = good.rindex(b"PK\x05\x06")
    huge = struct.pack("<II", 2**31, 2**31)
    refuse(tmp_path, patched(good, first + 20, huge), "does not fit the file", "1.pth")
    refuse(tmp_path, patched(good, first + 24, struct.pack("<I", 2**31)), "compressed", "2.pth")
    refuse(tmp_path, patched(good, first + 42, struct.pack("<I", 2**31)), "no header", "3.pth")
    refuse(tmp_path, patched(good, first + 8, b"\x01"), "encrypted", "4.pth")
    refuse(tmp_path, patched(good, first, b"XX"), "directory is damaged", "5.pth")
    refuse(
        tmp_path, patched(good, end + 8, struct.pack("<HH", 60000, 60000)), "does not fit the file", "6.pth"
    )
    refuse(tmp_path, patched(good, end + 16, struct.pack("<I", 2**31)), "does not fit the file", "7.pth")
    refuse(tmp_path, patched(good, end + 12, b"\xff" * 4), "zip64", "8.pth")
    refuse(tmp_path, patched(good, first + 28, b"\xff\xff"), "directory is damaged", "9.pth")


def test_overlapping_and_doubled_entries(tmp_path):
    good = zip_bytes({"a/data.pkl": Encoder().dump({}), "a/data/0": bytes(64), "a/data/1": bytes(64)})
    second = good.index(b"PK\x01\x02", directory(good) + 1)
    third = good.index(b"PK\x01\x02", second + 1)
    same = patched(good, third + 42, good[second + 42 : second + 46])
    refuse(tmp_path, same, "overlaps", "1.pth")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", Encoder().dump({}))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a/data.pkl", Encoder().dump([]))
    refuse(tmp_path, out.getvalue(), "there twice", "2.pth")


def test_zips_of_other_things(tmp_path):
    refuse(tmp_path, zip_bytes({"voice.pth": voice()}), "0 data.pkl inside.*unpack it first", "1.pth")
    refuse(tmp_path, zip_bytes({}), "0 data.pkl", "2.pth")
    refuse(tmp_path, zip_bytes({"a/data.pkl": b"", "b/data.pkl": b""}), "2 data.pkl", "3.pth")
    refuse(tmp_path, torch_zip({}, **{"constants.pkl": b""}), "TorchScript", "4.pth")
    refuse(tmp_path, zip_bytes({"a/data.pkl": b"\x80\x02}.", "a/byteorder": b"big"}), "byte order", "5.pth")


# safetensors


def safetensors(header: bytes | str, body: bytes = b"", length: int | None = None) -> bytes:
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + body


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (safetensors('{"a": 1}', length=2**39), "does not fit the file"),
        (safetensors('{"a": 1'), "not JSON"),
        (safetensors('{"a": ' + "[" * 100_000), "not JSON"),
        (safetensors('{"a": ' + "9" * 10_000 + "}"), "not JSON|damaged"),
        (safetensors('{"a": 1}'), "damaged"),
        (safetensors('{"a": {"dtype": "F32", "shape": 3, "data_offsets": [0, 4]}}'), "damaged"),
        (safetensors('{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}'), "counts"),
        (safetensors('{"a": {"dtype": "F32", "shape": [1e3], "data_offsets": [0, 4]}}'), "counts"),
        (safetensors('{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}', bytes(4)), "counts"),
        (
            safetensors('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', bytes(4)),
            "does not fit",
        ),
        (
            safetensors('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 0]}}', bytes(8)),
            "does not fit",
        ),
        (
            safetensors('{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]}}', bytes(8)),
            "does not fit",
        ),
        (safetensors('{"a": {"dtype": "F9", "shape": [2], "data_offsets": [0, 8]}}', bytes(8)), "type 'F9'"),
        (
            safetensors('{"a": {"dtype": [], "shape": [2], "data_offsets": [0, 8]}}', bytes(8)),
            "unsupported type",
        ),
        (
            safetensors('{"a": {"dtype": "F32", "shape": [140737488355327, 9, 0], "data_offsets": [0, 0]}}'),
            "larger than",
        ),
        (
            safetensors(
                '{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},'
                ' "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}',
                bytes(8),
            ),
            "overlaps",
        ),
        (safetensors('{"__metadata__": {"format": 1}}'), "metadata must be text"),
        (safetensors('{"__metadata__": {"format": "rvc_fast"}}'), "layout None"),
        (
            safetensors('{"__metadata__": {"format": "rvc_fast", "layout": "1", "kind": "song"}}'),
            "packed as 'song'",
        ),
        (
            safetensors(
                '{"__metadata__": {"format": "rvc_fast", "layout": "1", "kind": "voice", "config": "["}}'
            ),
            "config is not JSON",
        ),
        (
            safetensors(
                '{"__metadata__": {"format": "rvc_fast", "layout": "1", "kind": "voice", "config": "1"}}'
            ),
            "config is not a JSON object",
        ),
        (safetensors("{}"), "no dict of tensors"),
    ],
)
def test_lying_safetensors(tmp_path, data, words):
    refuse(tmp_path, data, words, "a.safetensors")


def test_lying_config_json(tmp_path):
    data = safetensors(
        '{"feature_projection.projection.weight": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}',
        b"a",
    )
    (tmp_path / "config.json").write_text("[" * 100_000)
    refuse(tmp_path, data, "config.json beside it is not JSON", "model.safetensors")
    (tmp_path / "config.json").write_text("[]")
    refuse(tmp_path, data, "config.json beside it is not a JSON object", "model.safetensors")


def test_memory_of_the_process_stays_bounded(tmp_path):
    """The worst pickle there is room for: an object for every opcode."""
    code = b"\x80\x04" + b"}\x94" * 490_000 + b"."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "a.pth"
    path.write_bytes(zip_bytes({"a/data.pkl": code}))
    with pytest.raises(FileFormatError):
        load_checkpoint(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 300_000_000
