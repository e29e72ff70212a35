"""Projection of a moment vector onto the moment space of an interval.

    min || U^-1 (m - A v) ||^2,   v >= 0,  sum v = 1,

A holding the moments of point masses on a grid, U U^T the covariance of m (Wu and Yang, arXiv 1807.07237, use a
semidefinite programme; the same minimum is reached here by non-negative least squares on a grid that is refined
around its active atoms). Writing `B = U^-1 (A - m 1^T)`, the problem is the point of least norm in the convex hull of
B's columns; the solution of `min ||B v||^2 + c^2 (1^T v - 1)^2`, v >= 0, is a multiple of it for every c > 0, so
normalising v is exact. The projection of an infeasible vector lies on the boundary of the moment space, where a law
is determined by its moments and has at most k atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """atoms, weights: (k,) (unused atoms repeat with weight 0); objective: the squared distance at the minimum."""

    atoms: Floats
    weights: Floats
    objective: float


def project_moments(
    m: Floats, covariance: Floats, low: float, high: float, *, grid: int = 48, rounds: int = 4, refine: int = 8
) -> Projection:
    """The law on [low, high] whose moments 1..2k-1 are nearest to m in the metric of the inverse covariance.

    m: (2k-1,); covariance: (2k-1, 2k-1). grid: points of the first grid; each of `rounds` refinements puts
    `2 refine + 1` points around every active atom; the first grid stays, so that an atom elsewhere can still enter.
    Centred and scaled to [-1, 1] inside.
    """
    order = len(m)
    k = (order + 1) // 2
    centre, half = (low + high) / 2, (high - low) / 2
    change, offset = _affine(order, centre, half)
    m = change @ m + offset
    whiten = whitener(change @ covariance @ change.T)
    target = whiten @ m
    powers = np.arange(1, order + 1)[:, None]
    points = coarse = -np.cos(np.pi * np.arange(grid) / (grid - 1))
    step = np.pi / (grid - 1)
    atoms, weights, objective = points, np.zeros(grid), np.inf
    for _ in range(rounds + 1):
        columns = whiten @ points**powers - target[:, None]
        size = max(float(np.sqrt(np.min(np.sum(columns**2, axis=0)))), 1e-300)
        v, _ = nnls(np.vstack([columns / size, np.ones(len(points))]), np.append(np.zeros(order), 1.0))
        active = v > 0
        atoms, weights = points[active], v[active] / v.sum()
        objective = float(np.sum((columns[:, active] @ weights) ** 2))
        near = atoms[:, None] + step * np.linspace(-1, 1, 2 * refine + 1)
        points = np.clip(np.concatenate([near.ravel(), atoms, coarse]), -1, 1)
        points.sort()
        step /= refine
    atoms, weights = _merge(atoms, weights, k, 4 * step * refine)
    return Projection(centre + half * atoms, weights, objective)


def whitener(covariance: Floats, floor: float = 1e-13) -> Floats:
    """W with `W^T W` the inverse of a covariance (J, J), never a failure: scaled to a unit diagonal, eigenvalues below
    `floor` times the largest are raised to that."""
    scale = np.sqrt(np.maximum(np.diagonal(covariance), 1e-300))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    return (vectors / np.sqrt(np.maximum(values, floor * values[-1]))).T / scale


def _affine(order: int, centre: float, half: float) -> tuple[Floats, Floats]:
    """Matrix and offset of the map from moments of Y to those of `(Y - centre)/half`, orders 1..J."""
    from math import comb

    full = np.array(
        [
            [comb(j, i) * (-centre) ** (j - i) / half**j if i <= j else 0.0 for i in range(order + 1)]
            for j in range(order + 1)
        ]
    )
    return full[1:, 1:], full[1:, 0]


def _merge(atoms: Floats, weights: Floats, k: int, width: float) -> tuple[Floats, Floats]:
    """Join grid neighbours (the two grid points that straddle one atom), then the closest until k remain."""
    order = np.argsort(atoms)
    a, w = list(atoms[order]), list(weights[order])
    while len(a) > 1:
        gaps = np.diff(a)
        i = int(np.argmin(gaps))
        if len(a) <= k and gaps[i] > width:
            break
        total = w[i] + w[i + 1]
        a[i : i + 2] = [(a[i] * w[i] + a[i + 1] * w[i + 1]) / total]
        w[i : i + 2] = [total]
    missing = k - len(a)
    return np.array(a + [a[-1]] * missing), np.array(w + [0.0] * missing)
