"""The EDM preconditioner: a raw network F becomes a denoiser D (Karras et al. 2022, arXiv 2206.00364, Table 1)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ambient_theory.shared.errors import UsageError


class EDMPrecond(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma)/4), an estimate of E[x_0 | x_0 + sigma z = x].

    c_skip = sd^2/(sigma^2 + sd^2), c_out = sigma sd/sqrt(sigma^2 + sd^2), c_in = 1/sqrt(sigma^2 + sd^2),
    sd = `sigma_data` (Karras et al. 2022, Table 1). Arguments and state-dict names (`model.*`) are those of the
    reference, so that published weights load.

    img_resolution: side of the square image. img_channels: C. label_dim: number of classes, 0 = unconditional.
    use_fp16: evaluate F in float16. model_type: a name in `ambient_train.networks.ARCHITECTURES`; further keywords go
    to it. Raises UsageError for an unknown model_type.
    """

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int = 0,
        use_fp16: bool = False,
        sigma_min: float = 0.0,
        sigma_max: float = math.inf,
        sigma_data: float = 0.5,
        model_type: str = "DhariwalUNet",
        **model_kwargs: Any,
    ):
        super().__init__()
        from ambient_train.networks import ARCHITECTURES

        if model_type not in ARCHITECTURES:
            raise UsageError(f"unknown architecture {model_type!r}: choose one of {', '.join(sorted(ARCHITECTURES))}")
        self.config: dict[str, Any] = {
            "img_resolution": img_resolution,
            "img_channels": img_channels,
            "label_dim": label_dim,
            "use_fp16": use_fp16,
            "sigma_min": sigma_min,
            "sigma_max": sigma_max,
            "sigma_data": sigma_data,
            "model_type": model_type,
            **model_kwargs,
        }  # flat constructor arguments, as in a hub config.json
        self.img_resolution = img_resolution
        self.img_channels = img_channels
        self.label_dim = label_dim
        self.use_fp16 = use_fp16
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.sigma_data = sigma_data
        self.model = ARCHITECTURES[model_type](
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=img_channels,
            label_dim=label_dim,
            **model_kwargs,
        )

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """x: [B, C, H, W] noisy images. sigma: scalar or [B], standard deviation of their noise.

        class_labels: [B, label_dim] one-hot, zeros where missing. augment_labels: [B, augment_dim] or None.
        Returns float32 [B, C, H, W].
        """
        x = x.to(torch.float32)
        sigma = torch.as_tensor(sigma, device=x.device).to(torch.float32).reshape(-1, 1, 1, 1)
        if self.label_dim == 0:
            class_labels = None
        elif class_labels is None:
            class_labels = torch.zeros([x.shape[0], self.label_dim], device=x.device)
        else:
            class_labels = class_labels.to(torch.float32).reshape(-1, self.label_dim)

        variance = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / variance
        c_out = sigma * self.sigma_data / variance.sqrt()
        c_in = 1 / variance.sqrt()
        c_noise = (sigma.log() / 4).flatten().expand(x.shape[0])

        dtype = torch.float16 if self.use_fp16 and x.device.type == "cuda" else torch.float32
        f = self.model((c_in * x).to(dtype), c_noise, class_labels=class_labels, augment_labels=augment_labels)
        return c_skip * x + c_out * f.to(torch.float32)
