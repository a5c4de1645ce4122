"""What pip calls to build rvc_fast: scikit-build-core, after a look at the machine.

    pip install .                   compiles the CPU kernels for the MLX that BUILD names
    pip install . -C pure=true      compiles nothing: GPUs and the reference work, CPUs are slow

Without build isolation the kernels are compiled for the MLX that is installed.
"""

import importlib.util
import platform
import sys
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[1] / "src" / "python" / "rvc_fast" / "machine.py"
_SPEC = importlib.util.spec_from_file_location("rvc_fast_machine", _SOURCE)
machine = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(machine)


def _check(build):
    said = machine.problem(build)
    if said:
        sys.exit("rvc_fast: " + said)


_check(build=False)  # before scikit-build-core, which needs a newer Python than Apple's, too

from scikit_build_core import build as _build  # noqa: E402
from scikit_build_core.build import *  # noqa: E402, F403

# The two belong together: nanobind's types are shared only by modules of one version of its internals.
MLX = "mlx[cpu]" if platform.system() == "Linux" else "mlx"
BUILD = ["nanobind==3.1.0", MLX + "==0.32.4"]


def _options(settings):
    """Turn pure=true into what scikit-build-core understands, once."""
    settings = dict(settings or {})
    pure = settings.pop("pure", "false")
    if pure not in ("true", "false"):
        sys.exit(f"rvc_fast: pure must be true or false, got {pure!r}")
    if pure == "true":
        settings.update(
            {"cmake.define.RVC_FAST_EXTENSION": "OFF", "wheel.py-api": "py3", "wheel.platlib": "false"}
        )
    return settings


def _compiles(settings):
    return _options(settings).get("cmake.define.RVC_FAST_EXTENSION") != "OFF"


def get_requires_for_build_wheel(config_settings=None):
    _check(build=_compiles(config_settings))
    return [
        *_build.get_requires_for_build_wheel(_options(config_settings)),
        *(BUILD if _compiles(config_settings) else []),
    ]


def get_requires_for_build_editable(config_settings=None):
    _check(build=_compiles(config_settings))
    return [
        *_build.get_requires_for_build_editable(_options(config_settings)),
        *(BUILD if _compiles(config_settings) else []),
    ]


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    return _build.prepare_metadata_for_build_wheel(metadata_directory, _options(config_settings))


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None):
    return _build.prepare_metadata_for_build_editable(metadata_directory, _options(config_settings))


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _check(build=_compiles(config_settings))
    return _build.build_wheel(wheel_directory, _options(config_settings), metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    _check(build=_compiles(config_settings))
    return _build.build_editable(wheel_directory, _options(config_settings), metadata_directory)
