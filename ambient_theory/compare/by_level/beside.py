"""What a noisy image is worth beside what is there already: every mixture by itself, over a range of levels.

The errors of one model over a range of levels make one number, its part of the likelihood bound (nats),

    Q = sum_k w_k E(s_k),        w the quadrature of `int E s^-3 ds`        (levels in the range alone),

and the clean-only models a curve log Q(log n). On it a mixture's Q is read as a number of clean images, n_eq, with an
interval that inverts the test of equality (Fieller 1954; see `by_level.bands`, whose curve and intervals these are):

    worth of one noisy image = (n_eq - n_clean) / n_noisy        (clean images).

No law says here how worths of different mixtures are related, so none can misfit and widen the intervals; and nothing
is said of mixtures that were not trained. Scatter is that over seeds, with seeds as blocks (`compare.cells.blocks`),
pooled over the two clean sizes that bracket n_eq and all cells of as many clean images as the mixture has.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ambient_theory.compare.by_level.bands import INSIDE, CleanCurve
from ambient_theory.compare.by_level.levels import LevelCell, LevelTable, check_priceable, nats_quadrature
from ambient_theory.compare.cells.blocks import Blocked, blocked
from ambient_theory.compare.fitting.fits import Interval

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

    def to_dict(self) -> dict[str, Any]:
        found = {"equivalent_clean": self.equivalent.to_list(), "worth": self.worth.to_list()}
        return {**self.cell.to_dict(), "levels": self.part, **found}


def beside(table: LevelTable, confidence: float = 0.95) -> list[Beside]:
    """Every mixture but controls over all levels, then over those above its noise.

    Raises DataError where the table prices nothing (see `check_priceable`).
    """
    check_priceable(table)
    found = []
    everywhere = np.ones(len(table.levels), bool)
    mixtures = [c for c in table.mixtures if not c.control]
    for cell, value in zip(mixtures, _over(table, everywhere, mixtures, confidence), strict=True):
        found.append(_made(cell, ALL, value))
    for sigma_n in table.noise_levels:
        above = np.asarray(table.levels > table.noise.lowest_level(sigma_n))
        own = [c for c in mixtures if c.sigma_n == sigma_n]
        if above.sum() > 1 and not above.all():
            found += [
                _made(c, ABOVE, value) for c, value in zip(own, _over(table, above, own, confidence), strict=True)
            ]
    return found


def _made(cell: LevelCell, part: str, equivalent: Interval) -> Beside:
    return Beside(cell, part, equivalent, equivalent.map(lambda n: (n - cell.n_clean) / cell.n_noisy))


def _over(table: LevelTable, chosen: NDArray[np.bool_], mixtures: list[LevelCell], confidence: float) -> list[Interval]:
    """n_eq of each of the mixtures over the chosen levels."""
    weight = nats_quadrature(table.levels[chosen])
    cells = [*table.clean, *mixtures]
    values = [np.log(np.exp(c.log_error[:, chosen]) @ weight)[:, None] for c in cells]
    made = blocked([c.seeds for c in cells], values)
    count = len(table.clean)
    curve = CleanCurve.of(
        np.log([float(c.n_clean) for c in table.clean]), made.mean[:count, 0], made.replicates[:count]
    )
    out = []
    for cell, y, replicates in zip(mixtures, made.mean[count:, 0], made.replicates[count:], strict=True):
        x, where = curve.invert(float(y))
        n = math.exp(x) if where == INSIDE else (math.inf if x > 0 else 0.0)
        right = int(np.clip(np.searchsorted(curve.x, x), 1, count - 1))
        near = {right - 1, right, *(k for k, c in enumerate(cells) if c.n_clean == cell.n_clean)}
        variance, dof = _scatter(made, near)
        if variance <= 1e-24:
            out.append(Interval(n, None, None))
            continue
        quantile = float(special.stdtrit(dof, 0.5 + confidence / 2))
        ends = curve.interval(float(y), float(replicates), variance, quantile)
        out.append(Interval(n, *(math.exp(e) if math.isfinite(e) else (math.inf if e > 0 else 0.0) for e in ends)))
    return out


def _scatter(made: Blocked, near: Collection[int]) -> tuple[float, float]:
    """(variance of one model, degrees of freedom) of the cells `near`, of all where that leaves none.

    Models of few images scatter more than those of many, so those far away say nothing here. Of the degrees of freedom
    that all cells have, these have their share.
    """
    every = sum(len(rest) - 1 for rest in made.rest)
    for chosen in (near, range(len(made.rest))):
        own = sum(len(made.rest[k]) - 1 for k in chosen)
        dof = own * made.dof() / every if every else 0.0
        if dof >= 1:
            return sum(float(np.sum(made.rest[k] ** 2)) for k in chosen) / dof, dof
    return 0.0, 0.0
