"""Relative potency: the worth of a noisy image with its interval, and whether one worth is enough.

In bioassay c is the potency of one preparation in units of another. Its interval is a profile: all values at which the
least squares rise by no more than chance. The parallelism test asks whether the potency is one number: whether all
mixtures agree on it, whatever their sizes. Chance is a quadratic form of residuals that are correlated between levels
(`compare.fitting.quadratic`); where a law misfits, it is widened to the scatter of the residuals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ambient_theory.compare.by_level.goods import (
    C_UNIT,
    CLEAN_ONLY,
    Q_POINTS,
    U_MAX,
    U_Q_MAX,
    LawFit,
    Market,
    saturation_of,
    worth_of,
)
from ambient_theory.compare.fitting import varpro
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.fitting.quadratic import Form, Test, basis, form, rank_one_means

Floats = NDArray[np.float64]


def compare_laws(nested: LawFit, full: LawFit, largest: LawFit | None = None) -> Test:
    """Is `nested`, a case of `full`, enough? Linearised at the nested law, under which the test is made.

    Where the largest law (default: `full`) misfits, chance is widened to its residual scatter, as everywhere: the F
    test of nested models with the mean square of the largest one in the denominator.
    """
    m = nested.market
    if not m.dof:
        return Test(None, None)
    at = nested if nested.name != CLEAN_ONLY and nested.curves.a.any() else full
    smaller = basis(np.hstack([at.nuisance, at.tangent(nested.pattern, nested.saturates)]))
    larger = basis(np.hstack([at.nuisance, at.tangent(full.pattern, full.saturates)]))
    against, (factor, dof) = form(larger, smaller, m.correlation), inflation(full if largest is None else largest)
    return Test.of(nested.sse - full.sse, Form(against.mean * factor, against.dof), dof)


def parallelism(law: LawFit, levels: NDArray[np.bool_] | int | None = None) -> Test:
    """Do all mixtures agree on the law's worth (at one level, at some, or at all)? Against a size of its own for each
    mixture.

    In bioassay the test that one preparation is a dilution of the other, whatever the dose.
    """
    m = law.market
    mixed = np.nonzero(m.n_noisy > 0)[0]
    if not m.dof or len(mixed) < 2:
        return Test(None, None)
    only_clean = m.only_clean
    every = np.arange(len(m.levels))
    chosen = every if levels is None else np.atleast_1d(every[levels])
    if not len(chosen):
        return Test(None, None)
    value = float(law.curves.sse[0, chosen].sum() - only_clean.sse[0, chosen].sum())
    own = np.zeros((len(chosen), len(mixed), len(chosen), len(m.cells)))  # the residuals of other levels play no part
    for i in range(len(chosen)):
        for j, cell in enumerate(mixed):
            own[i, j, i, cell] = 1.0
    rows = (chosen[:, None] * len(m.cells) + np.arange(len(m.cells))).ravel()
    larger = np.hstack([law.nuisance[rows], own.reshape(-1, len(rows)).T])
    smaller = law.span if levels is None else basis(law.jacobian[rows])
    correlation = m.correlation[np.ix_(chosen, chosen)]
    return Test.of(value, form(basis(larger), smaller, correlation), m.dof)


# ------------------------------------------------------------------------------------------------------------ intervals


def inflation(law: LawFit) -> tuple[float, float]:
    """(factor, degrees of freedom) by which chance is widened where the law misfits; (1, those of seeds) where not."""
    m = law.market
    if law.lack is None or law.lack.p is None or law.lack.f is None or law.lack.p >= 0.05:
        return 1.0, float(m.dof)
    return max(law.lack.f, 1.0), max(1.0, min(float(m.dof), law.residual.dof))


def worth_interval(law: LawFit, column: int, confidence: float = 0.95) -> Interval:
    """`worth_intervals` of one column."""
    return worth_intervals(law, confidence)[column]


def worth_intervals(law: LawFit, confidence: float = 0.95) -> list[Interval]:
    """Profile interval of the worth that the levels of each column of the law's pattern share.

    Of the whole range below the noise it is profiled over the saturation too. An end at C_MAX is open (infinite), one
    at 0 is 0. No interval from one seed a cell.
    """
    m = law.market
    parts = [np.nonzero(column > 0)[0] for column in law.pattern.T]
    best = np.array([law.worth[part[0]] for part in parts])
    if not m.dof:
        return [Interval(float(b), None, None) for b in best]
    factor, dof = inflation(law)
    quantile = float(special.stdtrit(dof, 0.5 + confidence / 2))
    scale = _scales(law)
    goal = np.sqrt(np.maximum(scale, 0.0) * factor) * quantile
    whole = [law.saturates and np.array_equal(part, np.nonzero(~m.above)[0]) for part in parts]
    low, high = np.zeros(len(parts)), np.full(len(parts), np.inf)
    for chosen in (np.array(whole), ~np.array(whole)):
        k = np.nonzero(chosen & (scale >= 1e-8))[0]  # of the others the interval is everything
        if not len(k):
            continue
        height = _Height.of(law, [parts[i] for i in k], over_q=whole[k[0]])
        centre = np.log1p(best[k] / C_UNIT)
        for ends, end, closed in ((low, 0.0, 0.0), (high, U_MAX, np.inf)):
            u = _crossing(height, centre, end, goal[k])
            ends[k] = np.where(np.isnan(u), closed, worth_of(u))
    return [Interval(float(b), float(x), float(y)) for b, x, y in zip(best, low, high, strict=True)]


def _scales(law: LawFit) -> Floats:
    """Mean of the one-parameter form of each column of the law's pattern."""
    m, count = law.market, law.pattern.shape[1]
    first = law.nuisance.shape[1]
    means = rank_one_means(law.jacobian, m.correlation)
    if means is not None:
        return means[first : first + count]
    nested = (basis(np.hstack([law.nuisance, law.tangent(np.delete(law.pattern, k, axis=1))])) for k in range(count))
    return np.array([form(law.span, smaller, m.correlation).mean for smaller in nested])


@dataclass(frozen=True, eq=False)
class _Height:
    """Root of the profile above its minimum for K sets of levels at once, each at worths of its own.

    levels: all sets one after the other; starts [K]: where each begins; q [Q, 1 or levels]: saturations, of which the
    best is taken (else that of the law is held: w at r* hardly depends on it); least [K]: the minima.
    """

    market: Market
    errors: varpro.Errors
    starts: NDArray[np.intp]
    owner: NDArray[np.intp]
    q: Floats
    least: Floats

    @classmethod
    def of(cls, law: LawFit, parts: Sequence[NDArray[np.intp]], *, over_q: bool) -> _Height:
        m = law.market
        levels = np.concatenate(parts)
        owner = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        if over_q:
            q = np.append(saturation_of(np.linspace(0.0, U_Q_MAX, 2 * Q_POINTS)), law.q)[:, None]
        else:
            q = np.where(m.above[levels], 0.0, law.q)[None, :]
        starts = np.searchsorted(owner, np.arange(len(parts)))
        least = np.add.reduceat(law.curves.sse[0, levels], starts)
        return cls(m, m.errors.at(levels), starts, owner, q, least)

    def __call__(self, u: Floats) -> Floats:
        """Heights [B, K] at coordinates [B, K]."""
        worth = np.repeat(worth_of(u)[:, self.owner], len(self.q), axis=0)
        q = np.tile(self.q, (len(u), 1))
        if len(self.starts) == 1:  # one set of levels, one size for all of them
            size = self.market.size(worth[:, :1], q[:, :1])
        else:
            size = self.market.size(worth[..., None], np.broadcast_to(q, worth.shape)[..., None])
        sse = np.add.reduceat(varpro.fit(size, self.errors).sse, self.starts, axis=1)
        profile = sse.reshape(len(u), len(self.q), -1).min(axis=1)
        return np.asarray(np.sqrt(np.maximum(profile - self.least, 0.0)))


def _crossing(height: Callable[[Floats], Floats], centre: Floats, end: float, goal: Floats) -> Floats:
    """Where each `height` first exceeds its goal on the way from `centre` to `end` [K]; NaN if it does not."""
    inside, outside = centre.copy(), np.full(len(centre), end)
    share, crossed = np.zeros(len(centre)), np.ones(len(centre), bool)
    each = np.arange(len(centre))
    for steps in (np.concatenate([[0.0], np.geomspace(2e-3, 1.0, 12)]), np.linspace(0.0, 1.0, 9)):
        grid = inside + (outside - inside) * steps[:, None]
        found = height(grid)
        over = found > goal
        crossed &= over.any(axis=0)
        k = np.maximum(np.argmax(over, axis=0), 1)
        inside, outside = grid[k - 1, each], grid[k, each]
        share = (goal - found[k - 1, each]) / np.maximum(found[k, each] - found[k - 1, each], 1e-300)
    return np.where(crossed, inside + (outside - inside) * np.clip(share, 0.0, 1.0), np.nan)


def falls_with_size(market: Market) -> Test:
    """Does the clean-only error fall with the number of images at all? Without that nothing can be priced.

    Against an error that is the same at every size, of the clean-only cells alone.
    """
    if not market.dof:
        return Test(None, None)
    clean = market.n_noisy == 0
    errors = market.errors.of(clean)
    curves = market.only_clean
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
