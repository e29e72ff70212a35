"""The worth of a noisy image by level from one number of the data, and whether it predicts what was measured.

A denoiser at level s is a regression of x0 on x_s = x0 + s noise. A clean target scatters about its mean by V(s) (per
pixel), the error of the best denoiser. A noisy image x_n, noise sigma_n, is raised to level s; given x0 and x_s it has
mean `x0 + (sigma_n/s)^2 (x_s - x0)` and variance `sigma_n^2 (s^2 - sigma_n^2)/s^2`, so that the target for x0 made of
it, `(x_n - (sigma_n/s)^2 x_s) / (1 - (sigma_n/s)^2)`, scatters by V + v,

    v(sigma_n, s) = sigma_n^2 s^2 / (s^2 - sigma_n^2)   for s > sigma_n,      infinite below.

Least squares weighs targets by the inverse of their scatter, so a noisy image counts as

    c(sigma_n, s) = V / (V + v),        1/(1 + sigma_n^2/V) for large s,        0 at s <= sigma_n,

with nothing fitted. Noise that is not white has a v along each eigenvector of its covariance; what counts is their mean
over the pixels, at levels above the root of the largest eigenvalue (`shared.eigenvalues`).

It is the law m = 1 of `bounds.laws` with s0^2 = V and sigma^2 = v, level by level. The bound's two terms weigh by
higher powers of the same ratio: (V/(V+v))^2 where directions are found, (V/(V+v))^(2k-1) where k atoms are told apart.

V is taken as the error of the largest clean-only model. Its error over the best denoiser's inflates V, hence c; the
second largest, inflated more, brackets how much that matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ambient_theory.bounds.laws import Law, law_named
from ambient_theory.compare.by_level.bands import Bands, MixtureBands
from ambient_theory.compare.by_level.levels import LevelTable, check_priceable
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.shared.eigenvalues import WHITE, Eigenvalues
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
BOUND_TERMS = ("subspace", "lowdim-k2")
"""Laws of the bound's two terms, drawn on the same axes."""


def excess_scatter(sigma_n: float, levels: ArrayLike, noise: Eigenvalues = WHITE) -> Floats:
    """v(sigma_n, s), per pixel; infinite at s <= sigma_n, 0 for sigma_n = 0. Raises UsageError for sigma_n < 0."""
    if not (math.isfinite(sigma_n) and sigma_n >= 0):
        raise UsageError(f"the noise in the data must be finite and >= 0, not {sigma_n!r}")
    return noise.excess_scatter(sigma_n, levels)


def predicted_worth(
    v_clean: ArrayLike, sigma_n: float, levels: ArrayLike, law: Law | None = None, noise: Eigenvalues = WHITE
) -> Floats:
    """c by level: `V/(V + v)`, or another law of the bound on the same ratio. v_clean: V(s) > 0, per pixel."""
    chosen = law_named("strong") if law is None else law
    v, big = excess_scatter(sigma_n, levels, noise), np.asarray(v_clean, dtype=float)
    ratio = np.where(np.isinf(v), 0.0, v) / big
    worth = np.exp(-ratio) if math.isinf(chosen.m) else (1 + ratio) ** -chosen.m
    return np.where(np.isinf(v), 0.0, worth)


@dataclass(frozen=True, eq=False)
class Scatters:
    """V(s) [L] by the largest clean-only model, and by the second largest, which is inflated more; noise: the kind of
    the noisy images."""

    sizes: tuple[int, int]
    largest: Floats
    second: Floats
    noise: Eigenvalues = WHITE

    @classmethod
    def of(cls, table: LevelTable) -> Scatters:
        """Raises DataError with fewer than two clean-only sizes."""
        check_priceable(table)
        second, largest = table.clean[-2:]
        errors = [np.exp(c.log_error.mean(axis=0)) for c in (largest, second)]
        return cls((largest.n_clean, second.n_clean), errors[0], np.maximum(errors[0], errors[1]), table.noise)

    def worth(self, sigma_n: float, levels: Floats) -> tuple[Floats, Floats]:
        """V/(V + v) by both [L]: from the largest (the prediction), and from the second (how far V may move it)."""
        first, second = (predicted_worth(v, sigma_n, levels, noise=self.noise) for v in (self.largest, self.second))
        return first, second

    def bound_terms(self, sigma_n: float, levels: Floats) -> dict[str, Floats]:
        """The weights of the bound's two terms by label."""
        laws = [law_named(name) for name in BOUND_TERMS]
        return {law.label: predicted_worth(self.largest, sigma_n, levels, law, self.noise) for law in laws}


# ---------------------------------------------------------------------------------------- measured against predicted


NOT_REJECTED = "not rejected, nor is its opposite"
"""Verdict of data that say nothing."""


@dataclass(frozen=True)
class Calibration:
    """Measured worth on predicted, `measured = intercept + slope predicted`, over some mixtures and levels.

    The formula says slope 1 and intercept 0. Where the predictions do not differ there is no slope, and the intercept
    is the mean of measured - predicted. points: how many; left_out: mixtures and levels off the clean-only curve.
    misfit: p value of residuals as large as chance makes them; below .05 the intervals rest on the residuals. Without
    replicated seeds there is no interval.
    """

    what: str
    points: int
    left_out: int
    slope: Interval | None
    intercept: Interval | None
    misfit: float | None

    @property
    def verdict(self) -> str:
        """In words, of slope 1 and intercept 0. It holds only where the data exclude that the worth has nothing to do
        with the prediction (slope 0; without a slope, an intercept of a whole clean image); else it is not rejected."""
        inside = [(i, target) for i, target in ((self.slope, 1.0), (self.intercept, 0.0)) if i is not None]
        found = [i.contains(target) for i, target in inside]
        if not found or None in found:
            return "no interval"
        if not all(found):
            return "fails"
        lead, nothing = (self.slope, 0.0) if self.slope is not None else (self.intercept, 1.0)
        return NOT_REJECTED if lead is not None and lead.contains(nothing) else "holds"

    def to_dict(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "points": self.points,
            "left_out": self.left_out,
            "slope": None if self.slope is None else self.slope.to_list(),
            "intercept": None if self.intercept is None else self.intercept.to_list(),
            "misfit_p": self.misfit,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, eq=False)
class Points:
    """Mixtures at levels as one long list [n]: predicted, measured, number of the level, sigma_n; covariance [n, n].

    weight: inverse variance of each worth as it would be at the predicted size, so that a worth that came out small by
    chance does not weigh more. The covariance follows from that of log E over seeds: errors of one cell at two levels
    are correlated, and so are two mixtures that are read on one clean-only curve.
    """

    predicted: Floats
    measured: Floats
    level: NDArray[np.intp]
    sigma_n: Floats
    covariance: Floats
    weight: Floats
    left_out: NDArray[np.intp] = field(repr=False)
    left_out_sigma_n: Floats = field(repr=False)


def points_of(found: Bands, v_clean: Floats) -> Points:
    """Every mixture with clean images, controls left out, beside the prediction from V(s) [L]."""
    levels = found.table.levels
    chosen = [m for m in found.mixtures if m.cell.n_clean and not m.cell.control]
    predicted, measured, level, sigma_n, gradients, ratio = [], [], [], [], [], []
    out_level, out_sigma_n = [], []
    for m in chosen:
        assert m.cell.sigma_n is not None
        expected = predicted_worth(v_clean, m.cell.sigma_n, levels, noise=found.table.noise)
        for k, band in enumerate(m.bands):
            if not _usable(m, k):
                out_level.append(k)
                out_sigma_n.append(m.cell.sigma_n)
                continue
            predicted.append(float(expected[k]))
            measured.append(band.worth.value)
            level.append(k)
            sigma_n.append(m.cell.sigma_n)
            gradients.append(m.gradient[k])
            ratio.append((m.cell.n_clean + float(expected[k]) * m.cell.n_noisy) / band.equivalent.value)
    at = np.array(level, dtype=int)
    g = np.array(gradients).reshape(len(at), len(found.cells))
    g_of_one = g / np.sqrt(found.table.means(found.cells)[1].T[at])
    covariance = (g_of_one @ g_of_one.T) * found.table.scatter.covariance[np.ix_(at, at)]
    spread = np.diag(covariance) * np.square(ratio)
    return Points(
        predicted=np.array(predicted),
        measured=np.array(measured),
        level=at,
        sigma_n=np.array(sigma_n),
        covariance=covariance,
        weight=1 / np.where(spread > 0, spread, 1.0),
        left_out=np.array(out_level, dtype=int),
        left_out_sigma_n=np.array(out_sigma_n),
    )


def _usable(m: MixtureBands, k: int) -> bool:
    return m.bands[k].inside and bool(np.all(np.isfinite(m.gradient[k])))


def calibrate(points: Points, dof: int, what: str, chosen: Mask, left_out: int, confidence: float) -> Calibration:
    """Weighted least squares of measured on predicted over `chosen` points, with the covariance of the measured.

    Weights are those of the points; the interval uses the full covariance and Student's quantile.
    """
    n = int(chosen.sum())
    if n == 0:
        return Calibration(what, 0, left_out, None, None, None)
    x, y = points.predicted[chosen], points.measured[chosen]
    cov = points.covariance[np.ix_(chosen, chosen)]
    known = dof > 0 and bool(np.all(np.diag(cov) > 0))
    weight = points.weight[chosen] if known else np.ones(n)
    sloped = n > 2 and float(np.ptp(x)) > 0.02
    design = np.stack([np.ones(n), x], axis=1) if sloped else np.ones((n, 1))
    y = y if sloped else y - x
    solve = np.linalg.pinv((design.T * weight) @ design) @ (design.T * weight)
    beta = solve @ y
    ends: list[tuple[float | None, float | None]] = [(None, None)] * len(beta)
    p = None
    if known:
        spread = solve @ cov @ solve.T
        rest = y - design @ beta
        project = np.eye(n) - design @ solve
        moved = project @ cov @ project.T * weight[:, None]
        mean, second = float(np.trace(moved)), float(np.sum(moved * moved.T))
        factor, free = 1.0, float(dof)
        if n > len(beta) and mean > 1e-9 * n:
            f, h = float(weight @ rest**2) / mean, mean**2 / second
            p = float(special.fdtrc(h, dof, f))
            if p < 0.05:
                factor, free = max(f, 1.0), max(1.0, min(h, dof))
        t = float(special.stdtrit(free, 0.5 + confidence / 2))
        half = t * np.sqrt(np.maximum(np.diag(spread), 0.0) * factor)
        ends = [(float(b - h), float(b + h)) for b, h in zip(beta, half, strict=True)]
    intercept = Interval(float(beta[0]), *ends[0])
    slope = Interval(float(beta[1]), *ends[1]) if sloped else None
    return Calibration(what, n, left_out, slope, intercept, p)


@dataclass(frozen=True, eq=False)
class FormulaTest:
    """The formula over everything above the noise, below it, by sigma_n and by level (above it).

    above_second: with V of the second largest clean-only model, which bounds what V's own error does.
    """

    scatters: Scatters
    points: Points
    above: Calibration
    above_second: Calibration
    below: Calibration
    by_sigma_n: dict[float, Calibration]
    by_level: dict[float, Calibration]

    def to_dict(self) -> dict[str, Any]:
        return {
            "V_sizes": list(self.scatters.sizes),
            "V_largest": self.scatters.largest.tolist(),
            "V_second": self.scatters.second.tolist(),
            "above": self.above.to_dict(),
            "above_with_V_second": self.above_second.to_dict(),
            "below": self.below.to_dict(),
            "by_sigma_n": {f"{s:g}": c.to_dict() for s, c in self.by_sigma_n.items()},
            "by_level": {f"{s:g}": c.to_dict() for s, c in self.by_level.items()},
        }


def judge_formula(found: Bands, confidence: float = 0.95) -> FormulaTest:
    """Measured worth on V/(V + v). Raises DataError where nothing is priced, or without a second clean-only size."""
    scatters = Scatters.of(found.table)
    points, second = points_of(found, scatters.largest), points_of(found, scatters.second)
    levels, dof = found.table.levels, found.table.scatter.dof
    lowest = found.table.noise.lowest_level(1.0)
    over = levels[points.level] > lowest * points.sigma_n
    out_over = levels[points.left_out] > lowest * points.left_out_sigma_n

    def one(what: str, chosen: Mask, out: Mask, of: Points = points) -> Calibration:
        return calibrate(of, dof, what, chosen, int(out.sum()), confidence)

    noise_levels: Sequence[float] = found.table.noise_levels
    return FormulaTest(
        scatters,
        points,
        above=one("levels above the noise", over, out_over),
        above_second=one("levels above the noise, V of the second largest", over, out_over, second),
        below=one("levels below the noise", ~over, ~out_over),
        by_sigma_n={
            s: one(f"σ {s:g}, above the noise", over & (points.sigma_n == s), out_over & (points.left_out_sigma_n == s))
            for s in noise_levels
        },
        by_level={
            float(s): one(f"level {s:g}", (points.level == k) & over, (points.left_out == k) & out_over)
            for k, s in enumerate(levels)
        },
    )
