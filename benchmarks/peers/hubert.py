"""HuBERT base, post-norm, with Hugging Face's tensor names."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from rvc_fast.features.hubert import V1_LAYER, HubertConfig


class ConvLayer(nn.Module):
    def __init__(self, config: HubertConfig, index: int):
        super().__init__()
        width = config.conv_dim[index]
        before = config.conv_dim[index - 1] if index else 1
        self.conv = nn.Conv1d(before, width, config.conv_kernel[index], config.conv_stride[index], bias=False)
        self.layer_norm = nn.GroupNorm(width, width) if index == 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.layer_norm(self.conv(x)))


class FeatureExtractor(nn.Module):
    def __init__(self, config: HubertConfig):
        super().__init__()
        self.conv_layers = nn.ModuleList(ConvLayer(config, i) for i in range(len(config.conv_dim)))

    def forward(self, audio: Tensor) -> Tensor:
        x = audio[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x.transpose(1, 2)


class FeatureProjection(nn.Module):
    def __init__(self, config: HubertConfig):
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], config.layer_norm_eps)
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.layer_norm(x))


class PositionalConv(nn.Module):
    def __init__(self, config: HubertConfig):
        super().__init__()
        width, kernel = config.hidden_size, config.num_conv_pos_embeddings
        groups = config.num_conv_pos_embedding_groups
        conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        return F.gelu(self.conv(x.transpose(1, 2))[:, :, :length]).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, config: HubertConfig):
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(2, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: HubertConfig):
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(x)))


class EncoderLayer(nn.Module):
    def __init__(self, config: HubertConfig):
        super().__init__()
        self.attention = Attention(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(x + self.attention(x))
        return self.final_layer_norm(x + self.feed_forward(x))


class Encoder(nn.Module):
    def __init__(self, config: HubertConfig):
        super().__init__()
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def embed(self, x: Tensor) -> Tensor:
        return self.layer_norm(x + self.pos_conv_embed(x))


class Hubert(nn.Module):
    """Sound (n,) at 16 kHz -> content features (frames, hidden), those of version v2."""

    def __init__(self, config: HubertConfig):
        super().__init__()
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = Encoder(config)
        self.final_proj = nn.Linear(config.hidden_size, config.classifier_proj_size)

    def forward(self, audio: Tensor) -> Tensor:
        return self.batch(audio[None])[0]

    def batch(self, audio: Tensor) -> Tensor:
        """(sounds, n) -> (sounds, frames, hidden)."""
        x = self.encoder.embed(self.feature_projection(self.feature_extractor(audio)))
        for layer in self.encoder.layers:
            x = layer(x)
        return x

    def trace(self, audio: Tensor) -> dict[str, Tensor]:
        """Every step, under the names of the golden files."""
        frames = self.feature_extractor(audio[None])
        x = self.encoder.embed(self.feature_projection(frames))
        steps = {"conv_features": frames[0]}
        for i, layer in enumerate(self.encoder.layers):
            steps[f"layer_{i}"] = x[0]
            x = layer(x)
            if i + 1 == V1_LAYER:
                steps["v1_features"] = self.final_proj(x)[0]
        steps["v2_features"] = x[0]
        return steps
