"""Effective sizes of a sample of mixed noise, and the bound in numbers: two terms and a floor.

Model: `X_i = Y_i + s_i Z_i`, `Y_i ~ D` k-atomic in a ball of radius R of R^d, `Z_i ~ N(0, I_d)`, `s_i > 0` known. The
bound of Daras, Cherapanamjeri and Daskalakis (arXiv 2411.02780), *reconstructed* here (known second-hand, derived
again, constants unknown), holds with probability 1 - delta for k >= 2:

    W1 <= C_d ((d + log 1/delta) / n_d)^(1/4) + C_l (log(1/delta) / n_l)^(1/(4k-2)),
    n_d = sum_i s_i^-4,    n_l = sum_i s_i^-(4k-2).

Neither term knows that the weights of the atoms must be counted, whatever the noise: the floor (derived here)

    R / sqrt(N_eff),    N_eff = sum_i 1 / (1 + s_i^2/R^2),

counts a sample in full where its noise is below R and as (R/s)^2 of one where it is above.

`s_i` is the **total** standard deviation of sample i, `s_i^2 = s0^2 + sigma_i^2`: s0 is the intrinsic width of a clean
sample and sigma_i the noise added to it. The same rates as SymPy expressions, each with its source, grade and regime,
are in `ambient_theory.bounds.rates`; the exchange rates in `ambient_theory.bounds.laws`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]


# ---------------------------------------------------------------------------------------------- checks of arguments


def check_k(k: int, *, least: int = 1) -> int:
    """k as an int. Raises UsageError unless it is a whole number >= least."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < least:
        raise UsageError(f"the number of atoms k must be a whole number >= {least}, not {k!r}")
    return int(k)


def check_levels(levels: ArrayLike, counts: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Noise levels s (total standard deviations) and how many samples have each.

    levels: scalar or (L,). counts: None (one sample a level) or broadcastable to (L,). Returns two (L,) arrays.
    Raises UsageError for s <= 0, NaN or infinite, counts < 0, other lengths, or no sample at all.
    """
    s = np.atleast_1d(np.asarray(levels, dtype=float)).ravel()
    if not np.all(np.isfinite(s) & (s > 0)):
        bad = s[~(np.isfinite(s) & (s > 0))][0]
        raise UsageError(f"every noise level s must be finite and > 0 (the total standard deviation), not {bad}")
    n = np.ones_like(s) if counts is None else np.atleast_1d(np.asarray(counts, dtype=float)).ravel()
    if n.shape != s.shape:
        raise UsageError(f"{s.size} noise level(s) but {n.size} count(s): give one count for each level")
    if not np.all(np.isfinite(n) & (n >= 0)):
        raise UsageError("every count must be finite and >= 0")
    if n.sum() <= 0:
        raise UsageError("there is no sample: all counts are 0")
    return s, n


def check_noise(sigma: ArrayLike, name: str = "sigma") -> Floats:
    value = np.asarray(sigma, dtype=float)
    if not np.all(np.isfinite(value) & (value >= 0)):
        raise UsageError(f"{name} (added noise) must be finite and >= 0, not {sigma!r}")
    return value


def check_width(s0: float) -> float:
    if not (isinstance(s0, int | float | np.floating | np.integer) and math.isfinite(s0) and s0 > 0):
        raise UsageError(f"s0 (the intrinsic width of a clean sample) must be finite and > 0, not {s0!r}")
    return float(s0)


# ---------------------------------------------------------------------------------------------------- effective sizes


def total_noise(sigma: ArrayLike, s0: float = 1.0) -> Floats:
    """Total standard deviation `s = sqrt(s0^2 + sigma^2)` of a sample with added noise sigma (any shape)."""
    return np.sqrt(check_width(s0) ** 2 + check_noise(sigma) ** 2)


def effective_size(power: float, levels: ArrayLike, counts: ArrayLike | None = None) -> float:
    """`sum_l n_l s_l^-power`, in samples of unit noise. levels: (L,); counts: (L,) or None for one sample each."""
    s, n = check_levels(levels, counts)
    with np.errstate(over="ignore"):  # of unit noise: infinitely many where that is beyond 1e308 times the noise
        return float(np.sum(n * s**-power))


def size_of_least(power: float, levels: ArrayLike, counts: ArrayLike | None = None) -> tuple[float, float]:
    """The effective size in samples of the least noise that occurs, and that noise: finite in every unit."""
    s, n = check_levels(levels, counts)
    least = float(s[n > 0].min())
    return effective_size(power, s[n > 0] / least, n[n > 0]), least


def n_d(levels: ArrayLike, counts: ArrayLike | None = None) -> float:
    """Effective size of the subspace term, `n_d = sum_i s_i^-4` (reconstructed from arXiv 2411.02780)."""
    return effective_size(4, levels, counts)


def n_l(k: int, levels: ArrayLike, counts: ArrayLike | None = None) -> float:
    """Effective size of the low-dimensional term, `n_l = sum_i s_i^-(4k-2)` (reconstructed from arXiv 2411.02780)."""
    return effective_size(4 * check_k(k) - 2, levels, counts)


def n_mean(levels: ArrayLike, counts: ArrayLike | None = None) -> float:
    """Effective size for a mean, `sum_i s_i^-2` (the Gauss-Markov weights; equals n_l at k = 1)."""
    return effective_size(2, levels, counts)


def weight_condition(d: int, levels: ArrayLike, counts: ArrayLike | None = None, log_term: float = 1.0) -> float:
    """`(d + log 1/delta) max_i s_i^-4 / n_d`: the heteroscedastic bound asks for this to stay below a constant.

    Above 1, one sample carries more than 1/d of the weight and the stated rate does not apply.
    """
    return (d + log_term) / size_of_least(4, levels, counts)[0]


def low_weight_condition(k: int, levels: ArrayLike, counts: ArrayLike | None = None, log_term: float = 1.0) -> float:
    """`(2k - 1 + log 1/delta) max_i s_i^-(4k-2) / n_l`, the same for the low-dimensional term (derived here).

    Above 1 a few samples carry n_l, too few for the 2k - 1 moments that a law of k atoms needs: the term is then
    smaller than any estimator's error.
    """
    k = check_k(k)
    return (2 * k - 1 + log_term) / size_of_least(4 * k - 2, levels, counts)[0]


def n_counted(radius: float, levels: ArrayLike, counts: ArrayLike | None = None) -> float:
    """`N_eff = sum_i 1 / (1 + s_i^2/R^2)`: the samples that count for the weights of atoms within R."""
    s, n = check_levels(levels, counts)
    return float(np.sum(n / (1 + (s / _check_radius(radius)) ** 2)))


def _check_radius(radius: float) -> float:
    if not (isinstance(radius, int | float | np.floating | np.integer) and math.isfinite(radius) and radius > 0):
        raise UsageError(f"the radius R of the ball that holds the atoms must be finite and > 0, not {radius!r}")
    return float(radius)


# -------------------------------------------------------------------------------------------------- the bound's terms


def lowdim_exponent(k: int) -> float:
    """`1/(4k-2)`: W1 falls like n_l to minus this on the worst k-atomic laws (Wu and Yang, arXiv 1807.07237)."""
    return 1.0 / (4 * check_k(k) - 2)


@dataclass(frozen=True)
class BoundTerms:
    """The terms of the bound, in the units of W1: subspace (`pca`), low-dimensional (`low`), the weights' floor
    (`floor`, 0 where no radius was given), and their sum. With constants 1 these are rates, not guarantees.

    weight_condition, low_weight_condition: of `pca` and of `low` (0 where the term is not there). Above about 1 a few
    samples carry all of n_d, of n_l, and the term is smaller than any estimator's error.
    """

    pca: float
    low: float
    floor: float = 0.0
    weight_condition: float = 0.0
    low_weight_condition: float = 0.0

    @property
    def total(self) -> float:
        return self.pca + self.low + self.floor


def bound(
    k: int,
    d: int,
    levels: ArrayLike,
    counts: ArrayLike | None = None,
    *,
    c_d: float = 1.0,
    c_l: float = 1.0,
    delta: float | None = None,
    radius: float | None = None,
) -> BoundTerms:
    """Both terms of the heteroscedastic bound (reconstructed, arXiv 2411.02780), with constants `c_d`, `c_l`, and, with
    the radius R of the ball that holds the atoms, the floor `R / sqrt(N_eff)`: without it the bound is wrong as s -> 0.

    delta: failure probability; None leaves `log 1/delta` out (the rate of the expected error). At d = 1 there is no
    subspace to find and `pca` is 0. k = 1 is mean estimation: `low = c_l sqrt(d / sum s_i^-2)`, no other term.
    Raises UsageError for k < 1, d < 1, bad levels, delta outside (0, 1).
    """
    k = check_k(k)
    if isinstance(d, bool) or not isinstance(d, int | np.integer) or d < 1:
        raise UsageError(f"the dimension d must be a whole number >= 1, not {d!r}")
    if delta is not None and not 0 < delta < 1:
        raise UsageError(f"delta (failure probability) must lie in (0, 1), not {delta!r}")
    log_term = 0.0 if delta is None else math.log(1 / delta)
    low_factor = 1.0 if delta is None else log_term
    if k == 1:
        return BoundTerms(0.0, c_l * math.sqrt((d + log_term) / n_mean(levels, counts)))
    (of_d, least), (of_l, _) = size_of_least(4, levels, counts), size_of_least(4 * k - 2, levels, counts)
    pca = 0.0 if d == 1 else c_d * least * ((d + log_term) / of_d) ** 0.25
    floor = 0.0 if radius is None else radius / math.sqrt(n_counted(radius, levels, counts))
    return BoundTerms(
        pca,
        c_l * least * (low_factor / of_l) ** lowdim_exponent(k),
        floor,
        0.0 if d == 1 else weight_condition(d, levels, counts, log_term=1.0 if delta is None else log_term),
        low_weight_condition(k, levels, counts, log_term=1.0 if delta is None else log_term),
    )
