"""Scores and Fisher information of a fitted law at the samples themselves: how far a maximum is, and how sure it is.

theta = (atoms, weights but one), P = k r + k - 1 numbers; the weight left out is the largest. One sample has the score

    d/da_j log f = r_j (x - a_j) / s^2,      d/dw_j log f = (N_j - N_*) / f,

r_j the posterior of atom j and N_j its density; `I = sum_i c_i score_i score_i^T` estimates the information of all
samples (outer products: positive semidefinite whatever the law).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ambient_theory.mixtures.points import Points, log_kernels, log_sum_exp

Floats = NDArray[np.float64]
AT_ZERO = 1e-8
UNTOLD = 1e-8
"""A number of which the samples tell this little, beside all that they could, is one of which they tell nothing."""


def scores(points: Points, atoms: Floats, weights: Floats) -> tuple[Floats, int]:
    """Scores (N, k r + k - 1) of each point and the index of the weight left out. atoms: (k, r); weights: (k,)."""
    k, r = atoms.shape
    kernels = log_kernels(points, atoms)
    with np.errstate(divide="ignore"):
        total = log_sum_exp(kernels + np.log(weights))
    ratio = np.exp(kernels - total[:, None])  # N_j / f
    pull = ratio * weights / points.s[:, None] ** 2
    by_atom = pull[:, :, None] * (points.x[:, None, :] - atoms)
    left_out = int(np.argmax(weights))
    by_weight = np.delete(ratio, left_out, axis=1) - ratio[:, [left_out]]
    return np.concatenate([by_atom.reshape(len(ratio), k * r), by_weight], axis=1), left_out


def told(points: Points, size: Floats, k: int) -> NDArray[np.bool_]:
    """Of which numbers the samples tell something: size (k r + k - 1,), the root mean square of each one's score times
    the root of n, beside `sqrt(sum_i c_i / s_i^2)`, of an atom that is seen in every sample, and `sqrt(n)`. Scores of
    atoms have a unit and those of weights have none, so that they cannot be compared with each other."""
    most = np.full(len(size), np.sqrt(points.n))
    most[: len(size) - (k - 1)] = np.sqrt(np.sum(points.counts / points.s**2))
    return size > UNTOLD * most


@dataclass(frozen=True)
class Step:
    """A scoring step from a law. atoms: (k, r) and weights: (k,) moves; gain: `g^T I^-1 g / 2` per sample, the rise of
    the mean log-likelihood that a quadratic expects of it."""

    atoms: Floats
    weights: Floats
    gain: float


def scoring_step(
    points: Points, atoms: Floats, weights: Floats, low: Floats | None = None, high: Floats | None = None
) -> Step:
    """`I^-1 g`. Numbers that lie on their bound (weights at 0, atoms at low or high (r,)) and would leave it stay."""
    k, r = atoms.shape
    s, left_out = scores(points, atoms, weights)
    share = points.counts / points.n
    gradient = share @ s
    others = np.delete(np.arange(k), left_out)
    free = np.ones(len(gradient), dtype=bool)
    if low is not None and high is not None:
        g = gradient[: k * r].reshape(k, r)
        width = np.maximum(high - low, 1e-300)
        free[: k * r] = ~(
            ((atoms <= low + 1e-9 * width) & (g < 0)) | ((atoms >= high - 1e-9 * width) & (g > 0))
        ).ravel()
    empty = weights < AT_ZERO
    free[: k * r] &= ~np.repeat(empty, r)
    free[k * r :] = ~(empty[others] & (gradient[k * r :] <= 0))
    root = s * np.sqrt(share)[:, None]
    size = np.linalg.norm(root, axis=0)
    free &= told(points, np.sqrt(points.n) * size, k)  # of two atoms in one place nothing tells how they share weight
    move = np.zeros(len(gradient))
    if free.any():
        root, scale = root[:, free], size[free]
        values, vectors = np.linalg.eigh((root / scale).T @ (root / scale))
        kept = values > 1e-12 * values[-1]
        inner = vectors[:, kept].T @ (gradient[free] / scale)
        move[free] = vectors[:, kept] @ (inner / values[kept]) / scale
    by_weight = np.zeros(k)
    by_weight[others] = move[k * r :]
    by_weight[left_out] = -by_weight.sum()
    return Step(move[: k * r].reshape(k, r), by_weight, float(gradient @ move) / 2)
