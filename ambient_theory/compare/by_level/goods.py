"""Is a noisy image one good or two? Nested laws of its worth over the levels, at one noise level sigma_n of the data.

At every level s the error of a model is `E(s) = E_inf(s) + a(s) N(s)^-p(s)` (three free constants a level, held by the
clean-only models), and a law says what N is, in clean images, for n_clean clean and n_noisy noisy ones, r their ratio:

    one worth      N = n_clean + c n_noisy                                       at all levels
    two goods      N_coarse = n_clean + c n_noisy                                above the noise, s > sigma_n
                   N_fine   = n_clean + w n_noisy (1 + q r*)/(1 + q r)           below
    free worths    as two goods, with a worth of its own at each level
    V/(V + v)      no constant: see `compare.by_level.formula`

w is the worth below the noise at r*, the mixtures' typical ratio. q = 0 adds; q > 0 saturates: N_fine <= n_clean times
`1 + w (1 + q r*)/q`, so noisy images multiply the clean ones by a factor that no number of them exceeds.

Fits are exact profiles (`compare.fitting.varpro`). Residuals `sqrt(seeds) (E - model)/(E s(level))` are weighed as if
levels were independent; they are not (one seed moves all its levels), so what is compared with chance are quadratic
forms whose mean and degrees of freedom follow from the correlation between levels, estimated over seeds
(`compare.fitting.quadratic`). Interval (`compare.by_level.potency`): all values whose profile lies within `lambda t^2`
of the minimum (magnitude-adjusted composite likelihood, Chandler and Bate 2007), lambda the mean of the one-parameter
form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.by_level.levels import LevelCell, LevelTable, check_priceable
from ambient_theory.compare.fitting import varpro
from ambient_theory.compare.fitting.quadratic import Test, basis, form
from ambient_theory.shared.errors import DataError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
C_MAX, C_UNIT = 4.0, 0.01
Q_MAX, Q_UNIT = 50.0, 0.1
C_POINTS, Q_POINTS = 41, 11
U_MAX, U_Q_MAX = math.log1p(C_MAX / C_UNIT), math.log1p(Q_MAX / Q_UNIT)

CLEAN_ONLY, NAIVE, ONE, NOTHING_BELOW, ADDITIVE, TWO, FREE = (
    "clean only (c = 0)",
    "naive n (c = 1)",
    "one worth",
    "two goods, nothing below",
    "two goods, additive below",
    "two goods",
    "free worths",
)
LAWS = (CLEAN_ONLY, NAIVE, ONE, NOTHING_BELOW, ADDITIVE, TWO, FREE)


def worth_of(u: Any) -> Any:
    """c from the coordinate of searches, u = log(1 + c/.01): even steps in c near 0, in log c above."""
    return C_UNIT * np.expm1(u)


def saturation_of(u: Any) -> Any:
    """q from the coordinate of searches, u = log(1 + q/.1)."""
    return Q_UNIT * np.expm1(u)


@dataclass(frozen=True, eq=False)
class Market:
    """The cells that price a noisy image at one sigma_n: all clean-only ones and the mixtures at that level.

    error, seeds, n_clean, n_noisy: of the R cells, clean-only first; deviation, correlation: of one seed's log error.
    above: which levels exceed sigma_n. reference: r*, geometric mean of the mixtures' n_noisy/n_clean.
    """

    sigma_n: float
    levels: Floats
    cells: tuple[LevelCell, ...]
    error: Floats
    seeds: Floats
    deviation: Floats
    correlation: Floats
    dof: int

    @classmethod
    def of(cls, table: LevelTable, sigma_n: float, cells: tuple[LevelCell, ...] | None = None) -> Market:
        """cells: a part of the table's, the others held out. Raises DataError where they cannot determine a law."""
        check_priceable(table)
        mixtures = tuple(c for c in table.mixtures if c.sigma_n == sigma_n)
        if not mixtures:
            known = ", ".join(f"{s:g}" for s in table.noise_levels) or "none"
            raise DataError(f"{table.key.dataset}: no mixture has noise σ {sigma_n:g}; measured are {known}")
        chosen = tuple(c for c in (*table.clean, *mixtures) if cells is None or c in cells)
        market = cls(
            sigma_n=sigma_n,
            levels=table.levels,
            cells=chosen,
            error=np.exp([c.log_error.mean(axis=0) for c in chosen]).T,
            seeds=np.array([float(len(c.seeds)) for c in chosen]),
            deviation=table.scatter.deviation,
            correlation=table.scatter.correlation,
            dof=table.scatter.dof,
        )
        if len(chosen) < 5 or len({c.n_clean for c in chosen if not c.n_noisy}) < 2:
            raise DataError(
                f"{table.key.dataset}, σ {sigma_n:g}: {len(chosen)} cells cannot determine a curve and a worth; it "
                "takes five or more, two of them clean-only at different sizes"
            )
        return market

    @cached_property
    def n_clean(self) -> Floats:
        return np.array([float(c.n_clean) for c in self.cells])

    @cached_property
    def n_noisy(self) -> Floats:
        return np.array([float(c.n_noisy) for c in self.cells])

    @property
    def ratio(self) -> Floats:
        return self.n_noisy / self.n_clean

    @property
    def above(self) -> Mask:
        return np.asarray(self.levels > self.sigma_n)

    @property
    def reference(self) -> float:
        mixed = self.ratio[self.n_noisy > 0]
        return float(np.exp(np.mean(np.log(mixed))))

    @property
    def one_ratio(self) -> bool:
        """All mixtures have the same ratio, so that saturation cannot be seen."""
        mixed = self.ratio[self.n_noisy > 0]
        return bool(np.ptp(np.log(mixed)) < 1e-6)

    @cached_property
    def errors(self) -> varpro.Errors:
        weight = np.sqrt(self.seeds) / (self.error * self.deviation[:, None])
        return varpro.Errors(self.error, weight, float(np.exp(np.mean(np.log(self.n_clean)))))

    def size(self, worth: Any, q: Any = 0.0, n_clean: Any = None, n_noisy: Any = None) -> Floats:
        """N, broadcasting worth and q [..., 1] against the cells [R]."""
        clean = self.n_clean if n_clean is None else n_clean
        noisy = self.n_noisy if n_noisy is None else n_noisy
        return np.asarray(clean + worth * noisy * (1 + q * self.reference) / (1 + q * noisy / clean))


@dataclass(frozen=True, eq=False)
class LawFit:
    """One fitted law. worth [L]: of a noisy image at each level (below the noise at the ratio r*); q: saturation below.

    pattern [L, k]: which levels share a fitted worth, a column each; saturates: q was fitted. sse: weighted squares.
    lack: its comparison with the scatter over seeds, None where nothing is known of it.
    """

    name: str
    market: Market
    worth: Floats
    q: float
    pattern: Floats
    saturates: bool
    curves: varpro.Curves
    lack: Test | None = None

    @property
    def sse(self) -> float:
        return float(self.curves.sse.sum())

    @property
    def parameters(self) -> int:
        return self.pattern.shape[1] + self.saturates

    @property
    def sizes(self) -> Floats:
        """N [L, R]."""
        q = np.where(self.market.above, 0.0, self.q)[:, None]
        return self.market.size(self.worth[:, None], q)

    def predict(self, n_clean: float, n_noisy: float) -> Floats:
        """E [L] of a model of so many images."""
        q = np.where(self.market.above, 0.0, self.q)
        size = self.market.size(self.worth, q, n_clean, n_noisy)
        return self.curves.predict(size[None, :, None])[0, :, 0]

    @cached_property
    def slopes(self) -> tuple[Floats, Floats]:
        """Derivatives of the weighted model [L, R] by the worth of its level, and by q."""
        m, q = self.market, np.where(self.market.above, 0.0, self.q)[:, None]
        by_size = self._decay * -np.exp(self.curves.log_p[0])[:, None] / self.sizes * m.errors.weight
        share = (1 + q * m.reference) / (1 + q * m.ratio)
        by_q = self.worth[:, None] * m.n_noisy * (m.reference - m.ratio) / (1 + q * m.ratio) ** 2
        return by_size * m.n_noisy * share, by_size * np.where(m.above[:, None], 0.0, by_q)

    @property
    def _decay(self) -> Floats:
        """a N^-p [L, R]."""
        n = np.log(self.sizes / self.curves.unit)
        return np.asarray(self.curves.a[0][:, None] * np.exp(-np.exp(self.curves.log_p[0])[:, None] * n))

    @cached_property
    def nuisance(self) -> Floats:
        """Columns of the weighted Jacobian [L R, ...] for E_inf, a and p of every level; none for those on a bound."""
        columns = []
        decay, weight = self._decay, self.market.errors.weight
        log_n = np.log(self.sizes / self.curves.unit)
        for k in range(len(self.worth)):
            floor, a, log_p = (float(x[0, k]) for x in (self.curves.floor, self.curves.a, self.curves.log_p))
            found = [weight[k]] if floor > 0 or a == 0 else []
            if a > 0:
                found.append(weight[k] * decay[k])
                if min(log_p - math.log(varpro.EXPONENTS[0]), math.log(varpro.EXPONENTS[1]) - log_p) > 1e-3:
                    found.append(weight[k] * decay[k] * -math.exp(log_p) * log_n[k])
            for values in found:
                column = np.zeros(weight.shape)
                column[k] = values
                columns.append(column.ravel())
        return np.array(columns).T

    def tangent(self, pattern: Floats | None = None, saturates: bool | None = None) -> Floats:
        """Columns for worths that share levels by `pattern` and, if `saturates`, for q; the law's own by default."""
        by_worth, by_q = self.slopes
        pattern = self.pattern if pattern is None else pattern
        columns = [(by_worth * column[:, None]).ravel() for column in pattern.T]
        if self.saturates if saturates is None else saturates:
            columns.append(by_q.ravel())
        return np.array(columns).reshape(len(columns), by_worth.size).T

    @property
    def jacobian(self) -> Floats:
        return np.hstack([self.nuisance, self.tangent()])


# --------------------------------------------------------------------------------------------------------------- search


Total = Callable[[Floats, int], Floats]
"""Sums of squares at coordinates [B], with the refinements of p that `varpro.fit` is to make."""


def _zoom(total: Total, low: float, high: float, points: int, rounds: int = 6) -> float:
    """Minimiser of `total` on [low, high]: a rough grid, refined around its best point."""
    grid, effort = np.linspace(low, high, points), varpro.ROUGH
    for _ in range(rounds + 1):
        k = int(np.argmin(total(grid, effort)))
        step = grid[1] - grid[0]
        grid = np.linspace(max(grid[k] - step, low), min(grid[k] + step, high), 9)
        effort = varpro.ROUNDS
    return float(grid[np.argmin(total(grid, effort))])


def _shared(market: Market, part: Mask, q: float = 0.0) -> float:
    """The one worth of all levels of `part` at saturation q."""
    errors = market.errors.at(part)

    def total(u: Floats, effort: int) -> Floats:
        return np.asarray(varpro.fit(market.size(worth_of(u)[:, None], q), errors, effort).sse.sum(axis=1))

    return float(worth_of(_zoom(total, 0.0, U_MAX, C_POINTS)))


def _below(market: Market, part: Mask) -> tuple[float, float]:
    """(w, q): the worth of all levels of `part` and its saturation, on a grid of both, refined around the best."""
    errors = market.errors.at(part)
    spans = [(0.0, U_MAX), (0.0, U_Q_MAX)]
    axes = [np.linspace(0.0, U_MAX, C_POINTS), np.linspace(0.0, U_Q_MAX, Q_POINTS)]
    effort = varpro.ROUGH
    for _ in range(6):
        u, v = (x.ravel() for x in np.meshgrid(*axes, indexing="ij"))
        size = market.size(worth_of(u)[:, None], saturation_of(v)[:, None])
        k = int(np.argmin(varpro.fit(size, errors, effort).sse.sum(axis=1)))
        best = (u[k], v[k])
        steps = [x[1] - x[0] for x in axes]
        axes = [
            np.linspace(max(b - s, low), min(b + s, high), 7)
            for b, s, (low, high) in zip(best, steps, spans, strict=True)
        ]
        effort = varpro.ROUNDS
    return float(worth_of(best[0])), float(saturation_of(best[1]))


def _each(market: Market, part: Mask, q: float) -> Floats:
    """The worth of each level of `part` at saturation q, [levels of the part]."""
    errors = market.errors.at(part)
    grid = np.linspace(0.0, U_MAX, C_POINTS)
    sse = varpro.fit(market.size(worth_of(grid)[:, None], q), errors, varpro.ROUGH).sse
    best = grid[np.argmin(sse, axis=0)]
    step = grid[1] - grid[0]
    for _ in range(6):
        u = np.clip(best + np.linspace(-step, step, 9)[:, None], 0.0, U_MAX)
        sse = varpro.fit(market.size(worth_of(u)[..., None], q), errors).sse
        best = u[np.argmin(sse, axis=0), np.arange(len(best))]
        step /= 4
    return np.asarray(worth_of(best))


def _each_saturating(market: Market, part: Mask, start: float) -> tuple[Floats, float]:
    """The worth of each level of `part` and the saturation that they share, at least as good as at `start`."""
    errors = market.errors.at(part)
    grid = np.linspace(0.0, U_MAX, C_POINTS)

    def total(v: Floats, effort: int) -> Floats:
        u, w = (x.ravel() for x in np.meshgrid(grid, v, indexing="ij"))
        size = market.size(worth_of(u)[:, None], saturation_of(w)[:, None])
        sse = varpro.fit(size, errors, varpro.ROUGH).sse
        return np.asarray(sse.reshape(len(grid), len(v), -1).min(axis=0).sum(axis=1))

    candidates = [start, float(saturation_of(_zoom(total, 0.0, U_Q_MAX, Q_POINTS, rounds=1)))]
    found = [_each(market, part, q) for q in candidates]
    sse = [
        varpro.fit(market.size(c[None, :, None], q), errors).sse.sum() for c, q in zip(found, candidates, strict=True)
    ]
    k = int(np.argmin(sse))
    return found[k], candidates[k]


# ----------------------------------------------------------------------------------------------------------------- laws


def fixed_law(market: Market, name: str, worth: Floats) -> LawFit:
    """A law without a fitted constant: the worth at each level [L] is given."""
    return _law(market, name, worth, 0.0, np.zeros((len(worth), 0)), False)


def _law(market: Market, name: str, worth: Floats, q: float, pattern: Floats, saturates: bool) -> LawFit:
    at = np.where(market.above, 0.0, q)[:, None]
    curves = varpro.fit(market.size(worth[:, None], at)[None], market.errors)
    law = LawFit(name, market, worth, q, pattern, saturates, curves)
    if not market.dof:
        return law
    span = basis(law.jacobian)
    residual = form(None, span, market.correlation)
    return LawFit(name, market, worth, q, pattern, saturates, curves, Test.of(law.sse, residual, market.dof))


def fit_laws(market: Market, names: Collection[str] = LAWS) -> dict[str, LawFit]:
    """The laws of these names, the controls first, each nested in the next from `one worth` on.

    Without a level above the noise, or none below, two goods are one. With all mixtures at one ratio, saturation cannot
    be seen and stays 0.
    """
    above, below = market.above, ~market.above
    count = len(market.levels)
    both = bool(above.any() and below.any())
    saturates = bool(below.any() and not market.one_ratio)
    apart = np.stack([above, below], axis=1).astype(float) if both else np.ones((count, 1))
    c = _shared(market, above) if above.any() else 0.0
    w, q = _below(market, below) if saturates else (_shared(market, below) if below.any() else 0.0, 0.0)
    makers: dict[str, Callable[[], LawFit]] = {
        CLEAN_ONLY: lambda: fixed_law(market, CLEAN_ONLY, np.zeros(count)),
        NAIVE: lambda: fixed_law(market, NAIVE, np.ones(count)),
        ONE: lambda: _law(
            market, ONE, np.full(count, _shared(market, np.ones(count, bool))), 0.0, np.ones((count, 1)), False
        ),
    }
    if both:
        makers[NOTHING_BELOW] = lambda: _law(market, NOTHING_BELOW, np.where(above, c, 0.0), 0.0, apart[:, :1], False)
        makers[ADDITIVE] = lambda: _law(market, ADDITIVE, np.where(above, c, _shared(market, below)), 0.0, apart, False)
    makers[TWO] = lambda: _law(market, TWO, np.where(above, c, w), q, apart, saturates)
    makers[FREE] = lambda: _free(market, q, saturates)
    return {name: make() for name, make in makers.items() if name in names}


def _free(market: Market, start: float, saturates: bool) -> LawFit:
    """A worth at each level; start: the saturation of two goods, which it must not fall behind."""
    above, below = market.above, ~market.above
    worth, q = np.zeros(len(market.levels)), 0.0
    if above.any():
        worth[above] = _each(market, above, 0.0)
    if saturates:
        worth[below], q = _each_saturating(market, below, start)
    elif below.any():
        worth[below] = _each(market, below, 0.0)
    return _law(market, FREE, worth, q, np.eye(len(worth)), saturates)
