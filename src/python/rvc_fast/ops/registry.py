"""The ops, and the backends that each has: every `Op` registers itself here."""

from __future__ import annotations

# op -> names of the backends it has, and of those where MLX's own kernels do the work.
_KERNELS: dict[str, frozenset[str]] = {}
_OF_MLX: dict[str, frozenset[str]] = {}


def register(op: str, *backends: str, of_mlx: tuple[str, ...] = ()) -> None:
    """Declare the backends of an op; the reference always exists.

    Args:
        backends: that have a kernel of ours.
        of_mlx: for which MLX's own kernels are the right ones, put together for this op.
    """
    _KERNELS[op] = frozenset((*backends, *of_mlx))
    _OF_MLX[op] = frozenset(of_mlx)


def ops() -> tuple[str, ...]:
    """Return the names of all ops, sorted."""
    return tuple(sorted(_KERNELS))


def backends(op: str) -> frozenset[str]:
    """Return the names of the backends that an op has."""
    return _KERNELS[op]


def of_mlx(op: str, backend: str) -> bool:
    """Return whether an op's backend is made of MLX's own kernels."""
    return backend in _OF_MLX[op]
