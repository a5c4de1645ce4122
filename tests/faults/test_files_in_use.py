"""Files that another process truncates, overwrites or removes while they are in use: the sound is what it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rvc_fast.layers import Packing
from rvc_fast.resources import demo_dir
from rvc_fast.weights.pack import pack_file

DEMO = demo_dir()
CODE = """
import hashlib, os, sys
import numpy as np, rvc_fast
folder, how = sys.argv[1:]
files = {name: f"{folder}/{name}.safetensors" for name in ("voice", "embedder", "pitch_model")}
loaded = rvc_fast.load(**files)
sound = (0.3 * np.sin(np.arange(8000) * 0.08)).astype(np.float32)
for name in os.listdir(folder):
    path = os.path.join(folder, name)
    if how == "truncate": os.truncate(path, 5000)
    if how == "empty": os.truncate(path, 0)
    if how == "overwrite": open(path, "r+b").write(b"\\xff" * os.path.getsize(path))
    if how == "remove": os.unlink(path)
result = loaded.convert(sound, sample_rate=16000)
print(hashlib.sha256(result.samples.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, source in (("voice", "voice.pth"), ("embedder", "embedder"), ("pitch_model", "rmvpe.pt")):
        pack_file(DEMO / source, folder / f"{name}.safetensors", Packing())
    return folder


def test_the_sound_is_what_it_was(models: Path, tmp_path: Path) -> None:
    sums = set()
    for how in ("nothing", "truncate", "empty", "overwrite", "remove"):
        folder = tmp_path / how
        shutil.copytree(models, folder)
        result = subprocess.run(
            [sys.executable, "-c", CODE, str(folder), how], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, (how, result.returncode, result.stderr)
        sums.add(result.stdout)
    assert len(sums) == 1


INDEX = """
import os, sys
import numpy as np
from rvc_fast.retrieval import load_index
index = load_index(sys.argv[1])
queries = np.ones((3, index.dim), np.float32)
before = [index.search(queries, exact=exact) for exact in (False, True)]
os.truncate(sys.argv[1], 100)
for exact, (d2, ids) in zip((False, True), before):
    new_d2, new_ids = index.search(queries, exact=exact)
    assert (new_d2 == d2).all() and (new_ids == ids).all()
"""


def test_an_index(golden: Path, tmp_path: Path) -> None:
    shutil.copy(golden / "voice.index", tmp_path / "x.index")
    subprocess.run([sys.executable, "-c", INDEX, str(tmp_path / "x.index")], check=True, env=os.environ)
