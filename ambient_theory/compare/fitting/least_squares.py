"""Many small bounded nonlinear least-squares problems at once.

Levenberg-Marquardt with projection on a box, vectorised over a batch: starts, profile points and held-out splits are
rows of one batch, so a profile of 60 points costs about as much as one fit. A coordinate that sits on its bound while
the gradient pushes outside is frozen for the step (projected Newton; Bertsekas, 1982).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Residuals = Callable[[Floats, NDArray[np.intp]], Floats]
Jacobian = Callable[[Floats, NDArray[np.intp]], Floats]


@dataclass(frozen=True)
class Solution:
    """theta: (B, P) minimisers; sse: (B,) sums of squared residuals; converged: (B,)."""

    theta: Floats
    sse: Floats
    converged: NDArray[np.bool_]

    def best(self) -> int:
        return int(np.argmin(self.sse))


def solve(
    residuals: Residuals,
    start: Floats,
    lower: Floats,
    upper: Floats,
    *,
    jacobian: Jacobian | None = None,
    fixed: NDArray[np.bool_] | None = None,
    iterations: int = 80,
    tolerance: float = 1e-10,
) -> Solution:
    """Minimise `sum_r residuals(theta, rows)[b, r]^2` for every row b, with lower <= theta <= upper.

    residuals(theta, rows): (b, P) parameters of the batch rows `rows` -> (b, R). start: (B, P). lower, upper, fixed:
    (P,) or (B, P); a fixed coordinate keeps its start. jacobian(theta, rows): (b, R, P), forward differences without
    it. A row stops when an accepted step lowers its cost by less than `tolerance` relatively, or when no step helps.
    """
    theta = np.clip(np.array(start, dtype=float), lower, upper)
    batch, size = theta.shape
    lo, hi = np.broadcast_to(lower, theta.shape), np.broadcast_to(upper, theta.shape)
    still = np.zeros(theta.shape, bool) if fixed is None else np.broadcast_to(fixed, theta.shape)
    everything = np.arange(batch)
    r = residuals(theta, everything)
    cost = np.sum(r**2, axis=1)
    damping = np.full(batch, 1e-2)
    converged = np.zeros(batch, bool)
    eye = np.eye(size)
    for _ in range(iterations):
        rows = everything[~converged]
        if not len(rows):
            break
        t, base = theta[rows], r[rows]
        slopes = _forward(residuals, t, base, hi[rows], rows) if jacobian is None else jacobian(t, rows)
        gradient = np.einsum("brp,br->bp", slopes, base)
        stuck = still[rows] | ((t <= lo[rows]) & (gradient > 0)) | ((t >= hi[rows]) & (gradient < 0))
        slopes = np.where(stuck[:, None, :], 0.0, slopes)
        gradient = np.where(stuck, 0.0, gradient)
        hessian = np.swapaxes(slopes, 1, 2) @ slopes
        diagonal = np.einsum("bpp->bp", hessian)
        ridge = damping[rows, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-30
        system = hessian + eye * np.where(stuck, 1.0, ridge)[:, None, :]
        trial = np.clip(t - np.linalg.solve(system, gradient[:, :, None])[:, :, 0], lo[rows], hi[rows])
        new_r = residuals(trial, rows)
        new_cost = np.sum(new_r**2, axis=1)
        better = np.isfinite(new_cost) & (new_cost < cost[rows])
        gain = np.where(better, cost[rows] - new_cost, 0.0)
        small = better & (gain <= tolerance * (cost[rows] + 1e-300))
        good = rows[better]
        theta[good], r[good], cost[good] = trial[better], new_r[better], new_cost[better]
        damping[rows] = np.where(better, np.maximum(damping[rows] / 5, 1e-12), damping[rows] * 6)
        converged[rows] = small | (damping[rows] > 1e12) | (np.abs(gradient).max(axis=1) < 1e-14)
    return Solution(theta, cost, converged)


def _forward(residuals: Residuals, t: Floats, base: Floats, high: Floats, rows: NDArray[np.intp]) -> Floats:
    """Forward differences (b, R, P), backward ones where a step would leave the box."""
    out = np.empty((*base.shape, t.shape[1]))
    for j in range(t.shape[1]):
        step = 1e-6 * np.maximum(np.abs(t[:, j]), 1e-3)
        step = np.where(t[:, j] + step > high[:, j], -step, step)
        moved = t.copy()
        moved[:, j] += step
        out[:, :, j] = (residuals(moved, rows) - base) / step[:, None]
    return out
