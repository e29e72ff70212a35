"""What to buy where a noisy image is two goods: a mix, and which good is short.

Above the noise level s > sigma_n images of both kinds add, `N_coarse = n_clean + c n_noisy`; below it noisy images only
multiply the clean ones, `N_fine = n_clean` times a factor that saturates. Both must be large, so the best purchase is
no corner. Two outcomes are planned for:

    nats    the held-out denoising error, d sum_k w_k E(s_k), w the quadrature of s^-3 ds, E by the law that survives,
    FD      F_inf + a N_coarse^-p + b N_fine^-q, fitted to the scores of the same models.

Uncertainty: the cells' errors are drawn about the fitted law (scatter over seeds, correlated between levels, widened
where the law misfits; multivariate t), and the law is fitted again to each draw. The mixes that may be best are the
interval of the best share over the draws. The good that is short is the one of which a tenth more would lower the
error most.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.by_level.goods import TWO, LawFit, fit_laws
from ambient_theory.compare.by_level.judgement import Judgement
from ambient_theory.compare.by_level.levels import LevelTable, nats_quadrature
from ambient_theory.compare.by_level.potency import inflation
from ambient_theory.compare.by_level.unseen import goods_sizes, two_goods_curve
from ambient_theory.compare.cells.tables import METRIC_NAMES, Group, table_of
from ambient_theory.compare.purchase.purchases import BudgetAnswer, Planner, Seen, drawn_interval

Floats = NDArray[np.float64]
DRAWS = 60
"""At least so many refits."""
MORE = 1.1
"""A good is tried with so many times as much of it."""
ROUNDING = 1e-12
"""Added to a correlation matrix: of fewer models than levels it has no full rank, and rounding makes it indefinite."""
FARTHEST = 50.0
"""Largest noise of a log error: of one degree of freedom t has tails whose exponentials have no squares in floats."""
COARSE_SHORT = "images of either kind are short (the levels above the noise)"
FINE_SHORT = "clean images are short (the levels below the noise)"
HALF = 0.5
CONSTANTS = 5
"""Of a score by two goods: F_inf, a, p, b, q."""


def draws_for(confidence: float) -> int:
    """Refits for an interval of this confidence: its ends lie inside the smallest and the largest."""
    return max(DRAWS, math.ceil(2 / (1 - confidence)))


class GoodsPlanner(Planner):
    """What both outcomes share: the law that survives, draws of it, and the good that is short."""

    def __init__(self, judged: Judgement, table: LevelTable, *, draws: int = DRAWS, seed: int = 0):
        self.judged, self.table = judged, table
        self.sigma_n, self.measured = judged.sigma_n, True
        self.law = judged.laws[judged.surviving or TWO]
        self.curves = (self.law.name,)
        self.seen = Seen.of([c for c in judged.market.cells if c.n_clean])
        self._draws, self._seed = draws, seed

    @cached_property
    def laws(self) -> list[LawFit]:
        """The law fitted to drawn errors; empty from one seed a cell."""
        law, market = self.law, self.law.market
        if not market.dof:
            return []
        rng = np.random.default_rng(self._seed)
        factor, dof = inflation(law)
        scatter = self.table.scatter
        root = np.linalg.cholesky(scatter.correlation + ROUNDING * np.eye(len(market.levels)))
        root *= math.sqrt(factor) * scatter.deviation[:, None]
        centre = np.log(law.curves.predict(law.sizes[None])[0])
        out = []
        for _ in range(self._draws):
            heavy = np.sqrt(dof / rng.chisquare(dof))
            noise = heavy * root @ rng.standard_normal(centre.shape) / np.sqrt(market.seeds)
            drawn = replace(market, error=np.exp(centre + np.clip(noise, -FARTHEST, FARTHEST)))
            out.append(fit_laws(drawn, (law.name,))[law.name])
        return out

    def open_shares(self, shares: Floats, draws: Floats, best: int, confidence: float) -> tuple[float, float]:
        """Interval of the best share over the draws, with the recommended one inside."""
        found = shares[np.argmin(draws, axis=1)]
        low, high = drawn_interval(found, confidence)
        return float(min(low, shares[best])), float(max(high, shares[best]))

    def complete(self, answer: BudgetAnswer) -> BudgetAnswer:
        """Adds law, the good that is short, and why nothing is determined where it is not."""
        most = max(self._most(answer.price_clean, answer.price_noisy), 1e-9)
        short = self.short(float(answer.best.n_clean), float(answer.best.n_noisy))
        why = "" if answer.open_shares is None else self.judged.undetermined
        return replace(answer, decisive=HALF * most, law=self.law.name, short=short, why_not=why, outcome=self.outcome)

    @property
    def outcome(self) -> str:
        raise NotImplementedError

    def short(self, n_clean: float, n_noisy: float) -> str:
        """The good of which a tenth more would lower the error most; empty where all levels lie on one side."""
        above = self.law.market.above
        if above.all() or not above.any():
            return ""
        coarse, fine = (self.with_more(n_clean, n_noisy, a, b) for a, b in ((MORE, 1.0), (1.0, MORE)))
        return COARSE_SHORT if coarse < fine else FINE_SHORT

    def with_more(self, n_clean: float, n_noisy: float, coarse: float, fine: float) -> float:
        """The error with so many times as much of each good."""
        raise NotImplementedError


class NatsPlanner(GoodsPlanner):
    """The held-out denoising error in nats an image, by the law that survives."""

    def __init__(self, judged: Judgement, table: LevelTable, *, draws: int = DRAWS, seed: int = 0):
        super().__init__(judged, table, draws=draws, seed=seed)
        self.group = table.key.label()
        self._weight = max(table.key.dim, 1) * nats_quadrature(table.levels)

    @property
    def outcome(self) -> str:
        return "nats an image" if self.table.key.dim else "nats a pixel"

    def point(self, n_clean: Floats, n_noisy: Floats) -> Floats:
        return self._nats(self.law, n_clean, n_noisy)

    def errors(self, n_clean: Floats, n_noisy: Floats) -> tuple[Floats, Floats | None]:
        draws = [self._nats(law, n_clean, n_noisy) for law in self.laws]
        return self.point(n_clean, n_noisy), np.array(draws) if draws else None

    @property
    def floor(self) -> float:
        return float(self._weight @ self.law.curves.floor[0])

    def _nats(self, law: LawFit, n_clean: Floats, n_noisy: Floats, factor: Floats | None = None) -> Floats:
        """factor [L]: on N at each level."""
        q = np.where(law.market.above, 0.0, law.q)[:, None]
        size = law.market.size(law.worth[:, None], q, n_clean, n_noisy)
        size = size if factor is None else size * factor[:, None]
        return np.asarray(self._weight @ law.curves.predict(size[None])[0])

    def with_more(self, n_clean: float, n_noisy: float, coarse: float, fine: float) -> float:
        factor = np.where(self.law.market.above, coarse, fine)
        return float(self._nats(self.law, np.array([n_clean]), np.array([n_noisy]), factor)[0])


class ScorePlanner(GoodsPlanner):
    """A distance of the same models from the two goods of their denoising errors."""

    def __init__(self, judged: Judgement, table: LevelTable, group: Group, *, draws: int = DRAWS, seed: int = 0):
        super().__init__(judged, table, draws=draws, seed=seed)
        self.group = group.key.label()
        self._metric = METRIC_NAMES.get(group.key.metric, group.key.metric)
        self.law = judged.laws[TWO]
        cells = [c for c in group.price_cells if not c.n_noisy or c.sigma_n == judged.sigma_n]
        self.seen = Seen.of(cells)
        self._clean = np.array([float(c.n_clean) for c in cells])
        self._noisy = np.array([float(c.n_noisy) for c in cells])
        pooled = table_of(group, cells)
        self._y, self._seeds, self._dof, self._variance = pooled.y, pooled.seeds, pooled.dof, pooled.variance
        self._curve = two_goods_curve(*goods_sizes(self.law, self._clean, self._noisy), np.exp(self._y))

    @property
    def outcome(self) -> str:
        return self._metric

    @property
    def floor(self) -> float:
        return float(self._curve(np.array([1e30]), np.array([1e30]))[0])

    def point(self, n_clean: Floats, n_noisy: Floats) -> Floats:
        return self._curve(*goods_sizes(self.law, n_clean, n_noisy))

    def errors(self, n_clean: Floats, n_noisy: Floats) -> tuple[Floats, Floats | None]:
        point = self.point(n_clean, n_noisy)
        if not self.laws or not self._dof:
            return point, None
        rng = np.random.default_rng(self._seed + 1)
        fitted = np.log(self.point(self._clean, self._noisy))
        spare = max(len(fitted) - CONSTANTS, 1)
        misfit = float(self._seeds @ (self._y - fitted) ** 2) / spare
        variance, dof = (misfit, spare) if misfit > self._variance else (self._variance, self._dof)
        scale = np.sqrt(variance / self._seeds)
        draws = []
        for law in self.laws:
            heavy = np.sqrt(dof / rng.chisquare(dof))
            score = np.exp(fitted + heavy * scale * rng.standard_normal(len(fitted)))
            curve = two_goods_curve(*goods_sizes(law, self._clean, self._noisy), score)
            draws.append(curve(*goods_sizes(law, n_clean, n_noisy)))
        return point, np.array(draws)

    def with_more(self, n_clean: float, n_noisy: float, coarse: float, fine: float) -> float:
        a, b = goods_sizes(self.law, np.array([n_clean]), np.array([n_noisy]))
        return float(self._curve(coarse * a, fine * b)[0])


def nats_planners(
    judgements: Mapping[float, Judgement], table: LevelTable, confidence: float = 0.95
) -> dict[float, NatsPlanner]:
    """A planner for each noise level that was measured by level."""
    draws = draws_for(confidence)
    return {s: NatsPlanner(j, table, draws=draws) for s, j in judgements.items() if j.expected is None}
