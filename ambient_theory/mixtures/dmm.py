"""The denoised method of moments with mixed noise (after Wu and Yang, arXiv 1807.07237), vectorised over replicates.

Pool the levels' unbiased moments; where the result is the moment vector of no law, project it; read the law off by
Gauss quadrature. GLS weights need the law's moments, so pilot and estimate alternate, starting at one atom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambient_theory.mixtures.moments import (
    LevelMoments,
    Pooled,
    gauss_quadrature,
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


def fit_dmm(
    moments: LevelMoments,
    low: ArrayLike,
    high: ArrayLike,
    *,
    weights: Weights = "gls",
    iterations: int = 2,
) -> LineFit:
    """Estimate the k = (J+1)/2 atoms of a law on [low, high] from its levels' moments.

    moments: means (..., L, J), n (..., L) or (L,). iterations: passes of pooling (GLS weights are estimated from the
    pass before; the first pilot is one atom at the mean). Equivariant under translation and scaling of data, noise
    and interval together.
    """
    lead, order = moments.means.shape[:-2], moments.order
    k = (order + 1) // 2
    centre = mean_only(moments).atoms[..., 0]
    unit = float(moments.s.min())
    local = moments.shifted(centre, unit)
    low = (np.broadcast_to(low, lead) - centre) / unit
    high = (np.broadcast_to(high, lead) - centre) / unit
    pilot = np.zeros((*lead, 2 * order + 1))
    pilot[..., 0] = 1.0
    passes = 1 if moments.s.size == 1 else max(1, iterations)
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
