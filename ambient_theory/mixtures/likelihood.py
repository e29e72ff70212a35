"""Likelihood of a k-atomic law from points of known noise: maximum likelihood, EM, and the NPMLE on a grid.

    l(a, w) = sum_i c_i log sum_j w_j N(x_i; a_j, s_i^2 I),

over `points.Points`. Everything is done in the units of the caller; `fitting` centres and scales first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

from ambient_theory.mixtures.information import scoring_step
from ambient_theory.mixtures.points import Points, log_density, log_kernels, log_sum_exp, mean_log_likelihood
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
WARM_STEPS = 20


@dataclass(frozen=True)
class LikelihoodFit:
    """atoms: (m, r); weights: (m,); log_likelihood: mean over samples, with the Gaussian's constant."""

    atoms: Floats
    weights: Floats
    log_likelihood: float
    converged: bool
    iterations: int


# ------------------------------------------------------------------------------------------- maximum likelihood


def fit_mle(
    points: Points, atoms: Floats, weights: Floats, low: Floats, high: Floats, *, max_iter: int = 500, tol: float = 1e-9
) -> LikelihoodFit:
    """Maximise the likelihood from one start: some EM steps, L-BFGS-B with the analytic gradient, scoring steps.

    atoms: (k, r) and weights (k,) of the start; low, high: (r,) the box. Weights are a softmax, atoms are scaled by the
    square root of their own information. The objective is the *difference* to the start's log-likelihood, bin by bin,
    so that rounding does not hide the 1/n differences that decide at large n. Converged where a scoring step expects a
    gain below tol.
    """
    k, r = atoms.shape
    share = points.counts / points.n
    atoms = np.clip(atoms, low, high)
    weights = np.maximum(weights, 1e-6) / np.maximum(weights, 1e-6).sum()
    for _ in range(WARM_STEPS):
        atoms, weights, _ = em_step(points, atoms, weights)
    atoms, weights = np.clip(atoms, low, high), np.maximum(weights, 1e-12) / np.maximum(weights, 1e-12).sum()
    reference = log_density(points, atoms, weights)
    inverse = 1 / points.s**2
    mass = _posteriors(points, atoms, weights).T @ (share * inverse)
    scale = np.sqrt(np.maximum(mass, 1e-6 * mass.max()))[:, None]

    def objective(theta: Floats) -> tuple[float, Floats]:
        a, logits = theta[: k * r].reshape(k, r) / scale, theta[k * r :]
        log_w = logits - np.logaddexp.reduce(logits)
        joint = log_kernels(points, a) + log_w
        total = log_sum_exp(joint)
        pull = np.exp(joint - total[:, None]) * share[:, None]
        by_noise = pull * inverse[:, None]
        grad_a = (by_noise.T @ points.x - by_noise.sum(axis=0)[:, None] * a) / scale
        grad_w = pull.sum(axis=0) - np.exp(log_w)
        return -float(share @ (total - reference)), -np.concatenate([grad_a.ravel(), grad_w])

    start = np.concatenate([(atoms * scale).ravel(), np.log(weights)])
    bounds = [*zip((low * scale).ravel(), (high * scale).ravel(), strict=True), *[(-30.0, 30.0)] * k]
    options = {"maxiter": max_iter, "ftol": 1e-15, "gtol": 1e-8, "maxcor": 20, "maxls": 40}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    a, logits = found.x[: k * r].reshape(k, r) / scale, found.x[k * r :]
    a, w, left = _scoring(points, np.clip(a, low, high), np.exp(logits - np.logaddexp.reduce(logits)), low, high)
    value = mean_log_likelihood(points, a, w)
    return LikelihoodFit(a, w, value, left < tol, int(found.nit) + WARM_STEPS)


def _scoring(
    points: Points, atoms: Floats, weights: Floats, low: Floats, high: Floats, steps: int = 12
) -> tuple[Floats, Floats, float]:
    """Scoring steps with a line search, while they raise the likelihood: atoms, weights, the gain still expected."""
    share = points.counts / points.n
    before = log_density(points, atoms, weights)
    step = scoring_step(points, atoms, weights, low, high)
    for _ in range(steps):
        if step.gain < 1e-15:
            break
        length = 1.0
        for _ in range(8):
            a = np.clip(atoms + length * step.atoms, low, high)
            w = np.maximum(weights + length * step.weights, 0.0)
            w = w / w.sum()
            after = log_density(points, a, w)
            if float(share @ (after - before)) > 0:
                break
            length /= 2
        else:
            break
        atoms, weights, before = a, w, after
        step = scoring_step(points, atoms, weights, low, high)
    return atoms, weights, max(step.gain, 0.0)


# ------------------------------------------------------------------------------------------------------------ EM


def _posteriors(points: Points, atoms: Floats, weights: Floats) -> Floats:
    """Posterior probability of each atom, (N, k)."""
    with np.errstate(divide="ignore"):
        joint = log_kernels(points, atoms) + np.log(weights)
    return np.exp(joint - log_sum_exp(joint)[:, None])


def em_step(points: Points, atoms: Floats, weights: Floats) -> tuple[Floats, Floats, float]:
    """One EM step with known noise: new atoms, new weights, and the *old* mean log-likelihood.

    `w_j <- mean r_ij`, `a_j <- sum_i r_ij s_i^-2 x_i / sum_i r_ij s_i^-2`, r the posterior of the labels.
    """
    with np.errstate(divide="ignore"):
        joint = log_kernels(points, atoms) + np.log(weights)
    total = log_sum_exp(joint)
    pull = np.exp(joint - total[:, None]) * points.counts[:, None]
    by_noise = pull / points.s[:, None] ** 2
    mass = by_noise.sum(axis=0)
    moved = np.where(mass[:, None] > 0, by_noise.T @ points.x / np.where(mass > 0, mass, 1.0)[:, None], atoms)
    return moved, pull.sum(axis=0) / points.n, float(points.counts @ total / points.n)


def fit_em(points: Points, atoms: Floats, weights: Floats, *, max_iter: int = 2000, tol: float = 1e-9) -> LikelihoodFit:
    """EM from one start. A baseline: on hard instances it has not converged after tens of thousands of steps.

    A step's own gain says little, since EM's steps shrink long before its maximum. Converged is where the likelihood
    still to be gained, by a scoring step, is below tol (a mean over samples); it is asked every tenth step.
    """
    converged, iteration = False, 0
    while iteration < max_iter and not converged:
        iteration += 1
        atoms, weights, _ = em_step(points, atoms, weights)
        if iteration % 10 == 0 or iteration == max_iter:
            converged = scoring_step(points, atoms, weights).gain < tol
    return LikelihoodFit(atoms, weights, mean_log_likelihood(points, atoms, weights), converged, iteration)


# --------------------------------------------------------------------------------------------------------- NPMLE


def fit_npmle(
    points: Points, low: float, high: float, *, grid: int = 100, refine: int = 0, max_iter: int = 60, tol: float = 1e-9
) -> LikelihoodFit:
    """The nonparametric MLE over all laws on a grid of the line, by constrained Newton steps.

    The grid is even on [low, high]; with refine > 0 half of it lies at quantiles of the precise points instead, and it
    is made finer around the atoms that were found, `refine` times by a factor of 5.

    With `S_ij = N(x_i; g_j, s_i^2) / f_w(x_i)`, the quadratic model of the log-likelihood at w is
    `-1/2 sum_i c_i ((S v)_i - 2)^2`; its maximiser over the simplex is found by non-negative least squares (Wang,
    J. R. Stat. Soc. B 69, 2007), then a line search keeps the likelihood rising. Stops when the gradient
    `max_j mean_i S_ij - 1 < tol`. The number of atoms is whatever results; grid neighbours are joined.
    """
    if points.x.shape[1] != 1:
        raise UsageError("the NPMLE works on the line: the data have more than one relevant dimension")
    if not refine:
        return _npmle_on(points, np.linspace(low, high, grid), max_iter, tol)
    precise = points.counts / (points.s**2 + np.average(points.s**-2.0, weights=points.counts) ** -1)
    order = np.argsort(points.x[:, 0])
    levels = np.cumsum(precise[order]) / precise.sum()
    quantiles = np.interp(np.linspace(0, 1, grid // 2), levels, points.x[order, 0])
    coarse = np.unique(np.clip(np.concatenate([np.linspace(low, high, grid // 2), quantiles]), low, high))
    fit = _npmle_on(points, coarse, max_iter, tol)
    step = float(np.max(np.diff(quantiles))) if len(quantiles) > 1 else high - low
    for _ in range(refine):
        step /= 5
        near = fit.atoms + step * np.arange(-3, 4)
        at = np.unique(np.clip(np.concatenate([near.ravel(), coarse[:: max(1, len(coarse) // 40)]]), low, high))
        fit = _npmle_on(points, at, max_iter, tol)
    return fit


def _npmle_on(points: Points, atoms: Floats, max_iter: int, tol: float) -> LikelihoodFit:
    grid = len(atoms)
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
    """Greedy k-means++ seeding (Arthur and Vassilvitskii, 2007): atoms (k, r), equal weights.

    Points weigh `c_i / (s_i^2 + S)^2`, S their spread behind the noise: a very precise sample is one atom and not
    all of them, and a noisy one, far out by its noise alone, is rarely an atom. Of `2 + log k` draws the one that
    brings all points nearest is kept. At most `most` points, drawn by weight, are looked at. Draws go through the
    cumulative weights, so that equal points count as one.
    """
    x = points.x
    precision = points.counts / points.s**2
    centre = precision @ x / precision.sum()
    spread = float(precision @ np.sum((x - centre) ** 2, axis=1) / precision.sum()) / x.shape[1]
    weight = points.counts / (points.s**2 + spread) ** 2
    if len(x) > most:
        chosen = rng.choice(len(x), size=most, p=weight / weight.sum())
        x, weight = x[chosen], np.ones(most)
    atoms = [x[_drawn(weight, rng)]]
    distance = np.sum((x - atoms[0]) ** 2, axis=1)
    for _ in range(k - 1):
        best, least = atoms[-1], np.inf
        for _ in range(2 + int(np.log(k))):
            mass = weight * distance
            if not mass.sum() > 0:
                break
            candidate = x[_drawn(mass, rng)]
            nearer = np.minimum(distance, np.sum((x - candidate) ** 2, axis=1))
            if float(weight @ nearer) < least:
                best, least = candidate, float(weight @ nearer)
        atoms.append(best)
        distance = np.minimum(distance, np.sum((x - best) ** 2, axis=1))
    return np.array(atoms), np.full(k, 1.0 / k)


def _drawn(weight: Floats, rng: np.random.Generator) -> int:
    cumulative = np.cumsum(weight)
    return min(int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")), len(weight) - 1)
