"""The covariance of noise that is not white, as records keep it: its eigenvalues relative to their mean.

Noise n ~ N(0, S) of strength sigma_n has S = sigma_n^2 U diag(lambda) U^T, lambda of mean 1: a value for each pixel or
for each frequency. White noise has one, 1. What a noisy image is worth at a diffusion level depends on their
distribution alone, which fits into a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambient_theory.shared.errors import DataError

EIGENVALUES = "noise_eigenvalues"
"""Name of them in `extra` of a record, and in what a run keeps of its data."""
_MOST = 32
"""Numbers that a distribution is kept by: v(s) agrees with that of all eigenvalues within 1 % from a factor 1.05
above the noise on, and within .2 % from 1.3 on (smoothed noise of up to 64 x 64 pixels, and maps)."""


@dataclass(frozen=True)
class Eigenvalues:
    """lambda_k, ascending, and the share of all eigenvalues that each stands for, sum 1. White: one, of 1."""

    values: tuple[float, ...] = (1.0,)
    shares: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, values: ArrayLike, weights: ArrayLike | None = None) -> Eigenvalues:
        """Many eigenvalues [K] >= 0 of any scale, weights [K] >= 0: by means of like ones, the largest exactly.

        Like are those between two quantiles; the quantiles lie closer where the largest are, which decide what remains
        of an image just above its noise.
        """
        flat = np.asarray(values, dtype=float).ravel()
        weight = np.ones_like(flat) if weights is None else np.asarray(weights, dtype=float).ravel()
        flat, weight = flat[weight > 0], weight[weight > 0]
        order = np.argsort(flat, kind="stable")
        flat, weight = flat[order], weight[order] / weight.sum()
        flat = flat / (weight @ flat)
        if len(flat) <= _MOST:
            return cls(tuple(flat.tolist()), tuple(weight.tolist()))
        group = np.floor((_MOST - 1) * (1 - np.sqrt(np.maximum(1 - np.cumsum(weight), 0.0)))).clip(0, _MOST - 2)
        group[flat == flat[-1]] = _MOST - 1
        shares = np.bincount(group.astype(int), weight)
        means = np.bincount(group.astype(int), weight * flat)[shares > 0] / shares[shares > 0]
        means[-1] = flat[-1]
        return cls(tuple(means.tolist()), tuple(shares[shares > 0].tolist()))

    @classmethod
    def from_lists(cls, found: Any, where: str) -> Eigenvalues:
        """As `to_lists` made them. Raises DataError naming `where` for anything else."""
        problem = DataError(f"{where}: eigenvalues of noise must be two lists of as many numbers, the shares above 0")
        if not (isinstance(found, list | tuple) and len(found) == 2):
            raise problem
        values, shares = found
        if not all(isinstance(x, list | tuple) and 0 < len(x) <= 10_000 for x in (values, shares)):
            raise problem
        if len(values) != len(shares) or not all(_number(x) for x in (*values, *shares)):
            raise problem
        if max(values) <= 0 or min(shares) <= 0:
            raise problem
        total = float(sum(shares))
        order = sorted(range(len(values)), key=lambda k: values[k])
        return cls(tuple(float(values[k]) for k in order), tuple(shares[k] / total for k in order))

    @classmethod
    def mean(cls, several: Iterable[Eigenvalues]) -> Eigenvalues:
        """Of all images of several sets, each set counting once."""
        each = list(dict.fromkeys(several))
        if len(each) == 1:
            return each[0]
        return cls.of([v for e in each for v in e.values], [s for e in each for s in e.shares])

    @property
    def white(self) -> bool:
        return len(self.values) == 1

    def to_lists(self) -> list[list[float]]:
        """Values and shares, to six digits."""
        return [[float(f"{x:.6g}") for x in row] for row in (self.values, self.shares)]

    def lowest_level(self, sigma_n: float) -> float:
        """The diffusion level above which an image counts: the root of the largest eigenvalue of S."""
        return sigma_n * math.sqrt(self.values[-1])

    def excess_scatter(self, sigma_n: float, levels: ArrayLike) -> NDArray[np.float64]:
        """v(sigma_n, s): what a noisy image's target scatters more than a clean one's, mean over the pixels.

        v = sum_k share_k lambda_k sigma_n^2 s^2 / (s^2 - lambda_k sigma_n^2)  for s > lowest level, else infinite.
        """
        s = np.asarray(levels, dtype=float)
        if sigma_n == 0:
            return np.zeros_like(s)
        above = s > self.lowest_level(sigma_n)
        total = np.zeros_like(s)
        for value, share in zip(self.values, self.shares, strict=True):
            own = value * sigma_n**2
            total += share * own * s**2 / np.where(above, s**2 - own, 1.0)
        return np.where(above, total, np.inf)


def _number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < math.inf


WHITE = Eigenvalues()
