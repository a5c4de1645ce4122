"""Golden folders that lie: each ends in one line, before anything of the size that is stated is made."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rvc_fast.cli import main
from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.verify.golden import verify_folder

NAME = "synth_tiny_32k"
WEIGHT = "enc_p.emb_phone.weight"
Json = dict[str, Any]


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    """One case of the golden folder."""
    for name in (f"{NAME}.json", f"{NAME}.safetensors"):
        shutil.copy(golden / name, tmp_path)
    cases = json.loads((golden / "cases.json").read_text())
    (tmp_path / "cases.json").write_text(json.dumps({NAME: cases[NAME]}))
    return tmp_path


def change(file: Path, edit: Callable[[Json], object]) -> None:
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


def test_the_good_one_is_good(folder: Path) -> None:
    assert all(row.passed for row in verify_folder(folder))


MANIFESTS: dict[str, tuple[Callable[[Json], object], str]] = {
    "huge tensor": (lambda m: m["tensors"][WEIGHT].update(shape=[10**6, 10**6]), "at most 400000000 numbers"),
    "huge size": (lambda m: m["tensors"][WEIGHT].update(shape=[2**62]), "a whole number from 0 to 4e[+]08"),
    "many axes": (lambda m: m["tensors"][WEIGHT].update(shape=[1] * 65), "a list of at most 8 entries"),
    "negative size": (lambda m: m["tensors"][WEIGHT].update(shape=[-1, 64]), r"\[0\] must be a whole number"),
    "size of text": (lambda m: m["tensors"][WEIGHT].update(shape="64"), "a list of at most 8"),
    "no shape": (lambda m: m["tensors"][WEIGHT].pop("shape"), "an object with 'shape'"),
    "no axes": (lambda m: m["tensors"][WEIGHT].update(shape=[]), r"\[(voice|verify)\]"),
    "a tensor that is a list": (lambda m: m["tensors"].update({WEIGHT: []}), "must be an object"),
    "tensors in a list": (lambda m: m.update(tensors=[]), "'tensors' must be an object"),
    "unknown distribution": (lambda m: m["tensors"][WEIGHT].update(dist="cauchy"), "one of normal, uniform"),
    "no scale": (lambda m: m["tensors"][WEIGHT].pop("scale"), "got 'normal' without scale"),
    "scale of text": (lambda m: m["tensors"][WEIGHT].update(scale="1"), "'scale' must be a number"),
    "scale that is no number": (
        lambda m: m["tensors"][WEIGHT].update(scale=float("nan")),
        "must be a number",
    ),
    "seed of text": (lambda m: m.update(seed="x"), "'seed' must be a whole number"),
    "config of numbers": (lambda m: m.update(config=[1, 2]), "'config' must be an object"),
    "kind of nothing": (lambda m: m.update(kind=None), "'kind' must be text"),
    "unknown kind": (lambda m: m.update(kind="gpt"), "known are hubert, rmvpe, synth"),
    "probe of nothing": (lambda m: m["probe"].update(name="x"), "no tensor 'x' to probe"),
    "probe without sum": (lambda m: m["probe"].pop("sum"), "an object with 'sum'"),
    "another probe": (lambda m: m["probe"].update(sum=5.0), "this numpy draws other numbers"),
    "a decoder": (lambda m: m.update(vocoder=["HiFi-GAN"]), "'vocoder' must be text"),
}
CASES: dict[str, tuple[Callable[[Json], object], str]] = {
    "no case": (lambda c: c.pop(NAME), "cases.json must say 'sid'"),
    "a case that is a list": (lambda c: c.update({NAME: []}), "must be an object"),
    "speaker of text": (lambda c: c[NAME].update(sid="2"), "'sid' must be a whole number"),
    "a speaker that there is not": (lambda c: c[NAME].update(sid=99), "speaker must be from 0 to"),
    "noise of numbers": (lambda c: c[NAME].update(noise=[1, 2]), r"'noise'\[0\] must be a list of 2 entries"),
    "noise of another size": (lambda c: c[NAME]["noise"][0].__setitem__(1, [1, 32, 10**8]), "draws noise of shape"),
    "no noise": (lambda c: c[NAME].pop("noise"), "cases.json must say 'noise'"),
    "a floor of text": (lambda c: c[NAME].update(snr_fp32_vs_fp64_db="x"), "must be a number"),
}  # fmt: skip


def refused(folder: Path, words: str) -> None:
    start = time.process_time()
    with pytest.raises((FileFormatError, InputError), match=words) as e:
        list(verify_folder(folder))
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 400 + len(str(folder))
    # Nothing was drawn in the size that is stated: 10^12 numbers would take an hour.
    assert time.process_time() - start < 10


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(folder: Path, name: str) -> None:
    edit, words = MANIFESTS[name]
    change(folder / f"{NAME}.json", edit)
    refused(folder, words)


@pytest.mark.parametrize("name", CASES)
def test_cases(folder: Path, name: str) -> None:
    edit, words = CASES[name]
    change(folder / "cases.json", edit)
    refused(folder, words)


@pytest.mark.parametrize("text", ["", "[", "[]", "[" * 100_000, "\xff"])
@pytest.mark.parametrize("name", ["cases.json", f"{NAME}.json"])
def test_files_that_are_not_json(folder: Path, name: str, text: str) -> None:
    (folder / name).write_bytes(text.encode("latin-1"))
    refused(folder, r"\[verify\]")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop("phone"), "has no tensor 'phone'"),
        (lambda t: t.update(phone=np.zeros((1, 4, 7), np.float32)), "phone must be of shape"),
        (lambda t: t.pop("f0"), "f0 must be of shape"),
        (lambda t: t.update(surplus=t["z"]), "do not know how to compute 'surplus'"),
    ],
)
def test_tensors(folder: Path, edit: Callable[[Json], object], words: str) -> None:
    tensors = load_file(folder / f"{NAME}.safetensors")
    edit(tensors)
    save_file(tensors, folder / f"{NAME}.safetensors")
    refused(folder, words)


def test_the_command_line_prints_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder / f"{NAME}.json", MANIFESTS["huge tensor"][0])
    assert main(["verify", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
