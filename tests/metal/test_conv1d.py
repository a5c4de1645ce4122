"""What conv1d's cases do not show: 16 bits on the oldest CUDA GPUs, which lack an instruction of the tensor cores."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from emulator import Emulator, nvcc, rules

from rvc_fast import ops
from rvc_fast.ops.spec import errors

CUDA = pytest.mark.parametrize("gpu", ["cuda"], indirect=True)
DTYPES = pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])


def arguments(dtype: mx.Dtype) -> dict[str, mx.array]:
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 70, 40), (33, 3, 40)))
    return {"x": mx.array(x, dtype), "weight": mx.array(weight / 11, dtype)}


@CUDA
@DTYPES
def test_compiles_for_the_oldest_gpu(gpu: Emulator, dtype: mx.Dtype, compiler: nvcc.Compiler | None) -> None:
    if compiler is None:
        pytest.skip("nvcc or MLX's CUDA headers are missing: run tests/metal/emulator/nvcc.py")
    ops.conv1d(**arguments(dtype))
    for text in gpu.texts:
        (resources,) = nvcc.compile_text(compiler.nvcc, text.source, (nvcc.OLDEST,))
        assert resources.problems(gpu.texts[text]) == []


@CUDA
@DTYPES
def test_without_tensor_cores(gpu: Emulator, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same products, added in another order."""
    kwargs = arguments(dtype)
    want = ops.conv1d(**{k: v.astype(mx.float32) for k, v in kwargs.items()})
    monkeypatch.setattr(rules, "_cuda_texts", {})

    def oldest(*, header: str, **options: object) -> object:
        assert "__CUDA_ARCH__" in header
        return gpu.kernel(header=header.replace("__CUDA_ARCH__", "750"), **options)  # type: ignore[arg-type]

    monkeypatch.setattr(mx.fast, "cuda_kernel", oldest)
    got = ops.conv1d(**kwargs)
    assert errors(got, want)[0] < float(mx.finfo(dtype).eps) * 2
    assert len(gpu.launches) == 2
