"""Curves `E = E_inf + a N^-p` by variable projection: linear in (E_inf, a), so a search over p alone is an exact fit.

For sizes N [R] and measured errors E [L, R] of L levels with weights, the best E_inf >= 0 and a >= 0 at a given p have
a closed form (non-negative least squares in two variables; variable projection, Golub and Pereyra 1973). What is left
is a search over log p on a grid, refined around its best point: nothing iterates towards a minimum, so nothing can stop
before it. Sizes that depend on parameters of a law (a worth, a saturation) are tried as rows of one batch, which gives
the exact profile of those parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXPONENTS = (0.05, 4.0)
"""Range of p that is searched."""
COARSE, FINE, ROUNDS, ROUGH = 36, 7, 4, 1


@dataclass(frozen=True, eq=False)
class Errors:
    """Measured errors of R cells at L levels. error [L, R]; weight [L, R]: 1/standard error of each mean.

    unit: the size in which N is counted inside the fit, so that a is of the order of E.
    """

    error: Floats
    weight: Floats
    unit: float

    def at(self, levels: NDArray[np.bool_] | NDArray[np.intp]) -> Errors:
        """The same at some levels."""
        return Errors(self.error[levels], self.weight[levels], self.unit)

    def of(self, cells: NDArray[np.bool_] | NDArray[np.intp]) -> Errors:
        """The same of some cells."""
        return Errors(self.error[:, cells], self.weight[:, cells], self.unit)


@dataclass(frozen=True, eq=False)
class Curves:
    """Best curves of each row of sizes at each level, all [B, L]: sse, and E_inf, a, log p (N in `unit`s)."""

    sse: Floats
    floor: Floats
    a: Floats
    log_p: Floats
    unit: float

    def predict(self, size: Floats) -> Floats:
        """E [B, L, R'] at sizes [B, R'] or [B, L, R']."""
        n = np.log((size if size.ndim == 3 else size[:, None, :]) / self.unit)
        return self.floor[..., None] + self.a[..., None] * np.exp(-np.exp(self.log_p)[..., None] * n)


def fit(size: Floats, errors: Errors, rounds: int = ROUNDS) -> Curves:
    """Least squares over (E_inf, a, p) for every row of sizes [B, R], or [B, L, R] where they differ between levels.

    rounds: refinements of p, each three times as fine; `ROUGH` is enough to find where to look closer.
    """
    low, high = np.log(EXPONENTS)
    n = np.log(np.maximum(size, 1e-9) / errors.unit)
    if n.ndim == 2:
        n = n[:, None, :]
    levels = len(errors.error)
    step = (high - low) / (COARSE - 1)
    grid = np.linspace(low, high, COARSE)
    shared = n.shape[1] == 1
    centre = _coarse(n[:, 0], errors, grid) if shared else _best(n, errors, np.tile(grid, (len(n), levels, 1)))[3]
    curves = None
    for _ in range(rounds):
        offsets = np.linspace(-step, step, FINE)
        found = _best(n, errors, np.clip(centre[..., None] + offsets, low, high))
        curves, centre, step = found, found[3], step / (FINE - 1) * 2
    assert curves is not None
    return Curves(*curves, unit=errors.unit)


def _solve(x: tuple[Floats, Floats, Floats, Floats, Floats, Floats]) -> tuple[Floats, Floats, Floats]:
    """(sse, E_inf, a) of two-variable non-negative least squares from its sums ww, wx, xx, wy, xy, yy."""
    ww, wx, xx, wy, xy, yy = np.broadcast_arrays(*x)
    det = ww * xx - wx**2
    both = det > 1e-13 * ww * xx
    a = np.where(both, (ww * xy - wx * wy) / np.where(both, det, 1.0), 0.0)
    e = (wy - a * wx) / ww
    a_only = np.maximum(xy / xx, 0.0)
    e_only = np.maximum(wy / ww, 0.0)
    free = both & (a >= 0) & (e >= 0)
    no_floor = ~free & (xy**2 / xx > wy**2 / ww)
    a = np.where(free, a, np.where(no_floor, a_only, 0.0))
    e = np.where(free, e, np.where(no_floor, 0.0, e_only))
    sse = yy - 2 * (e * wy + a * xy) + e**2 * ww + 2 * e * a * wx + a**2 * xx
    return np.maximum(sse, 0.0), e, a


def _coarse(n: Floats, errors: Errors, grid: Floats) -> Floats:
    """log p [B, L] on the grid for sizes [B, R] that all levels share: sums by matrix products."""
    x = np.exp(-np.exp(grid)[:, None] * n[:, None, :])
    w2 = errors.weight**2
    wy = (w2 * errors.error).T
    sse, _, _ = _solve(
        (w2.sum(axis=1), x @ w2.T, x**2 @ w2.T, wy.sum(axis=0), x @ wy, np.sum(w2 * errors.error**2, axis=1))
    )
    return grid[np.argmin(sse, axis=1)]


def _best(n: Floats, errors: Errors, log_p: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """(sse, E_inf, a, log p) [B, L], the best of log_p [B, L, P] for log sizes [B, L or 1, R]."""
    x = np.exp(-np.exp(log_p)[..., None] * n[:, :, None, :])
    w2 = errors.weight**2
    w2y = w2 * errors.error
    column = lambda total: total[None, :, None]  # noqa: E731
    sse, e, a = _solve(
        (
            column(w2.sum(axis=-1)),
            np.einsum("blpr,lr->blp", x, w2),
            np.einsum("blpr,lr->blp", x * x, w2),
            column(w2y.sum(axis=-1)),
            np.einsum("blpr,lr->blp", x, w2y),
            column((w2y * errors.error).sum(axis=-1)),
        )
    )
    best = np.argmin(sse, axis=-1)[..., None]
    pick = lambda z: np.take_along_axis(np.broadcast_to(z, sse.shape), best, axis=-1)[..., 0]  # noqa: E731
    return pick(sse), pick(e), pick(a), pick(log_p)
