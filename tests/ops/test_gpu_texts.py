"""The texts of the GPU kernels and what a launch gives them, without a GPU."""

from __future__ import annotations

import re

import mlx.core as mx
import pytest

from rvc_fast.errors import RvcFastError
from rvc_fast.ops import gpu
from rvc_fast.resources import kernels_dir

KERNELS = sorted(f for f in kernels_dir().glob("*/*.inc") if f.parent.name != "common")


@pytest.mark.parametrize("file", KERNELS, ids=[f.stem for f in KERNELS])
@pytest.mark.parametrize("backend", ["metal", "cuda"])
def test_every_size_has_a_name_that_is_used(file, backend: str) -> None:
    text = gpu.text(backend, file.parent.name, file.stem)
    assert text.sizes
    assert {int(i) for i in re.findall(r"\bsizes\[(\d+)\]", text.source)} == set(range(len(text.sizes)))
    assert not re.search(r"\bsizes\[", file.read_text())


def test_sizes_are_given_by_their_names() -> None:
    x = mx.zeros((1, 8, 32))
    with pytest.raises(
        RvcFastError, match=r"has the sizes \['length', 'half_width', 'each_item', 'each_step'\]"
    ):
        gpu.launch(
            "metal", "wavenet_gate", "wavenet_gate", {"x": x, "g": x},
            sizes={"length": 8, "width": 16}, options={}, groups=(8, 1, 1), threads=32, outputs=[((1, 8, 16), mx.float32)],
        )  # fmt: skip
