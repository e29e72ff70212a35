"""Equivalent clean images by level: how many clean images reach a mixture's error at each diffusion level.

At one level s the clean-only models give a curve f(log n) = log E(s; n): their means over seeds, made monotone (more
clean images cannot be worth less; pooled adjacent violators) and joined by a monotone cubic in log n (Fritsch and
Carlson 1980). A mixture of n_clean clean and n_noisy noisy images with mean log error y has

    n_eq = f^-1(y),        worth of one noisy image = (n_eq - n_clean) / n_noisy        (clean images).

Its interval inverts the test of `y = f(x)` (Fieller 1954, for a curve in place of a line): all x with

    (y - f(x))^2 <= t^2 s^2 (1/S_mix + sum_k w_k(x)^2 / S_k),

w_k(x) the weights of linear interpolation between the neighbouring clean sizes, S the numbers of replicates, s^2 the
variance of one model at that level beside its seed's common part, pooled over cells (`compare.cells.blocks`). Where the
set reaches the smallest or the largest clean-only size, nothing is known beyond it: the end is 0 or infinite. A mixture
whose error lies outside the curve has no estimate, only the end that the data do give: nothing is extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ambient_theory.compare.by_level.levels import LevelCell, LevelTable, check_priceable
from ambient_theory.compare.fitting.fits import Interval

if TYPE_CHECKING:
    from scipy import interpolate

Floats = NDArray[np.float64]
GRID = 321
INSIDE, BEYOND, BELOW = "inside", "beyond", "below"


@dataclass(frozen=True)
class Band:
    """One mixture at one level. equivalent: n_eq in clean images; worth: of one noisy image, in clean ones.

    where: `inside` the clean-only curve; `beyond` it (better than the largest clean-only size: value infinite) or
    `below` (worse than the smallest: value 0). From one seed a cell the intervals have no ends.
    """

    level: float
    equivalent: Interval
    worth: Interval
    where: str

    @property
    def inside(self) -> bool:
        return self.where == INSIDE

    def to_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "where": self.where,
            "equivalent_clean": self.equivalent.to_list(),
            "worth": self.worth.to_list(),
        }


@dataclass(frozen=True, eq=False)
class MixtureBands:
    """All levels of one mixture. gradient [levels, cells]: d worth / d (mean log error of each cell of `Bands.cells`),
    NaN at levels outside the curve."""

    cell: LevelCell
    bands: tuple[Band, ...]
    gradient: Floats

    def to_dict(self) -> dict[str, Any]:
        return {**self.cell.to_dict(), "bands": [b.to_dict() for b in self.bands]}


@dataclass(frozen=True, eq=False)
class Bands:
    """Every mixture of one table by level. cells: the clean-only cells by size, then the mixtures, then noisy-only."""

    table: LevelTable
    cells: tuple[LevelCell, ...]
    mixtures: tuple[MixtureBands, ...]
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        return {"levels": self.table.levels.tolist(), "mixtures": [m.to_dict() for m in self.mixtures]}


@dataclass(frozen=True, eq=False)
class CleanCurve:
    """log E(s; n) of clean-only models at one level: nodes x = log n [K], y [K] monotone falling, seeds [K]."""

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


def clean_curve(table: LevelTable, level: int) -> CleanCurve:
    """The clean-only curve at the `level`-th level. Raises DataError with fewer than two sizes."""
    check_priceable(table)
    cells = table.clean
    log_error, replicates = table.means(cells)
    return CleanCurve.of(np.log([float(c.n_clean) for c in cells]), log_error[:, level], replicates[:, level])


def bands(table: LevelTable, confidence: float = 0.95) -> Bands:
    """Equivalent clean images and worth of every mixture at every level; noisy-only models last.

    Raises DataError where the table prices nothing (see `check_priceable`).
    """
    check_priceable(table)
    cells = (*table.clean, *table.mixtures, *table.noisy_only)
    curves = [clean_curve(table, k) for k in range(len(table.levels))]
    scatter = table.scatter
    quantile = float(special.stdtrit(scatter.dof, 0.5 + confidence / 2)) if scatter.dof else math.nan
    means, replicates = table.means(cells)
    found = []
    for position, cell in enumerate(cells):
        if not cell.n_noisy:
            continue
        rows, gradient = [], np.full((len(table.levels), len(cells)), np.nan)
        for k, curve in enumerate(curves):
            y = float(means[position, k])
            x, where = curve.invert(y)
            low = high = None
            if scatter.dof:
                ends = curve.interval(y, float(replicates[position, k]), float(scatter.covariance[k, k]), quantile)
                low, high = (_exp(end) for end in ends)
            n_eq = Interval(_exp(x), low, high)
            worth = n_eq.map(_worth_of(cell))
            rows.append(Band(float(table.levels[k]), n_eq, worth, where))
            slope = curve.slope(x) if where == INSIDE else 0.0
            if slope < 0:
                gradient[k] = 0.0
                gradient[k, position] = 1.0
                gradient[k, : len(curve.x)] -= curve.weights(np.array([x]))[0]
                gradient[k] *= math.exp(x) / slope / cell.n_noisy
        found.append(MixtureBands(cell, tuple(rows), gradient))
    return Bands(table, cells, tuple(found), confidence)


def _worth_of(cell: LevelCell) -> Callable[[float], float]:
    return lambda n_eq: (n_eq - cell.n_clean) / cell.n_noisy


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf
