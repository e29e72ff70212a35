"""Quadratic forms of correlated residuals: what chance alone makes of a sum of squares.

Residuals of L levels and R cells, ordered level by level, have covariance `Omega = C (x) 1_R`: cells are independent,
the levels of one cell are correlated by C [L, L]. Dropping columns from a linearised model raises its sum of squares by
`e' Q e`, Q the projection on the larger span less that on the smaller, with

    mean = tr(Q Omega),    variance = 2 tr(Q Omega Q Omega),

hence about `mean chi2_h / h` with `h = mean^2 / tr(Q Omega Q Omega)` (Satterthwaite 1946). For C = 1 this is chi2 with
as many degrees of freedom as columns were dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """mean and degrees of freedom of a quadratic form."""

    mean: float
    dof: float


def basis(columns: Floats) -> Floats:
    """Orthonormal basis [n, rank] of the span of the columns [n, P]; columns that are zero or dependent add nothing."""
    norms = np.linalg.norm(columns, axis=0)
    kept = columns[:, norms > 1e-12 * max(float(norms.max(initial=0.0)), 1e-300)]
    if not kept.shape[1]:
        return np.zeros((len(columns), 0))
    u, s, _ = np.linalg.svd(kept / np.linalg.norm(kept, axis=0), full_matrices=False)
    return np.asarray(u[:, s > 1e-7 * s[0]])


def form(larger: Floats | None, smaller: Floats, correlation: Floats) -> Form:
    """The form of what `larger` explains beyond `smaller` (bases from `basis`); None stands for everything.

    With bases A, B: tr(A'Omega A) - tr(B'Omega B), and |A'Omega A|^2 - 2 |A'Omega B|^2 + |B'Omega B|^2 (Frobenius).
    """
    after = _omega(smaller, correlation)
    inner = smaller.T @ after
    if larger is None:
        cells = len(smaller) // len(correlation)
        mean = cells * float(np.trace(correlation)) - float(np.trace(inner))
        second = cells * np.sum(correlation**2) - 2 * np.sum(after**2) + np.sum(inner**2)
    else:
        before = _omega(larger, correlation)
        outer = larger.T @ before
        mean = float(np.trace(outer) - np.trace(inner))
        second = np.sum(outer**2) - 2 * np.sum((before.T @ smaller) ** 2) + np.sum(inner**2)
    return Form(max(mean, 0.0), mean**2 / float(second) if second > 1e-16 else 1.0)


def rank_one_means(columns: Floats, correlation: Floats) -> Floats | None:
    """Mean of the form of each column [n, P] beyond all the others, [P]; None where the columns are dependent.

    What a column explains alone lies along d, its column of the transposed pseudo-inverse: mean = d'Omega d / d'd.
    """
    norms = np.linalg.norm(columns, axis=0)
    if np.any(norms <= 1e-12 * max(float(norms.max(initial=0.0)), 1e-300)):
        return None
    u, s, vt = np.linalg.svd(columns / norms, full_matrices=False)
    if len(s) < columns.shape[1] or s[-1] <= 1e-7 * s[0]:
        return None
    d = (u / s) @ vt
    return np.asarray(np.sum(d * _omega(d, correlation), axis=0) / np.sum(d * d, axis=0))


def _omega(columns: Floats, correlation: Floats) -> Floats:
    """Omega times columns [L R, P]."""
    levels = len(correlation)
    return (correlation @ columns.reshape(levels, -1)).reshape(columns.shape)


@dataclass(frozen=True)
class Test:
    """A quadratic form against chance: F = value / mean, with its own degrees of freedom. p is None if untestable."""

    __test__ = False  # not a test of pytest

    f: float | None
    p: float | None

    @property
    def verdict(self) -> str:
        if self.p is None:
            return "not testable"
        return "rejected" if self.p < 0.05 else "not rejected"

    @classmethod
    def of(cls, value: float, against: Form, dof: float) -> Test:
        if dof < 1 or against.mean < 1e-8:
            return cls(None, None)
        f = max(value, 0.0) / against.mean
        return cls(f, float(special.fdtrc(against.dof, dof, f)))

    def to_dict(self) -> dict[str, Any]:
        return {"F": self.f, "p": self.p, "verdict": self.verdict}
