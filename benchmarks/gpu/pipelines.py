"""The pipelines that a GPU has to compile for a conversion, counted: `python -m benchmarks.gpu.pipelines`.

A kernel of ours is compiled once for each set of its options and types (a pipeline), at its first launch. Here the
graphs of whole conversions are built with a stand-in for MLX's kernels that notes what would be compiled; nothing is
computed and no GPU is needed. Printed are the pipelines of the full-size models, what MLX compiles for
element-wise expressions beside them, and how many more a sound of any length would need after `Converter.warm`.

Not counted are MLX's own kernels, which come compiled in its library.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import mlx.core as mx
import numpy as np

from benchmarks.gpu.count import Silence, route
from rvc_fast import pipeline
from rvc_fast.bench.models import HUBERT, RMVPE, VOICE
from rvc_fast.converter import warm_sound
from rvc_fast.features.hubert import HubertModel
from rvc_fast.layers import NORMAL, PackedLayer
from rvc_fast.ops import epilogue, gpu
from rvc_fast.pitch.rmvpe import Rmvpe
from rvc_fast.settings import Settings
from rvc_fast.synthesizer import Synthesizer
from rvc_fast.synthesizer.config import SynthesizerConfig

LENGTHS = (0.05, 0.1, 0.31, 0.5, 1.0, 1.7, 3.0, 9.99, 25.0, 40.9, 41.01, 79.3, 600.0)
"""Seconds of sound: below and above what one chunk holds, and one that MLX's blocks and tiles do not divide."""


KERNELS = (
    "conv1d",
    "resblock",
    "bigru",
    "mel_stft",
    "nsf_phase",
    "nsf_source",
    "relpos_attention",
    "wavenet_gate",
)


class Pipeline(NamedTuple):
    """What is compiled once: a kernel, or for MLX's element-wise kernels "expression", and its options."""

    kernel: str
    options: tuple[str, ...]


class Models(NamedTuple):
    """The models of a conversion, their weights packed but not computed."""

    hubert: HubertModel
    rmvpe: Rmvpe
    voice: Synthesizer


# The architectures of the public voices.
VOICES: dict[str, SynthesizerConfig] = {
    "v2 48k": VOICE,
    "v2 32k": dataclasses.replace(
        VOICE, sr=32000, upsample_rates=(10, 8, 2, 2), upsample_kernel_sizes=(20, 16, 4, 4)
    ),
    "v2 40k": dataclasses.replace(
        VOICE, sr=40000, upsample_rates=(10, 10, 2, 2), upsample_kernel_sizes=(16, 16, 4, 4)
    ),
    "v1 48k": dataclasses.replace(
        VOICE,
        version="v1",
        text_enc_hidden_dim=256,
        upsample_rates=(10, 6, 2, 2, 2),
        upsample_kernel_sizes=(16, 16, 4, 4, 4),
    ),
}


@contextlib.contextmanager
def noted(backend: str) -> Iterator[set[Pipeline]]:
    """Take the kernels of a backend and note in the result what would be compiled; launches give zeros."""
    found: set[Pipeline] = set()

    def construct(*, name: str, **_: Any) -> Callable[..., list[mx.array]]:
        def launch(*, template: Any, output_shapes: Any, output_dtypes: Any, **_: Any) -> list[mx.array]:
            # Its name holds the kernel's, a digest of its text and the types of its inputs.
            found.add(Pipeline(name, tuple(f"{key}={value}" for key, value in template)))
            shapes = zip(output_shapes, output_dtypes, strict=True)
            return [mx.broadcast_to(mx.zeros((1,), dtype), shape) for shape, dtype in shapes]

        return launch

    def expression(
        y: mx.array, bias: mx.array | None, residual: mx.array | None, activation: str | None
    ) -> mx.array:
        parts = (
            "bias" if bias is not None else "",
            activation or "",
            "residual" if residual is not None else "",
        )
        found.add(Pipeline("expression", (str(y.dtype), *filter(None, parts))))
        return y

    gpu._build.cache_clear()
    try:
        with (
            route(backend),
            mock.patch.object(mx.fast, f"{backend}_kernel", construct),
            mock.patch.object(epilogue, "_fused", expression),
        ):
            yield found
    finally:
        gpu._build.cache_clear()


def full_size(voice: SynthesizerConfig = VOICE) -> Models:
    """Return new models of full size, for the route taken."""
    models = Models(HubertModel(HUBERT), Rmvpe(RMVPE), Synthesizer(voice))
    for model in models:
        for layer in model.modules():
            if isinstance(layer, PackedLayer):
                layer.pack(NORMAL)
    return models


def build(models: Models, sound: np.ndarray, settings: Settings) -> None:
    """Build the graphs of a conversion of `sound` (n,) at 16 kHz, chunk by chunk, and compute nothing."""
    hubert, rmvpe, voice = models
    prepared = pipeline.prepare(sound, settings)
    rmvpe.salience(mx.array(prepared.padded))
    for chunk in prepared.chunks:
        features = hubert.features(mx.array(prepared.padded[chunk.samples]), voice.config.version)
        frames = pipeline.chunk_frames(chunk, features)
        phone = pipeline.blend_features(features, None, frames, None, settings)
        ones = np.ones((1, frames), np.int32)
        voice.infer(phone[None], mx.array(ones), mx.array(ones.astype(np.float32)), 0, Silence())


def of_warm_up(backend: str, voice: SynthesizerConfig = VOICE) -> set[Pipeline]:
    """Return what `Converter.warm` compiles for full-size models."""
    with noted(backend) as found:
        build(full_size(voice), *warm_sound())
    return found


def of_lengths(
    backend: str, lengths: Sequence[float] = LENGTHS, voice: SynthesizerConfig = VOICE
) -> dict[float, set[Pipeline]]:
    """Return what sounds of so many seconds need compiled, each by itself."""
    needed = {}
    with noted(backend) as found:
        models = full_size(voice)
        for seconds in lengths:
            found.clear()
            build(models, np.zeros(round(16000 * seconds), np.float32), Settings())
            needed[seconds] = set(found)
    return needed


def kernels(found: set[Pipeline]) -> set[Pipeline]:
    """Return those of our own kernels."""
    return {pipeline for pipeline in found if pipeline.kernel != "expression"}


def main() -> None:
    """Print the pipelines of the full-size models, and what lengths add to them."""
    warm = of_warm_up("metal")
    for kernel in KERNELS:
        print(f"{kernel}: {sum(p.kernel.startswith(f'rvc_{kernel}_') for p in warm)}")
    print(f"pipelines of our kernels: {len(kernels(warm))}")
    print(f"element-wise expressions that MLX compiles: {len(warm - kernels(warm))}")
    print("after the warm-up, needed for the first time by a sound of so many seconds:")
    print(", ".join(f"{seconds:g} s: {len(more - warm)}" for seconds, more in of_lengths("metal").items()))
    print("pipelines of other voices:")
    print(", ".join(f"{name}: {len(kernels(of_warm_up('metal', v)))}" for name, v in VOICES.items()))
    print("Counted from graphs; not measured on Apple hardware.")


if __name__ == "__main__":
    main()
