from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import mlx.core as mx
import pytest

from rvc_fast import native


@pytest.fixture
def ext() -> Iterator[ModuleType]:
    """The compiled extension, put back as it was; tests of it are skipped where it was not built."""
    module = native.ext()
    if module is None:
        pytest.skip(native.load()[1])
    threads, isa, device = module.threads(), module.isa(), mx.default_device()
    mx.set_default_device(mx.cpu)
    yield module
    mx.set_default_device(device)
    module.configure(threads=threads, isa=isa)


@pytest.fixture
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take the route that a test is parametrized with: "reference", "cpu/ISA", "metal" or "cuda"."""
    backend, _, isa = request.param.partition("/")
    if isa:
        request.getfixturevalue("ext").configure(isa=isa)
    monkeypatch.setenv("RVC_FAST_BACKEND", backend)
    return request.param
