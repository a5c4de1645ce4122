"""What a conversion may be asked for: each setting with its default, its range and its meaning, stated here alone.

`Converter.convert` takes the settings as keyword arguments, `rvc-fast convert` as options, and the README lists them.
This module imports neither MLX nor NumPy, so that the command line can build its help at once.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Container
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from .errors import InputError

if TYPE_CHECKING:
    import numpy as np

Semantics = Literal["applio", "classic"]
Function = TypeVar("Function", bound=Callable[..., Any])

WINDOW = 160
"""Samples at 16 kHz per frame of pitch."""

TARGETS = {"male": 155.0, "female": 255.0}
"""Hz: the medians that a proposed pitch aims for."""


def in_range(value: object, low: float, high: float, whole: bool = False) -> bool:
    """Whether a value is a number (a whole one if `whole`, and never a bool) from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
        return False
    return low <= (int(value) if isinstance(value, numbers.Integral) else float(value)) <= high


def range_text(low: float, high: float, whole: bool = False) -> str:
    """Return "a number from 0 to 1"."""
    return f"{'a whole number' if whole else 'a number'} from {_text(low)} to {_text(high)}"


def check_number(what: str, name: str, value: object, low: float, high: float, whole: bool = False) -> None:
    """Raise InputError unless `in_range`; `what` is being done, `name` is what the value is called."""
    if not in_range(value, low, high, whole):
        raise InputError(f"[{what}] {name} must be {range_text(low, high, whole)}, got {value!r}")


@dataclass(frozen=True)
class Chunking:
    """How a long sound is cut, all in seconds.

    Sounds longer than `x_max` are cut near every multiple of `x_center`, at the quietest point at most
    `x_query` away. Each chunk is rendered with `x_pad` more on both sides, which is then cut off.
    """

    x_pad: float
    x_query: float
    x_center: float
    x_max: float

    def __post_init__(self) -> None:
        for name in ("x_pad", "x_query", "x_center", "x_max"):
            value = getattr(self, name)
            check_number("chunk", name, value, 0.01, 3600)
            if abs(value * 100 - round(value * 100)) > 1e-6:
                raise InputError(f"[chunk] {name} must be a multiple of 0.01 s, got {value!r}")
        if 2 * self.x_query > self.x_center:
            raise InputError(
                f"[chunk] x_query must be at most x_center / 2, got {self.x_query} of {self.x_center}"
            )
        if self.x_max < self.x_center:
            raise InputError(f"[chunk] x_max must be at least x_center, got {self.x_max} of {self.x_center}")

    @property
    def pad(self) -> int:
        """Samples at 16 kHz on each side of a chunk, a multiple of the window."""
        return round(self.x_pad * 100) * WINDOW


CHUNKINGS = {
    "fp32": Chunking(1, 6, 38, 41),
    "fp16": Chunking(3, 10, 60, 65),
    "small": Chunking(1, 5, 30, 32),
}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class About:
    """What is known of a setting beside its name.

    `value` is the default. A value is a number from `low` to `high` (a whole one if `whole`), one of `choices`, or of the
    type `other`; with none of these it is a switch. None is allowed where it is the default. `flags` are its names on
    the command line if `--its-name` is not the only one, `group` is the heading that it stands under there.
    """

    help: str
    value: Any
    group: str = "sound"
    low: float | None = None
    high: float = 0.0
    whole: bool = False
    choices: tuple[str, ...] = ()
    other: type | None = None
    metavar: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What a value has to be, `other` apart, as text."""
        parts = [*self.choices]
        if self.low is not None:
            parts.append(range_text(self.low, self.high, self.whole))
        return " or ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]])) or "True or False"

    @property
    def default(self) -> str:
        """The default as text."""
        if self.value is None or self.value is False:
            return "none" if self.value is None else "off"
        return _text(self.value)

    def fits(self, value: object) -> bool:
        """Whether a setting may have this value, None apart."""
        if isinstance(value, str):
            return value in self.choices
        if self.other is not None and isinstance(value, self.other):
            return True
        if self.low is None:
            return not self.choices and isinstance(value, bool)
        return in_range(value, self.low, self.high, self.whole)

    def parse(self, text: str) -> str | int | float:
        """Return the value that a text on the command line stands for; ValueError if it stands for none."""
        if text in self.choices:
            return text
        value: int | float = int(text) if self.whole else float(text)
        if not self.fits(value):
            raise ValueError(text)
        return value


def _setting(default: Any, help: str, **about: Any) -> Any:
    return field(default=default, metadata={"about": About(help, default, **about)})


@dataclass(frozen=True)
class Settings:
    """What a conversion is asked for. Every value is checked; InputError names the one that is wrong.

    `f0_points` (n, 2) are seconds and Hz that replace the pitch after every other change (`pitch.f0.read_points`).
    Classic semantics seek the quietest point by the sum of absolute values (applio: the absolute value of the sum)
    and pad the pitch network's input with zeros (applio: by reflection).
    """

    speaker: int = _setting(
        0, "speaker of a voice with several", group="voice", low=0, high=2**31 - 1, whole=True, metavar="N"
    )
    transpose: float = _setting(
        0.0,
        "shift the pitch by semitones; 12 is one octave up",
        group="pitch",
        low=-48,
        high=48,
        metavar="SEMITONES",
        flags=("-t", "--transpose"),
    )
    autotune: float = _setting(
        0.0,
        "pull the pitch to the nearest note: 0 not at all, 1 onto the note",
        group="pitch",
        low=0,
        high=1,
        metavar="STRENGTH",
    )
    proposed_pitch: float | str | None = _setting(
        None,
        "transpose by whole semitones, at most an octave, so that the median pitch comes near a frequency in Hz, "
        "to 155 Hz (male) or to 255 Hz (female); `transpose` comes on top",
        group="pitch",
        low=50,
        high=1100,
        choices=tuple(TARGETS),
        metavar="TARGET",
    )
    f0_threshold: float = _setting(
        0.03, "salience up to which a frame is unvoiced", group="pitch", low=0, high=1, metavar="X"
    )
    f0_points: np.ndarray | None = field(default=None, compare=False)
    index_rate: float = _setting(
        0.75, "share of the features that the index retrieves", low=0, high=1, metavar="R"
    )
    exact_search: bool = _setting(
        False, "search the whole index, not only the lists of it that it was built to search"
    )
    protect: float = _setting(
        0.33,
        "share of the retrieved features that consonants and breath keep: 0 protects most, 0.5 not at all",
        low=0,
        high=0.5,
        metavar="P",
    )
    volume_envelope: float = _setting(
        1.0,
        "loudness: 0 follows the input's envelope, 1 keeps the voice's own",
        low=0,
        high=1,
        metavar="R",
    )
    output_rate: int | None = _setting(
        None,
        "sample rate of the result in Hz, in place of the voice's own",
        low=1000,
        high=384000,
        whole=True,
        metavar="HZ",
        flags=("--rate",),
    )
    seed: int = _setting(
        0, "seed of the noise in the synthesis", low=0, high=2**64 - 1, whole=True, metavar="N"
    )
    chunk: Chunking | str = _setting(
        "fp32", "into which pieces a long sound is cut", choices=tuple(CHUNKINGS), other=Chunking
    )
    semantics: Semantics = _setting(
        "applio", "which public program to follow where the two differ", choices=("applio", "classic")
    )

    def __post_init__(self) -> None:
        for name, about in ABOUT.items():
            value = getattr(self, name)
            if not (value is None and about.value is None) and not about.fits(value):
                other = "" if about.other is None else f" or a {about.other.__name__}"
                raise InputError(f"[convert] {name} must be {about.expected}{other}, got {value!r}")

    @property
    def chunking(self) -> Chunking:
        """What `chunk` names or is."""
        return self.chunk if isinstance(self.chunk, Chunking) else CHUNKINGS[self.chunk]

    @property
    def target(self) -> float | None:
        """The proposed pitch in Hz."""
        return TARGETS[self.proposed_pitch] if isinstance(self.proposed_pitch, str) else self.proposed_pitch

    @property
    def moves_pitch(self) -> bool:
        """Whether anything is asked of the pitch."""
        return bool(self.transpose or self.autotune) or not (
            self.proposed_pitch is None and self.f0_points is None
        )


ABOUT: dict[str, About] = {f.name: f.metadata["about"] for f in fields(Settings) if f.metadata}
"""Every setting that has a name for users."""


class ChangeableOptions(TypedDict, total=False):
    """The settings that may change while a live conversion runs. A test compares it with `CHANGEABLE`."""

    speaker: int
    transpose: float
    autotune: float
    proposed_pitch: float | str | None
    f0_threshold: float
    index_rate: float
    exact_search: bool
    protect: float
    volume_envelope: float


class Options(ChangeableOptions, total=False):
    """The settings as keyword arguments, for type checkers. A test compares it with `Settings`."""

    output_rate: int | None
    seed: int
    chunk: Chunking | str
    semantics: Semantics


class LiveOptions(ChangeableOptions, total=False):
    """The settings of a live conversion. A test compares it with `LIVE`."""

    seed: int


_WHOLE_SOUNDS = ("output_rate", "chunk", "semantics")

LIVE = tuple(name for name in ABOUT if name not in _WHOLE_SOUNDS)
"""The settings of a live conversion; the others are about sounds that are there as a whole."""

CHANGEABLE = tuple(name for name in LIVE if name != "seed")
"""Those of them that may change while it runs."""


def options(name: str) -> tuple[str, ...]:
    """Return what a setting is called on the command line."""
    return ABOUT[name].flags or (f"--{name.replace('_', '-')}",)


def lines(names: Container[str] = ABOUT) -> list[tuple[str, str, str, str, str]]:
    """Return (name, option, default, range, meaning) of every setting among `names`, for the README and `help`."""
    return [
        (
            name,
            options(name)[-1],
            about.default,
            "" if about.value is False else about.expected,
            about.help,
        )
        for name, about in ABOUT.items()
        if name in names
    ]


def documented(function: Function, names: Container[str] = ABOUT) -> Function:
    """Show the settings `names` in `help(function)`, which takes them as `**settings`."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    given = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in fields(Settings)
        if f.metadata and f.name in names
    ]
    shown: Any = function
    shown.__signature__ = signature.replace(parameters=[*own, *given])
    text = "\n".join(f"    {name}: {meaning} ({default})" for name, _, default, _, meaning in lines(names))
    shown.__doc__ = f"{inspect.getdoc(function)}\n\nThe settings, with their defaults:\n{text}\n"
    return function
