"""What a noisy image is worth beside what is there already: every mixture by itself, over a range of levels.

The errors of one model over a range of levels make one number, its part of the likelihood bound (nats),

    Q = sum_k w_k E(s_k),        w the quadrature of `int E s^-3 ds`        (levels in the range alone),

and the clean-only models a curve log Q(log n). On it a mixture's Q is read as a number of clean images, n_eq, with an
interval that inverts the test of equality (`compare.fitting.clean_curve`):

    worth of one noisy image = (n_eq - n_clean) / n_noisy        (clean images).

No law says here how worths of different mixtures are related, so none can misfit and widen the intervals; and nothing
is said of mixtures that were not trained. Scatter is that over seeds, pooled over all cells, with seeds as blocks and
more of it in models of few images (`compare.cells.blocks`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.by_level.levels import (
    LevelCell,
    LevelTable,
    blocked_cells,
    check_priceable,
    nats_quadrature,
)
from ambient_theory.compare.fitting.clean_curve import CleanCurve, worth
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.scores.words import span

ALL, ABOVE = "all levels", "above the noise"


@dataclass(frozen=True)
class Beside:
    """One mixture over the levels of `part`. equivalent: n_eq. worth: of one noisy image; without ends from one seed a
    cell, infinite or 0 where the clean-only curve says no more."""

    cell: LevelCell
    part: str
    equivalent: Interval
    worth: Interval

    @property
    def times(self) -> Interval:
        """n_eq / n_clean: as if the clean images were so many times more."""
        return self.equivalent.map(lambda n: n / self.cell.n_clean)

    @property
    def width(self) -> float:
        """Upper over lower end of the interval of the worth, and of the price 1/worth; infinite where one is open."""
        low, high = self.worth.low, self.worth.high
        return high / low if low is not None and high is not None and low > 0 else math.inf

    @property
    def price(self) -> str:
        """Noisy images for one clean one, in words."""
        harms = self.worth.high is not None and self.worth.high <= 0
        return "none, they do harm" if harms else span(self.worth.inverse())

    def to_dict(self) -> dict[str, Any]:
        found = {"equivalent_clean": self.equivalent.to_list(), "worth": self.worth.to_list()}
        return {**self.cell.to_dict(), "levels": self.part, **found}


def extremes(found: Iterable[Beside]) -> list[Beside]:
    """Those of the largest and the smallest worth; one where there is no other."""
    order = sorted(found, key=lambda b: -b.worth.value)
    return [order[0], order[-1]] if len(order) > 1 else order


def beside(table: LevelTable, confidence: float = 0.95, only: float | None = None) -> list[Beside]:
    """Every mixture but controls over all levels, then over those above its noise. only: of this noise level alone.

    Raises DataError where the table prices nothing (see `check_priceable`).
    """
    check_priceable(table)
    found = []
    everywhere = np.ones(len(table.levels), bool)
    mixtures = [c for c in table.mixtures if not c.control and only in (None, c.sigma_n)]
    for cell, value in zip(mixtures, _over(table, everywhere, mixtures, confidence), strict=True):
        found.append(_made(cell, ALL, value))
    for sigma_n in sorted({c.sigma_n for c in mixtures if c.sigma_n is not None}):
        above = np.asarray(table.levels > table.noise.lowest_level(sigma_n))
        own = [c for c in mixtures if c.sigma_n == sigma_n]
        if above.sum() > 1 and not above.all():
            found += [
                _made(c, ABOVE, value) for c, value in zip(own, _over(table, above, own, confidence), strict=True)
            ]
    return found


def _made(cell: LevelCell, part: str, equivalent: Interval) -> Beside:
    return Beside(cell, part, equivalent, worth(equivalent, cell.n_clean, cell.n_noisy))


def _over(table: LevelTable, chosen: NDArray[np.bool_], mixtures: list[LevelCell], confidence: float) -> list[Interval]:
    """n_eq of each of the mixtures over the chosen levels."""
    weight = nats_quadrature(table.levels[chosen])
    cells = [*table.clean, *mixtures]
    values = [np.log(np.exp(c.log_error[:, chosen]) @ weight)[:, None] for c in cells]
    made = blocked_cells(cells, values)
    count, dof = len(table.clean), made.dof()
    variance = sum(float(np.sum(rest**2)) for rest in made.rest) / dof if dof > 0 else 0.0
    curve = CleanCurve.of(
        np.log([float(c.n_clean) for c in table.clean]), made.mean[:count, 0], made.replicates[:count, 0]
    )
    return [
        curve.equivalent(float(y), float(seeds), variance, dof, confidence)[0]
        for y, seeds in zip(made.mean[count:, 0], made.replicates[count:, 0], strict=True)
    ]
