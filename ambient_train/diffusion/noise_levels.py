"""Which diffusion level sigma meets which training image.

EDM's law is ln sigma ~ N(-1.2, 1.2^2) (Karras et al. 2022, arXiv 2206.00364, Table 1). An image that already carries
noise sigma_n can be used only at sigma > sigma_n (Daras et al. 2024, arXiv 2411.02780). Three ways to draw the pair:

sigma-first   sigma from EDM's law, then an image uniformly among those with buffer sigma_n < sigma: p(sigma) stays
              EDM's for every mixture. With no clean image the law is truncated at the lowest admissible level.
image-first   an image by epoch permutation, then sigma from EDM's law truncated to (buffer sigma_n, inf).
paper         an image by epoch permutation, then sigma from EDM's law raised to sigma_n where it falls below: those
              draws have exactly zero loss and gradient (36.65 % of the noisy ones at sigma_n = 0.2).

Every draw is a function of (seed, global sample index): the same for any batch, rank or restart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless

P_MEAN, P_STD = -1.2, 1.2
DRAWS = ("sigma-first", "image-first", "paper")


@dataclass(frozen=True)
class LevelTable:
    """The distinct noise levels of a training set, ascending, and how many images have a level up to each.

    levels: [L] float64. cumulative: [L] int64.
    """

    levels: Tensor
    cumulative: Tensor

    @classmethod
    def of(cls, sigma_n: Tensor) -> LevelTable:
        """From the ascending levels [N] of all images."""
        levels, count = torch.unique_consecutive(sigma_n.to(torch.float64), return_counts=True)
        return cls(levels, count.cumsum(0))

    @property
    def counts(self) -> Tensor:
        """[L] images at each level."""
        return torch.diff(self.cumulative, prepend=self.cumulative.new_zeros(1))

    def admissible(self, sigma: Tensor, buffer: float) -> Tensor:
        """Number of images [B] with buffer * sigma_n < sigma (strictly; clean images always)."""
        below = torch.searchsorted(self.levels * buffer, sigma.contiguous(), right=False)
        padded = torch.cat([self.cumulative.new_zeros(1), self.cumulative])
        return padded[below]


def draw(
    rule: str,
    seed: int,
    sample: Tensor,
    sigma_n: Tensor,
    *,
    buffer: float = 1.05,
    table: LevelTable | None = None,
    p_mean: float = P_MEAN,
    p_std: float = P_STD,
) -> tuple[Tensor, Tensor]:
    """Positions [B] int64 and diffusion levels sigma [B] float64 for global sample indices `sample` [B] int64.

    rule: one of DRAWS. sigma_n: [N] levels of all images, ascending. buffer: >= 1, an image is used at
    sigma > buffer * sigma_n only (ignored by `paper`).
    Raises UsageError for an unknown rule, a buffer below 1 or an empty set.
    """
    if rule not in DRAWS:
        raise UsageError(f"draw {rule!r} is not one of {', '.join(DRAWS)}")
    if not buffer >= 1:
        raise UsageError(f"buffer {buffer} must be >= 1: below it images would be used under their own noise level")
    if len(sigma_n) == 0:
        raise UsageError("there is no image to train on")
    u = stateless.uniform(seed, "sigma-and-image", sample, 2)
    if rule == "sigma-first":
        table = table or LevelTable.of(sigma_n)
        sigma = _log_normal(u[:, 0], buffer * table.levels[:1], p_mean, p_std)
        available = table.admissible(sigma, buffer)
        index = (u[:, 1] * available).to(torch.int64).clamp_max(available - 1)
        return index, sigma
    index = epoch_position(seed, sample, len(sigma_n))
    level = sigma_n[index].to(torch.float64)
    if rule == "image-first":
        return index, _log_normal(u[:, 0], buffer * level, p_mean, p_std)
    sigma = torch.exp(p_mean + p_std * torch.special.ndtri(u[:, 0]))
    return index, torch.maximum(sigma, level)


def _log_normal(u: Tensor, lower: Tensor, p_mean: float, p_std: float) -> Tensor:
    """Inverse CDF of exp(N(p_mean, p_std^2)) truncated to (lower, inf); lower = 0 is the plain law.

    Written with the upper tail, so that it stays exact where the truncation leaves little mass, and kept strictly
    above `lower`.
    """
    bound = (lower.log() - p_mean) / p_std
    upper = torch.special.ndtr(-bound)
    sigma = torch.exp(p_mean - p_std * torch.special.ndtri((1 - u) * upper))
    return torch.maximum(sigma, torch.nextafter(lower, torch.full_like(lower, torch.inf)))


_PERMUTATIONS: dict[tuple[int, int], tuple[int, Tensor]] = {}


def epoch_position(seed: int, sample: Tensor, n: int) -> Tensor:
    """Data order: position [B] of global sample t is the (t mod n)-th of a permutation keyed by (seed, t div n)."""
    epoch = sample // n
    out = torch.empty_like(sample)
    for e in epoch.unique().tolist():
        cached = _PERMUTATIONS.get((seed, n))
        if cached is None or cached[0] != e:
            permutation = stateless.order(seed, f"epoch-{e}", torch.arange(n))
            _PERMUTATIONS[seed, n] = cached = (e, permutation)
        rows = epoch == e
        out[rows] = cached[1][sample[rows] % n]
    return out
