"""Quantiles of the studentised range, by Gauss-Legendre quadrature: `scipy.stats` costs two seconds to import.

The range of k standard normal numbers over s = sqrt(chi2_dof / dof), independent of them (Tukey 1953):

    P(Q <= q) = int f(s) W(q s) ds,    W(w) = k int phi(z) [Phi(z) - Phi(z - w)]^(k-1) dz.

s is integrated over its logarithm, between quantiles beyond which 1e-13 of it lies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
S_NODES, Z_NODES = 400, 120
BEYOND, Z_MAX = 1e-13, 8.5
"""What is left out of s on each side; where phi is taken as 0."""


def quantile(confidence: float, means: int, dof: float) -> float:
    """q with P(Q <= q) = confidence, for the range of `means` >= 2 means and `dof` >= 1 degrees of freedom, to 1e-8."""
    t, weight = _nodes(S_NODES, *(0.5 * np.log(2 * special.gammaincinv(dof / 2, [BEYOND, 1 - BEYOND]) / dof)))
    half = dof / 2
    log_density = np.log(2.0) + half * np.log(half) - special.gammaln(half) + dof * t - half * np.exp(2 * t)
    weight = weight * np.exp(log_density)
    z, wz = _nodes(Z_NODES, -Z_MAX, Z_MAX)
    wz = wz * means * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)

    def probability(q: float) -> float:
        within = special.ndtr(z) - special.ndtr(z - q * np.exp(t)[:, None])
        return float(weight @ (within ** (means - 1) @ wz))

    low, high = 0.0, 1.0
    while probability(high) < confidence:
        low, high = high, 2 * high
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < confidence else (low, middle)
    below, above = probability(low), probability(high)
    return low + (high - low) * (confidence - below) / (above - below)


def _nodes(count: int, low: float, high: float) -> tuple[Floats, Floats]:
    """So many Gauss-Legendre nodes and their weights on [low, high]."""
    x, w = special.roots_legendre(count)
    return low + (x + 1) * (high - low) / 2, w * (high - low) / 2
