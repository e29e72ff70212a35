"""Is a noisy image one good or two? Nested laws of its worth over the levels, at one noise level sigma_n of the data.

At every level s the error of a model is `E(s) = E_inf(s) + a(s) N(s)^-p(s)` (three free constants a level, held by the
clean-only models), and a law says what N is, in clean images, for n_clean clean and n_noisy noisy ones, r their ratio:

    one worth      N = n_clean + c n_noisy                                       at all levels
    two goods      N_coarse = n_clean + c n_noisy                                above the noise, s > sigma_n
                   N_fine   = n_clean + w n_noisy (1 + q r*)/(1 + q r)           below
    free worths    as two goods, with a worth of its own at each level
    V/(V + v)      no constant: see `compare.formula`

w is the worth below the noise at r*, the mixtures' typical ratio. q = 0 adds; q > 0 saturates: N_fine <= n_clean times
`1 + w (1 + q r*)/q`, so noisy images multiply the clean ones by a factor that no number of them exceeds.

Fits are exact profiles (`compare.varpro`). Residuals `sqrt(seeds) (E - model)/(E s(level))` are weighed as if levels
were independent; they are not (one seed moves all its levels), so what is compared with chance are quadratic forms whose
mean and degrees of freedom follow from the correlation between levels, estimated over seeds (`compare.quadratic`).
Interval: all values whose profile lies within `lambda t^2` of the minimum (magnitude-adjusted composite likelihood,
Chandler and Bate 2007), lambda the mean of the one-parameter form; where a law misfits, by its residual scatter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ambient_theory.compare import varpro
from ambient_theory.compare.fits import Interval
from ambient_theory.compare.levels import LevelCell, LevelTable, check_priceable
from ambient_theory.compare.quadratic import Form, basis, form
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

    sigma: float
    levels: Floats
    cells: tuple[LevelCell, ...]
    error: Floats
    seeds: Floats
    deviation: Floats
    correlation: Floats
    dof: int

    @classmethod
    def of(cls, table: LevelTable, sigma: float, cells: tuple[LevelCell, ...] | None = None) -> Market:
        """cells: a part of the table's (held-out cells left out). Raises DataError where they cannot determine a law."""
        check_priceable(table)
        mixtures = tuple(c for c in table.mixtures if c.sigma == sigma)
        if not mixtures:
            known = ", ".join(f"{s:g}" for s in table.sigmas) or "none"
            raise DataError(f"{table.key.dataset}: no mixture has noise σ {sigma:g}; measured are {known}")
        chosen = tuple(c for c in (*table.clean, *mixtures) if cells is None or c in cells)
        market = cls(
            sigma=sigma,
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
                f"{table.key.dataset}, σ {sigma:g}: {len(chosen)} cells cannot determine a curve and a worth; it takes "
                "five or more, two of them clean-only at different sizes"
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
        return np.asarray(self.levels > self.sigma)

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


@dataclass(frozen=True)
class Test:
    """A quadratic form against chance: F = value / (its mean), with its own degrees of freedom; p None if untestable."""

    __test__ = False  # not a test of pytest

    f: float | None
    p: float | None

    @property
    def verdict(self) -> str:
        if self.p is None:
            return "not testable"
        return "rejected" if self.p < 0.05 else "not rejected"

    @classmethod
    def of(cls, value: float, against: Form, dof: int) -> Test:
        if dof < 1 or against.mean < 1e-8:
            return cls(None, None)
        f = max(value, 0.0) / against.mean
        return cls(f, float(stats.f.sf(f, against.dof, dof)))

    def to_dict(self) -> dict[str, Any]:
        return {"F": self.f, "p": self.p, "verdict": self.verdict}


# --------------------------------------------------------------------------------------------------------------- search


def _zoom(total: Callable[[Floats], Floats], low: float, high: float, points: int, rounds: int = 6) -> float:
    """Minimiser of `total` (values at coordinates [B]) on [low, high]: a grid, refined around its best point."""
    grid = np.linspace(low, high, points)
    for _ in range(rounds + 1):
        k = int(np.argmin(total(grid)))
        step = grid[1] - grid[0]
        grid = np.linspace(max(grid[k] - step, low), min(grid[k] + step, high), 9)
    return float(grid[np.argmin(total(grid))])


def _shared(market: Market, part: Mask, q: float = 0.0) -> float:
    """The one worth of all levels of `part` at saturation q."""
    errors = market.errors.at(part)
    total = lambda u: varpro.fit(market.size(worth_of(u)[:, None], q), errors).sse.sum(axis=1)  # noqa: E731
    return float(worth_of(_zoom(total, 0.0, U_MAX, C_POINTS)))


def _below(market: Market, part: Mask) -> tuple[float, float]:
    """(w, q): the worth of all levels of `part` and its saturation, on a grid of both, refined around its best point."""
    errors = market.errors.at(part)
    spans = [(0.0, U_MAX), (0.0, U_Q_MAX)]
    axes = [np.linspace(0.0, U_MAX, C_POINTS), np.linspace(0.0, U_Q_MAX, Q_POINTS)]
    for _ in range(6):
        u, v = (x.ravel() for x in np.meshgrid(*axes, indexing="ij"))
        size = market.size(worth_of(u)[:, None], saturation_of(v)[:, None])
        k = int(np.argmin(varpro.fit(size, errors).sse.sum(axis=1)))
        best = (u[k], v[k])
        steps = [x[1] - x[0] for x in axes]
        axes = [
            np.linspace(max(b - s, low), min(b + s, high), 7)
            for b, s, (low, high) in zip(best, steps, spans, strict=True)
        ]
    return float(worth_of(best[0])), float(saturation_of(best[1]))


def _each(market: Market, part: Mask, q: float) -> Floats:
    """The worth of each level of `part` at saturation q, [levels of the part]."""
    errors = market.errors.at(part)
    grid = np.linspace(0.0, U_MAX, C_POINTS)
    sse = varpro.fit(market.size(worth_of(grid)[:, None], q), errors).sse
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

    def total(v: Floats) -> Floats:
        u, w = (x.ravel() for x in np.meshgrid(grid, v, indexing="ij"))
        sse = varpro.fit(market.size(worth_of(u)[:, None], saturation_of(w)[:, None]), errors).sse
        return np.asarray(sse.reshape(len(grid), len(v), -1).min(axis=0).sum(axis=1))

    candidates = [start, float(saturation_of(_zoom(total, 0.0, U_Q_MAX, Q_POINTS, rounds=2)))]
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


def fit_laws(market: Market) -> dict[str, LawFit]:
    """Every law by name, the controls first, each nested in the next from `one worth` on.

    Without a level above the noise, or none below, two goods are one. With all mixtures at one ratio, saturation cannot
    be seen and stays 0.
    """
    above, below = market.above, ~market.above
    count = len(market.levels)
    both = bool(above.any() and below.any())
    ones = np.ones((count, 1))
    apart = np.stack([above, below], axis=1).astype(float) if both else ones
    c = _shared(market, above) if above.any() else 0.0
    additive = _shared(market, below) if below.any() else 0.0
    w, q = (additive, 0.0) if market.one_ratio or not below.any() else _below(market, below)
    free = np.zeros(count)
    free[above] = _each(market, above, 0.0) if above.any() else 0.0
    q_free = 0.0
    if below.any():
        free[below], q_free = (
            (_each(market, below, 0.0), 0.0) if market.one_ratio else _each_saturating(market, below, q)
        )
    saturates = bool(below.any() and not market.one_ratio)
    made = [
        fixed_law(market, CLEAN_ONLY, np.zeros(count)),
        fixed_law(market, NAIVE, np.ones(count)),
        _law(market, ONE, np.full(count, _shared(market, np.ones(count, bool))), 0.0, ones, False),
    ]
    if both:
        made += [
            _law(market, NOTHING_BELOW, np.where(above, c, 0.0), 0.0, apart[:, :1], False),
            _law(market, ADDITIVE, np.where(above, c, additive), 0.0, apart, False),
        ]
    made += [
        _law(market, TWO, np.where(above, c, w), q, apart, saturates),
        _law(market, FREE, free, q_free, np.eye(count), saturates),
    ]
    return {law.name: law for law in made}


def compare_laws(nested: LawFit, full: LawFit) -> Test:
    """Is `nested`, a case of `full`, enough? Linearised at the nested law, under which the test is made."""
    m = nested.market
    if not m.dof:
        return Test(None, None)
    at = nested if nested.name != CLEAN_ONLY and nested.curves.a.any() else full
    smaller = basis(np.hstack([at.nuisance, at.tangent(nested.pattern, nested.saturates)]))
    larger = basis(np.hstack([at.nuisance, at.tangent(full.pattern, full.saturates)]))
    return Test.of(nested.sse - full.sse, form(larger, smaller, m.correlation), m.dof)


def parallelism(law: LawFit, level: int | None = None) -> Test:
    """Do all mixtures agree on the law's worth (at one level, or at all)? Against a size of its own for each mixture.

    In bioassay the test that one preparation is a dilution of the other, whatever the dose.
    """
    m = law.market
    mixed = np.nonzero(m.n_noisy > 0)[0]
    if not m.dof or len(mixed) < 2:
        return Test(None, None)
    only_clean = varpro.fit(m.n_clean[None, m.n_noisy == 0], m.errors.of(m.n_noisy == 0))
    chosen = np.arange(len(m.levels)) if level is None else np.array([level])
    value = float(law.curves.sse[0, chosen].sum() - only_clean.sse[0, chosen].sum())
    rows = np.zeros((len(m.levels), len(m.cells)), bool)
    rows[chosen] = True
    keep = rows.ravel()
    indicators = np.zeros((len(chosen), len(mixed), len(m.levels), len(m.cells)))
    for i, k in enumerate(chosen):
        for j, cell in enumerate(mixed):
            indicators[i, j, k, cell] = 1.0
    indicators = indicators.reshape(-1, keep.size).T
    smaller = law.jacobian * keep[:, None]
    larger = np.hstack([law.nuisance * keep[:, None], indicators])
    return Test.of(value, form(basis(larger), basis(smaller), m.correlation), m.dof)


# ------------------------------------------------------------------------------------------------------------ intervals


def inflation(law: LawFit) -> tuple[float, float]:
    """(factor, degrees of freedom) by which chance is widened where the law misfits; (1, those of seeds) where not."""
    m = law.market
    if law.lack is None or law.lack.p is None or law.lack.f is None or law.lack.p >= 0.05:
        return 1.0, float(m.dof)
    return max(law.lack.f, 1.0), max(1.0, min(float(m.dof), form(None, basis(law.jacobian), m.correlation).dof))


def worth_interval(law: LawFit, column: int, confidence: float = 0.95) -> Interval:
    """Profile interval of the worth that the levels of one column of the law's pattern share.

    Of the whole range below the noise it is profiled over the saturation too. An end at C_MAX is open (infinite), one at 0 is 0. No
    interval from one seed a cell.
    """
    m = law.market
    part = law.pattern[:, column] > 0
    best = float(law.worth[part][0])
    if not m.dof:
        return Interval(best, None, None)
    rest = np.delete(law.pattern, column, axis=1)
    full, nested = basis(law.jacobian), basis(np.hstack([law.nuisance, law.tangent(rest)]))
    scale = form(full, nested, m.correlation).mean
    if scale < 1e-8:
        return Interval(best, 0.0, math.inf)
    factor, dof = inflation(law)
    limit = scale * factor * float(stats.t.ppf(0.5 + confidence / 2, dof)) ** 2
    errors = m.errors.at(part)
    whole = law.saturates and np.array_equal(part, ~m.above)  # else q is held: w at r* hardly depends on it
    q = np.append(saturation_of(np.linspace(0.0, U_Q_MAX, 2 * Q_POINTS)), law.q) if whole else np.array([law.q])
    q = np.zeros(1) if m.above[part].any() else q
    least = float(law.curves.sse[0, part].sum())

    def height(u: Floats) -> Floats:
        """Root of the profile above its minimum at coordinates u."""
        a, b = (x.reshape(-1, 1) for x in np.meshgrid(worth_of(u), q, indexing="ij"))
        sse = varpro.fit(m.size(a, b), errors).sse.sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(sse.reshape(len(u), -1).min(axis=1) - least, 0.0)))

    centre = math.log1p(best / C_UNIT)
    low, high = (_crossing(height, centre, end, math.sqrt(limit)) for end in (0.0, U_MAX))
    return Interval(
        best, 0.0 if low is None else float(worth_of(low)), math.inf if high is None else float(worth_of(high))
    )


def _crossing(height: Callable[[Floats], Floats], centre: float, end: float, goal: float) -> float | None:
    """Where `height` first exceeds `goal` on the way from `centre` to `end`; None if it does not."""
    inside, outside = centre, end
    for steps in (np.concatenate([[0.0], np.geomspace(2e-3, 1.0, 24)]), np.linspace(0.0, 1.0, 9)):
        grid = inside + (outside - inside) * steps
        found = height(grid)
        over = np.nonzero(found > goal)[0]
        if not len(over):
            return None
        k = max(int(over[0]), 1)
        inside, outside = float(grid[k - 1]), float(grid[k])
        share = (goal - found[k - 1]) / max(found[k] - found[k - 1], 1e-300)
    return inside + (outside - inside) * min(max(share, 0.0), 1.0)


def falls_with_size(market: Market) -> Test:
    """Does the clean-only error fall with the number of images at all? Without that nothing can be priced.

    Against an error that is the same at every size, of the clean-only cells alone.
    """
    if not market.dof:
        return Test(None, None)
    clean = market.n_noisy == 0
    errors = market.errors.of(clean)
    curves = varpro.fit(market.n_clean[None, clean], errors)
    w2 = errors.weight**2
    flat = np.sum(w2 * errors.error, axis=1) / w2.sum(axis=1)
    value = float(np.sum(w2 * (errors.error - flat[:, None]) ** 2) - curves.sse.sum())
    count, cells = len(market.levels), int(clean.sum())
    constant = np.zeros((count, count, cells))
    constant[np.arange(count), np.arange(count)] = errors.weight
    trend = constant * np.log(market.n_clean[clean])
    smaller = basis(constant.reshape(count, -1).T)
    larger = basis(np.vstack([constant.reshape(count, -1), trend.reshape(count, -1)]).T)
    residual = form(None, larger, market.correlation)
    against = form(larger, smaller, market.correlation)
    if residual.mean > 1e-8:  # a curve that misfits the clean-only cells is no trend: judge by its residual scatter
        factor = max(1.0, float(curves.sse.sum()) / residual.mean)
        against = Form(against.mean * factor, against.dof)
    return Test.of(value, against, market.dof)
