"""What a noisy sample was worth along the measured cells, without a law: finite differences with intervals.

Two measures. *Equivalent clean samples*: the clean-only cells, joined by a curve (`compare.fitting.clean_curve`), say
how many clean samples reach the score of a mixture; `(N_eq - n_clean) / n_noisy` is the average worth of its noisy
samples.
*Exchange rate*: on a rectangle of cells (n_clean A, B) x (n_noisy P, Q) at one noise level,

    (dE/dn_noisy) / (dE/dn_clean)  ~  [mean_c (y(c,Q) - y(c,P)) / (Q - P)] / [mean_n (y(B,n) - y(A,n)) / (B - A)],

y on the group's scale (the scale cancels in the limit). Steps are large, so the number is a chord, not a derivative;
a fitted curve is put through the same differences for comparison. Its interval is Fieller's (1954), which may be
unbounded: then the data do not determine the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ambient_theory.compare.cells.tables import Table
from ambient_theory.compare.fitting.clean_curve import CleanCurve, worth
from ambient_theory.compare.fitting.fits import Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Equivalent:
    """One mixture in clean samples: N_eq with interval and the average worth of its noisy samples."""

    name: str
    n_clean: float
    n_noisy: float
    sigma_n: float
    equivalent: Interval
    worth: Interval

    def to_dict(self) -> dict[str, Any]:
        return {
            "cell": self.name,
            "n_clean": self.n_clean,
            "n_noisy": self.n_noisy,
            "sigma_n": self.sigma_n,
            "equivalent_clean": self.equivalent.to_list(),
            "average_worth": self.worth.to_list(),
        }


@dataclass(frozen=True)
class Rate:
    """Exchange rate over one rectangle of cells, beside the same differences of the fitted curve."""

    sigma_n: float
    n_clean: tuple[float, float]
    n_noisy: tuple[float, float]
    measured: Interval
    fitted: float | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "sigma_n": self.sigma_n,
            "n_clean": list(self.n_clean),
            "n_noisy": list(self.n_noisy),
            "measured": self.measured.to_list(),
            "fitted_curve_same_differences": self.fitted,
        }


def equivalents(table: Table, confidence: float = 0.95) -> list[Equivalent]:
    """Every mixture in clean samples (`compare.fitting.clean_curve`), in the order of the table.

    Empty without two clean-only sizes; no intervals from one seed a cell.
    """
    clean = np.nonzero(table.n_noisy == 0)[0]
    if len(clean) < 2:
        return []
    clean = clean[np.argsort(table.n_clean[clean])]
    curve = CleanCurve.of(np.log(table.n_clean[clean]), table.y[clean], table.seeds[clean])
    found = []
    for i in np.nonzero(table.n_noisy > 0)[0]:
        n_clean, n_noisy, sigma_n = (float(v[i]) for v in (table.n_clean, table.n_noisy, table.sigma_n))
        n_eq, _ = curve.equivalent(float(table.y[i]), float(table.seeds[i]), table.variance, table.dof, confidence)
        found.append(Equivalent(table.names[i], n_clean, n_noisy, sigma_n, n_eq, worth(n_eq, n_clean, n_noisy)))
    return found


def fieller(num: float, den: float, cov: Floats, quantile: float) -> tuple[float, float]:
    """Fieller's interval of num/den; (-inf, inf) where the denominator is not certainly different from 0.

    cov: (2, 2) covariance of (num, den). Solves `(num - r den)^2 <= t^2 (v_n - 2 r c + r^2 v_d)`.
    """
    t2 = quantile**2
    a = den**2 - t2 * cov[1, 1]
    b = num * den - t2 * cov[0, 1]
    c = num**2 - t2 * cov[0, 0]
    root = b**2 - a * c
    if a <= 0 or root < 0:
        return -math.inf, math.inf
    return (b - math.sqrt(root)) / a, (b + math.sqrt(root)) / a


def _steps(corners: tuple[int, int, int, int], table: Table) -> tuple[Floats, Floats]:
    """Contrast vectors of the noisy and of the clean derivative; corners in the order AP, BP, AQ, BQ."""
    ap, bp, aq, bq = corners
    noisy, clean = np.zeros(table.size), np.zeros(table.size)
    d_noisy = 2 * (table.n_noisy[aq] - table.n_noisy[ap])
    d_clean = 2 * (table.n_clean[bp] - table.n_clean[ap])
    for index, sign_n, sign_c in ((ap, -1, -1), (bp, -1, 1), (aq, 1, -1), (bq, 1, 1)):
        noisy[index] = sign_n / d_noisy
        clean[index] = sign_c / d_clean
    return noisy, clean


def exchange_rates(
    table: Table, confidence: float = 0.95, fitted: Callable[[Table], Floats] | None = None
) -> list[Rate]:
    """Exchange rate on every smallest rectangle of cells. fitted: the curve's y at the table's cells, (R,)."""
    at = {
        (float(c), float(n), float(s) if n else None): i
        for i, (c, n, s) in enumerate(zip(table.n_clean, table.n_noisy, table.sigma_n, strict=True))
    }
    curve = None if fitted is None else fitted(table)
    rates = []
    for sigma_n in sorted({s for _, n, s in at if n and s is not None}):
        clean_sizes = sorted({c for c, n, s in at if n and s == sigma_n})
        noisy_sizes = [0.0, *sorted({n for _, n, s in at if n and s == sigma_n})]
        for a, b in pairwise(clean_sizes):
            for p, q in pairwise(noisy_sizes):
                keys = [(c, n, sigma_n if n else None) for n in (p, q) for c in (a, b)]
                if not all(key in at for key in keys):
                    continue
                corners = (at[keys[0]], at[keys[1]], at[keys[2]], at[keys[3]])
                noisy, clean = _steps(corners, table)
                num, den = float(noisy @ table.y), float(clean @ table.y)
                ends: tuple[float | None, float | None] = (None, None)
                if table.dof:
                    both = np.stack([noisy, clean])
                    cov = (both * (table.variance / table.seeds)) @ both.T
                    ends = fieller(num, den, cov, float(stdtrit(table.dof, 0.5 + confidence / 2)))
                value = num / den if den else math.nan
                same = None if curve is None else float((noisy @ curve) / (clean @ curve))
                rates.append(Rate(sigma_n, (a, b), (p, q), Interval(value, *ends), same))
    return rates
