"""A small convolutional U-Net that trains fast on a CPU: channels-last, channel LayerNorm, no attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ambient_train.networks.dropout import KeyedDropout, number_dropout_layers


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of every pixel (Ba et al. 2016): one contiguous pass in channels-last memory."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)
        return x.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """x + conv(dropout(silu(scale * norm(conv(silu(norm(x)))) + shift))), scale and shift from the embedding."""

    def __init__(self, in_channels: int, out_channels: int, emb_channels: int, dropout: float = 0.0):
        super().__init__()
        self.norm0 = ChannelNorm(in_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.affine = nn.Linear(emb_channels, 2 * out_channels)
        self.norm1 = ChannelNorm(out_channels)
        self.dropout = KeyedDropout(dropout)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        nn.init.zeros_(self.conv1.weight)
        nn.init.zeros_(self.conv1.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        scale, shift = self.affine(emb)[:, :, None, None].to(h.dtype).chunk(2, dim=1)
        h = self.conv1(self.dropout(F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))))
        return self.skip(x) + h


class SmallUNet(nn.Module):
    """F(x, c_noise): a U-Net of residual blocks, one resolution a level, average pooling down, nearest up.

    model_channels: width of the first level. channel_mult: width of level l in units of it; level l works at
    resolution R/2^l. num_blocks: residual blocks a level in the encoder and in the decoder. dropout: probability in
    every block; in training mode call inside `dropout_context` then.
    With the defaults and 8x8 grey images it has about 0.4 M parameters.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 48,
        channel_mult: Sequence[float] = (1, 2),
        num_blocks: int = 1,
        emb_channels: int = 128,
        dropout: float = 0.0,
    ):
        super().__init__()
        widths = [round(model_channels * m) for m in channel_mult]
        self.frequencies: Tensor
        # a constant, and on the meta device both functions would first import a compiler, for five seconds
        self.register_buffer("frequencies", torch.linspace(math.log(0.25), math.log(16.0), 16, device="cpu").exp())
        self.map_noise = nn.Linear(32, emb_channels)
        self.map_label = nn.Linear(label_dim, emb_channels, bias=False) if label_dim else None
        self.map_augment = nn.Linear(augment_dim, emb_channels, bias=False) if augment_dim else None
        self.map_out = nn.Linear(emb_channels, emb_channels)
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        width = widths[0]
        for w in widths:
            blocks = nn.ModuleList()
            for _ in range(num_blocks):
                blocks.append(ResidualBlock(width, w, emb_channels, dropout))
                width = w
            self.encoder.append(blocks)
        self.middle = ResidualBlock(width, width, emb_channels, dropout)
        for w in reversed(widths):
            blocks = nn.ModuleList()
            for i in range(num_blocks):
                blocks.append(ResidualBlock(width + (w if i == 0 else 0), w, emb_channels, dropout))
                width = w
            self.decoder.append(blocks)
        self.norm_out = ChannelNorm(width)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]
        number_dropout_layers(self)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """x: [B, C, H, W]; c_noise: [B]; class_labels: [B, label_dim]; augment_labels: [B, augment_dim]."""
        angles = c_noise.to(self.frequencies)[:, None] * self.frequencies
        emb = self.map_noise(torch.cat([angles.sin(), angles.cos()], dim=1).to(self.map_noise.weight.dtype))
        if self.map_label is not None and class_labels is not None:
            emb = emb + self.map_label(class_labels.to(emb.dtype))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        emb = F.silu(self.map_out(F.silu(emb)))
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, blocks in enumerate(self.encoder):
            assert isinstance(blocks, nn.ModuleList)
            if level:
                x = F.avg_pool2d(x, 2)
            for block in blocks:
                x = block(x, emb)
            skips.append(x)
        x = self.middle(x, emb)
        for level, blocks in enumerate(self.decoder):
            assert isinstance(blocks, nn.ModuleList)
            if level:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = torch.cat([x, skips.pop()], dim=1)
            for block in blocks:
                x = block(x, emb)
        return self.conv_out(F.silu(self.norm_out(x)))
