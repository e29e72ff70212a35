"""Price bounds from pairs of models whose order is certain.

If quality depends on `N = n_clean + c(sigma_n) n_noisy` alone and improves with N, then model i being better than model
j says `N_i >= N_j`: a linear inequality for the worths c(sigma_n). This is the argument by which the published price of
an image is bounded (Daras, Cherapanamjeri, Daskalakis, arXiv 2411.02780); it assumes no shape of the curve at all.

All pairs are read from the same cells (60 models make 1,770 pairs), so their order is decided with Tukey and Kramer's
studentised range: with probability `confidence` *no* order that is called certain is wrong, whatever the number of
pairs. The inequalities are then intersected by linear programming, jointly over the noise levels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.cells.tables import Table

SLACK = 1e-9


@dataclass(frozen=True)
class Contradiction:
    """A certain order that no worth c >= 0 allows, or that cannot hold together with the others."""

    better: str
    worse: str
    why: str


@dataclass(frozen=True)
class PriceBounds:
    """Bounds for the worth c of one noisy sample at one noise level, in clean samples; 1/c is its price.

    c_low, c_high: the interval (c_high may be inf). binding: pairs `(better, worse)` that make each end
    (more than one where the inequality of a pair joins two noise levels).
    """

    sigma_n: float
    c_low: float
    c_high: float
    binding_low: tuple[tuple[str, str], ...]
    binding_high: tuple[tuple[str, str], ...]

    @property
    def price_low(self) -> float:
        return 1 / self.c_high if self.c_high > 0 else math.inf

    @property
    def price_high(self) -> float:
        return 1 / self.c_low if self.c_low > 0 else math.inf

    def to_dict(self) -> dict[str, Any]:
        return {
            "sigma_n": self.sigma_n,
            "c": [self.c_low, _finite(self.c_high)],
            "price": [_finite(self.price_low), _finite(self.price_high)],
            "binding_low": [list(pair) for pair in self.binding_low],
            "binding_high": [list(pair) for pair in self.binding_high],
        }


@dataclass(frozen=True)
class PairwiseResult:
    """All price bounds of one table. certain: pairs whose order is certain, among `pairs`."""

    bounds: tuple[PriceBounds, ...]
    contradictions: tuple[Contradiction, ...]
    pairs: int
    certain: int
    confidence: float
    critical: float
    method: str = "Tukey-Kramer studentised range, then linear programming"

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "confidence": self.confidence,
            "pairs": self.pairs,
            "certain": self.certain,
            "critical_difference_in_standard_errors": self.critical,
            "bounds": [b.to_dict() for b in self.bounds],
            "contradictions": [vars(c) for c in self.contradictions],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@functools.lru_cache(maxsize=64)
def _studentised(confidence: float, means: int, dof: int) -> float:
    from scipy import stats  # two seconds of imports, which `price` and `budget` need not wait for

    return float(stats.studentized_range.ppf(confidence, means, dof))


def certain_order(table: Table, confidence: float = 0.95) -> tuple[NDArray[np.bool_], float]:
    """(R, R) mask `certain[i, j]`: cell i is better (lower) than cell j, simultaneously over all pairs.

    Tukey-Kramer: `(y_j - y_i) > q / sqrt 2 * s sqrt(1/n_i + 1/n_j)` with the pooled s and q the quantile of the
    studentised range for R means and the pooled degrees of freedom (conservative for unequal n; Hayter, 1984).
    Returns the mask and q / sqrt 2. Without replication (dof 0) nothing is certain and the critical value is inf.
    """
    if table.dof == 0 or table.size < 2:
        return np.zeros((table.size, table.size), bool), math.inf
    critical = _studentised(confidence, table.size, table.dof) / math.sqrt(2)
    spread = np.sqrt(table.variance * (1 / table.seeds[:, None] + 1 / table.seeds[None, :]))
    return table.y[None, :] - table.y[:, None] > critical * spread, critical


def price_bounds(table: Table, confidence: float = 0.95) -> PairwiseResult:
    """Intersect the inequalities of every certain pair of cells with clean samples.

    Pair (i better than j): `sum_sigma c(sigma_n) (n_noisy_i - n_noisy_j) >= n_clean_j - n_clean_i`, with c >= 0.
    Contradictions are found by the elastic programme (the least total slack that makes all inequalities hold); the
    bounds then come from the inequalities that need none, and are to be read with the contradictions beside them.
    """
    certain, critical = certain_order(table, confidence)
    noise_levels = sorted({float(s) for s, n in zip(table.sigma_n, table.n_noisy, strict=True) if n > 0})
    better, worse = np.nonzero(certain)
    total = table.size * (table.size - 1) // 2
    noisy = table.n_noisy[:, None] * (table.sigma_n[:, None] == np.array(noise_levels)[None, :])
    left = noisy[better] - noisy[worse]
    right = table.n_clean[worse] - table.n_clean[better]
    scale = np.maximum(np.abs(left).max(axis=1, initial=0.0), np.abs(right))
    scale = np.where(scale > 0, scale, 1.0)
    left, right = left / scale[:, None], right / scale
    bad = _contradictory(left, right)
    contradictions = tuple(
        Contradiction(
            table.names[better[p]],
            table.names[worse[p]],
            "no worth c >= 0 allows this order"
            if right[p] > 0 and np.all(left[p] <= 0)
            else "cannot hold together with the other pairs",
        )
        for p in np.nonzero(bad)[0]
    )
    keep = ~bad
    bounds = tuple(
        _bounds_of(i, sigma_n, left[keep], right[keep], better[keep], worse[keep], table)
        for i, sigma_n in enumerate(noise_levels)
    )
    return PairwiseResult(bounds, contradictions, total, len(better), confidence, critical)


def _contradictory(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Inequalities `left c >= right` that need slack in the elastic programme."""
    pairs, levels = left.shape
    if not pairs:
        return np.zeros(0, bool)
    if not levels:
        return right > SLACK
    from scipy import optimize

    cost = np.concatenate([np.zeros(levels), np.ones(pairs)])
    solved = optimize.linprog(cost, A_ub=-np.hstack([left, np.eye(pairs)]), b_ub=-right, method="highs")
    assert solved.success, solved.message
    return solved.x[levels:] > SLACK


def _bounds_of(
    index: int,
    sigma_n: float,
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    better: NDArray[np.intp],
    worse: NDArray[np.intp],
    table: Table,
) -> PriceBounds:
    """Least and greatest c of one level under `left c >= right`, and the pairs that bind at each end."""
    from scipy import optimize

    ends: list[float] = []
    binding: list[tuple[tuple[str, str], ...]] = []
    for sign in (1.0, -1.0):
        cost = np.zeros(left.shape[1])
        cost[index] = sign
        if not len(left):
            ends.append(0.0 if sign > 0 else math.inf)
            binding.append(())
            continue
        solved = optimize.linprog(cost, A_ub=-left, b_ub=-right, method="highs")
        if solved.status == 3:
            ends.append(math.inf)
            binding.append(())
            continue
        assert solved.success, solved.message
        ends.append(float(solved.x[index]))
        active = np.nonzero(np.abs(solved.ineqlin.marginals) > SLACK)[0]
        binding.append(tuple((table.names[better[p]], table.names[worse[p]]) for p in active))
    return PriceBounds(sigma_n, max(ends[0], 0.0), ends[1], binding[0], binding[1])
