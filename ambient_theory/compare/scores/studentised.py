"""Quantiles of the studentised range: q(p; k, nu) of (max - min of k standard normals) / s, nu s^2 ~ chi^2_nu.

    P(q) = integral of f(s) W(q s) ds,    W(w) = k integral of phi(z) (Phi(z) - Phi(z - w))^(k - 1) dz

by the trapezoid rule in z and in log s, which converges geometrically since both integrands are analytic and fall off
at both ends. `scipy.stats` knows them too, at two seconds of imports and a second a quantile.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import special

Z = np.linspace(-9.0, 9.0, 181)
PHI = np.exp(-(Z**2) / 2) / math.sqrt(2 * math.pi)
POINTS = 300
"""Points in log s: quantiles are right to 1e-8, and to 1e-11 from two degrees of freedom."""


def studentised_cdf(q: float, means: int, dof: int) -> float:
    """P(range of `means` standard normals <= q s), with dof s^2 ~ chi^2_dof."""
    # outside of these ends the density of log s is below e^-45 of its peak
    x = 45.0 / dof
    bottom = -math.sqrt(1.5 * x) if x < 1 / 6 else -x - 0.5
    t = np.linspace(bottom, min(math.sqrt(x), 0.5 * math.log1p(2 * x) + 1), POINTS)
    log_density = dof * t - dof * np.exp(2 * t) / 2
    log_density += math.log(2) + dof / 2 * math.log(dof / 2) - special.gammaln(dof / 2)
    inner = special.ndtr(Z) - special.ndtr(Z - q * np.exp(t)[:, None])
    ranges = means * (Z[1] - Z[0]) * (PHI * inner ** (means - 1)).sum(axis=1)
    return float((t[1] - t[0]) * (np.exp(log_density) * ranges).sum())


@functools.lru_cache(maxsize=64)
def studentised_quantile(confidence: float, means: int, dof: int) -> float:
    """q with P(q) = confidence, for at least two means and one degree of freedom."""
    low, high = 0.0, 4.0
    while studentised_cdf(high, means, dof) < confidence:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if studentised_cdf(middle, means, dof) > confidence else (middle, high)
    return 0.5 * (low + high)
