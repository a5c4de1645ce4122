"""The kernels of rvc_fast on plain `mx.array`s, for use in other projects too.

Every op works everywhere (its pure-MLX reference) and takes the fastest backend there is; see `dispatch`.
"""

from .attention import attention
from .bigru import bigru, pack_bigru
from .blocks import after, blocks
from .conv1d import conv1d, pack_conv1d
from .conv2d import conv2d, pack_conv2d
from .conv_transpose1d import conv_transpose1d, pack_conv_transpose1d
from .conv_transpose2d import conv_transpose2d, pack_conv_transpose2d
from .knn import knn
from .layer_norm import layer_norm
from .linear import linear, pack_linear
from .mel_stft import mel_stft, pack_mel_stft, reflect_pad
from .nsf_source import nsf_source
from .packed import PackedWeight, Weight
from .precision import Dtype, Precision
from .quantized_linear import quantized_linear
from .relpos_attention import relpos_attention
from .resblock import ResConv, pack_resblock, resblock_stage
from .wavenet_gate import wavenet_gate

__all__ = [
    "Dtype",
    "PackedWeight",
    "Precision",
    "ResConv",
    "Weight",
    "after",
    "attention",
    "bigru",
    "blocks",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "knn",
    "layer_norm",
    "linear",
    "mel_stft",
    "nsf_source",
    "pack_bigru",
    "pack_conv1d",
    "pack_conv2d",
    "pack_conv_transpose1d",
    "pack_conv_transpose2d",
    "pack_linear",
    "pack_mel_stft",
    "pack_resblock",
    "quantized_linear",
    "reflect_pad",
    "relpos_attention",
    "resblock_stage",
    "wavenet_gate",
]
