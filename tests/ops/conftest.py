"""What the op tests share: the specs of all ops and the routes this machine can take."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import mlx.core as mx
import pytest

import rvc_fast.ops
from rvc_fast import native
from rvc_fast.ops.spec import OpSpec


def all_specs() -> dict[str, OpSpec]:
    """Every `SPEC` of the modules of rvc_fast.ops, by module name."""
    modules = (m.name for m in pkgutil.iter_modules(rvc_fast.ops.__path__))
    loaded = ((name, importlib.import_module(f"rvc_fast.ops.{name}")) for name in modules)
    return {name: module.SPEC for name, module in loaded if hasattr(module, "SPEC")}


SPECS = all_specs()


def routes() -> list[str]:
    """ "reference", then "cpu/ISA" for each instruction set of this machine."""
    ext = native.ext()
    return ["reference"] + ([] if ext is None else [f"cpu/{isa}" for isa in ext.isas()])


@pytest.fixture
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Take one of `routes()`, and go back afterwards."""
    backend, _, isa = request.param.partition("/")
    monkeypatch.setenv("RVC_FAST_BACKEND", backend)
    device = mx.default_device()
    mx.set_default_device(mx.cpu)
    ext = native.ext()
    before = None if ext is None else (ext.threads(), ext.isa())
    if isa:
        ext.configure(threads=before[0], isa=isa)
    yield request.param
    if before is not None:
        ext.configure(threads=before[0], isa=before[1])
    mx.set_default_device(device)


@pytest.fixture
def ext() -> object:
    """The compiled extension; tests of it are skipped where it was not built."""
    module = native.ext()
    if module is None:
        pytest.skip(native.load()[1])
    return module
