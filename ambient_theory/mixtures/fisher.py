"""What a sample is worth to an efficient estimator, from Fisher information: the marginal worth and the exchange rate.

For a k-atomic law on the line, theta = (atoms, weights) with the weights summing to 1 (2k-1 free numbers). One sample
at noise s carries the information I_s. An efficient estimator has covariance `Sigma = (sum_l n_l I_{s_l})^-1`, and to
first order its error in W1 moves each atom by its own weight and each gap by the error of the cumulative weight:

    E W1 = sqrt(2/pi) [ sum_j w_j sd(a_j) + sum_j (a_{j+1} - a_j) sd(w_1 + ... + w_j) ].

The marginal worth of a noisy sample is `(dE/dn_noisy) / (dE/dn_clean)`. It is *not* the bound's weight `s^-(4k-2)`:
it falls like that only where the atoms are closer than the noise, and approaches 1 where they are far apart. Derived
here; no sampling is involved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from ambient_theory.bounds.sizes import check_levels
from ambient_theory.mixtures.laws import AtomicLaw
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]


def score_root(law: AtomicLaw, s: float, points: int = 4001) -> Floats:
    """S (points, 2k-1) with `S^T S = I_s`: scores times the square root of density times step.

    Columns: the k atoms, then the first k-1 weights (the last is 1 minus the others). The integral is a trapezium
    sum on +-12 s around the atoms, spectrally accurate for Gaussians. Working with the root instead of I_s keeps half
    the digits that close atoms lose. Raises UsageError for a law off the line, repeated atoms or zero weights.
    """
    atoms, weights = law.line(), law.weights
    check_levels(s)
    if np.any(weights <= 0) or np.any(np.diff(np.sort(atoms)) <= 0):
        raise UsageError("Fisher information needs distinct atoms of positive weight")
    x = np.linspace(atoms.min() - 12 * s, atoms.max() + 12 * s, points)
    kernels = np.exp(-(((x[:, None] - atoms) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))
    root = np.sqrt(kernels @ weights)
    by_atom = weights * kernels * (x[:, None] - atoms) / s**2
    by_weight = kernels[:, :-1] - kernels[:, -1:]
    empty = root < 1e-150  # between far atoms the density underflows and carries no information
    return np.hstack([by_atom, by_weight]) / np.where(empty, 1.0, root)[:, None] * math.sqrt(x[1] - x[0])


def fisher_information(law: AtomicLaw, s: float) -> Floats:
    """I_s, (2k-1, 2k-1), of one sample at noise s, for (atoms, first k-1 weights)."""
    root = score_root(law, s)
    return root.T @ root


def _error_map(law: AtomicLaw) -> tuple[Floats, Floats]:
    """Rows: the 2k-1 quantities whose standard deviations add up to W1, and their factors."""
    atoms, weights = law.line(), law.weights
    k = law.k
    order = np.argsort(atoms)
    shares = np.vstack([np.eye(k - 1), -np.ones((1, k - 1))])[order]  # weight j of the sorted atoms from theta
    rows = np.zeros((2 * k - 1, 2 * k - 1))
    rows[:k, :k] = np.eye(k)[order]
    rows[k:, k:] = np.cumsum(shares, axis=0)[:-1]
    return rows, np.concatenate([weights[order], np.diff(atoms[order])])


@dataclass(frozen=True)
class _Risk:
    """Everything of one law that the first-order risk needs, for given levels."""

    roots: tuple[Floats, ...]
    rows: Floats
    factors: Floats

    def deviations(self, counts: Floats) -> tuple[Floats, Floats]:
        """sd of the error quantities (2k-1,), and T with `Sigma rows^T = R^-1 T`."""
        stacked = np.vstack([math.sqrt(n) * root for n, root in zip(counts, self.roots, strict=True) if n > 0])
        scale = np.linalg.norm(stacked, axis=0)
        triangle = np.linalg.qr(stacked / scale, mode="r")
        half = solve_triangular(triangle, (self.rows / scale).T, trans="T")
        return np.sqrt(np.sum(half**2, axis=0)), solve_triangular(triangle, half) / scale[:, None]

    def value(self, counts: Floats) -> float:
        return math.sqrt(2 / math.pi) * float(self.factors @ self.deviations(counts)[0])

    def gradient(self, counts: Floats) -> Floats:
        """dE/dn_l, (L,): `-1/(2 sd) || S_l Sigma row ||^2` summed with the factors. Negative."""
        sd, direction = self.deviations(counts)
        return np.array(
            [
                -math.sqrt(2 / math.pi) * float(self.factors / (2 * sd) @ np.sum((root @ direction) ** 2, axis=0))
                for root in self.roots
            ]
        )


def _risk(law: AtomicLaw, levels: Floats) -> _Risk:
    return _Risk(tuple(score_root(law, float(s)) for s in levels), *_error_map(law))


def first_order_risk(law: AtomicLaw, levels: ArrayLike, counts: ArrayLike) -> float:
    """`E W1` of an efficient estimator to first order, in units of the atoms. levels, counts: (L,)."""
    s, n = check_levels(levels, counts)
    return _risk(law, s).value(n)


def marginal_worth(
    law: AtomicLaw, s_noisy: float, s_clean: float = 1.0, n_clean: float = 1.0, n_noisy: float = 0.0
) -> float:
    """`(dE/dn_noisy) / (dE/dn_clean)` at the base (n_clean, n_noisy); by default all clean.

    s_noisy, s_clean: total standard deviations. Only the ratio n_noisy/n_clean matters. At k = 1 it is
    `(s_clean/s_noisy)^2`.
    """
    levels, _ = check_levels([s_clean, s_noisy])
    gradient = _risk(law, levels).gradient(np.array([n_clean, n_noisy], dtype=float))
    return float(gradient[1] / gradient[0])


def efficient_exchange_rate(
    law: AtomicLaw, s_noisy: float, n_clean: float, n_noisy: float, s_clean: float = 1.0
) -> float:
    """c at equal error: `E(n_clean, n_noisy) = E(n_clean + c n_noisy, 0)` for the efficient estimator.

    To first order `E ~ n^-1/2`, so `c = ((E(1, 0) / E(n_clean, n_noisy))^2 - n_clean) / n_noisy`, exactly.
    """
    levels, counts = check_levels([s_clean, s_noisy], [n_clean, n_noisy])
    if n_noisy <= 0:
        raise UsageError("an exchange rate needs n_noisy > 0")
    risk = _risk(law, levels)
    unit = risk.value(np.array([1.0, 0.0]))
    return float(((unit / risk.value(counts)) ** 2 - n_clean) / n_noisy)
