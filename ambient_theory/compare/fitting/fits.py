"""Least-squares fits of an error curve to the cells of one table, with intervals from the scatter over seeds.

Residuals are `sqrt(n_seeds) (f(E_model) - mean f(E))` with f = log (or the identity where scores may be negative). The
pooled within-cell variance s^2 (dof degrees of freedom) is the pure error, so with R cells and P parameters

    lack of fit:   F = SSE / (R - P) / s^2        against F(R - P, dof),
    interval of a parameter:   { t : SSE(t) - SSE_min <= s^2 t_quantile(dof)^2 }    (profile, Bates and Watts, 1988).

Where the curve does not fit (p < .05), s^2 is replaced by the larger SSE/(R - P) with its own R - P degrees of freedom
and the result says so. From one seed a cell there is no s^2, hence no interval.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc, stdtrit

from ambient_theory.bounds.laws import LAWS
from ambient_theory.compare.cells.tables import Table, scores_alike
from ambient_theory.compare.fitting import least_squares
from ambient_theory.compare.fitting.curves import (
    C_MAX,
    Curve,
    FixedWorth,
    FreeWorth,
    LawWorth,
    SingleIndex,
    TwoTerm,
    Units,
    Worth,
)
from ambient_theory.shared.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval at the stated confidence; ends may be infinite, and None means no interval."""

    value: float
    low: float | None
    high: float | None

    def contains(self, x: float) -> bool | None:
        return None if self.low is None or self.high is None else bool(self.low <= x <= self.high)

    def map(self, f: Callable[[float], float]) -> Interval:
        """The interval of f(x) for rising f."""
        return Interval(
            f(self.value), None if self.low is None else f(self.low), None if self.high is None else f(self.high)
        )

    def inverse(self) -> Interval:
        """The interval of 1/x for x >= 0, inf where x is 0."""
        flipped = self.map(lambda x: 1 / x if x > 0 else math.inf)
        return Interval(flipped.value, flipped.high, flipped.low)

    def to_list(self) -> list[float | None]:
        return [float(x) if x is not None and math.isfinite(x) else None for x in (self.value, self.low, self.high)]


def control_verdict(measured: Interval, expected: float) -> str:
    """Of a control whose worth must be 1 or 0: `passed` only where the interval excludes the other of the two."""
    inside, other = measured.contains(expected), measured.contains(1 - expected)
    if inside is None:
        return "no interval"
    if not inside:
        return "failed"
    return "says nothing: its interval holds both 0 and 1" if other else "passed"


@dataclass(frozen=True)
class Fit:
    """A fitted curve. sse: weighted; free: (P,) parameters not held on a bound; lack_p: p value of the lack of fit."""

    name: str
    curve: Curve
    theta: Floats
    sse: float
    table: Table
    free: int
    lack_f: float | None
    lack_p: float | None
    scale: str

    @property
    def misfit(self) -> bool:
        """The curve is rejected at the 5 % level."""
        return self.lack_p is not None and self.lack_p < 0.05

    @property
    def residual_dof(self) -> int:
        return self.table.size - self.free

    @property
    def variance(self) -> float:
        """Variance of one seed used for intervals: pure error, or the residual variance where the curve misfits."""
        return self.sse / self.residual_dof if self.misfit else self.table.variance

    @property
    def dof(self) -> int:
        return self.residual_dof if self.misfit else self.table.dof

    @property
    def floor(self) -> float:
        """Fitted E_inf: a floor of memorisation or of finite samples, in the units of the metric."""
        return float(self.theta[0] * self.curve.units.error)

    def predict(self, n_clean: Floats, n_noisy: Floats, sigma_n: Floats) -> Floats:
        return self.curve.predict(self.theta[None, :], n_clean, n_noisy, sigma_n)[0]


def units_of(table: Table, scale: str) -> Units:
    """Typical sample size, and the smallest score (or the spread of the scores where they may be negative)."""
    total = table.n_clean + table.n_noisy
    error = float(np.exp(table.y.min())) if scale == "log" else max(float(np.ptp(table.y)), 1e-12)
    return Units(float(np.exp(np.mean(np.log(total)))), error)


def residuals_of(curve: Curve, table: Table, scale: str, weights: Floats | None = None) -> least_squares.Residuals:
    """Residuals of the batch; weights: optional (B, R) multipliers, 0 leaves a cell out of that row."""
    root = np.sqrt(table.seeds)

    def residuals(theta: Floats, rows: NDArray[np.intp]) -> Floats:
        error = curve.predict(theta, table.n_clean, table.n_noisy, table.sigma_n)
        fitted = np.log(np.maximum(error, 1e-300)) if scale == "log" else error / curve.units.error
        target = table.y if scale == "log" else table.y / curve.units.error
        r = root * (fitted - target)
        return r if weights is None else r * weights[rows]

    return residuals


def slopes_of(curve: Curve, table: Table, scale: str, weights: Floats | None = None) -> least_squares.Jacobian | None:
    """Derivatives of `residuals_of`, (B, R, P); None for a curve that does not know its slopes."""
    slopes = getattr(curve, "slopes", None)
    if slopes is None:
        return None
    root = np.sqrt(table.seeds)

    def jacobian(theta: Floats, rows: NDArray[np.intp]) -> Floats:
        error, by = slopes(theta, table.n_clean, table.n_noisy, table.sigma_n)
        factor = root / (np.maximum(error, 1e-300) if scale == "log" else curve.units.error)
        return np.asarray(by * (factor if weights is None else factor * weights[rows])[..., None])

    return jacobian


def _unit(curve: Curve, scale: str) -> float:
    """Size of one residual unit, squared, in the units of the table's variance."""
    return 1.0 if scale == "log" else curve.units.error**2


def fit(name: str, curve: Curve, table: Table, scale: str = "log") -> Fit:
    """Best of many starts. Raises DataError with fewer cells than parameters."""
    if table.size < len(curve.names):
        raise DataError(f"{name}: {table.size} cells cannot determine {len(curve.names)} parameters")
    found = least_squares.solve(
        residuals_of(curve, table, scale),
        curve.starts(),
        curve.lower,
        curve.upper,
        jacobian=slopes_of(curve, table, scale),
    )
    return _fit_of(name, curve, found.theta[found.best()], float(found.sse.min()), table, scale)


def _fit_of(name: str, curve: Curve, theta: Floats, sse: float, table: Table, scale: str) -> Fit:
    """The fit at a minimum; sse in squared residual units."""
    sse *= _unit(curve, scale)
    free = int(np.sum((theta > curve.lower) & (theta < curve.upper)))
    lack_f = lack_p = None
    if table.size > free and table.dof:
        lack_f = sse / (table.size - free) / table.variance
        lack_p = float(fdtrc(table.size - free, table.dof, lack_f))
    return Fit(name, curve, theta, sse, table, free, lack_f, lack_p, scale)


def fit_laws(noise_levels: Sequence[float], units: Units, table: Table, scale: str = "log") -> dict[str, Fit]:
    """Every law of `bounds.laws.LAWS` by label: one batch over the laws, each with its curvature q held."""
    curves = {law.label: SingleIndex(LawWorth(law.q, noise_levels), units) for law in LAWS.values()}
    first = next(iter(curves.values()))
    if table.size < len(first.names):
        raise DataError(f"{next(iter(curves))}: {table.size} cells cannot determine {len(first.names)} parameters")
    starts = first.starts()
    q = np.repeat([law.q for law in LAWS.values()], len(starts))
    shared = SingleIndex(LawWorth(None, noise_levels), units)
    found = least_squares.solve(
        residuals_of(shared, table, scale),
        np.column_stack([np.tile(starts, (len(curves), 1)), q]),
        shared.lower,
        shared.upper,
        jacobian=slopes_of(shared, table, scale),
        fixed=np.arange(len(shared.names)) == len(first.names),
    )
    best = found.sse.reshape(len(curves), -1).argmin(axis=1) + np.arange(len(curves)) * len(starts)
    return {
        name: _fit_of(name, curve, found.theta[k, :-1], float(found.sse[k]), table, scale)
        for (name, curve), k in zip(curves.items(), best, strict=True)
    }


def profile(fitted: Fit, column: int, values: Floats) -> Floats:
    """SSE minimised over the other parameters with parameter `column` held at each of `values` ((V,) -> (V,))."""
    return _profiles(fitted, np.full(len(values), column), values)


def _profiles(fitted: Fit, columns: NDArray[np.intp], values: Floats) -> Floats:
    """`profile` of another column for each value, all in one batch: (V,), (V,) -> (V,)."""
    fresh = fitted.curve.starts()
    starts = np.stack([fitted.theta, fresh[len(fresh) // 2]])
    batch = np.repeat(starts, len(values), axis=0)
    held = np.tile(columns, len(starts))
    batch[np.arange(len(batch)), held] = np.tile(values, len(starts))
    curve = fitted.curve
    found = least_squares.solve(
        residuals_of(curve, fitted.table, fitted.scale),
        batch,
        curve.lower,
        curve.upper,
        jacobian=slopes_of(curve, fitted.table, fitted.scale),
        fixed=np.arange(batch.shape[1]) == held[:, None],
        iterations=50,
    )
    return found.sse.reshape(len(starts), -1).min(axis=0) * _unit(curve, fitted.scale)


def interval(fitted: Fit, column: int, confidence: float = 0.95) -> Interval:
    """Profile interval of one parameter. No interval (None, None) from one seed a cell, or without a spare cell."""
    return intervals(fitted, [column], confidence)[0]


def intervals(fitted: Fit, columns: Sequence[int], confidence: float = 0.95) -> list[Interval]:
    """`interval` of several parameters, their profiles in one batch.

    An end is where the profile crosses its limit between the estimate and the bound; the bound if it does not. Two
    grids, then a straight line in sqrt(SSE - SSE_min), which is nearly linear in the parameter.
    """
    best = [float(fitted.theta[c]) for c in columns]
    if fitted.dof < 1 or not np.isfinite(fitted.variance):
        return [Interval(b, None, None) for b in best]
    goal = math.sqrt(fitted.variance) * float(stdtrit(fitted.dof, 0.5 + confidence / 2))
    held = np.repeat(np.asarray(columns), 2)
    inside = fitted.theta[held]
    outside = np.where(np.arange(len(held)) % 2 == 0, fitted.curve.lower[held], fitted.curve.upper[held])
    height_in, height_out = np.zeros(len(held)), np.full(len(held), np.inf)
    crossed = np.ones(len(held), bool)
    for steps in (np.geomspace(1e-3, 1.0, 16), np.linspace(1 / 8, 1.0, 8)):
        rows = np.nonzero(crossed)[0]
        grid = inside[rows, None] + (outside - inside)[rows, None] * steps
        sse = _profiles(fitted, np.repeat(held[rows], len(steps)), grid.ravel()).reshape(grid.shape)
        height = np.sqrt(np.maximum(sse - fitted.sse, 0.0))
        crossed[rows] = (height > goal).any(axis=1)
        for k, row in enumerate(rows):
            if not crossed[row]:
                continue
            first = int(np.argmax(height[k] > goal))
            if first:
                inside[row], height_in[row] = grid[k, first - 1], height[k, first - 1]
            outside[row], height_out[row] = grid[k, first], height[k, first]
    share = np.clip((goal - height_in) / np.maximum(height_out - height_in, 1e-300), 0.0, 1.0)
    ends = np.where(crossed, inside + (outside - inside) * share, outside).reshape(-1, 2)
    return [Interval(b, float(low), float(high)) for b, (low, high) in zip(best, ends, strict=True)]


def resample(fitted: Fit, draws: int, rng: np.random.Generator) -> Floats:
    """(draws, P) parameters refitted to cell means drawn about the curve: `y* = fit + t-noise * s / sqrt(n_seeds)`.

    One draw shares one `sqrt(dof / chi2)` factor (multivariate t), so uncertainty of s itself is in the spread. Raises
    DataError where there is no variance to draw from (one seed a cell).
    """
    if fitted.dof < 1 or not np.isfinite(fitted.variance):
        raise DataError("one training seed a cell leaves no scatter to draw from, so there is no interval")
    table, curve = fitted.table, fitted.curve
    error = fitted.predict(table.n_clean, table.n_noisy, table.sigma_n)
    centre = np.log(error) if fitted.scale == "log" else error
    heavy = np.sqrt(fitted.dof / rng.chisquare(fitted.dof, size=(draws, 1)))
    noise = heavy * rng.standard_normal((draws, table.size)) * np.sqrt(fitted.variance / table.seeds)
    target = (centre + noise) if fitted.scale == "log" else (centre + noise) / curve.units.error
    root = np.sqrt(table.seeds)

    def residuals(theta: Floats, rows: NDArray[np.intp]) -> Floats:
        e = curve.predict(theta, table.n_clean, table.n_noisy, table.sigma_n)
        return root * (
            (np.log(np.maximum(e, 1e-300)) if fitted.scale == "log" else e / curve.units.error) - target[rows]
        )

    start = np.repeat(fitted.theta[None, :], draws, axis=0)
    return least_squares.solve(
        residuals,
        start,
        curve.lower,
        curve.upper,
        jacobian=slopes_of(curve, table, fitted.scale),
        iterations=30,
        tolerance=1e-7,
    ).theta


@dataclass(frozen=True)
class Comparison:
    """A curve nested in the free single-c fit, tested against it: F = (dSSE / d parameters) / s^2."""

    fit: Fit
    f: float | None
    p: float | None

    @property
    def verdict(self) -> str:
        if self.p is None:
            return "not testable"
        return "rejected" if self.p < 0.05 else "not rejected"


def compare_nested(nested: Fit, full: Fit) -> Comparison:
    """F test of a nested curve against the free one, with the free fit's variance."""
    extra = full.free - nested.free
    if extra <= 0 or full.dof < 1 or not np.isfinite(full.variance):
        return Comparison(nested, None, None)
    f = max(nested.sse - full.sse, 0.0) / extra / full.variance
    return Comparison(nested, f, float(fdtrc(extra, full.dof, f)))


ALIKE = 0.05


@dataclass(frozen=True)
class SingleC:
    """The single-c analysis: the free fit, the worth at each noise level, controls and laws tested against it.

    Each part is worked out when it is first asked for. alike: p value of the test that all cells score alike, None
    where it cannot be made; where they do (`all_alike`) no shape and no law is tested.
    """

    free: Fit
    noise_levels: tuple[float, ...]
    confidence: float
    alike: float | None

    @property
    def all_alike(self) -> bool:
        return self.alike is not None and self.alike >= ALIKE

    @functools.cached_property
    def _intervals(self) -> list[Interval]:
        """Of log p, then of c at each noise level, in one batch."""
        return intervals(self.free, range(2, 3 + len(self.noise_levels)), self.confidence)

    @functools.cached_property
    def worth(self) -> dict[float, Interval]:
        """c at each measured noise level, with its profile interval."""
        return dict(zip(self.noise_levels, map(_open_ended, self._intervals[1:]), strict=True))

    def worth_at(self, sigma_n: float) -> Interval:
        """c at one measured noise level."""
        if "worth" in self.__dict__:  # all of them are known
            return self.worth[sigma_n]
        if sigma_n not in self._single:
            column = 3 + self.noise_levels.index(sigma_n)
            self._single[sigma_n] = _open_ended(interval(self.free, column, self.confidence))
        return self._single[sigma_n]

    @functools.cached_property
    def _single(self) -> dict[float, Interval]:
        """Worths that were asked for one at a time."""
        return {}

    @functools.cached_property
    def exponent(self) -> Interval:
        """p of the curve."""
        return self._intervals[0].map(math.exp)

    @functools.cached_property
    def controls(self) -> dict[str, Comparison]:
        """Naive n (every image counts) and clean only, nested in the free fit."""
        return {
            name: self._nested(name, FixedWorth(value))
            for name, value in (("naive n (c = 1)", 1.0), ("clean only (c = 0)", 0.0))
        }

    @functools.cached_property
    def laws(self) -> dict[str, Comparison]:
        """By label, in the order of `bounds.laws.LAWS`; empty where nothing has noise."""
        if not any(s > 0 for s in self.noise_levels):
            return {}
        free = self.free
        fitted = fit_laws(self.noise_levels, free.curve.units, free.table, free.scale)
        return {name: self._compared(nested) for name, nested in fitted.items()}

    def _nested(self, name: str, worth: Worth) -> Comparison:
        free = self.free
        return self._compared(fit(name, SingleIndex(worth, free.curve.units), free.table, free.scale))

    def _compared(self, nested: Fit) -> Comparison:
        return Comparison(nested, None, None) if self.all_alike else compare_nested(nested, self.free)


def _open_ended(c: Interval) -> Interval:
    """An interval of a worth that reaches the greatest value tried has no upper end."""
    return c if c.high is None or c.high < C_MAX else Interval(c.value, c.low, math.inf)


def fit_single_c(table: Table, scale: str, confidence: float = 0.95) -> SingleC:
    """Free c at each noise level; naive n, clean only and the laws are tested against it when asked for.

    Raises DataError where the cells cannot determine the curve: it needs mixtures, two sizes of n_clean, and as many
    cells as parameters.
    """
    noise_levels = tuple(sorted({float(s) for s, n in zip(table.sigma_n, table.n_noisy, strict=True) if n > 0}))
    if not noise_levels:
        raise DataError("no cell has both clean and noisy samples, so nothing prices a noisy one")
    if len(np.unique(table.n_clean)) < 2:
        raise DataError("all cells have the same number of clean samples: c cannot be told from the exponent")
    curve = SingleIndex(FreeWorth(noise_levels), units_of(table, scale))
    free = fit("free c at each σ", curve, table, scale)
    return SingleC(free, noise_levels, confidence, scores_alike(table))


def curves_for(single: SingleC, sigma_n: float) -> tuple[list[Fit], bool]:
    """The fits that can price noise sigma_n: the free fit where it was measured, else every law not rejected."""
    if sigma_n in single.noise_levels:
        return [single.free], True
    laws = [c.fit for c in single.laws.values() if c.verdict != "rejected"]
    if not laws:
        raise DataError(
            f"σ {sigma_n:g} was not measured and the data reject every law, so nothing predicts it; "
            f"measured: {', '.join(f'{s:g}' for s in single.noise_levels)}"
        )
    return laws, False


def law_interval(fitted: Fit, sigma_n: float, kappa: tuple[float, float, float]) -> tuple[float, float, float]:
    """c(sigma_n) of a law at the estimate and at both ends of the interval of log kappa; c falls with kappa."""
    assert isinstance(fitted.curve, SingleIndex)
    assert isinstance(fitted.curve.worth, LawWorth)
    theta = np.array([[x] for x in kappa])
    value, low, high = fitted.curve.worth(theta, np.array([sigma_n]))[:, 0]
    return float(value), float(high), float(low)


def two_term_fits(table: Table, scale: str, ks: tuple[int, ...] = (2, 3)) -> dict[str, Fit]:
    """The bound's shape with fitted constants, exponents tied and (with enough cells) free."""
    noise_levels = sorted({float(s) for s, n in zip(table.sigma_n, table.n_noisy, strict=True) if n > 0 and s > 0})
    units = units_of(table, scale)
    found = {}
    for k in ks if noise_levels else ():
        for name, curve in two_term_curves(k, noise_levels, units).items():
            if table.size > len(curve.names):
                found[name] = fit(name, curve, table, scale)
    return found


def two_term_curves(k: int, noise_levels: Sequence[float], units: Units) -> dict[str, TwoTerm]:
    """The variants tried: exponents of W1, their doubles (a Frechet distance is a squared distance), and free."""
    return {
        f"two terms, k = {k}, exponents 1/4, 1/{4 * k - 2}": TwoTerm(k, noise_levels, units),
        f"two terms, k = {k}, exponents 1/2, 1/{2 * k - 1} (squared)": TwoTerm(k, noise_levels, units, power=2),
        f"two terms, k = {k}, exponents free": TwoTerm(k, noise_levels, units, free_exponents=True),
    }


def to_dict(single: SingleC) -> dict[str, Any]:
    """JSON-ready summary."""
    free = single.free
    return {
        "curve": "E_inf + a (n_clean + c(sigma_n) n_noisy)^-p, cells with n_clean > 0 only",
        "confidence": single.confidence,
        "cells": free.table.size,
        "scatter_of_one_seed": None if not free.table.dof else math.sqrt(free.table.variance),
        "scale": free.scale,
        "dof": free.table.dof,
        "e_inf": free.floor,
        "exponent_p": single.exponent.to_list(),
        "all_cells_alike": {"p": single.alike, "alike": single.all_alike},
        "lack_of_fit": {"F": free.lack_f, "p": free.lack_p, "misfit": free.misfit},
        "worth_c": {f"{s:g}": c.to_list() for s, c in single.worth.items()},
        "price_1_over_c": {f"{s:g}": c.inverse().to_list() for s, c in single.worth.items()},
        "controls": {n: {"F": c.f, "p": c.p, "verdict": c.verdict} for n, c in single.controls.items()},
        "laws": {n: {"F": c.f, "p": c.p, "verdict": c.verdict} for n, c in single.laws.items()},
    }
