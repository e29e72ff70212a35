"""Unbiased moments of a k-atomic law from Gaussian data of known, mixed noise: estimates, covariance, pooling.

`gamma_0 = 1, gamma_1 = x, gamma_{j+1} = x gamma_j - j s^2 gamma_{j-1}` are the Hermite polynomials with noise s, so
`E gamma_j(X; s) = E Y^j` for `X = Y + s Z` (Wu and Yang, arXiv 1807.07237). Samples are grouped in levels of equal s;
each level gives its own unbiased moments, and pooling decides how much each level counts. Arrays carry any leading
axes (replicates of a simulation) before the documented ones. J = 2k-1 moments are used for k atoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambient_theory.mixtures.pooling import WEIGHTS, Weights
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]


def hermite(x: ArrayLike, s: ArrayLike, order: int) -> Floats:
    """`gamma_1 .. gamma_J` at x with noise s (broadcast against x). Shape (J,) + x.shape."""
    x = np.asarray(x, dtype=float)
    variance = np.asarray(s, dtype=float) ** 2
    out = np.empty((order, *np.broadcast_shapes(x.shape, variance.shape)))
    before, now = np.ones_like(x), x
    for j in range(1, order + 1):
        out[j - 1] = now
        before, now = now, x * now - j * variance * before
    return out


@dataclass(frozen=True)
class LevelMoments:
    """Unbiased moments by noise level. s: (L,) > 0; n: (..., L) samples; means: (..., L, J) estimates of E Y^1..J."""

    s: Floats
    n: Floats
    means: Floats

    @property
    def order(self) -> int:
        return self.means.shape[-1]

    def shifted(self, centre: ArrayLike, unit: float = 1.0) -> LevelMoments:
        """Moments of `(Y - centre)/unit`, noise s/unit. centre: (...)."""
        m = shift_moments(self.means, np.asarray(centre, dtype=float)[..., None])
        return LevelMoments(self.s / unit, self.n, m / unit ** np.arange(1.0, self.order + 1))


@lru_cache(maxsize=32)
def _binomials(order: int) -> Floats:
    j = np.arange(order + 1)
    return np.array([[math.comb(a, b) for b in j] for a in j], dtype=float)


def shift_moments(m: Floats, centre: ArrayLike) -> Floats:
    """`E (Y-c)^j = sum_i C(j,i) (-c)^(j-i) E Y^i`, j = 1..J. m: (..., J); centre: (...)."""
    order = m.shape[-1]
    minus = -np.asarray(centre, dtype=float)[..., None]
    powers = minus ** np.arange(order + 1)
    full = np.concatenate([np.ones((*m.shape[:-1], 1)), m], axis=-1)
    binomial = _binomials(order)
    out = np.zeros(np.broadcast_shapes(m.shape, (*powers.shape[:-1], order)))
    for j in range(1, order + 1):
        out[..., j - 1] = np.sum(binomial[j, : j + 1] * full[..., : j + 1] * powers[..., j::-1], axis=-1)
    return out


def _covariance_tensor(order: int, s: float) -> Floats:
    """G (J, J, 2J+1) with `E gamma_a gamma_b = sum_p G[a,b,p] m_p`."""
    g = np.zeros((order, order, 2 * order + 1))
    for a in range(1, order + 1):
        for b in range(1, order + 1):
            for l in range(min(a, b) + 1):
                g[a - 1, b - 1, a + b - 2 * l] += math.comb(a, l) * math.comb(b, l) * math.factorial(l) * s ** (2 * l)
    return g


def moment_covariance(m: Floats, s: ArrayLike, order: int) -> Floats:
    """Covariance of `(gamma_1..gamma_J)` of one sample at each noise level, given the law's moments (derived here):

        Cov(gamma_a, gamma_b) = sum_l C(a,l) C(b,l) l! s^(2l) m_{a+b-2l} - m_a m_b.

    m: (..., 2J+1), the moments 0..2J; s: (L,). Returns (..., L, J, J).
    """
    tensor = np.stack([_covariance_tensor(order, float(v)) for v in np.atleast_1d(s)])
    first = np.tensordot(m, tensor, axes=([-1], [-1]))
    low = m[..., 1 : order + 1]
    return first - (low[..., :, None] * low[..., None, :])[..., None, :, :]


@dataclass(frozen=True)
class Pooled:
    """One moment vector for all levels. mean: (..., J); covariance: (..., J, J) of that estimate."""

    mean: Floats
    covariance: Floats


def pool(moments: LevelMoments, pilot: Floats, weights: Weights, k: int) -> Pooled:
    """Combine the levels. pilot: (..., 2J+1), moments 0..2J of a pilot law, used for covariances only.

    `gls`: matrices `n_l C_l^-1`, the best linear unbiased combination given the pilot. `order`: inverse variance for
    each order by itself. `sigma`: the bound's weights `n_l s_l^-(4k-2)`. `none`: every sample counts the same.
    Any choice is unbiased; the covariance returned is that of the combination chosen. Raises UsageError otherwise.
    """
    if weights not in WEIGHTS:
        raise UsageError(f"unknown weights {weights!r}: choose one of {', '.join(WEIGHTS)}")
    order = moments.order
    covariance = moment_covariance(pilot, moments.s, order)
    n = np.broadcast_to(moments.n, (*covariance.shape[:-3], moments.s.size))
    used = n > 0
    scale = np.sqrt(np.einsum("...jj->...j", covariance)).min(axis=-2)  # (..., J): keeps the solves well conditioned
    unit = scale[..., None, :, None] * scale[..., None, None, :]
    c = covariance / unit
    means = np.where(used[..., None], moments.means, 0.0) / scale[..., None, :]
    if weights == "gls":
        precision = n[..., None, None] * inverse(c)
        total = precision.sum(axis=-3)
        right = np.einsum("...lab,...lb->...a", precision, means)
        pooled_cov = inverse(total)
        mean = np.einsum("...ab,...b->...a", pooled_cov, right)
    else:
        if weights == "order":
            share = n[..., None] / np.einsum("...jj->...j", c)
        else:
            power = 4 * k - 2 if weights == "sigma" else 0
            share = np.repeat((n * (moments.s / moments.s.min()) ** -power)[..., None], order, axis=-1)
        share = share / share.sum(axis=-2, keepdims=True)
        mean = np.sum(share * means, axis=-2)
        inverse_n = np.divide(1.0, n, out=np.zeros_like(n, dtype=float), where=used)
        pooled_cov = np.einsum("...la,...lab,...lb,...l->...ab", share, c, share, inverse_n)
    pooled_cov = (pooled_cov + np.swapaxes(pooled_cov, -1, -2)) / 2
    return Pooled(mean * scale, pooled_cov * scale[..., :, None] * scale[..., None, :])


def inverse(matrices: Floats, floor: float = 1e-13) -> Floats:
    """Inverses of positive semidefinite matrices (..., J, J), never a failure: scaled to a unit diagonal, eigenvalues
    below `floor` times the largest are raised to that."""
    scale = np.sqrt(np.maximum(np.einsum("...jj->...j", matrices), 1e-300))
    unit = scale[..., :, None] * scale[..., None, :]
    c = matrices / unit
    values, vectors = np.linalg.eigh(c)
    values = np.maximum(values, floor * values[..., -1:])
    return np.einsum("...ij,...j,...kj->...ik", vectors, 1 / values, vectors) / unit


def gaussian_moments(variance: ArrayLike, order: int) -> Floats:
    """Moments 0..order of N(0, variance): 0 for odd orders, `(2p-1)!! variance^p` for 2p. Shape (..., order + 1)."""
    variance = np.asarray(variance, dtype=float)
    out = np.zeros((*variance.shape, order + 1))
    out[..., 0] = 1.0
    for p in range(2, order + 1, 2):
        out[..., p] = (p - 1) * variance * out[..., p - 2]
    return out


def law_moments(atoms: Floats, weights: Floats, order: int) -> Floats:
    """Moments 0..order of laws on the line. atoms, weights: (..., k). Returns (..., order + 1)."""
    return np.einsum("...k,...kj->...j", weights, atoms[..., None] ** np.arange(order + 1))


@dataclass(frozen=True)
class Quadrature:
    """atoms, weights: (..., k), valid only where `feasible` (...) is True."""

    atoms: Floats
    weights: Floats
    feasible: NDArray[np.bool_]


def gauss_quadrature(m: Floats, low: ArrayLike, high: ArrayLike, tolerance: float = 1e-13) -> Quadrature:
    """The k atoms and weights whose first 2k-1 moments are m, by Golub and Welsch (1969), vectorised.

    m: (..., 2k-1), the moments 1..2k-1; low, high: the interval (...) that must hold the atoms. The moments are
    centred and scaled to variance 1; the Hankel matrix `H0 = [m_{i+j}]`, i, j < k, is factored `H0 = L L^T`; the
    Jacobi matrix `L^-1 H1 L^-T`, `H1 = [m_{i+j+1}]`, has the atoms as eigenvalues, and the weights are the squared
    first components of its eigenvectors. `feasible` is False where H0 is not positive definite or an atom falls
    outside [low, high]: then m is not (in the interior of) the moment space and must be projected first.
    """
    lead, k = m.shape[:-1], (m.shape[-1] + 1) // 2
    low, high = np.broadcast_to(low, lead), np.broadcast_to(high, lead)
    mean = m[..., 0]
    if k == 1:
        return Quadrature(mean[..., None], np.ones((*lead, 1)), (mean >= low) & (mean <= high))
    central = shift_moments(m, mean)
    spread = np.maximum((high - low) ** 2, 1e-300)
    feasible = central[..., 1] > tolerance * spread
    deviation = np.sqrt(np.where(feasible, central[..., 1], 1.0))
    powers = deviation[..., None] ** np.arange(1, 2 * k)
    standard = np.concatenate([np.ones((*lead, 1)), central / powers], axis=-1)
    index = np.arange(k)
    h0 = standard[..., index[:, None] + index]
    h1 = standard[..., index[:, None] + index + 1]
    finite = np.isfinite(standard).all(axis=-1)
    identity = np.eye(k)
    feasible = feasible & finite
    h0 = np.where(feasible[..., None, None], h0, identity)
    feasible = feasible & (np.linalg.eigvalsh(h0)[..., 0] > tolerance)
    h0 = np.where(feasible[..., None, None], h0, identity)
    h1 = np.where(feasible[..., None, None], h1, identity)
    factor = np.linalg.cholesky(h0)
    half = np.linalg.solve(factor, h1)
    jacobi = np.linalg.solve(factor, np.swapaxes(half, -1, -2))
    nodes, vectors = np.linalg.eigh((jacobi + np.swapaxes(jacobi, -1, -2)) / 2)
    atoms = mean[..., None] + deviation[..., None] * nodes
    weights = vectors[..., 0, :] ** 2
    inside = (atoms[..., 0] >= low) & (atoms[..., -1] <= high)
    return Quadrature(atoms, weights, feasible & inside)
