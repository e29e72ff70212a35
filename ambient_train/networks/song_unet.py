"""DDPM++ and NCSN++ in EDM's version (Song et al. 2021, arXiv 2011.13456; Karras et al. 2022, arXiv 2206.00364).

DDPM++: positional embedding, standard encoder. NCSN++: Fourier embedding, residual encoder, filter [1, 3, 3, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ambient_theory.shared.errors import UsageError
from ambient_train.networks.dropout import active_dropout_keys, kept_labels, number_dropout_layers
from ambient_train.networks.layers import (
    Conv2d,
    FourierEmbedding,
    GroupNorm,
    Init,
    Linear,
    PositionalEmbedding,
    UNetBlock,
    apply_block,
    check_levels,
    compute_dtype,
    swap_halves,
)


class SongUNet(nn.Module):
    """F(x [B, C, R, R], c_noise [B], class_labels [B, L] | None, augment_labels [B, A] | None) -> [B, C', R, R].

    img_resolution: R. in_channels, out_channels: C, C'. label_dim, augment_dim: L, A (0 = none). model_channels:
    width of a multiplier 1. channel_mult: width of level l in units of it; level l works at R/2^l. channel_mult_emb:
    width of the embedding. num_blocks: residual blocks a level (one more in the decoder). attn_resolutions: where
    attention is. dropout: probability in every block. label_dropout: probability that a training sample loses its
    class label (Ho and Salimans 2022). embedding_type: positional | fourier. channel_mult_noise: width of the noise
    embedding. encoder_type: standard | residual. decoder_type: standard. resample_filter: taps of the resampling.

    In training mode with dropout, call inside `dropout_context`. Raises UsageError for settings that do not fit
    together.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ):
        super().__init__()
        for name, value, allowed in (
            ("embedding_type", embedding_type, ("positional", "fourier")),
            ("encoder_type", encoder_type, ("standard", "residual")),
            ("decoder_type", decoder_type, ("standard",)),
        ):
            if value not in allowed:
                raise UsageError(f"SongUNet: {name} {value!r} is not available: choose {' or '.join(allowed)}")
        check_levels("SongUNet", img_resolution, len(channel_mult))
        self.label_dim = label_dim
        self.label_dropout = label_dropout
        self.gradient_checkpointing = False
        """Recompute the activations of each block in the backward pass instead of keeping them; see `recompute_blocks`.
        """
        emb_channels = model_channels * channel_mult_emb
        noise_channels = model_channels * channel_mult_noise
        # DDPM's "fan average" law; its near-zero scale 1e-10 is in variance, NCSN++'s 0.1 for each of q, k, v is 0.2
        # of the fused matrix, whose fan average is twice as large (Ho et al. 2020; Song et al. 2021).
        init = Init("xavier_uniform")
        init_zero = Init("xavier_uniform", 1e-5)
        block = partial(
            UNetBlock,
            emb_channels=emb_channels,
            heads=1,
            dropout=dropout,
            skip_scale=math.sqrt(0.5),
            eps=1e-6,
            resample_filter=resample_filter,
            resample_proj=True,
            adaptive=False,
            init=init,
            init_zero=init_zero,
            init_attn=Init("xavier_uniform", math.sqrt(0.2)),
        )

        self.map_noise: nn.Module = (
            PositionalEmbedding(noise_channels, endpoint=True)
            if embedding_type == "positional"
            else FourierEmbedding(noise_channels)
        )
        self.map_label = Linear(label_dim, noise_channels, init=init) if label_dim else None
        self.map_augment = Linear(augment_dim, noise_channels, bias=False, init=init) if augment_dim else None
        self.map_layer0 = Linear(noise_channels, emb_channels, init=init)
        self.map_layer1 = Linear(emb_channels, emb_channels, init=init)

        self.enc = nn.ModuleDict()
        width = aux_width = in_channels
        skips: list[int] = []
        for level, mult in enumerate(channel_mult):
            res = img_resolution >> level
            if level == 0:
                self.enc[f"{res}x{res}_conv"] = Conv2d(width, model_channels, 3, init=init)
                width = model_channels
            else:
                self.enc[f"{res}x{res}_down"] = block(width, width, down=True)
                if encoder_type == "residual":
                    self.enc[f"{res}x{res}_aux_residual"] = Conv2d(
                        aux_width,
                        width,
                        3,
                        down=True,
                        fused_down=True,
                        resample_filter=resample_filter,
                        init=init,
                    )
                    aux_width = width
            skips.append(width)
            for i in range(num_blocks):
                attention = res in attn_resolutions
                self.enc[f"{res}x{res}_block{i}"] = block(width, model_channels * mult, attention=attention)
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
                attention = i == num_blocks and res in attn_resolutions
                skip = skips.pop()
                self.dec[f"{res}x{res}_block{i}"] = block(width + skip, model_channels * mult, attention=attention)
                width = model_channels * mult
        res = img_resolution
        self.dec[f"{res}x{res}_aux_norm"] = GroupNorm(width, eps=1e-6)
        self.dec[f"{res}x{res}_aux_conv"] = Conv2d(width, out_channels, 3, init=init_zero)
        number_dropout_layers(self)

    def embed(self, c_noise: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """c_noise [B], labels -> the embedding [B, E] that conditions every block, float32."""
        emb = swap_halves(self.map_noise(c_noise))
        if self.map_label is not None and class_labels is not None:
            labels = class_labels.to(emb.dtype)
            if self.training and self.label_dropout:
                labels = kept_labels(labels, self.label_dropout, active_dropout_keys())
            emb = emb + self.map_label(labels * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

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
            return self._forward(x.to(dtype, memory_format=torch.channels_last), emb, keys)

    def _forward(self, x: Tensor, emb: Tensor, keys: Tensor | None) -> Tensor:
        aux = x
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            if isinstance(layer, UNetBlock):
                x = apply_block(layer, x, emb, keys, self.gradient_checkpointing)
                skips.append(x)
            elif name.endswith("aux_residual"):
                x = aux = (x + layer(aux)) * math.sqrt(0.5)
                skips[-1] = x
            else:
                x = layer(x)
                skips.append(x)
        for name, layer in self.dec.items():
            if isinstance(layer, UNetBlock):
                if "_block" in name:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = apply_block(layer, x, emb, keys, self.gradient_checkpointing)
            elif name.endswith("aux_norm"):
                x = F.silu(layer(x))
            else:
                x = layer(x)
        return x
