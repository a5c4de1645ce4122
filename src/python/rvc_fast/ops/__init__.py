"""The kernels of rvc_fast on plain `mx.array`s, for use in other projects too.

Every op works everywhere (its pure-MLX reference) and takes the fastest backend there is; see `dispatch`.
"""

from .bigru import bigru
from .blocks import after, blocks
from .conv1d import conv1d, pack_conv1d
from .conv2d import conv2d, pack_conv2d
from .conv_transpose1d import conv_transpose1d, pack_conv_transpose1d
from .conv_transpose2d import conv_transpose2d, pack_conv_transpose2d
from .linear import linear, pack_linear
from .mel_stft import mel_stft, reflect_pad
from .packed import PackedWeight, Weight

__all__ = [
    "PackedWeight",
    "Weight",
    "after",
    "bigru",
    "blocks",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "linear",
    "mel_stft",
    "pack_conv1d",
    "pack_conv2d",
    "pack_conv_transpose1d",
    "pack_conv_transpose2d",
    "pack_linear",
    "reflect_pad",
]
