"""Exponential moving average of weights with the half-life in images (Karras et al. 2022, arXiv 2206.00364, App. F)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """Shadow copies theta_ema <- beta theta_ema + (1 - beta) theta, beta = 2^(-batch/h),
    h = min(half-life, ramp * images so far).

    halflife_nimg: images; 0 follows the weights exactly. ramp: share of the images so far that bounds the half-life
    (0.05 = EDM's ramp-up; 0 = none). Buffers are copied.
    """

    def __init__(self, network: nn.Module, halflife_nimg: float, ramp: float = 0.05):
        self.halflife_nimg, self.ramp = halflife_nimg, ramp
        self.shadow = {name: p.detach().clone() for name, p in network.named_parameters()}

    def update(self, network: nn.Module, batch: int, nimg: int) -> None:
        """After a step of `batch` images, `nimg` images in all (the step's included)."""
        half = min(self.halflife_nimg, nimg * self.ramp) if self.ramp > 0 else self.halflife_nimg
        beta = 0.5 ** (batch / max(half, 1e-8))
        weights = dict(network.named_parameters())
        torch._foreach_lerp_(list(self.shadow.values()), [weights[n].detach() for n in self.shadow], 1 - beta)

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Put the averaged weights into `network`."""
        for name, p in network.named_parameters():
            p.copy_(self.shadow[name])

    def state(self) -> dict[str, Tensor]:
        return dict(self.shadow)

    def load(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self.shadow.items():
            tensor.copy_(state[name])
