"""The denoised method of moments with mixed noise (after Wu and Yang, arXiv 1807.07237), vectorised over replicates.

Pool the levels' unbiased moments; where the result is the moment vector of no law, project it; read the law off by
Gauss quadrature. GLS weights need the law's moments, so pilot and estimate alternate, starting at a Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambient_theory.mixtures.moments import (
    LevelMoments,
    Pooled,
    gauss_quadrature,
    gaussian_moments,
    law_moments,
    pool,
)
from ambient_theory.mixtures.pooling import Weights
from ambient_theory.mixtures.projection import project_moments

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LineFit:
    """Laws on the line. atoms, weights: (..., k); projected: (...) whether the moments had to be projected."""

    atoms: Floats
    weights: Floats
    projected: NDArray[np.bool_]


def mean_only(moments: LevelMoments) -> LineFit:
    """One atom at the Gauss-Markov mean (weights `n_l s_l^-2`): the negative control of every hard instance."""
    share = moments.n * moments.s**-2.0
    mean = np.sum(np.where(moments.n > 0, moments.means[..., 0] * share, 0.0), axis=-1) / share.sum(axis=-1)
    return LineFit(mean[..., None], np.ones((*mean.shape, 1)), np.zeros(mean.shape, dtype=bool))


def broad_pilot(moments: LevelMoments, rounds: int = 3) -> tuple[Floats, Floats]:
    """Mean and variance (...) of the law from its first two moments, for a first Gaussian pilot.

    `mu = sum x_i / (s_i^2 + v)` and `v = sum w_i ((x_i - mu)^2 - s_i^2)`, `w_i ~ (s_i^2 + v)^-2`, are weighted
    means whose weights allow for a law that itself varies by v, iterated from the median noise. Never below one
    standard error of v: a point mass would give all weight to the few most precise samples, whose own Y varies.
    """
    n, s2 = np.broadcast_to(moments.n, moments.means.shape[:-1]), moments.s**2
    first, second = (np.where(n > 0, moments.means[..., j], 0.0) for j in (0, 1))
    order = np.argsort(s2)
    below = np.cumsum(n[..., order], axis=-1) / n.sum(axis=-1, keepdims=True)
    v = s2[order][np.argmax(below >= 0.5, axis=-1)]
    for _ in range(rounds):
        share = n / (s2 + v[..., None])
        mu = np.sum(share * first, axis=-1) / share.sum(axis=-1)
        share = share / (s2 + v[..., None])
        spread = np.sum(share * (second - 2 * mu[..., None] * first + mu[..., None] ** 2), axis=-1)
        v = np.maximum(spread / share.sum(axis=-1), np.sqrt(2 / share.sum(axis=-1)))
    return mu, v


def fit_dmm(
    moments: LevelMoments,
    low: ArrayLike,
    high: ArrayLike,
    *,
    weights: Weights = "gls",
    iterations: int | None = None,
) -> LineFit:
    """Estimate the k = (J+1)/2 atoms of a law on [low, high] from its levels' moments.

    moments: means (..., L, J), n (..., L) or (L,). iterations: passes of pooling, by default 2, and 3 from k = 3 on
    (GLS weights are estimated from the pass before; the first pilot is Gaussian, `broad_pilot`, at k = 1 one atom).
    Equivariant under translation and scaling of data, noise and interval together.
    """
    lead, order = moments.means.shape[:-2], moments.order
    k = (order + 1) // 2
    if k == 1:
        centre, variance = mean_only(moments).atoms[..., 0], np.zeros(lead)
    else:
        centre, variance = broad_pilot(moments)
    unit = float(moments.s.min())
    local = moments.shifted(centre, unit)
    low = (np.broadcast_to(low, lead) - centre) / unit
    high = (np.broadcast_to(high, lead) - centre) / unit
    pilot = gaussian_moments(variance / unit**2, 2 * order)
    passes = 1 if moments.s.size == 1 or k == 1 else max(1, iterations or (2 if k == 2 else 3))
    for number in range(passes):
        fit = _solve(pool(local, pilot, weights, k), low, high)
        if number + 1 < passes:
            pilot = law_moments(fit.atoms, fit.weights, 2 * order)
    return LineFit(centre[..., None] + unit * fit.atoms, fit.weights, fit.projected)


def _solve(pooled: Pooled, low: Floats, high: Floats) -> LineFit:
    quadrature = gauss_quadrature(pooled.mean, low, high)
    atoms, weights = quadrature.atoms.copy(), quadrature.weights.copy()
    for index in map(tuple, np.argwhere(~quadrature.feasible)):
        p = project_moments(pooled.mean[index], pooled.covariance[index], float(low[index]), float(high[index]))
        atoms[index], weights[index] = p.atoms, p.weights
    return LineFit(atoms, weights, ~quadrature.feasible)
