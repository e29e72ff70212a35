"""Relative potency: the worth of a noisy image with its interval, and whether one worth is enough.

In bioassay c is the potency of one preparation in units of another. Its interval is a profile: all values at which the
least squares rise by no more than chance. The parallelism test asks whether the potency is one number: whether all
mixtures agree on it, whatever their sizes. Chance is a quadratic form of residuals that are correlated between levels
(`compare.fitting.quadratic`); where a law misfits, it is widened to the scatter of the residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
from ambient_theory.compare.fitting.quadratic import Form, Test, basis, form

Floats = NDArray[np.float64]


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
    own = np.zeros((len(chosen), len(mixed), len(m.levels), len(m.cells)))
    for i, k in enumerate(chosen):
        for j, cell in enumerate(mixed):
            own[i, j, k, cell] = 1.0
    indicators = own.reshape(-1, keep.size).T
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

    Of the whole range below the noise it is profiled over the saturation too. An end at C_MAX is open (infinite), one
    at 0 is 0. No interval from one seed a cell.
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
    limit = scale * factor * float(special.stdtrit(dof, 0.5 + confidence / 2)) ** 2
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
