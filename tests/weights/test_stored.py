"""What `rvc-fast pack` keeps of numbers: all of them, those of a narrower type, or MLX's codes."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from rvc_fast.cli import main
from rvc_fast.errors import FileFormatError, InputError
from rvc_fast.resources import demo_dir
from rvc_fast.weights import load_checkpoint, save_packed, stored
from rvc_fast.weights.models import MODELS
from rvc_fast.weights.pack import Storage, pack_file
from rvc_fast.weights.stored import BFLOAT16, Quantization, Stored

DEMO = demo_dir()


def values(path: Path) -> dict[str, np.ndarray]:
    """The numbers that a model file stands for, by the names of our parameters."""
    c = load_checkpoint(path)
    tensors = c.tensors if c.packed else MODELS[c.kind].sanitize(c.tensors)
    return {name: t.value() for name, t in stored.stored(c.kind, tensors, c.config).items()}


@pytest.mark.parametrize("source", ["voice.pth", "embedder", "rmvpe.pt"])
def test_half_precision_stays_as_it_is_and_as_small(tmp_path: Path, source: str) -> None:
    """The demo models are float16: 102 % of the file that was packed is the most that the result may take."""
    target = tmp_path / "a.safetensors"
    pack_file(DEMO / source, target)
    file = DEMO / source / "model.safetensors" if source == "embedder" else DEMO / source
    assert target.stat().st_size <= 1.02 * file.stat().st_size
    before, after = values(DEMO / source), values(target)
    assert before.keys() == after.keys()
    for name, want in before.items():
        np.testing.assert_array_equal(after[name], want)
    pack_file(target, tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == target.read_bytes()


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        ([0.0, -0.0, 1.0, 65504.0, 2.0**-24], np.dtype(np.float16)),
        ([1.0, 3e38], np.dtype(np.float32)),
        ([1.0, 2.0**100], BFLOAT16),
        ([1.0 + 2.0**-20], np.dtype(np.float32)),
    ],
)
def test_the_narrowest_type_that_is_exact(numbers: list[float], dtype: np.dtype) -> None:
    array = np.array(numbers, np.float32)
    kept = stored.narrowest(array)
    assert kept.dtype == dtype
    assert stored.as_float32(kept).tobytes() == array.tobytes()


def test_bfloat16_is_rounded_to_nearest_even(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    x[:2] = 1 + 2.0**-8, 1 + 3 * 2.0**-8
    want = np.array(mx.array(x).astype(mx.bfloat16).astype(mx.float32))
    np.testing.assert_array_equal(stored.as_float32(stored.rounded("x", x, "bfloat16")), want)
    with pytest.raises(InputError, match="tensor 'x' has numbers beyond float16: give --dtype bfloat16"):
        stored.rounded("x", x * np.float32(1e6), "float16")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_codes_are_those_of_mlx(bits: int, size: int) -> None:
    weight = np.random.default_rng(bits).standard_normal((7, 256)).astype(np.float32)
    ours = stored.quantized(weight, Quantization(bits, size), "float32")
    assert ours.shape == weight.shape
    want = mx.dequantize(
        mx.array(ours.values), mx.array(ours.codes.scales), mx.array(ours.codes.biases), size, bits
    )
    np.testing.assert_allclose(ours.value(), np.array(want), atol=1e-6)
    step = np.abs(ours.codes.scales).max()
    assert np.abs(ours.value() - weight).max() <= step  # half a step, and as much since zero is a code


@pytest.mark.parametrize(("bits", "size", "most"), [(8, 64, 0.01), (4, 32, 0.12)])
def test_a_quantised_model_is_read_by_mlx_and_by_us(
    tmp_path: Path, bits: int, size: int, most: float
) -> None:
    target = tmp_path / "a.safetensors"
    pack_file(DEMO / "embedder", target, storage=Storage(quantization=Quantization(bits, size)))
    arrays, metadata = mx.load(str(target), return_metadata=True)
    said = json.loads(metadata["config"])["quantization"]
    assert said == {"group_size": size, "bits": bits, "mode": "affine"}
    layer = mx.dequantize(
        *(arrays[f"layers.0.qkv.{part}"] for part in ("weight", "scales", "biases")), size, bits
    )
    plain, ours = values(DEMO / "embedder"), values(target)
    np.testing.assert_allclose(ours["layers.0.qkv.weight"], np.array(layer.astype(mx.float32)), atol=1e-3)
    for name, want in plain.items():
        error = np.abs(ours[name] - want).max() / max(np.abs(want).max(), 1e-9)
        assert error <= (most if f"{name.removesuffix('.weight')}.scales" in arrays else 1e-3), name
    assert arrays["layers.0.final_norm.weight"].dtype == mx.float16


def test_a_voice_keeps_its_decoder_in_float16(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of the demo voice's flow have 32 numbers: its own groups stand in the config."""
    target = tmp_path / "a.safetensors"
    assert main(["pack", str(DEMO / "voice.pth"), "-o", str(target), "-q"]) == 0
    capsys.readouterr()
    assert main(["info", str(target), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["config"]["quantization"]["flow.flows.0.pre"]["group_size"] == 32
    assert facts["layers"]["flow.flows.0.pre"]["stored_as"] == "int8 in groups of 32"
    assert facts["layers"]["enc_p.emb_phone"] == {
        "stored_as": "int8 in groups of 64",
        "multiplied_in": "float32",
        "why": "as dtype asks",
    }
    assert facts["layers"]["dec.conv_pre"]["stored_as"] == "float16"
    assert main(["info", str(target)]) == 0
    said = capsys.readouterr().out
    assert "  quantization:\n    bits: 8\n    group_size: 64\n    mode: affine\n" in said
    assert "flow.flows.0.pre:" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--q-bits", "4"], "give -q with them"),
        (["--kernels-dtype", "float32"], "give --kernels with them"),
        (["-q", "--q-bits", "3"], "invalid choice: 3"),
        (["--kernels", "--memory", "low"], "--memory is --kernels-memory now"),
    ],
)
def test_options_that_do_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    target = tmp_path / "a.safetensors"
    try:
        code = main(["pack", str(DEMO / "embedder"), "-o", str(target), *arguments])
    except SystemExit as e:
        code = e.code
    assert code == 2
    assert words in capsys.readouterr().err
    assert not target.exists()


def test_what_cannot_be_quantised_says_what_can(tmp_path: Path) -> None:
    target, storage = tmp_path / "a.safetensors", Storage(quantization=Quantization())
    with pytest.raises(InputError, match=r"an RMVPE pitch model .* give --dtype float16 without -q"):
        pack_file(DEMO / "rmvpe.pt", target, storage=storage)
    pack_file(DEMO / "embedder", target, storage=storage)
    with pytest.raises(InputError, match="quantised already: pack the original model"):
        pack_file(target, tmp_path / "b.safetensors", storage=storage)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"group_size": 32}, "must be of shape .* for groups of 32 and 8 bits"),
        ({"bits": 3}, "bits of its quantization must be 4 or 8, got '3'"),
        ({"mode": "mxfp8"}, "mode of its quantization must be affine, got 'mxfp8'"),
        ({"bits": [8]}, "bits of its quantization"),
    ],
)
def test_a_quantisation_that_is_not_read(tmp_path: Path, change: dict[str, object], words: str) -> None:
    good, bad = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    pack_file(DEMO / "embedder", good, storage=Storage(quantization=Quantization()))
    c = load_checkpoint(good)
    said = c.config | {"quantization": c.config["quantization"] | change}
    save_packed(bad, c.kind, c.tensors, said)
    with pytest.raises(FileFormatError, match=words):
        values(bad)


@pytest.mark.parametrize("lost", ["scales", "biases"])
def test_a_quantised_weight_without_its_parts(tmp_path: Path, lost: str) -> None:
    codes = stored.quantized(np.ones((2, 64), np.float32), Quantization(), "float32")
    tensors = stored.parts("a.weight", codes)
    del tensors[f"a.{lost}"]
    with pytest.raises(FileFormatError, match=rf"tensor 'a\.{lost}' is missing"):
        stored.stored("hubert", tensors, {"quantization": Quantization().as_dict()})


def test_a_gain_must_fit() -> None:
    tensors = {"a.weight": np.ones((3, 5), np.float16), "a.gain": np.full((3, 1), 2, np.float32)}
    (found,) = stored.stored("voice", tensors, {}).values()
    assert isinstance(found, Stored)
    np.testing.assert_array_equal(found.value(), np.full((3, 5), 2, np.float32))
    with pytest.raises(FileFormatError, match=r"tensor 'a\.gain' of shape \(5, 1\) does not fit \(3, 5\)"):
        stored.stored("voice", tensors | {"a.gain": np.ones((5, 1), np.float32)}, {})


def test_a_gain_may_be_narrow_and_must_be_of_floating_point() -> None:
    """`pack` keeps gains of 2^100, which float16 does not hold, in bfloat16."""
    weight, gain = np.ones((2, 3), np.float16), np.full((2, 1), 2.0**100, np.float32)
    narrow = stored.narrowest(gain)
    assert narrow.dtype == BFLOAT16
    (found,) = stored.stored("voice", {"a.weight": weight, "a.gain": narrow}, {}).values()
    np.testing.assert_array_equal(found.value(), np.full((2, 3), 2.0**100, np.float32))
    assert str(found) == "float16, bfloat16 gain"
    for name in ("a.weight", "a.gain"):
        tensors = {"a.weight": weight, "a.gain": gain} | {name: np.ones((2, 1), np.int64)}
        with pytest.raises(
            FileFormatError, match=rf"tensor '{name}' must be of floating-point numbers, got int64"
        ):
            stored.stored("voice", tensors, {})


def test_scales_and_gains_beyond_float32_are_refused(tmp_path: Path) -> None:
    """Each number of these files is finite, but not what they stand for."""
    good, bad = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    pack_file(DEMO / "embedder", good, storage=Storage(quantization=Quantization()))
    c = load_checkpoint(good)
    stem = "layers.0.qkv"
    huge = {
        f"{stem}.{part}": np.full_like(c.tensors[f"{stem}.scales"], 3e38, np.float32)
        for part in ("scales", "biases")
    }
    numbers = np.full((c.tensors[f"{stem}.scales"].shape[0], 128), 2, np.float32)
    rest = {
        name: t for name, t in c.tensors.items() if not name.startswith(f"{stem}.") or name.endswith("bias")
    }
    gain = {f"{stem}.weight": numbers, f"{stem}.gain": np.full((1, 1), 3e38, np.float32)}
    for tensors in (c.tensors | huge, rest | gain):
        save_packed(bad, c.kind, tensors, c.config)
        with pytest.raises(
            FileFormatError, match=rf"tensor '{stem}\.weight' stands for numbers that are not finite"
        ):
            MODELS[c.kind].from_checkpoint(load_checkpoint(bad))


@pytest.mark.parametrize("source", ["voice.pth", "embedder", "rmvpe.pt"])
def test_a_gain_of_nothing_has_no_place(source: str) -> None:
    c = load_checkpoint(DEMO / source)
    c.tensors["a.gain"] = np.ones((1, 1), np.float32)
    with pytest.raises(FileFormatError, match=r"tensor '.*a\.gain' has no place in the model"):
        MODELS[c.kind].from_checkpoint(c)


def test_scales_are_floats() -> None:
    codes = stored.quantized(np.ones((2, 64), np.float32), Quantization(), "float32")
    tensors = stored.parts("a.weight", codes)
    for wrong in ({"a.scales": np.ones((2, 1), np.int32)}, {"a.biases": np.ones((2, 1), np.float16)}):
        with pytest.raises(
            FileFormatError, match=r"'a\.scales' and 'a\.biases' must be of one floating-point type"
        ):
            stored.stored("hubert", tensors | wrong, {"quantization": Quantization().as_dict()})
