"""The command line, as a user meets it: results, exit codes, and one clear line for every mistake."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from demo import DEMO, MODELS
from fakes import FakeEmbedder, FakeVoice
from rvc_fast.cli import main
from rvc_fast.converter import Converter
from rvc_fast.errors import RvcFastError


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.6 s of the bundled speech."""
    samples, rate = soundfile.read(DEMO / "sounds" / "speech_male.wav", dtype="float32")
    path = tmp_path_factory.mktemp("sounds") / "speech.wav"
    soundfile.write(path, samples[: int(0.6 * rate)], rate)
    return path


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the single line on stderr."""
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("rvc-fast: ")
    assert "Traceback" not in err
    return err


def test_bfloat16_is_one_clear_refusal_where_it_cannot_be(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", "reference")
    out = tmp_path / "out.wav"
    assert main(["convert", str(speech), *MODELS, "-o", str(out), "--dtype", "bfloat16"]) == 2
    assert "dtype must be 'float32' here, got 'bfloat16'" in one_line(capsys)
    assert not out.exists()


def test_convert_writes_a_sound_and_json(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.wav"
    assert main(["convert", str(speech), *MODELS, "-o", str(out), "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    samples, rate = soundfile.read(out)
    assert rate == 24000
    assert 0.5 < len(samples) / rate <= 0.6
    assert np.abs(samples).max() > 0.01
    assert report["converted"] == 1
    assert report["peak_memory_mb"] > 10
    assert set(report["files"][0]["stages"]) >= {"read", "features", "pitch", "synthesis", "post"}


def test_every_option_changes_the_sound(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that is accepted and ignored would leave the sound as it is."""
    contour = tmp_path / "f0.csv"
    contour.write_text("0,300\n1,300\n")

    def convert(*options: str) -> bytes:
        out = tmp_path / "out.wav"
        assert main(["convert", str(speech), *MODELS, "-o", str(out), "--quiet", *options]) == 0
        return out.read_bytes()

    plain = convert()
    assert convert() == plain
    for options in (
        ("--transpose", "5"),
        ("--autotune", "1"),
        ("--proposed-pitch", "400"),
        ("--f0-file", str(contour)),
        ("--f0-threshold", "0.9"),
        ("--speaker", "1"),
        ("--seed", "1"),
        ("--volume-envelope", "0"),
        ("--rate", "22050"),
        ("--semantics", "classic"),
        ("--chunk", "fp16"),
    ):
        assert convert(*options) != plain, options


def test_stdin_to_stdout(speech: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "rvc_fast", "convert", "-", *MODELS, "-o", "-", "--quiet"],
        input=speech.read_bytes(),
        capture_output=True,
        check=True,
    )
    samples, rate = soundfile.read(io.BytesIO(run.stdout))
    assert rate == 24000
    assert len(samples) > 10000


def test_a_folder_survives_a_bad_file(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.wav").write_bytes(speech.read_bytes())
    (folder / "b.wav").write_bytes(b"")
    (folder / "sub" / "a.wav").write_bytes(speech.read_bytes())
    out = tmp_path / "out"
    code = main(["convert", str(folder), *MODELS, "-o", str(out), "--format", "flac"])
    err = capsys.readouterr().err
    assert code == 2
    assert "b.wav" in err
    assert "2 of 3 converted" in err
    found = sorted(str(f.relative_to(out)) for f in out.rglob("*") if f.is_file())
    assert found == ["a.flac", "sub/a.flac"]


def test_demo_voice_is_the_default(speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.wav"
    assert main(["convert", str(speech), "-o", str(out)]) == 0
    assert "demo voice" in capsys.readouterr().err
    assert out.stat().st_size > 10000


def test_pack_round_trip(speech: Path, tmp_path: Path) -> None:
    packed = []
    for flag, source in zip(MODELS[::2], MODELS[1::2], strict=True):
        target = tmp_path / (flag.strip("-") + ".safetensors")
        assert main(["pack", source, "-o", str(target), "--quiet"]) == 0
        packed += [flag, str(target)]
    sounds = []
    for models in (MODELS, packed):
        out = tmp_path / "out.wav"
        assert main(["convert", str(speech), *models, "-o", str(out), "--quiet"]) == 0
        sounds.append(out.read_bytes())
    assert sounds[0] == sounds[1]


def test_info_on_files_and_on_the_installation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], golden: Path
) -> None:
    assert main(["info", str(DEMO / "voice.pth"), "--json"]) == 0
    voice = json.loads(capsys.readouterr().out)
    assert voice["kind"] == "voice"
    assert voice["config"]["spk_embed_dim"] == len(json.loads((DEMO / "speakers.json").read_text()))
    assert main(["info", str(golden / "voice.index"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "index"
    assert main(["info", "--json"]) == 0
    ops = json.loads(capsys.readouterr().out)["ops"]
    assert {"conv1d", "linear", "bigru", "mel_stft"} <= set(ops)
    assert main(["info"]) == 0
    assert "RVC_FAST_THREADS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "missing.wav", *MODELS, "-o", "out.wav"], "missing.wav"),
        (["convert", "IN", "-m", "missing.pth", "-o", "out.wav"], "missing.pth"),
        (["convert", "IN", *MODELS, "-o", "out.xyz"], "xyz"),
        (["convert", "IN", *MODELS, "-o", "IN"], "overwritten"),
        (["convert", "IN", "IN", *MODELS, "-o", "both"], "would both be written"),
        (["convert", "IN", "IN", *MODELS, "-o", "both.wav"], "a sound's name"),
        (["convert", "IN", *MODELS, "-o", "out.wav/"], "with a / at its end, got a sound's name, out.wav/"),
        (["convert", "IN", *MODELS, "-o", "none/out.wav"], "none/out.wav: the folder none does not exist"),
        (["convert", "IN", "-o", "missing/out.wav"], "the folder missing does not exist"),
        (
            ["convert", "IN", "-m", "missing.pth", "-o", "out.flac", "--format", "flac"],
            "--format needs a folder as OUT",
        ),
        (
            ["convert", "IN", "-m", "missing.pth", "-o", "-", "--resume"],
            "--resume needs a folder as OUT, got -",
        ),
        (
            ["convert", "IN", "-m", "missing.pth", "-o", "out.wav", "--index-rate", "0"],
            "--index-rate needs an index",
        ),
        (
            ["convert", "IN", "-m", "missing.pth", "-o", "out.wav", "--exact-search"],
            "--exact-search needs an index",
        ),
        (
            ["convert", "IN", "-m", "missing.pth", "-o", "out.wav", "--protect", "0.33"],
            "--protect needs an index",
        ),
        (["convert", "IN", *MODELS, "-o", "new"], "a new one with a / at its end"),
        (["convert", "IN", *MODELS, "-o", "out.wav", "--speaker", "7"], "speaker"),
        (["convert", "IN", *MODELS, "-o", "out.wav", "--f0-file", "missing.csv"], "missing.csv"),
        (["convert", "IN", *MODELS, "-o", "out.wav", "--index", "missing.index"], "missing.index"),
        (["convert", "IN", *MODELS, "-o", "-", "--json"], "stdout"),
        (["info", "missing.pth"], "missing.pth"),
        (["pack", "IN", "-o", "out.safetensors"], "speech.wav"),
        (
            ["pack", "missing.pth", "-o", "v"],
            "[pack] the file to write must have the suffix .safetensors, got v",
        ),
        (["pack", "missing.pth", "-o", "v.pth"], "must have the suffix .safetensors, got v.pth"),
        (["models", "where", "nothing"], "contentvec"),
        (["verify", "missing"], "missing"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(speech) if a == "IN" else a for a in arguments]) == 2
    assert words in one_line(capsys)
    assert list(tmp_path.rglob("*")) == []


def test_options_have_no_short_forms(capsys: pytest.CaptureFixture[str]) -> None:
    """--pitch was taken for --pitch-model."""
    with pytest.raises(SystemExit) as e:
        main(["convert", "in.wav", "-o", "out.wav", "--pitch", "4"])
    assert e.value.code == 2
    assert "unrecognized arguments: --pitch" in one_line(capsys)


def test_an_unknown_option_points_to_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in [
        (
            ["pack", "--nonsense", "a", "-o", "b"],
            "[pack] unrecognized arguments: --nonsense (rvc-fast pack --help)",
        ),
        (["--nonsense", "pack", "a", "-o", "b"], "unrecognized arguments: --nonsense (rvc-fast --help)"),
    ]:
        with pytest.raises(SystemExit) as e:
            main(arguments)
        assert e.value.code == 2
        assert one_line(capsys) == f"rvc-fast: {said}\n"


def test_a_new_folder_is_named_with_a_slash(speech: Path, tmp_path: Path) -> None:
    assert main(["convert", str(speech), *MODELS, "-o", f"{tmp_path / 'new'}/", "--quiet"]) == 0
    assert [p.name for p in (tmp_path / "new").iterdir() if p.suffix == ".wav"] == ["speech.wav"]


def test_unwritable_output_keeps_what_is_there(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain").write_text("mine")
    (tmp_path / "folder.wav" / "x").mkdir(parents=True)
    assert main(["convert", str(speech), *MODELS, "-o", str(tmp_path / "plain" / "a.wav"), "--quiet"]) == 2
    one_line(capsys)
    assert (tmp_path / "plain").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder.wav", "plain", "x"]


def test_numbers_out_of_range_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for option, value in (
        ("--transpose", "99"),
        ("--protect", "0.7"),
        ("--index-rate", "nan"),
        ("--autotune", "x"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["convert", "a.wav", "-o", "b.wav", option, value])
        assert stop.value.code == 2
        assert value in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from rvc_fast.cli import main\n"
        "try: main(['convert', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'mlx', 'numpy', 'scipy', 'soundfile', 'safetensors', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, env=os.environ)


def test_debug_adds_a_traceback_and_changes_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "missing.pth"]) == 2
    line = one_line(capsys)
    assert main(["info", "missing.pth", "--debug"]) == 2
    traceback = capsys.readouterr().err
    assert traceback.startswith("Traceback")
    assert traceback.endswith(f"\n{line}")


def test_a_backend_that_is_not_here_is_one_mistake(
    speech: Path,
    tmp_path: Path,
    golden: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine has Metal or CUDA, not both."""
    backend = "metal" if mx.cuda.is_available() else "cuda"
    monkeypatch.setenv("RVC_FAST_BACKEND", backend)
    out = tmp_path / "out.wav"
    for what, arguments in [
        ("load", ["convert", str(speech), *MODELS, "-o", str(out)]),
        ("pack", ["pack", str(DEMO / "voice.pth"), "-o", str(tmp_path / "voice.safetensors")]),
        ("verify", ["verify", str(golden), "--backend", backend]),
        ("bench", ["bench", "--backend", backend, "--out", str(tmp_path)]),
    ]:
        assert main(arguments) == 2
        assert one_line(capsys).startswith(
            f"rvc-fast: [{what}] RVC_FAST_BACKEND is {backend}, but MLX's default device is "
        )
    assert os.listdir(tmp_path) == []
    assert main(["info"]) == 2
    said = capsys.readouterr()
    assert "RVC_FAST_BACKEND" in said.out
    assert said.err.startswith(
        f"rvc-fast: [info] RVC_FAST_BACKEND is {backend}, but MLX's default device is "
    )


def test_a_voice_that_does_not_follow_the_pitch_takes_no_option_of_it(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = FakeVoice(use_f0=False)
    monkeypatch.setattr("rvc_fast.converter.load", lambda **_: Converter(voice, FakeEmbedder()))
    for option in (["--f0-threshold", "0.1"], ["-t", "4"], ["--pitch-model", "rmvpe.pt"]):
        out = tmp_path / "out.wav"
        assert main(["convert", str(speech), "-m", "v", "-o", str(out), *option]) == 2
        assert "needs a voice that follows the pitch" in one_line(capsys)
        assert not out.exists()


def test_the_demo_voice_by_its_path_needs_its_own_encoder(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RVC_FAST_CACHE", str(tmp_path))
    out = str(tmp_path / "out.wav")
    assert main(["convert", str(speech), "-m", str(DEMO / "voice.pth"), "-o", out]) == 2
    said = one_line(capsys)
    assert "takes features of 128 values" in said
    assert "--embedder" in said
    assert str(DEMO / "embedder") in said


def test_where_says_what_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RVC_FAST_CACHE", str(tmp_path))
    path = f"{tmp_path / 'rmvpe' / 'rmvpe.pt'}\n"
    assert main(["models", "where", "rmvpe"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (path, "rmvpe is not there yet: rvc-fast models pull rmvpe\n")
    assert main(["models", "where", "rmvpe", "--quiet"]) == 0
    assert capsys.readouterr() == (path, "")


def test_verify_prints_each_row_once(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cases.json", "mel.safetensors", "voice_tiny_32k.pth", "synth_tiny_32k.json"):
        shutil.copy(golden / name, tmp_path)
    assert main(["verify", str(tmp_path)]) == 0
    said = capsys.readouterr()
    header, mel, weights, last = said.out.splitlines()
    assert said.err == ""
    assert header.split() == ["result", "SNR", "dB", "max-abs", "correlation", "bar", "ms", "case", "tensor"]
    assert mel.endswith("mel log_mel")
    assert weights.split()[:2] == ["pass", "identical"]
    assert weights.index("voice_tiny_32k") == mel.index("mel log_mel") == header.index("case tensor")
    assert last == "2 of 2 passed"
    assert main(["verify", str(tmp_path), "--json"]) == 0
    said = capsys.readouterr()
    assert [row["snr_db"] == 999 for row in json.loads(said.out)] == [False, True]
    assert said.err == "ok   mel log_mel\nok   voice_tiny_32k weights of synth_tiny_32k\n"


def test_verify_passes_on_the_golden_cases(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(golden), "--json", "--quiet"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"case", "tensor", "snr_db", "max_abs", "correlation", "passed", "ms"} == set(rows[0])
    tensors = {(r["case"], r["tensor"]) for r in rows}
    assert {
        ("pipeline", "index_ivf_ids"),
        ("pipeline.full", "out_full"),
        ("pipeline.plain", "out_plain"),
        ("rmvpe_tiny", "f0"),
        ("synth_tiny_mrf_40k", "audio"),
        ("hubert_tiny", "v1_features"),
        ("mel", "log_mel"),
        ("voice_tiny_32k", "weights of synth_tiny_32k"),
    } <= tensors
    assert all(r["snr_db"] >= 80 for r in rows)


@pytest.mark.parametrize("error", [RvcFastError("[conv1d] no pipeline"), RuntimeError("no pipeline")])
def test_a_failed_warm_up_is_not_lost(
    error: Exception,
    speech: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It happens in another thread; what could be converted nevertheless is written."""

    def fail(self: Converter) -> None:
        raise error

    monkeypatch.setattr(Converter, "warm", fail)
    out = tmp_path / "out.wav"
    assert main(["convert", str(speech), *MODELS, "-o", str(out), "--quiet"]) == 1
    assert "no pipeline" in one_line(capsys)
    assert out.exists()
