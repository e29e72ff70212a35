"""How many clean images do as well: the scores of clean-only models as a curve, read backwards, with intervals.

Means over seeds of y (a log error, or a score itself) by log n are made monotone (more clean images cannot be worth
less; pooled adjacent violators) and joined by a monotone cubic (Fritsch and Carlson 1980): f. A model of mean y has

    n_eq = exp(f^-1(y)),

and its interval inverts the test of `y = f(x)` (Fieller 1954, for a curve in place of a line): all x with

    (y - f(x))^2 <= t^2 s^2 (1/S + sum_k w_k(x)^2 / S_k),

w_k(x) the weights of linear interpolation between the neighbouring clean sizes, S the numbers of replicates, s^2 the
variance of one model (`compare.cells.blocks`). Where the set reaches the smallest or the largest clean-only size,
nothing is known beyond it: the end is 0 or infinite. A model whose y lies outside the curve has no estimate, only the
end that the data do give: nothing is extrapolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ambient_theory.compare.cells.blocks import ALIKE
from ambient_theory.compare.fitting.fits import Interval

if TYPE_CHECKING:
    from scipy import interpolate

Floats = NDArray[np.float64]
GRID = 321
INSIDE, BEYOND, BELOW = "inside", "beyond", "below"


@dataclass(frozen=True, eq=False)
class CleanCurve:
    """The scores of clean-only models: nodes x = log n [K], y [K] monotone falling, seeds [K] (replicates)."""

    x: Floats
    y: Floats
    seeds: Floats

    @classmethod
    def of(cls, x: Floats, y: Floats, seeds: Floats) -> CleanCurve:
        """x ascending. Rises with n are pooled, weighted by seeds."""
        from scipy import optimize  # half a second of imports, which `price` need not wait for

        return cls(x, np.asarray(optimize.isotonic_regression(y, weights=seeds, increasing=False).x), seeds)

    def __call__(self, x: Floats) -> Floats:
        return np.asarray(self.cubic(x))

    @cached_property
    def cubic(self) -> interpolate.PchipInterpolator:
        from scipy import interpolate

        return interpolate.PchipInterpolator(self.x, self.y)

    @cached_property
    def derivative(self) -> interpolate.PPoly:
        return self.cubic.derivative()

    def weights(self, x: Floats) -> Floats:
        """Weights of linear interpolation between the nodes, [len(x), K]."""
        return np.stack([np.interp(x, self.x, row) for row in np.eye(len(self.x))], axis=1)

    @cached_property
    def grid(self) -> Floats:
        return np.union1d(np.linspace(self.x[0], self.x[-1], GRID), self.x)

    @cached_property
    def on_grid(self) -> tuple[Floats, Floats]:
        """The curve on its grid, and the variance of its mean over seeds there, in that of one seed."""
        return self(self.grid), self.weights(self.grid) ** 2 @ (1 / self.seeds)

    def invert(self, y: float) -> tuple[float, str]:
        """x at which the curve first falls to y, and where that is; -inf or inf outside the curve."""
        if y > self.y[0]:
            return -math.inf, BELOW
        if y < self.y[-1]:
            return math.inf, BEYOND
        k = int(np.searchsorted(-self.y, -y))
        if k == 0:
            return float(self.x[0]), INSIDE
        if self.y[k] == y:
            return float(self.x[k]), INSIDE
        from scipy import optimize

        return float(optimize.brentq(lambda x: float(self.cubic(x)) - y, self.x[k - 1], self.x[k], xtol=1e-12)), INSIDE

    def slope(self, x: float) -> float:
        """df/dx, of the chord between the neighbours where the curve itself is flat."""
        k = int(np.clip(np.searchsorted(self.x, x), 1, len(self.x) - 1))
        at = float(self.derivative(x))
        chord = float((self.y[k] - self.y[k - 1]) / (self.x[k] - self.x[k - 1]))
        return at if abs(at) > 0.05 * abs(chord) else chord

    def interval(self, y: float, seeds: float, variance: float, quantile: float) -> tuple[float, float]:
        """The x whose f(x) differs from y by no more than chance; -inf, inf where that reaches an end of the curve."""
        grid = self.grid
        f, spread = self.on_grid
        z = (y - f) / np.sqrt(variance * (1 / seeds + spread))
        inside = np.nonzero(np.abs(z) <= quantile)[0]
        if not len(inside):
            if np.all(z > 0):
                return -math.inf, float(self.x[0])
            if np.all(z < 0):
                return float(self.x[-1]), math.inf
            first = int(np.argmax(z > 0))  # so sharp that no grid point is inside: z crosses 0 between two
            return float(grid[first - 1]), float(grid[first])
        low, high = int(inside[0]), int(inside[-1])
        ends = []
        for at, beside, goal in ((low, low - 1, -quantile), (high, high + 1, quantile)):
            if beside < 0:
                ends.append(-math.inf)
            elif beside == len(grid):
                ends.append(math.inf)
            else:
                share = (goal - z[at]) / (z[beside] - z[at])
                ends.append(float(grid[at] + share * (grid[beside] - grid[at])))
        return ends[0], ends[1]

    def equivalent(self, y: float, seeds: float, variance: float, dof: int, confidence: float) -> tuple[Interval, str]:
        """n_eq of a model of mean y, and where y is: `inside` the curve, `beyond` (n_eq infinite) or `below` it (0).

        seeds: replicates behind y. variance: of one model, with `dof` degrees of freedom; without any, or where models
        differ by rounding alone (copies are no replicates), no interval.
        """
        x, where = self.invert(y)
        if dof < 1 or not variance > ALIKE:
            return Interval(_exp(x), None, None), where
        low, high = self.interval(y, seeds, variance, float(stdtrit(dof, 0.5 + confidence / 2)))
        return Interval(_exp(x), _exp(low), _exp(high)), where


def worth(equivalent: Interval, n_clean: float, n_noisy: float) -> Interval:
    """(n_eq - n_clean) / n_noisy: what one noisy image of a mixture is worth on average, in clean images."""
    return equivalent.map(lambda n_eq: (n_eq - n_clean) / n_noisy)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
