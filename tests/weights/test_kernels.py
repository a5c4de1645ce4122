"""Packed weights on disk give the same model without packing, or are not used: never another sound, never a crash."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import rvc_fast
from rvc_fast import native
from rvc_fast.cli import main
from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.layers import PackedLayer, Packing, packed_layers
from rvc_fast.ops import Precision
from rvc_fast.ops.dispatch import dtype_missing
from rvc_fast.resources import demo_dir
from rvc_fast.synthesizer import load_voice
from rvc_fast.weights import load_checkpoint, save_packed
from rvc_fast.weights.archive import opened, safetensors_identity
from rvc_fast.weights.kernels import file_name
from rvc_fast.weights.pack import pack_file

DEMO = demo_dir()
ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"voice": DEMO / "voice.pth", "embedder": DEMO / "embedder", "pitch_model": DEMO / "rmvpe.pt"}
PACKINGS = [
    Packing(),
    Packing(memory="low"),
    *(Packing(precision=Precision(d)) for d in ("bfloat16", "int8") if not dtype_missing(d)),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo models packed, with their packed weights beside them."""
    folder = tmp_path_factory.mktemp("models")
    for name, source in SOURCES.items():
        pack_file(source, folder / f"{name}.safetensors", Packing())
    return folder


@pytest.fixture
def voice(made: Path, tmp_path: Path) -> Path:
    """A copy of the voice that a test may spoil, packed weights beside it."""
    for file in made.glob("voice.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "voice.safetensors"


def beside(model: Path, packing: Packing = PACKINGS[0]) -> Path:
    return file_name(model, packing)


def state(model: Any) -> dict[str, bytes]:
    """Everything that a model computes with."""
    packed = {name: np.array(w.data.view(mx.uint8)).tobytes() for name, w in packed_layers(model).items()}
    return packed | {name: np.array(value).tobytes() for name, value in tree_flatten(model.parameters())}


def packed_anew(model: Path, packing: Packing = PACKINGS[0]) -> dict[str, bytes]:
    """The state of a model without packed weights on disk."""
    alone = model.parent / "alone" / model.name
    alone.parent.mkdir()
    shutil.copy(model, alone)
    loaded = load_voice(alone, packing)
    assert loaded.kernels is None
    return state(loaded)


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_the_same_model_without_packing(
    packing: Packing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "voice.safetensors"
    pack_file(SOURCES["voice"], model, packing)
    assert {f.name for f in tmp_path.iterdir()} == {model.name, beside(model, packing).name}
    expected = packed_anew(model, packing)

    def fail(*_: object) -> None:
        raise AssertionError("a layer was packed")

    monkeypatch.setattr(PackedLayer, "pack", fail)
    loaded = load_voice(model, packing)
    assert loaded.kernels == beside(model, packing)
    assert state(loaded) == expected


def test_the_same_sound(made: Path) -> None:
    sound = np.sin(np.arange(8000) * 0.08).astype(np.float32)
    plain, quick = (
        rvc_fast.load(files["voice"], embedder=files["embedder"], pitch_model=files["pitch_model"])
        for files in (SOURCES, {name: made / f"{name}.safetensors" for name in SOURCES})
    )
    assert [m.kernels for m in (plain.voice, plain.embedder, plain.pitch_model)] == [None] * 3
    for name in SOURCES:
        assert getattr(quick, name).kernels == made / f"{name}.float32.kernels"
    a, b = (converter.convert(sound, sample_rate=16000) for converter in (plain, quick))
    np.testing.assert_array_equal(a.samples, b.samples)
    np.testing.assert_array_equal(a.f0, b.f0)


def test_converters_share_it_and_the_last_one_frees_it(voice: Path) -> None:
    before = mx.get_active_memory()
    a, b = load_voice(voice), load_voice(voice)
    assert a is b
    assert mx.get_active_memory() - before > 0.9 * beside(voice).stat().st_size
    del a, b
    gc.collect()
    assert mx.get_active_memory() - before < 0.1 * beside(voice).stat().st_size


def test_the_file_may_be_replaced_while_in_use(voice: Path, golden: Path) -> None:
    loaded = load_voice(voice)
    before = state(loaded)
    pack_file(golden / "voice_tiny_32k.pth", voice, Packing())
    assert state(loaded) == before
    other = load_voice(voice)
    assert other.kernels == beside(voice)
    assert state(other).keys() != before.keys() or state(other) != before


# What must not be used


def rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return a function that changes the header of the packed weights beside a model, the data in place."""

    def spoil(model: Path) -> None:
        file = beside(model)
        data = file.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        change(header)
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % 64)
        file.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])

    return spoil


def said(name: str, value: str) -> Callable[[Path], None]:
    return rewrite(lambda header: header["__metadata__"].update({name: value}))


def listed(change: Callable[[dict[str, list]], object]) -> Callable[[Path], None]:
    """Change the list of weights."""

    def spoil(header: dict[str, Any]) -> None:
        weights = json.loads(header["__metadata__"]["weights"])
        change(weights)
        header["__metadata__"]["weights"] = json.dumps(weights)

    return rewrite(spoil)


def bytes_of(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        beside(model).write_bytes(change(beside(model).read_bytes()))

    return spoil


def flipped(data: bytes) -> bytes:
    """The same but for one bit of the weights."""
    at = len(data) - 1000
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def another_voice(model: Path) -> None:
    kept = beside(model).read_bytes()
    pack_file(ROOT / "tests" / "golden" / "voice_tiny_32k.pth", model)
    beside(model).write_bytes(kept)


def first(weights: dict[str, list]) -> list:
    return weights[next(iter(weights))]


SPOILED = {
    "another voice": (another_voice, "another model"),
    "another instruction set": (said("isa", "avx1024"), "isa 'avx1024'"),
    "another build": (said("layout", "0"), "another build"),
    "another format": (said("format", "rvc_fast"), "does not hold packed weights"),
    "another dtype": (said("dtype", "bfloat16"), "dtype 'bfloat16'"),
    "other memory": (said("memory", "low"), "memory 'low'"),
    "no list": (said("weights", "{}"), "list of weights is damaged"),
    "a list of another kind": (said("weights", "[1, 2]"), "list of weights is damaged"),
    "no JSON": (said("weights", "[" * 100000), "list of weights is damaged"),
    "another op": (listed(lambda w: first(w).__setitem__(0, "conv9d")), "does not hold what layer"),
    "another shape": (listed(lambda w: first(w)[1].__setitem__(0, 7)), "does not hold what layer"),
    "another algorithm": (listed(lambda w: first(w).__setitem__(3, "k9")), "does not hold what layer"),
    "fewer values": (listed(lambda w: first(w)[-1].__setitem__(1, 1)), "does not fit its place"),
    "more values": (listed(lambda w: first(w)[-1].__setitem__(1, 2**40)), "does not fit its place"),
    "no values": (listed(lambda w: first(w)[-1].__setitem__(1, 0)), "does not fit its place"),
    "a shape of floats": (
        listed(lambda w: w.update({k: [v[0], [float(n) for n in v[1]], *v[2:]] for k, v in w.items()})),
        "list of weights is damaged",
    ),
    "groups of truth": (listed(lambda w: first(w).__setitem__(2, True)), "list of weights is damaged"),
    "negative values": (listed(lambda w: first(w)[-1].__setitem__(1, -(2**62))), "does not fit its place"),
    "values of another type": (listed(lambda w: first(w)[-1].__setitem__(0, "bfloat16")), "fit its place"),
    "one short": (rewrite(lambda h: h.pop(next(k for k in h if "weight" not in k))), "does not hold what"),
    "one bit": (bytes_of(flipped), "layer .* does not have its checksum: the file is damaged"),
    "no checksums": (rewrite(lambda h: h["__metadata__"].pop("xxh3")), "list of weights is damaged"),
    "other checksums": (said("xxh3", "[]"), "list of weights is damaged"),
    "truncated": (bytes_of(lambda data: data[: len(data) - 64]), "truncated"),
    "only a header": (bytes_of(lambda data: data[:900]), "truncated"),
    "a few bytes": (bytes_of(lambda data: data[:5]), "."),
    "empty": (bytes_of(lambda data: b""), "empty"),
    "text": (bytes_of(lambda data: b"these are no weights, this is a letter"), "truncated"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_does_not_fit_is_not_used(voice: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, words = SPOILED[name]
    spoil(voice)
    expected = packed_anew(voice)
    with pytest.warns(UserWarning, match=f"voice.float32.kernels is not used.*{words}") as seen:
        loaded = load_voice(voice)
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    assert loaded.kernels is None
    assert state(loaded) == expected
    assert main(["info", str(voice), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kernels"]["voice.float32.kernels"].startswith("not used: ")


def test_a_damaged_packed_model_is_named(voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voice.write_bytes(flipped(voice.read_bytes()))
    for kernels in (True, False):  # a few tensors are read in any case
        if not kernels:
            beside(voice).unlink()
        # Whether the packed weights beside it fit is another question.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(
                FileFormatError, match=r"tensor .* does not have its checksum.*again$"
            ) as stop:
                load_voice(voice)
        assert str(voice) in str(stop.value)
    assert main(["info", str(voice)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_packed_model_without_checksums_is_still_read(voice: Path) -> None:
    """Those were made before there were any, or with others."""
    expected = state(load_voice(voice))
    data = voice.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    checksums = json.loads(header["__metadata__"].pop("xxh3"))
    header["__metadata__"]["checksums"] = json.dumps(dict.fromkeys(checksums, 1))
    text = json.dumps(header).encode()
    beside(voice).unlink()
    voice.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    assert state(load_voice(voice)) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_no_file_stays_open_or_mapped(made: Path, golden: Path) -> None:
    """So that nothing that happens to a file reaches who has read it."""
    from rvc_fast.retrieval import load_index

    models = [load_voice(made / "voice.safetensors"), load_voice(SOURCES["voice"])]
    index = load_index(golden / "voice.index")
    seen = Path("/proc/self/maps").read_text() + str(
        [os.readlink(f) for f in Path("/proc/self/fd").iterdir() if f.is_symlink()]
    )
    for file in (
        made / "voice.safetensors",
        beside(made / "voice.safetensors"),
        SOURCES["voice"],
        golden / "voice.index",
    ):
        assert str(file) not in seen
    assert models
    assert index


def test_a_folder_in_its_place_is_not_used(voice: Path) -> None:
    beside(voice).unlink()
    beside(voice).mkdir()
    with pytest.warns(UserWarning, match="cannot be opened"):
        assert load_voice(voice).kernels is None


def test_another_instruction_set_packs_anew(voice: Path, run_python: Callable[..., Any]) -> None:
    code = "import sys; from rvc_fast.synthesizer import load_voice; print(load_voice(sys.argv[1]).kernels)"
    for isa in native.ext().isas():
        run = run_python(code, voice, RVC_FAST_ISA=isa)
        assert run.returncode == 0, run.stderr
        same = isa == native.ext().isa()
        assert run.stdout.strip() == (str(beside(voice)) if same else "None")
        assert run.stderr.count("UserWarning") == (not same)


def test_what_the_file_does_not_hold_is_still_checked(tmp_path: Path) -> None:
    """A NaN in a bias is found, as without packed weights."""
    pack_file(SOURCES["voice"], tmp_path / "good.safetensors", Packing())
    good = load_checkpoint(tmp_path / "good.safetensors")
    tensors = {name: np.array(t) for name, t in good.tensors.items()}
    bias = next(name for name in tensors if name.endswith("bias"))
    tensors[bias][0] = np.nan
    model = tmp_path / "bad.safetensors"
    save_packed(model, "voice", tensors, good.config)
    shutil.copy(beside(tmp_path / "good.safetensors"), beside(model))
    with opened(model) as data:
        said("model", safetensors_identity(data))(model)
    with pytest.raises(FileFormatError, match=f"{bias!r} holds NaN"):
        load_voice(model)


def test_without_the_compiled_kernels_it_is_left_alone(
    voice: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_voice(voice).kernels is None
    with pytest.raises(InputError, match="only the compiled CPU kernels have packed weights"):
        pack_file(SOURCES["voice"], voice.with_name("b.safetensors"), Packing())
    assert not voice.with_name("b.safetensors").exists()
    assert main(["info", str(voice)]) == 0
    assert "not used: [kernels] only the compiled CPU kernels" in capsys.readouterr().out


def test_a_kernels_file_is_no_model(voice: Path) -> None:
    with pytest.raises(FileFormatError, match="give the model beside it"):
        load_checkpoint(beside(voice))


# The command line


def test_pack_and_convert_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "voice.safetensors"
    arguments = ["pack", str(SOURCES["voice"]), "-o", str(model)]
    assert main([*arguments, "--kernels-memory", "low"]) == 2
    assert "give --kernels" in capsys.readouterr().err
    assert not model.exists()
    assert main([*arguments, "--kernels", "--kernels-memory", "low"]) == 0
    assert str(beside(model, PACKINGS[1])) in capsys.readouterr().err
    convert = [
        *("convert", str(DEMO / "sounds" / "speech_male.wav"), "-o", str(tmp_path / "out.wav"), "--json"),
        *("--quiet", "-m", str(model), "--embedder", str(SOURCES["embedder"])),
        *("--pitch-model", str(SOURCES["pitch_model"])),
    ]
    for memory, used in (("low", str(beside(model, PACKINGS[1]))), ("normal", None)):
        assert main([*convert, "--memory", memory]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["kernels"] == {"voice": used, "embedder": None, "pitch_model": None}
    assert main(["info", str(model)]) == 0
    assert "voice.float32-low.kernels: used" in capsys.readouterr().out


# The extension's part


def test_arrays_of_a_file(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.float32)
    path = tmp_path / "x"
    path.write_bytes(values.tobytes())
    with path.open("rb") as file:
        ext, fd = native.ext(), file.fileno()
        a, b, c = ext.read_arrays(fd, [(64, 16, "float32"), (192, 31, "bfloat16"), (4, 3, "float32")])
        for offset, count, dtype in (
            *((-64, 1, "float32"), (64, 0, "float32"), (64, -1, "float32"), (64, 49, "float32")),
            *((64, 97, "bfloat16"), (256, 1, "float32"), (2**62, 1, "float32"), (64, 2**62, "float32")),
            (64, 1, "int16"),
        ):
            with pytest.raises(ValueError, match=r"\[read_arrays\]"):
                ext.read_arrays(fd, [(offset, count, dtype)])
        with pytest.raises(RuntimeError, match=r"\[read_arrays\]"):
            ext.read_arrays(9999, [(64, 1, "float32")])
    path.write_bytes(b"")  # what was read stays
    assert [np.asarray(x.view(mx.uint8)).ctypes.data % 64 for x in (a, b, c)] == [0, 0, 0]
    np.testing.assert_array_equal(np.array(a), values[16:32])
    del a  # the others need the memory that they share with it
    assert b.dtype == mx.bfloat16
    np.testing.assert_array_equal(np.array(b.view(mx.uint16)), values[48:].view(np.uint16)[:31])
    np.testing.assert_array_equal(np.array(c), values[1:4])
    np.testing.assert_array_equal(np.array(c + c), 2 * values[1:4])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_borrowed_weights_are_packed_the_same(dtype: type) -> None:
    ext, rng = native.ext(), np.random.default_rng(0)
    for shape, pack in (
        ((33, 17), ext.linear_pack),
        ((19, 3, 16), ext.conv1d_pack),
        ((16, 3, 16), lambda w: ext.resblock_pack(w, algorithm="k3n2e8")),
        ((5, 3, 2, 7), ext.conv2d_pack),
    ):
        weight = rng.standard_normal(shape).astype(dtype)
        weight.flags.writeable = False
        lent, copied = pack(ext.borrow(weight)), pack(mx.array(weight))
        assert mx.array_equal(lent, copied).item(), shape


def test_what_cannot_be_borrowed() -> None:
    for x in (np.zeros(3), np.zeros(3, np.int32), np.zeros(3, np.uint16)):
        with pytest.raises(ValueError, match=r"\[borrow\] x must be float32 or float16"):
            native.ext().borrow(x)
    with pytest.raises(TypeError):
        native.ext().borrow(np.zeros((4, 4), np.float32).T)


def test_the_layout_is_that_of_the_sources(tmp_path: Path, need_tool: Callable[[str], str]) -> None:
    cmake = need_tool("cmake")
    sources = tmp_path / "cpp"
    shutil.copytree(ROOT / "src" / "cpp", sources)

    def layout() -> str:
        target = tmp_path / "layout.h"
        script = ROOT / "src" / "cpp" / "layout.cmake"
        subprocess.run([cmake, f"-DFOLDER={sources}", f"-DOUTPUT={target}", "-P", script], check=True)
        return target.read_text()

    before = layout()
    assert f'"{native.ext().layout()}"' in before
    (sources / "fastconv" / "__pycache__").mkdir(exist_ok=True)
    (sources / "fastconv" / "__pycache__" / "generate.pyc").write_bytes(b"what Python makes of the generator")
    assert layout() == before
    with (sources / "knn" / "knn.cpp").open("a") as file:
        file.write("\n")
    assert layout() == before
    for name in (
        "conv/run.cpp",
        "fastconv/generate.py",
        "resblock/run.h",
        "linear/linear.cpp",
        "isa/kernels.h",
    ):
        with (sources / name).open("a") as file:
            file.write("\n")
        assert layout() != before, name
        before = layout()
