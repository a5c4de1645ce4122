"""Converters of both devices in one process, where MLX's default device is a GPU.

The GPU is a pretence: MLX's answers about devices are replaced, and what would run there runs in stock MLX on the CPU.
The CPU's Converters run the compiled kernels, whose sound differs in the last bits, so that each shows where it was made.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from fakes import voiced_sound
from rvc_fast import device, native
from rvc_fast.audio import write_audio
from rvc_fast.cli import main
from rvc_fast.converter import Converter, load
from rvc_fast.errors import InputError, RvcFastError
from rvc_fast.ops import conv1d, dispatch, trust
from rvc_fast.resources import demo_dir
from rvc_fast.settings import Chunking

SHORT = Chunking(0.1, 0.1, 1, 2)
SOUND = voiced_sound(0.3)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLX believes in a GPU that is its default device; its kernels are not trusted."""
    now = [mx.Device(mx.gpu)]
    monkeypatch.setattr(mx, "default_device", lambda: now[0])
    monkeypatch.setattr(
        mx, "set_default_device", lambda d: now.__setitem__(0, mx.Device(getattr(d, "type", d)))
    )
    monkeypatch.setattr(mx, "is_available", lambda d: True)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(trust, "verdict", lambda *_, **__: trust.Verdict("reference", "it is a pretence"))
    monkeypatch.delenv("RVC_FAST_BACKEND", raising=False)
    if native.ext() is None:
        pytest.skip(native.load()[1])
    yield
    assert device.current() == "gpu", "MLX's default device was not put back"


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, str]]:
    """Every route that was taken: its thread, the default device at that moment, the backend."""
    taken: list[tuple[int, str, str]] = []
    route = dispatch.route

    def record(*args: Any, **options: Any) -> dispatch.Route:
        found = route(*args, **options)
        taken.append((threading.get_ident(), device.current(), found.backend))
        return found

    monkeypatch.setattr(dispatch, "route", record)
    return taken


def _demo(**options: Any) -> Converter:
    demo = demo_dir()
    return load(demo / "voice.pth", embedder=demo / "embedder", pitch_model=demo / "rmvpe.pt", **options)


def _sound(converter: Converter) -> np.ndarray:
    converter.forget()
    return converter.convert(SOUND, sample_rate=16000, chunk=SHORT).samples


def test_each_converter_works_on_its_device(gpu: None, routes: list[Any]) -> None:
    sounds = {}
    for name, backend in (("cpu", "cpu"), ("gpu", "reference")):
        converter = _demo(device=name)
        assert converter.device == name
        assert device.current() == "gpu"
        sounds[name] = _sound(converter)
        assert {tuple(r[1:]) for r in routes} == {(name, backend)}
        routes.clear()
    assert not np.array_equal(sounds["cpu"], sounds["gpu"]), "both were made by the same kernels"
    np.testing.assert_allclose(sounds["cpu"], sounds["gpu"], atol=1e-3)
    assert np.array_equal(sounds["gpu"], _sound(_demo())), "the default is MLX's default device"


def test_the_setting_for_the_cpu_works_where_the_default_is_a_gpu(
    gpu: None, routes: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _sound(_demo(device="cpu"))
    monkeypatch.setenv("RVC_FAST_BACKEND", "cpu")
    routes.clear()
    converter = _demo()
    assert converter.device == "cpu"
    assert np.array_equal(_sound(converter), wanted)
    assert {backend for *_, backend in routes} == {"cpu"}


def test_the_cpus_kernels_take_what_a_gpu_made(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", "cpu")
    x, w = mx.ones((1, 5, 3)), mx.ones((2, 3, 3))
    assert conv1d(x, w).tolist() == [[[9.0, 9.0]] * 3]


def test_the_cpus_kernels_never_go_to_the_default_device() -> None:
    """Their stream is the CPU's unless one is given; on a GPU's they would raise."""
    if native.ext() is None:
        pytest.skip(native.load()[1])
    signatures = [f.__doc__ or "" for name, f in vars(native.ext()).items() if not name.startswith("_")]
    streamed = [text for text in signatures if "stream: " in text]
    assert len(streamed) >= 20
    for text in streamed:
        assert text.endswith("= Device(cpu, 0)) -> " + text.rpartition(" -> ")[2]), text


def test_models_are_shared_by_device(gpu: None) -> None:
    ours, same, other = _demo(device="cpu"), _demo(device="cpu"), _demo(device="gpu")
    assert ours.voice is same.voice
    assert ours.voice is not other.voice


def test_both_devices_in_threads(gpu: None, routes: list[Any]) -> None:
    converters = {name: _demo(device=name) for name in ("cpu", "gpu")}
    wanted = {name: _sound(c) for name, c in converters.items()}
    routes.clear()
    got: dict[str, list[np.ndarray]] = {"cpu": [], "gpu": []}
    threads: dict[str, int] = {}
    errors: list[BaseException] = []

    def work(name: str) -> None:
        threads[name] = threading.get_ident()
        try:
            for _ in range(3):
                got[name].append(_sound(converters[name]))
        except BaseException as e:
            errors.append(e)

    workers = [threading.Thread(target=work, args=(name,)) for name in converters]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert not errors
    for name, backend in (("cpu", "cpu"), ("gpu", "reference")):
        assert len(got[name]) == 3
        assert all(np.array_equal(sound, wanted[name]) for sound in got[name])
        assert {tuple(r[1:]) for r in routes if r[0] == threads[name]} == {(name, backend)}


def test_threads_of_one_device_work_side_by_side(gpu: None) -> None:
    both = threading.Barrier(2, timeout=60)

    def work() -> None:
        with device.on("cpu"):
            both.wait()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not both.broken


def test_the_other_device_is_not_overtaken_for_ever(gpu: None) -> None:
    """A thread of the CPU waits; threads of the GPU that come later wait behind it."""
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with device.on("gpu"):
            inside.set()
            leave.wait(60)

    def later(name: device.Device) -> None:
        with device.on(name):
            order.append(name)

    workers = [threading.Thread(target=first)]
    workers[0].start()
    inside.wait(60)
    for name in ("cpu", "gpu"):
        workers.append(threading.Thread(target=later, args=(name,)))
        workers[-1].start()
        workers[-1].join(0.3)
    assert order == []
    leave.set()
    for worker in workers:
        worker.join(60)
    assert order == ["cpu", "gpu"]


def test_an_error_puts_the_default_back(gpu: None) -> None:
    with pytest.raises(ZeroDivisionError), device.on("cpu"):
        raise ZeroDivisionError(device.current())
    assert device.current() == "gpu"
    with device.on("cpu"), device.on("cpu"):
        assert device.current() == "cpu"
    refused = pytest.raises(RvcFastError, match="work on the cpu cannot begin within work on the gpu")
    with device.on("gpu"), refused, device.on("cpu"):
        pass


def test_the_default_is_the_resting_one(gpu: None) -> None:
    """A Converter that is loaded while another works on the CPU is of the GPU."""
    found: list[str] = []
    with device.on("cpu"):
        worker = threading.Thread(target=lambda: found.append(device.choose(None)))
        worker.start()
        worker.join(60)
    assert found == ["gpu"]


def test_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "is_available", lambda d: d == mx.cpu)
    for options, text in (
        ({"device": "gpu"}, "device must be 'cpu' here, got 'gpu'"),
        ({"device": "tpu"}, "device must be 'cpu' or 'gpu', got 'tpu'"),
    ):
        with pytest.raises(InputError, match=text):
            _demo(**options)


@pytest.mark.parametrize(("name", "backend"), [("cpu", "metal"), ("cpu", "cuda"), ("gpu", "cpu")])
def test_a_device_must_not_contradict_the_setting(
    gpu: None, monkeypatch: pytest.MonkeyPatch, name: device.Device, backend: str
) -> None:
    monkeypatch.setenv("RVC_FAST_BACKEND", backend)
    with pytest.raises(InputError, match=f"device '{name}' contradicts RVC_FAST_BACKEND={backend}"):
        _demo(device=name)


def test_the_command_line_takes_a_device(gpu: None, routes: list[Any], tmp_path: Any, capsys: Any) -> None:
    write_audio(tmp_path / "in.wav", SOUND, 16000)
    out = str(tmp_path / "out.wav")
    assert main(["convert", str(tmp_path / "in.wav"), "-o", out, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cpu"
    assert {tuple(r[1:]) for r in routes} == {("cpu", "cpu")}


def test_programs_of_our_own_move_to_the_cpu(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    device.use_for_process()
    assert device.current() == "gpu"
    monkeypatch.setenv("RVC_FAST_BACKEND", "cpu")
    device.use_for_process()
    assert device.current() == "cpu"
    mx.set_default_device(mx.gpu)
