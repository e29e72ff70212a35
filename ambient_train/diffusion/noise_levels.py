"""Which diffusion level sigma meets which training image: the law of sigma, and which images are usable at a level.

EDM's law is ln sigma ~ N(-1.2, 1.2^2) (Karras et al. 2022, arXiv 2206.00364, Table 1). An image that already carries
noise can be used only above its lowest level (sigma_n for white noise; Daras et al. 2024, arXiv 2411.02780). How the
pair is drawn is a member of the table `draws`; every draw is a function of (seed, global sample index): the same for
any batch, rank or restart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ambient_theory.shared.errors import UsageError
from ambient_train import stateless

P_MEAN, P_STD = -1.2, 1.2


@dataclass(frozen=True)
class LogNormal:
    """ln sigma ~ N(mean, std^2), in ln of units of [-1, 1]."""

    mean: float = P_MEAN
    std: float = P_STD

    def quantile(self, u: Tensor) -> Tensor:
        """Inverse CDF at u [B] in (0, 1)."""
        return torch.exp(self.mean + self.std * torch.special.ndtri(u))

    def above(self, lower: Tensor, u: Tensor) -> Tensor:
        """Inverse CDF of the law truncated to (lower, inf); lower [B] or [1], 0 is the plain law.

        Written with the upper tail, so that it stays exact where the truncation leaves little mass, and kept strictly
        above `lower`.
        """
        bound = (lower.log() - self.mean) / self.std
        upper = torch.special.ndtr(-bound)
        sigma = torch.exp(self.mean - self.std * torch.special.ndtri((1 - u) * upper))
        return torch.maximum(sigma, torch.nextafter(lower, torch.full_like(lower, torch.inf)))


EDM_LAW = LogNormal()


@dataclass(frozen=True)
class LevelTable:
    """The distinct lowest levels of a training set, ascending, and how many images have a level up to each.

    levels: [L] float64. cumulative: [L] int64.
    """

    levels: Tensor
    cumulative: Tensor

    @classmethod
    def of(cls, levels: Tensor) -> LevelTable:
        """From the ascending lowest levels [N] of all images."""
        distinct, count = torch.unique_consecutive(levels.to(torch.float64), return_counts=True)
        return cls(distinct, count.cumsum(0))

    @property
    def counts(self) -> Tensor:
        """[L] images at each level."""
        return torch.diff(self.cumulative, prepend=self.cumulative.new_zeros(1))

    @property
    def n_clean(self) -> int:
        """Images that can be used at every level."""
        return int(self.cumulative[0]) if float(self.levels[0]) == 0 else 0

    def admissible(self, sigma: Tensor, buffer: float) -> Tensor:
        """Number of images [B] with buffer * lowest level < sigma (strictly; clean images always)."""
        below = torch.searchsorted(self.levels * buffer, sigma.contiguous(), right=False)
        padded = torch.cat([self.cumulative.new_zeros(1), self.cumulative])
        return padded[below]

    def to(self, device: torch.device | str) -> LevelTable:
        """The same table on a device."""
        return LevelTable(self.levels.to(device), self.cumulative.to(device))


@dataclass(frozen=True, kw_only=True)
class DrawInputs:
    """What a draw is a function of."""

    sample: Tensor
    """Global sample indices [B] int64."""
    u: Tensor
    """Two uniform numbers in (0, 1) of each sample [B, 2] float64."""
    levels: Tensor
    """Lowest level of every image [N], ascending."""
    table: LevelTable
    """The same, as distinct levels with their counts."""
    buffer: float
    """>= 1; an image is used above buffer * its lowest level."""
    turn: Callable[[], Tensor]
    """Positions [B] int64 of the images whose turn it is: every image once an epoch, in random order."""
    law: LogNormal = EDM_LAW
    """The law of sigma for clean images."""
    epochs: float = 0.0
    """Epochs of clean images within which noisy ones come in, for a draw that ramps."""


def draw(
    rule: Callable[[DrawInputs], tuple[Tensor, Tensor]],
    seed: int,
    sample: Tensor,
    levels: Tensor,
    *,
    buffer: float = 1.05,
    table: LevelTable | None = None,
    law: LogNormal = EDM_LAW,
    epochs: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Positions [B] int64 and diffusion levels sigma [B] float64 for global sample indices `sample` [B] int64.

    rule: a member of the table `draws`. levels: [N] lowest levels of all images, ascending. buffer: >= 1, an image is
    used at sigma > buffer * its level only. table: `LevelTable.of(levels)`, where it is at hand. epochs: see
    `DrawInputs`.
    Raises UsageError for a buffer below 1 or an empty set.
    """
    if not buffer >= 1:
        raise UsageError(f"buffer {buffer} must be >= 1: below it images would be used under their own noise level")
    if len(levels) == 0:
        raise UsageError("there is no image to train on")
    return rule(
        DrawInputs(
            sample=sample,
            u=stateless.uniform(seed, "sigma-and-image", sample, 2),
            levels=levels,
            table=table or LevelTable.of(levels),
            buffer=buffer,
            turn=lambda: epoch_position(seed, sample, len(levels)),
            law=law,
            epochs=epochs,
        )
    )


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
