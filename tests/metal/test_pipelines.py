"""How many pipelines a GPU compiles, counted from graphs; and that a warm-up compiles all of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from emulator import Emulator, build
from emulator.patch import compile_for

from benchmarks.gpu import pipelines
from rvc_fast.ops import gpu as launching

WHOLE_MODELS = True
MOST = 20


@pytest.mark.parametrize("backend", ["metal", "cuda"])
def test_the_full_size_models_need_few(backend: str) -> None:
    found = pipelines.of_warm_up(backend)
    ours = pipelines.kernels(found)
    assert 10 <= len(ours) <= MOST
    # All kernels are there: the count is of a whole conversion.
    assert all(any(p.kernel.startswith(f"rvc_{name}_") for p in ours) for name in pipelines.KERNELS)
    assert found - ours


def test_no_length_needs_another() -> None:
    rng = random.Random(0)
    lengths = (*pipelines.LENGTHS, *(round(rng.uniform(0.05, 60), 3) for _ in range(5)))
    assert min(lengths) == 0.05
    assert max(lengths) == 600
    warm = pipelines.of_warm_up("metal")
    for seconds, needed in pipelines.of_lengths("metal", lengths).items():
        assert needed
        assert needed <= warm, seconds


@pytest.mark.parametrize("name", list(pipelines.VOICES))
def test_other_voices_are_warmed_as_well(name: str) -> None:
    voice = pipelines.VOICES[name]
    warm = pipelines.of_warm_up("metal", voice)
    assert len(pipelines.kernels(warm)) <= MOST
    for seconds, needed in pipelines.of_lengths("metal", (0.05, 0.77, 45.0), voice).items():
        assert needed <= warm, seconds


def test_what_depends_on_the_length_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = launching.launch

    def by_length(backend: str, op: str, kernel: str, inputs: Any, *, options: Any, **rest: Any) -> Any:
        if kernel == "conv1d":
            options = {**options, "LENGTH": rest["sizes"]["steps"]}
        return launch(backend, op, kernel, inputs, options=options, **rest)

    monkeypatch.setattr(launching, "launch", by_length)
    warm = pipelines.of_warm_up("metal")
    assert len(pipelines.kernels(warm)) > MOST
    assert not pipelines.of_lengths("metal", (1.0,))[1.0] <= warm


@pytest.fixture(scope="module")
def compiled_together(need_tool: Any, golden: Path) -> None:
    """Compile the kernels of a conversion in a few large units."""
    from test_syncs import tiny

    need_tool(build.CLANG)
    compile_for("metal", lambda: tiny(golden).warm())


@pytest.mark.usefixtures("compiled_together")
@pytest.mark.parametrize("gpu", ["metal"], indirect=True)
def test_a_warm_converter_compiles_nothing(gpu: Emulator, golden: Path) -> None:
    """As counted above, but of what the emulator executes."""
    from test_syncs import SHORT, sound, tiny

    converter = tiny(golden)
    converter.warm()
    texts = set(gpu.texts)
    launches = len(gpu.launches)
    assert launches
    converter.warm()
    assert len(gpu.launches) == launches
    converter.convert(sound(0.75), sample_rate=16000, chunk=SHORT)
    assert len(gpu.launches) > launches
    assert set(gpu.texts) == texts
