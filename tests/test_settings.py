"""The settings of a conversion are stated once: the command line, `convert` and the type checker know the same."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np
import pytest

from rvc_fast.cli import convert, parser
from rvc_fast.converter import Converter
from rvc_fast.errors import InputError
from rvc_fast.settings import ABOUT, Chunking, Options, Settings, options


def test_type_checkers_see_all_settings() -> None:
    types = {f.name: f.type for f in fields(Settings) if f.name in ABOUT}
    assert Options.__annotations__.keys() == types.keys()
    assert {name: hint.__forward_arg__ for name, hint in Options.__annotations__.items()} == types
    assert get_type_hints(Options)["chunk"] == Chunking | str


def test_help_of_convert_shows_them() -> None:
    shown = inspect.signature(Converter.convert).parameters
    assert list(shown)[-len(ABOUT) :] == list(ABOUT)
    for name, about in ABOUT.items():
        assert shown[name].default is about.value
        assert f"\n    {name}: {about.help} ({about.default})\n" in Converter.convert.__doc__


def test_the_command_line_has_the_same_defaults() -> None:
    given = convert._options(parser().parse_args(["convert", "in.wav", "-o", "out.wav"]))
    settings = {name: given[name] for name in ABOUT}
    assert settings == {name: about.value for name, about in ABOUT.items()}
    Settings(**settings)


def _option(name: str, text: str) -> Any:
    return getattr(parser().parse_args(["convert", "in.wav", "-o", "out.wav", options(name)[-1], text]), name)


@pytest.mark.parametrize("name", [name for name, about in ABOUT.items() if about.low is not None])
def test_the_command_line_takes_what_the_settings_take(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    about = ABOUT[name]
    assert about.low is not None
    for value in (about.low, about.high):
        given = _option(name, str(value))
        assert given == value
        assert getattr(Settings(**{name: given}), name) == value
    for text in (str(about.low - 1), str(about.high * 2 + 1), "nan", "inf", "x", ""):
        with pytest.raises(SystemExit):
            _option(name, text)
        assert f"must be {about.expected}, got {text!r}" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, about in ABOUT.items() if about.choices])
def test_choices(name: str) -> None:
    for choice in ABOUT[name].choices:
        assert getattr(Settings(**{name: _option(name, choice)}), name) == choice
    with pytest.raises(SystemExit):
        _option(name, "another")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2**64),
        ("seed", 1.0),
        ("exact_search", 1),
        ("exact_search", "yes"),
        ("speaker", None),
        ("chunk", None),
    ],
)
def test_other_types_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"\[convert\] {name} must be .*, got "):
        Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("scalar", [np.float32(0.5), np.float64(0.5)])
def test_numpys_scalars_are_numbers(scalar: np.floating) -> None:
    assert Settings(index_rate=scalar, transpose=np.int64(3), seed=np.uint64(2**64 - 1)).index_rate == 0.5


def test_they_need_neither_mlx_nor_numpy() -> None:
    """The command line shows its help at once."""
    code = "import sys; import rvc_fast.settings; print({'mlx', 'mlx.core', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
