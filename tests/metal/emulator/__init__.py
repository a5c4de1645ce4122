"""Executes the text of GPU kernels on the CPU: what it checks and what it cannot is in ../README.md."""

from .launch import EmulationError, Emulator, Launch

__all__ = ["EmulationError", "Emulator", "Launch"]
