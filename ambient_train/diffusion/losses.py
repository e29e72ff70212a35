"""The ambient denoising loss and its weights.

For an image y with noise sigma_n (0 = clean), a diffusion level sigma > sigma_n and rho = sigma_n^2/sigma^2,

    x_t = y + sqrt(sigma^2 - sigma_n^2) eps,      y_hat = (1 - rho) D(x_t, sigma) + rho x_t,

y_hat estimates E[y | x_t] if D = E[x_0 | x_t], and L = w(sigma) ||y_hat - y||^2 with EDM's
w(sigma) = (sigma^2 + sd^2)/(sigma sd)^2 (Daras et al. 2024, arXiv 2411.02780; Karras et al. 2022, arXiv 2206.00364).
sigma_n = 0 is EDM's loss exactly. Equivalently the error of D against the unbiased target
(y - rho x_t)/(1 - rho) = x_0 + N(0, v), v = sigma_n^2 sigma^2/(sigma^2 - sigma_n^2), times (1 - rho)^2 w(sigma).
Functions are pure: randomness and state (V) come in as arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train.diffusion.noise_levels import LevelTable

WEIGHTS = ("x0", "y", "optimal")


def edm_weight(sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """w(sigma) = (sigma^2 + sd^2)/(sigma sd)^2 (Karras et al. 2022, Table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def diffuse(y: Tensor, sigma: Tensor, sigma_n: Tensor, eps: Tensor) -> Tensor:
    """x_t = y + sqrt(sigma^2 - sigma_n^2) eps; y, eps: [B, C, H, W]; sigma, sigma_n: [B] float64."""
    scale = (sigma**2 - sigma_n**2).clamp_min(0).sqrt()
    return y + _image(scale, y) * eps


def conditional_mean(denoised: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor) -> Tensor:
    """y_hat = (1 - rho) D + rho x_t = E[y | x_t] if D = E[x_0 | x_t]; shapes as in `diffuse`."""
    rho = (sigma_n / sigma) ** 2
    return _image(1 - rho, denoised) * denoised + _image(rho, denoised) * x_t


def target(y: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor) -> Tensor:
    """(y - rho x_t)/(1 - rho): equals x_0 + N(0, v) independent of x_t given x_0. Needs sigma > sigma_n."""
    rho = (sigma_n / sigma) ** 2
    return (y - _image(rho, y) * x_t) / _image(1 - rho, y)


def target_variance(sigma: Tensor, sigma_n: Tensor) -> Tensor:
    """v = sigma_n^2 sigma^2/(sigma^2 - sigma_n^2): variance per pixel of the target's own noise."""
    return sigma_n**2 * sigma**2 / (sigma**2 - sigma_n**2)


def ambient_loss(
    denoised: Tensor,
    y: Tensor,
    x_t: Tensor,
    sigma: Tensor,
    sigma_n: Tensor,
    *,
    weight: str = "x0",
    relative: Tensor | None = None,
    sigma_data: float = 0.5,
) -> Tensor:
    """Loss of each image, summed over its pixels: [B] float32.

    denoised, y, x_t: [B, C, H, W]; sigma, sigma_n: [B] float64 with sigma >= sigma_n.
    weight "y":  w(sigma) ||y_hat - y||^2, the paper's (zero loss and gradient at sigma = sigma_n);
    weight "x0": the same divided by (1 - rho)^2, i.e. w(sigma) ||D - target||^2, written without cancellation;
    weight "optimal": "x0" times `relative` [B] (see `optimal_weight`).
    Raises UsageError for an unknown weight or a missing `relative`.
    """
    if weight not in WEIGHTS:
        raise UsageError(f"weight {weight!r} is not one of {', '.join(WEIGHTS)}")
    w = edm_weight(sigma, sigma_data)
    residual = conditional_mean(denoised, x_t, sigma, sigma_n) - y
    if weight != "y":
        w = w / (1 - (sigma_n / sigma) ** 2) ** 2
    if weight == "optimal":
        if relative is None:
            raise UsageError("weight 'optimal' needs the relative weight of each image")
        w = w * relative
    return w.to(residual.dtype) * residual.square().sum(dim=(1, 2, 3))


def optimal_weight(
    sigma: Tensor, sigma_n: Tensor, error: Tensor, table: LevelTable, *, buffer: float = 1.05, cap: float = 10.0
) -> Tensor:
    """Minimum-variance relative weight within one level sigma: w* = V/(V + v), [B] float64.

    sigma, sigma_n: [B]. error: [B], V(sigma) = E Var(x_0 | x_t) per pixel. The weights are divided by their mean over
    all images admissible at sigma, so that a level keeps its total weight w(sigma), and capped at `cap`. A set
    without clean images has equal weights at every level of equal noise.
    """
    levels = table.levels[None, :]
    usable = levels * buffer < sigma[:, None]
    v_all = torch.where(usable, target_variance(sigma[:, None], torch.where(usable, levels, 0.0)), 0.0)
    w_all = torch.where(usable, error[:, None] / (error[:, None] + v_all), 0.0)
    count = torch.where(usable, table.counts.to(torch.float64)[None, :], 0.0)
    mean = (w_all * count).sum(1) / count.sum(1).clamp_min(1)
    own = error / (error + target_variance(sigma, sigma_n))
    return (own / mean).clamp_max(cap)


class DenoisingErrorTracker:
    """Running estimate of V(sigma) = E Var(x_0 | x_t) per pixel on a grid of ln sigma; training state.

    Clean images measure the error of D directly; where a level has seen none, noisy images give their error against
    the target minus its variance v. Empty levels fall back to the Gaussian value sd^2 sigma^2/(sd^2 + sigma^2).
    sums, counts: [2, bins] float64, row 0 clean, row 1 noisy, exponentially forgotten with `decay` per update.
    """

    LOW, HIGH = -6.2, 4.4  # ln sigma from .002 to 80

    def __init__(self, bins: int = 48, decay: float = 0.99, sigma_data: float = 0.5):
        self.bins, self.decay, self.sigma_data = bins, decay, sigma_data
        self.sums = torch.zeros(2, bins, dtype=torch.float64)
        self.counts = torch.zeros(2, bins, dtype=torch.float64)

    def bin(self, sigma: Tensor) -> Tensor:
        """Grid cell [B] of each level."""
        position = (sigma.log() - self.LOW) / (self.HIGH - self.LOW) * self.bins
        return position.to(torch.int64).clamp(0, self.bins - 1)

    def measure(self, denoised: Tensor, y: Tensor, x_t: Tensor, sigma: Tensor, sigma_n: Tensor) -> Tensor:
        """Sums and counts of one batch [2, 2, bins] (sums, counts; clean, noisy), to be added over ranks."""
        per_pixel = (denoised.detach() - target(y, x_t, sigma, sigma_n)).square().mean(dim=(1, 2, 3)).to(torch.float64)
        noisy = (sigma_n > 0).to(torch.int64).cpu()
        error = (per_pixel - target_variance(sigma, sigma_n)).cpu()
        cell = noisy * self.bins + self.bin(sigma).cpu()
        out = torch.zeros(2, 2 * self.bins, dtype=torch.float64)
        out[0].index_add_(0, cell, error)
        out[1].index_add_(0, cell, torch.ones_like(error))
        return out.reshape(2, 2, self.bins)

    def update(self, batch: Tensor) -> None:
        """Forget a little, then add the sums and counts of one global batch."""
        self.sums.mul_(self.decay).add_(batch[0])
        self.counts.mul_(self.decay).add_(batch[1])

    def __call__(self, sigma: Tensor) -> Tensor:
        """V(sigma) [B] float64, never below 1e-4 of its Gaussian value."""
        gaussian = self.sigma_data**2 * sigma**2 / (self.sigma_data**2 + sigma**2)
        cell = self.bin(sigma).cpu()
        sums, counts = self.sums[:, cell].to(sigma.device), self.counts[:, cell].to(sigma.device)
        use_clean = counts[0] >= 1
        total = torch.where(use_clean, sums[0], sums[1])
        count = torch.where(use_clean, counts[0], counts[1])
        value = torch.where(count >= 1, total / count.clamp_min(1), gaussian)
        return torch.maximum(value, 1e-4 * gaussian)

    def state(self) -> dict[str, Tensor]:
        return {"sums": self.sums, "counts": self.counts}

    def load(self, state: dict[str, Tensor]) -> None:
        self.sums, self.counts = state["sums"].clone(), state["counts"].clone()


def _image(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1).to(like.dtype)
