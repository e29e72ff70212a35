"""Equivalent clean images by level: how many clean images reach a mixture's error at each diffusion level.

At one level s the clean-only models give a curve f(log n) = log E(s; n) (`compare.fitting.clean_curve`). A mixture of
n_clean clean and n_noisy noisy images with mean log error y has

    n_eq = exp(f^-1(y)),        worth of one noisy image = (n_eq - n_clean) / n_noisy        (clean images),

with the interval of n_eq that the curve gives. The variance of one model at that level beside its seed's common part is
pooled over cells (`compare.cells.blocks`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.by_level.levels import LevelCell, LevelTable, check_priceable
from ambient_theory.compare.fitting.clean_curve import INSIDE, CleanCurve, worth
from ambient_theory.compare.fitting.fits import Interval

Floats = NDArray[np.float64]


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


def curve_at(table: LevelTable, level: int) -> CleanCurve:
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
    curves = [curve_at(table, k) for k in range(len(table.levels))]
    scatter = table.scatter
    means, replicates = table.means(cells)
    found = []
    for position, cell in enumerate(cells):
        if not cell.n_noisy:
            continue
        rows, gradient = [], np.full((len(table.levels), len(cells)), np.nan)
        for k, curve in enumerate(curves):
            y, variance = float(means[position, k]), float(scatter.covariance[k, k])
            n_eq, where = curve.equivalent(y, float(replicates[position, k]), variance, scatter.dof, confidence)
            rows.append(Band(float(table.levels[k]), n_eq, worth(n_eq, cell.n_clean, cell.n_noisy), where))
            x = math.log(n_eq.value) if where == INSIDE else 0.0
            slope = curve.slope(x) if where == INSIDE else 0.0
            if slope < 0:
                gradient[k] = 0.0
                gradient[k, position] = 1.0
                gradient[k, : len(curve.x)] -= curve.weights(np.array([x]))[0]
                gradient[k] *= n_eq.value / slope / cell.n_noisy
        found.append(MixtureBands(cell, tuple(rows), gradient))
    return Bands(table, cells, tuple(found), confidence)
