"""What is fuzzed: for each kind of file a function that reads it as the product does, and the limits it must keep."""

from __future__ import annotations

import faulthandler
import resource
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np
from safetensors.numpy import save_file

from rvc_fast.audio import files
from rvc_fast.errors import InputError
from rvc_fast.features.hubert import HubertModel
from rvc_fast.layers import Packing
from rvc_fast.noise import SeededNoise
from rvc_fast.pitch import f0
from rvc_fast.retrieval import load_index
from rvc_fast.synthesizer.model import Synthesizer
from rvc_fast.weights import kernels, load_checkpoint
from rvc_fast.weights.models import MODELS

from . import mutators, seeds

SECONDS = 5
BYTES = 500_000_000
CORPUS = Path(__file__).parent / "corpus"


class Failure(Exception):
    """An input that breaks a limit."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    read: reads the file at a path; may raise InputError and warn as rvc_fast warns, and nothing else.
    name: what the file is called.
    seeds: makes small good files.
    mutate: changes a file inside its container; None for a file without one.
    longest: bytes that a fuzzed file may have.
    """

    read: Callable[[Path], object]
    name: str
    seeds: Callable[[], list[bytes]]
    mutate: mutators.Mutator | None = None
    longest: int = 4096


def read_f0(path: Path) -> None:
    points = f0.read_points(path)
    f0.check_span(points, 3600, path)
    contour = f0.overlay(np.full(2000, 100, np.float32), points, 100)
    assert ((f0.check(contour, "fuzz") >= 0) & (f0.coarse(contour) >= 1)).all()


def read_index(path: Path) -> None:
    index = load_index(path)
    for exact in (False, True):
        d2, ids = index.search(np.ones((2, index.dim), np.float32), 3, exact=exact)
        assert ((d2 >= 0) & (np.isfinite(d2) == (ids >= 0))).all()
    assert np.isfinite(index.vectors(ids[ids >= 0])).all()
    assert index.on_device() is not None


def read_checkpoint(path: Path) -> Any:
    checkpoint = load_checkpoint(path)
    return MODELS[checkpoint.kind].from_checkpoint(checkpoint)


def read_model(path: Path) -> None:
    compute(read_checkpoint(path))


def compute(model: Any) -> None:
    """Run a model once: what loads must also work."""
    if isinstance(model, Synthesizer):
        config = model.config
        pitch = mx.array([[0, 40, 41]]) if config.use_f0 else None
        f0 = None if pitch is None else mx.array([[0.0, 100.0, 110.0]])
        out = model.infer(mx.ones((1, 3, config.text_enc_hidden_dim)), pitch, f0, 0, SeededNoise(0))
        assert out.size == 3 * config.hop
    elif isinstance(model, HubertModel):
        out = model.features(mx.ones(1000), "v2")
        assert out.shape == (2, model.config.hidden_size)
    else:
        out = model.salience(mx.ones(400))
        assert out.shape == (3, 360)
    mx.eval(out)


def read_config(path: Path) -> None:
    weights = path.with_name("model.safetensors")
    if not weights.exists():
        save_file(seeds.hubert(), weights)
    read_model(path.parent)


def read_kernels(path: Path) -> None:
    """As `shared` loads a voice: a file that is not used is Unfit, and an InputError is never right."""
    model = path.with_name("voice.safetensors")
    if not model.exists():
        model.write_bytes(seeds.packed_files()[0])
    # Otherwise a file would be refused at once on every machine but the one that it comes from.
    with mock.patch.object(kernels, "_key", return_value=seeds.KEY):
        try:
            voice = Synthesizer.from_checkpoint(load_checkpoint(model, "voice", Packing()))
        except kernels.Unfit as e:
            raise InputError(str(e)) from e
        except InputError as e:
            raise Failure("a voice does not load because of the file beside it") from e
    compute(voice)


def read_sound(path: Path) -> None:
    # ffmpeg has fuzzers of its own.
    with mock.patch.object(files.shutil, "which", return_value=None):
        samples, rate = files.read_mono(path)
        assert np.isfinite(samples).all()
        assert rate > 0
        files.read_audio(path, strict=True)


KINDS = {
    "f0": Kind(read_f0, "f0.csv", seeds.f0_files),
    "pth": Kind(read_checkpoint, "voice.pth", seeds.checkpoints, mutators.checkpoint, 65536),
    "packed": Kind(read_model, "voice.safetensors", seeds.packed_files, mutators.safetensors, 32768),
    "kernels": Kind(read_kernels, "voice.float32.kernels", seeds.kernel_files, mutators.safetensors, 65536),
    "config": Kind(read_config, "config.json", seeds.configs_of_hubert, mutators.json_text),
    "index": Kind(read_index, "voice.index", seeds.indexes),
    "sound": Kind(read_sound, "sound", seeds.sounds, longest=8192),
}


def peak() -> int:
    """Bytes: the most memory that this process has had."""
    try:
        # Not `ru_maxrss`, which on Linux begins with what the process had that started this one.
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def attempt(kind: Kind, folder: Path, data: bytes) -> str:
    """Read `data` as a file of this kind in `folder`, and return the one line of its InputError, or "".

    A hang ends the process with a traceback.

    Raises:
        Failure: more memory than BYTES, an error of more than one line, or one that is lost in a callback.
        Exception: whatever else comes out of reading; NumPy's warnings are errors.
    """
    path = folder / kind.name
    path.write_bytes(data)
    before = peak()
    message = ""
    lost: list[str] = []  # what a callback of C code raised: Python prints it and goes on
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        with (
            warnings.catch_warnings(),
            mock.patch.object(sys, "unraisablehook", lambda raised: lost.append(repr(raised.exc_value))),
        ):
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "rvc_fast: .*", UserWarning)
            kind.read(path)
    except InputError as e:
        message = str(e)
    finally:
        faulthandler.cancel_dump_traceback_later()
    if lost:
        raise Failure(f"a callback raises {lost[0]}")
    if "\n" in message:
        raise Failure(f"its error has more than one line: {message!r}")
    if peak() - before > BYTES:
        raise Failure(f"it takes {(peak() - before) / 1e6:.0f} MB")
    return message


def kept(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the inputs of a kind that are kept; those that once failed are called failed-*."""
    archive = CORPUS / f"{name}.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as file:
            yield from ((entry, file.read(entry)) for entry in sorted(file.namelist()))
