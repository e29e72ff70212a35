"""Likelihood of a k-atomic law from points of known noise: maximum likelihood, EM, and the NPMLE on a grid.

    l(a, w) = sum_i c_i log sum_j w_j N(x_i; a_j, s_i^2 I),

c_i being 1 for samples or a count for bins. Points are (N, r), noise (N,), counts (N,). Everything is done in the
units of the caller; `HeteroscedasticMixture` centres and scales first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls
from scipy.special import logsumexp

from ambient_theory.mixtures.laws import quantise_levels
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
BIN_ABOVE = 20_000


@dataclass(frozen=True)
class Points:
    """Weighted points of known noise. x: (N, r); s: (N,) > 0; counts: (N,) >= 0."""

    x: Floats
    s: Floats
    counts: Floats

    @property
    def n(self) -> float:
        return float(self.counts.sum())


@dataclass(frozen=True)
class LikelihoodFit:
    """atoms: (m, r); weights: (m,); log_likelihood: mean over samples, with the Gaussian's constant."""

    atoms: Floats
    weights: Floats
    log_likelihood: float
    converged: bool
    iterations: int


def log_kernels(points: Points, atoms: Floats) -> Floats:
    """`log N(x_i; a_j, s_i^2 I)`, (N, m)."""
    r = points.x.shape[1]
    distance = np.sum((points.x[:, None, :] - atoms) ** 2, axis=-1)
    return -distance / (2 * points.s[:, None] ** 2) - r * np.log(points.s)[:, None] - r / 2 * math.log(2 * math.pi)


def log_density(points: Points, atoms: Floats, weights: Floats) -> Floats:
    """`log sum_j w_j N(x_i; a_j, s_i^2 I)`, (N,)."""
    with np.errstate(divide="ignore"):
        return logsumexp(log_kernels(points, atoms) + np.log(weights), axis=1)


def mean_log_likelihood(points: Points, atoms: Floats, weights: Floats) -> float:
    """Mean over samples of the log density."""
    return float(points.counts @ log_density(points, atoms, weights) / points.n)


# ------------------------------------------------------------------------------------------- maximum likelihood


def fit_mle(
    points: Points, atoms: Floats, weights: Floats, low: Floats, high: Floats, *, max_iter: int = 500
) -> LikelihoodFit:
    """Maximise the likelihood from one start, by L-BFGS-B with the analytic gradient.

    atoms: (k, r) and weights (k,) of the start; low, high: (r,) the box. Weights are a softmax. The objective is the
    *difference* to the start's log-likelihood, bin by bin, so that rounding does not hide the 1/n differences that
    decide at large n.
    """
    k, r = atoms.shape
    share = points.counts / points.n
    atoms = np.clip(atoms, low, high)
    weights = np.maximum(weights, 1e-6)
    reference = log_density(points, atoms, weights / weights.sum())
    inverse = 1 / points.s**2

    def objective(theta: Floats) -> tuple[float, Floats]:
        a, logits = theta[: k * r].reshape(k, r), theta[k * r :]
        log_w = logits - logsumexp(logits)
        joint = log_kernels(points, a) + log_w
        total = logsumexp(joint, axis=1)
        pull = np.exp(joint - total[:, None]) * share[:, None]
        by_noise = pull * inverse[:, None]
        grad_a = by_noise.T @ points.x - by_noise.sum(axis=0)[:, None] * a
        grad_w = pull.sum(axis=0) - np.exp(log_w)
        return -float(share @ (total - reference)), -np.concatenate([grad_a.ravel(), grad_w])

    start = np.concatenate([atoms.ravel(), np.log(weights / weights.sum())])
    bounds = [*zip(np.tile(low, k), np.tile(high, k), strict=True), *[(-30.0, 30.0)] * k]
    options = {"maxiter": max_iter, "ftol": 1e-16, "gtol": 1e-9, "maxcor": 20, "maxls": 40}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    a, logits = found.x[: k * r].reshape(k, r), found.x[k * r :]
    w = np.exp(logits - logsumexp(logits))
    value = mean_log_likelihood(points, a, w)
    return LikelihoodFit(a, w, value, bool(found.nit < max_iter), int(found.nit))


# ------------------------------------------------------------------------------------------------------------ EM


def em_step(points: Points, atoms: Floats, weights: Floats) -> tuple[Floats, Floats, float]:
    """One EM step with known noise: new atoms, new weights, and the *old* mean log-likelihood.

    `w_j <- mean r_ij`, `a_j <- sum_i r_ij s_i^-2 x_i / sum_i r_ij s_i^-2`, r the posterior of the labels.
    """
    with np.errstate(divide="ignore"):
        joint = log_kernels(points, atoms) + np.log(weights)
    total = logsumexp(joint, axis=1)
    pull = np.exp(joint - total[:, None]) * points.counts[:, None]
    by_noise = pull / points.s[:, None] ** 2
    mass = by_noise.sum(axis=0)
    moved = np.where(mass[:, None] > 0, by_noise.T @ points.x / np.where(mass > 0, mass, 1.0)[:, None], atoms)
    return moved, pull.sum(axis=0) / points.n, float(points.counts @ total / points.n)


def fit_em(points: Points, atoms: Floats, weights: Floats, *, max_iter: int = 2000, tol: float = 1e-9) -> LikelihoodFit:
    """EM from one start until the mean log-likelihood gains less than tol a step. A baseline: on hard instances it
    has not converged after tens of thousands of steps."""
    before, converged, iteration = -math.inf, False, 0
    while iteration < max_iter:
        iteration += 1
        moved, share, value = em_step(points, atoms, weights)
        if value - before < tol:
            converged = True
            break
        atoms, weights, before = moved, share, value
    return LikelihoodFit(atoms, weights, mean_log_likelihood(points, atoms, weights), converged, iteration)


# --------------------------------------------------------------------------------------------------------- NPMLE


def fit_npmle(
    points: Points, low: float, high: float, *, grid: int = 100, max_iter: int = 60, tol: float = 1e-9
) -> LikelihoodFit:
    """The nonparametric MLE over all laws on a fixed grid of the line, by constrained Newton steps.

    With `S_ij = N(x_i; g_j, s_i^2) / f_w(x_i)`, the quadratic model of the log-likelihood at w is
    `-1/2 sum_i c_i ((S v)_i - 2)^2`; its maximiser over the simplex is found by non-negative least squares (Wang,
    J. R. Stat. Soc. B 69, 2007), then a line search keeps the likelihood rising. Stops when the gradient
    `max_j mean_i S_ij - 1 < tol`. The number of atoms is whatever results; grid neighbours are joined.
    """
    if points.x.shape[1] != 1:
        raise UsageError("the NPMLE works on the line: the data have more than one relevant dimension")
    atoms = np.linspace(low, high, grid)
    kernels = log_kernels(points, atoms[:, None])
    top = kernels.max(axis=1, keepdims=True)
    k = np.exp(kernels - top)
    share = points.counts / points.n
    root = np.sqrt(share)
    weights = np.full(grid, 1.0 / grid)
    converged, iteration = False, 0
    while iteration < max_iter:
        iteration += 1
        f = k @ weights
        ratio = k / f[:, None]
        gradient = share @ ratio
        if gradient.max() - 1 < tol:
            converged = True
            break
        columns = np.linalg.qr(root[:, None] * (ratio - 2.0), mode="r")
        v, _ = nnls(np.vstack([columns, np.ones(grid)]), np.append(np.zeros(len(columns)), 1.0), maxiter=30 * grid)
        direction = v / v.sum() - weights
        slope = float(gradient @ direction)
        step, before = 1.0, float(share @ np.log(f))
        while step > 1e-10:
            trial = np.maximum(weights + step * direction, 0.0)
            with np.errstate(divide="ignore"):
                after = float(share @ np.log(k @ trial))
            if after >= before + 1e-4 * step * slope:
                break
            step /= 2
        weights = trial / trial.sum()
        if after - before < 1e-16 and step < 1e-6:
            break
    keep = weights > 1e-12
    joined_a, joined_w = _join_neighbours(np.flatnonzero(keep), atoms, weights)
    value = mean_log_likelihood(points, joined_a[:, None], joined_w)
    return LikelihoodFit(joined_a[:, None], joined_w, value, converged, iteration)


def _join_neighbours(active: NDArray[np.int64], atoms: Floats, weights: Floats) -> tuple[Floats, Floats]:
    groups = np.split(active, np.flatnonzero(np.diff(active) > 1) + 1)
    w = np.array([weights[g].sum() for g in groups])
    a = np.array([weights[g] @ atoms[g] / weights[g].sum() for g in groups])
    return a, w / w.sum()


# -------------------------------------------------------------------------------------------------------- starts


def plus_plus_start(points: Points, k: int, rng: np.random.Generator, most: int = 20_000) -> tuple[Floats, Floats]:
    """k-means++ seeding (Arthur and Vassilvitskii, 2007) with precision weights `c_i s_i^-2`: atoms (k, r), weights.

    At most `most` points, drawn by weight, are looked at. Equal weights start the fit.
    """
    x, weight = points.x, points.counts / points.s**2
    if len(x) > most:
        chosen = rng.choice(len(x), size=most, p=weight / weight.sum())
        x, weight = x[chosen], np.ones(most)
    atoms = [x[rng.choice(len(x), p=weight / weight.sum())]]
    distance = np.full(len(x), np.inf)
    for _ in range(k - 1):
        distance = np.minimum(distance, np.sum((x - atoms[-1]) ** 2, axis=1))
        mass = weight * distance
        total = mass.sum()
        atoms.append(x[rng.choice(len(x), p=mass / total)] if total > 0 else atoms[-1])
    return np.array(atoms), np.full(k, 1.0 / k)


def line_points(x: Floats, s: Floats, bins: int = 400) -> Points:
    """Points on the line for a likelihood: the samples, or (above 20,000) bin counts for each noise level.

    Bins are at most s/4 wide and carry Sheppard's `s_eff^2 = s^2 + h^2/12`; where that would take more bins than
    samples, the samples stay.
    """
    raw = Points(x[:, None], np.array(np.broadcast_to(s, len(x))), np.ones(len(x)))
    if len(x) <= BIN_ABOVE:
        return raw
    levels, index = (s, np.zeros(len(x), dtype=np.int64)) if s.size == 1 else quantise_levels(s)
    parts: list[Points] = []
    for number, level in enumerate(levels):
        member = x if s.size == 1 else x[index == number]
        low, high = float(member.min()), float(member.max())
        need = max(bins, math.ceil(4 * (high - low) / level)) if high > low else 1
        if need > len(member):
            parts.append(Points(member[:, None], np.full(len(member), level), np.ones(len(member))))
            continue
        counts, edges = np.histogram(member, bins=need, range=(low, high) if high > low else (low - 1, low + 1))
        used = counts > 0
        width = edges[1] - edges[0] if high > low else 0.0
        centres = (edges[1:] + edges[:-1])[used] / 2
        noise = math.sqrt(level**2 + width**2 / 12)
        parts.append(Points(centres[:, None], np.full(used.sum(), noise), counts[used].astype(float)))
    return Points(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("x", "s", "counts")))
