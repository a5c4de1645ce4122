"""Files that are no model, index or sound: each message says what the file is and what to do."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from rvc_fast.audio import read_audio
from rvc_fast.errors import FileFormatError
from rvc_fast.retrieval import load_index
from rvc_fast.weights import load_checkpoint

from .voices import pth

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:aaaa\nsize 55027130\n"
STRANGERS = [
    (b"\x08\x07\x12\x07pytorch\x1a\x052.0.1" + bytes(64), "an ONNX export.*use the .pth"),
    (b"\x08\x08:\xff\x10" + bytes(64), "an ONNX export"),
    (POINTER, "a Git LFS pointer.*git lfs pull"),
    (b"<!DOCTYPE html><html><title>Virus scan warning</title>", "a web page.*save the file itself"),
    (b"\n\n  <HTML lang=en><head>", "a web page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "a web page"),
    (b"Entry not found\n", "a text that begins with 'Entry not found"),
    (b"7z\xbc\xaf\x27\x1c" + bytes(64), "a compressed archive: unpack it"),
    (b"Rar!\x1a\x07\x01\x00" + bytes(64), "a compressed archive: unpack it"),
    (b"\x1f\x8b\x08\x00" + bytes(64), "a compressed archive: unpack it"),
]


@pytest.mark.parametrize(("data", "words"), STRANGERS)
@pytest.mark.parametrize("read", [load_checkpoint, load_index, read_audio])
def test_strangers(tmp_path, read, data, words):
    path = tmp_path / "a.file"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=words) as e:
        read(path)
    assert "\n" not in str(e.value)
    assert "a.file" in str(e.value)


@pytest.mark.parametrize("read", [load_checkpoint, load_index])
@pytest.mark.parametrize(
    "data", [b"RIFF\x24\x00\x00\x00WAVEfmt ", b"fLaC" + bytes(60), b"ID3\x04" + bytes(60)]
)
def test_sounds_given_as_models(tmp_path, read, data):
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(FileFormatError, match="it is a sound or film, not a model"):
        read(tmp_path / "a.pth")


def test_an_index_given_as_a_voice(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"IwFl" + struct.pack("<iq", 256, 1000) + bytes(100))
    with pytest.raises(FileFormatError, match="it is a faiss index: give it as the index"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("emb_g.weight", "pre.weight", "enc_p.enc_.attn_layers.0.conv_q.weight"), "so-vits-svc voice"),
        (("emb_g.weight", "emb_uv.weight", "f0_decoder.proj.weight"), "so-vits-svc voice"),
        (("emb_g.weight", "enc_p.ssl_proj.weight"), "GPT-SoVITS voice"),
        (("emb_g.weight", "enc_p.emb.weight"), "VITS text-to-speech voice"),
    ],
)
@pytest.mark.parametrize("key", ["model", "weight"])
def test_voices_of_other_programs(tmp_path, names, what, key):
    tensors = {name: np.ones((3, 4), np.float32) for name in names}
    with pytest.raises(FileFormatError, match=f"it is a {what}, not one of RVC"):
        load_checkpoint(pth(tmp_path / "a.pth", {key: tensors, "iteration": 1, "config": {"a": 1}}))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("IHNf", "HNSW"),
        ("IwPQ", "IVF-PQ"),
        ("IwSq", "IVF with scalar"),
        ("IxPT", "transformed"),
        ("IxMp", "id map"),
    ],
)
def test_indexes_of_other_kinds(tmp_path, kind, name):
    (tmp_path / "a.index").write_bytes(kind.encode() + struct.pack("<iq", 256, 10) + bytes(100))
    with pytest.raises(FileFormatError, match=f"a Flat or IVF-Flat index of faiss, got .*{name}.*'{kind}'"):
        load_index(tmp_path / "a.index")
