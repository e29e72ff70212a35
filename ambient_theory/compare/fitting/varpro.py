"""Curves `E = E_inf + a N^-p` by variable projection: linear in (E_inf, a), so a search over p alone is an exact fit.

For sizes N [R] and measured errors E [L, R] of L levels with weights, the best E_inf >= 0 and a >= 0 at a given p have
a closed form (non-negative least squares in two variables; variable projection, Golub and Pereyra 1973). What is left
is a search over log p: a grid, a finer one around its best point, and twice the vertices of two parabolas through
three points around the best (with E_inf free, and with E_inf = 0; each is smooth, what they make together is not).
Nothing iterates towards a minimum, so nothing can stop before it. Sizes that depend on parameters of a law (a worth, a
saturation) are tried as rows of one batch, which gives the exact profile of those parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXPONENTS = (0.05, 4.0)
"""Range of p that is searched."""
COARSE, FINE = 36, 7
CLOSER = 1 / 8
"""Spacing of the points of the last parabolas, of that of the finer grid."""


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


def fit(size: Floats, errors: Errors, *, rough: bool = False) -> Curves:
    """Least squares over (E_inf, a, p) for every row of sizes [B, R], or [B, L, R] where they differ between levels.

    rough: stop at the finer grid of p, which is enough to find where to look closer.
    """
    low, high = np.log(EXPONENTS)
    n = np.log(np.maximum(size, 1e-9) / errors.unit)
    if n.ndim == 2:
        n = n[:, None, :]
    grid = np.linspace(low, high, COARSE)
    step = grid[1] - grid[0]
    of = _Moments.of(errors)
    if n.shape[1] == 1:
        coarse = _least(of.shared(n[:, 0], grid))
    else:
        coarse = _least(of.sums(n, np.broadcast_to(grid, (len(n), n.shape[1], COARSE))))
    centre = grid[np.argmin(coarse, axis=-1)]
    at = np.clip(centre[..., None] + np.linspace(-step, step, FINE), low, high)
    step *= 2 / (FINE - 1)
    for closer in () if rough else (step * CLOSER, 0.0):
        sums = of.sums(n, at)
        best = _at(at, np.argmin(_least(sums), axis=-1))
        at = np.stack([best, *(vertex(f, at) for f in _branches(sums))], axis=-1)
        if closer:
            best = _at(at, np.argmin(_least(of.sums(n, at)), axis=-1))
            at = np.clip(best[..., None] + np.array([-closer, 0.0, closer]), low, high)
    sums, tried = of.sums(n, at), at
    sse = _least(sums)
    k = np.argmin(sse, axis=-1)
    ww, wx, xx, wy, xy = (_at(np.broadcast_to(z, sse.shape), k) for z in sums[:5])
    det, top, bottom = ww * xx - wx * wx, ww * xy - wx * wy, xx * wy - wx * xy
    free = _free(ww * xx, det, top, bottom)
    det = np.where(free, det, 1.0)
    alone = xy * xy / xx > wy * wy / ww
    return Curves(
        sse=_at(sse, k),
        floor=np.where(free, bottom / det, np.where(alone, 0.0, wy / ww)),
        a=np.where(free, top / det, np.where(alone, xy / xx, 0.0)),
        log_p=_at(tried, k),
        unit=errors.unit,
    )


def _at(z: Floats, k: NDArray[np.intp]) -> Floats:
    """z [..., P] at the indices k [...]."""
    return np.asarray(z.reshape(-1, z.shape[-1])[np.arange(k.size), k.ravel()].reshape(k.shape))


def vertex(f: Floats, at: Floats) -> Floats:
    """Where the parabola through the least of f [..., P] and its two neighbours has its minimum; the least at an edge.

    at [..., P]: evenly spaced points, P >= 3. Never beyond the neighbours.
    """
    best = np.argmin(f, axis=-1)
    k = np.clip(best, 1, f.shape[-1] - 2)
    left, middle, right = (_at(f, k + i) for i in (-1, 0, 1))
    bend = left - 2 * middle + right
    inside = (k == best) & (bend > 0)
    shift = np.where(inside, 0.5 * (left - right) / np.where(inside, bend, 1.0), 0.0)
    return np.asarray(_at(at, best) + np.clip(shift, -1.0, 1.0) * (_at(at, k + 1) - _at(at, k)))


Sums = tuple[Floats, Floats, Floats, Floats, Floats, Floats]
"""ww, wx, xx, wy, xy, yy: weighted sums over the cells of 1, x = N^-p and y = E, their squares and products."""


@dataclass(frozen=True, eq=False)
class _Moments:
    """Squared weights [L, R], the same times the errors, and the sums that no exponent changes, [L]."""

    w2: Floats
    w2y: Floats
    ww: Floats
    wy: Floats
    yy: Floats

    @classmethod
    def of(cls, errors: Errors) -> _Moments:
        w2 = errors.weight**2
        w2y = w2 * errors.error
        return cls(w2, w2y, w2.sum(axis=-1), w2y.sum(axis=-1), (w2y * errors.error).sum(axis=-1))

    def shared(self, n: Floats, grid: Floats) -> Sums:
        """Sums [B, L, P] at a grid of log p for log sizes [B, R] that all levels share, by matrix products."""
        x = np.exp(-np.exp(grid)[:, None] * n[:, None, :])
        by = lambda z, w: np.swapaxes(z @ w.T, 1, 2)  # noqa: E731
        return self._all(by(x, self.w2), by(x * x, self.w2), by(x, self.w2y))

    def sums(self, n: Floats, log_p: Floats) -> Sums:
        """Sums [B, L, P] at log p [B, L, P] for log sizes [B, L or 1, R]."""
        x = np.exp(-np.exp(log_p)[..., None] * n[:, :, None, :])
        by = lambda z, w: np.einsum("blpr,lr->blp", z, w)  # noqa: E731
        return self._all(by(x, self.w2), by(x * x, self.w2), by(x, self.w2y))

    def _all(self, wx: Floats, xx: Floats, xy: Floats) -> Sums:
        return self.ww[:, None], wx, xx, self.wy[:, None], xy, self.yy[:, None]


def _free(scale: Floats, det: Floats, top: Floats, bottom: Floats) -> NDArray[np.bool_]:
    """Whether E_inf and a are both free: the system is regular and neither would be negative."""
    return (det > 1e-13 * scale) & (top >= 0) & (bottom >= 0)


def _least(sums: Sums) -> Floats:
    """Sum of squares of two-variable non-negative least squares.

    x, y > 0, so that each variable alone is never negative; where one of the two would be, the better one stands alone.
    """
    ww, wx, xx, wy, xy, yy = sums
    det, top, bottom = ww * xx - wx * wx, ww * xy - wx * wy, xx * wy - wx * xy
    free = _free(ww * xx, det, top, bottom)
    alone = np.maximum(xy * xy / xx, wy * wy / ww)
    gain = np.where(free, (top * xy + bottom * wy) / np.where(free, det, 1.0), alone)
    return np.maximum(yy - gain, 0.0)


def _branches(sums: Sums) -> tuple[Floats, Floats]:
    """Sums of squares with E_inf and a free, whatever their sign, and with E_inf = 0."""
    ww, wx, xx, wy, xy, yy = sums
    det = ww * xx - wx * wx
    regular = det > 1e-13 * ww * xx
    both = ((ww * xy - wx * wy) * xy + (xx * wy - wx * xy) * wy) / np.where(regular, det, 1.0)
    alone = xy * xy / xx
    return yy - np.where(regular, both, alone), yy - alone
