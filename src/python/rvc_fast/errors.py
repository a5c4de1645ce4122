"""The exceptions rvc_fast raises on purpose. Each message starts with what was being done."""

from __future__ import annotations


class RvcFastError(Exception):
    """Base of all of them; the command line prints its message as one line."""


class InputError(RvcFastError, ValueError):
    """The caller's mistake: a bad option, sound, shape or value (exit code 2)."""


class FileFormatError(InputError):
    """A model, index or sound file that is damaged, hostile or of another kind (exit code 2)."""


class BackendError(RvcFastError, RuntimeError):
    """A backend that was asked for explicitly cannot do what was asked."""
