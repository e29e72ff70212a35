"""V(sigma) = E Var(x_0 | x_t) per pixel, estimated while training: what a loss needs that weighs images by variance."""

from __future__ import annotations

import torch
from torch import Tensor

from ambient_train.diffusion.losses._base import LossInputs


class DenoisingErrorTracker:
    """Running estimate of V(sigma) on a grid of ln sigma; training state.

    Clean images measure the error of D directly; where a level has seen none, noisy images give their error against
    the target minus its variance v. Empty levels fall back to the Gaussian value sd^2 sigma^2/(sd^2 + sigma^2).
    sums, counts: [2, bins] float64, row 0 clean, row 1 noisy, exponentially forgotten with `decay` per update. They lie
    on the device of the training, so that a step does not wait for them.
    """

    LOW, HIGH = -6.2, 4.4  # ln sigma from .002 to 80

    def __init__(
        self, bins: int = 48, decay: float = 0.99, sigma_data: float = 0.5, device: torch.device | str = "cpu"
    ):
        self.bins, self.decay, self.sigma_data = bins, decay, sigma_data
        self.sums = torch.zeros(2, bins, dtype=torch.float64, device=device)
        self.counts = torch.zeros(2, bins, dtype=torch.float64, device=device)

    def bin(self, sigma: Tensor) -> Tensor:
        """Grid cell [B] of each level."""
        position = (sigma.log() - self.LOW) / (self.HIGH - self.LOW) * self.bins
        return position.to(torch.int64).clamp(0, self.bins - 1)

    def nothing(self) -> Tensor:
        """The contribution [2, 2, bins] of no image."""
        return torch.zeros(2, 2, self.bins, dtype=torch.float64, device=self.sums.device)

    def measure(self, x: LossInputs) -> Tensor:
        """Sums and counts of one batch [2, 2, bins] (sums, counts; clean, noisy), to be added over ranks."""
        target = x.noise.target(x.y, x.x_t, x.sigma, x.sigma_n)
        per_pixel = (x.denoised.detach() - target).square().mean(dim=(1, 2, 3)).to(torch.float64)
        error = per_pixel - x.noise.target_variance(x.sigma, x.sigma_n)
        cell = (x.sigma_n > 0).to(torch.int64) * self.bins + self.bin(x.sigma)
        out = torch.zeros(2, 2 * self.bins, dtype=torch.float64, device=error.device)
        out[0].index_add_(0, cell, error)
        out[1].index_add_(0, cell, torch.ones_like(error))
        return out.reshape(2, 2, self.bins)

    def update(self, batch: Tensor, good: Tensor | None = None) -> None:
        """Forget a little, then add the sums and counts of one global batch; nothing where `good`, a bool on the
        device, is false."""
        for own, new in ((self.sums, batch[0]), (self.counts, batch[1])):
            value = own * self.decay + new
            own.copy_(value if good is None else torch.where(good, value, own))

    def __call__(self, sigma: Tensor) -> Tensor:
        """V(sigma) [B] float64, never below 1e-4 of its Gaussian value."""
        gaussian = self.sigma_data**2 * sigma**2 / (self.sigma_data**2 + sigma**2)
        cell = self.bin(sigma)
        sums, counts = self.sums[:, cell], self.counts[:, cell]
        use_clean = counts[0] >= 1
        total = torch.where(use_clean, sums[0], sums[1])
        count = torch.where(use_clean, counts[0], counts[1])
        value = torch.where(count >= 1, total / count.clamp_min(1), gaussian)
        return torch.maximum(value, 1e-4 * gaussian)

    def state(self) -> dict[str, Tensor]:
        """Whole tensors for a checkpoint."""
        return {"sums": self.sums, "counts": self.counts}

    def load(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        self.sums.copy_(state["sums"])
        self.counts.copy_(state["counts"])
