"""The ADM network (Dhariwal and Nichol 2021, arXiv 2105.05233) as EDM has it (Karras et al. 2022, arXiv 2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ambient_theory.shared.errors import UsageError
from ambient_train.networks.dropout import active_dropout_keys, kept_labels, number_dropout_layers
from ambient_train.networks.layers import (
    Conv2d,
    GroupNorm,
    Init,
    Linear,
    PositionalEmbedding,
    UNetBlock,
    apply_block,
    check_levels,
    compute_dtype,
)

HEAD_CHANNELS = 64


class DhariwalUNet(nn.Module):
    """F(x [B, C, R, R], c_noise [B], class_labels [B, L] | None, augment_labels [B, A] | None) -> [B, C', R, R].

    Arguments as in `SongUNet`; 64 channels an attention head, adaptive group norm, attention in every block of the
    resolutions named. In training mode with dropout, call inside `dropout_context`. Raises UsageError for settings that
    do not fit together.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
    ):
        super().__init__()
        check_levels("DhariwalUNet", img_resolution, len(channel_mult))
        self.label_dropout = label_dropout
        self.gradient_checkpointing = False
        """Recompute the activations of each block in the backward pass instead of keeping them; see `recompute_blocks`.
        """
        emb_channels = model_channels * channel_mult_emb
        # PyTorch's default law, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), with zeroed last layers and N(0, 1) class
        # embeddings, as Dhariwal and Nichol have them.
        init = Init("kaiming_uniform", math.sqrt(1 / 3), math.sqrt(1 / 3))
        init_zero = Init("kaiming_uniform", 0.0, 0.0)

        def block(width: int, out: int, attention: bool = False, up: bool = False, down: bool = False) -> UNetBlock:
            if attention and (out < HEAD_CHANNELS or out % HEAD_CHANNELS):
                raise UsageError(
                    f"DhariwalUNet: attention needs widths that are multiples of {HEAD_CHANNELS}, not {out}; change "
                    "model_channels, channel_mult or attn_resolutions"
                )
            return UNetBlock(
                width,
                out,
                emb_channels,
                up=up,
                down=down,
                attention=attention,
                heads=max(1, out // HEAD_CHANNELS),
                dropout=dropout,
                init=init,
                init_zero=init_zero,
            )

        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = Linear(augment_dim, model_channels, bias=False, init=init_zero) if augment_dim else None
        self.map_layer0 = Linear(model_channels, emb_channels, init=init)
        self.map_layer1 = Linear(emb_channels, emb_channels, init=init)
        self.map_label = (
            Linear(label_dim, emb_channels, bias=False, init=Init("kaiming_normal", math.sqrt(label_dim)))
            if label_dim
            else None
        )

        self.enc = nn.ModuleDict()
        width = in_channels
        skips: list[int] = []
        for level, mult in enumerate(channel_mult):
            res = img_resolution >> level
            if level == 0:
                first = model_channels * mult
                self.enc[f"{res}x{res}_conv"] = Conv2d(width, first, 3, init=init)
                width = first
            else:
                self.enc[f"{res}x{res}_down"] = block(width, width, down=True)
            skips.append(width)
            for i in range(num_blocks):
                self.enc[f"{res}x{res}_block{i}"] = block(width, model_channels * mult, res in attn_resolutions)
                width = model_channels * mult
                skips.append(width)

        self.dec = nn.ModuleDict()
        for level, mult in reversed(list(enumerate(channel_mult))):
            res = img_resolution >> level
            if level == len(channel_mult) - 1:
                self.dec[f"{res}x{res}_in0"] = block(width, width, attention=True)
                self.dec[f"{res}x{res}_in1"] = block(width, width)
            else:
                self.dec[f"{res}x{res}_up"] = block(width, width, up=True)
            for i in range(num_blocks + 1):
                attention = res in attn_resolutions
                self.dec[f"{res}x{res}_block{i}"] = block(width + skips.pop(), model_channels * mult, attention)
                width = model_channels * mult
        self.out_norm = GroupNorm(width)
        self.out_conv = Conv2d(width, out_channels, 3, init=init_zero)
        number_dropout_layers(self)

    def embed(self, c_noise: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """c_noise [B], labels -> the embedding [B, E] that conditions every block, float32."""
        emb = self.map_noise(c_noise)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None and class_labels is not None:
            labels = class_labels.to(emb.dtype)
            if self.training and self.label_dropout:
                labels = kept_labels(labels, self.label_dropout, active_dropout_keys())
            emb = emb + self.map_label(labels)
        return F.silu(emb)

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Shapes as in the class. Computes in autocast's dtype where that is on, else in that of x; returns that."""
        dtype = compute_dtype(x)
        keys = active_dropout_keys() if self.training else None
        with torch.autocast(x.device.type, enabled=False):
            emb = self.embed(c_noise, class_labels, augment_labels)
            x = x.to(dtype, memory_format=torch.channels_last)
            skips: list[Tensor] = []
            for layer in self.enc.values():
                if isinstance(layer, UNetBlock):
                    x = apply_block(layer, x, emb, keys, self.gradient_checkpointing)
                else:
                    x = layer(x)
                skips.append(x)
            for name, layer in self.dec.items():
                if "_block" in name:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = apply_block(layer, x, emb, keys, self.gradient_checkpointing)
            return self.out_conv(F.silu(self.out_norm(x)))
