"""The demo voice, as arguments of the command line."""

from __future__ import annotations

from rvc_fast.resources import demo_dir

DEMO = demo_dir()
_FILES = {"-m": "voice.pth", "--embedder": "embedder", "--pitch-model": "rmvpe.pt"}
MODELS = [part for option, name in _FILES.items() for part in (option, str(DEMO / name))]
