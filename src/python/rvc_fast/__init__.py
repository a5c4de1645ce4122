"""rvc_fast: RVC voice conversion on MLX, at waveform parity with PyTorch.

    import rvc_fast
    converter = rvc_fast.load("voice.pth", embedder="hubert_base.pt", pitch_model="rmvpe.pt")
    result = converter.convert("in.wav", transpose=4)
    result.save("out.wav")

Nothing heavy is imported before the first use of a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import live, ops
    from .converter import ConversionResult, Converter, load

__version__ = "0.1.0"
__all__ = ["ConversionResult", "Converter", "__version__", "live", "load", "ops"]


def __getattr__(name: str) -> Any:
    import importlib

    if name in __all__:
        from . import machine

        said = machine.problem()
        if said:
            raise ImportError(said)
    if name in ("live", "ops"):
        return importlib.import_module(f".{name}", __name__)
    if name in ("ConversionResult", "Converter", "load"):
        return getattr(importlib.import_module(".converter", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
