"""Effective sizes, exchange rates, the two-term bound in numbers, and what prices can and cannot show.

Model: `X_i = Y_i + s_i Z_i`, `Y_i ~ D` k-atomic in a ball of radius R of R^d, `Z_i ~ N(0, I_d)`, `s_i > 0` known. The
bound of Daras, Cherapanamjeri and Daskalakis (arXiv 2411.02780), *reconstructed* here (known second-hand, derived
again, constants unknown), holds with probability 1 - delta for k >= 2:

    W1 <= C_d ((d + log 1/delta) / n_d)^(1/4) + C_l (log(1/delta) / n_l)^(1/(4k-2)),
    n_d = sum_i s_i^-4,    n_l = sum_i s_i^-(4k-2).

`s_i` is the **total** standard deviation of sample i, `s_i^2 = s0^2 + sigma_i^2`: s0 is the intrinsic width of a clean
sample and sigma_i the noise added to it. The exchange rates below are functions of the added noise sigma. The same
rates as SymPy expressions, each with its source, grade and regime, are in `ambient_theory.bounds.rates`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambient_theory.shared.errors import UsageError

Law = Literal["strong", "subspace", "lowdim", "exponential"]
LAWS: tuple[Law, ...] = get_args(Law)
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


def _check_noise(sigma: ArrayLike, name: str = "sigma") -> Floats:
    value = np.asarray(sigma, dtype=float)
    if not np.all(np.isfinite(value) & (value >= 0)):
        raise UsageError(f"{name} (added noise) must be finite and >= 0, not {sigma!r}")
    return value


def _check_width(s0: float) -> float:
    if not (isinstance(s0, int | float | np.floating | np.integer) and math.isfinite(s0) and s0 > 0):
        raise UsageError(f"s0 (the intrinsic width of a clean sample) must be finite and > 0, not {s0!r}")
    return float(s0)


# ---------------------------------------------------------------------------------------------------- effective sizes


def total_noise(sigma: ArrayLike, s0: float = 1.0) -> Floats:
    """Total standard deviation `s = sqrt(s0^2 + sigma^2)` of a sample with added noise sigma (any shape)."""
    return np.sqrt(_check_width(s0) ** 2 + _check_noise(sigma) ** 2)


def effective_size(power: float, levels: ArrayLike, counts: ArrayLike | None = None) -> float:
    """`sum_l n_l s_l^-power`, in samples of unit noise. levels: (L,); counts: (L,) or None for one sample each."""
    s, n = check_levels(levels, counts)
    return float(np.sum(n * s**-power))


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
    s, n = check_levels(levels, counts)
    return float((d + log_term) * np.max(s[n > 0] ** -4.0) / n_d(s, n))


# -------------------------------------------------------------------------------------------------- the bound's terms


def lowdim_exponent(k: int) -> float:
    """`1/(4k-2)`: W1 falls like n_l to minus this on the worst k-atomic laws (Wu and Yang, arXiv 1807.07237)."""
    return 1.0 / (4 * check_k(k) - 2)


def separated_exponent(k: int, k0: int) -> float:
    """`1/(4(k-k0)+2)` with k0 well separated clusters (Heinrich and Kahn, arXiv 1504.03506). k0 = k gives 1/2."""
    k, k0 = check_k(k), check_k(k0)
    if k0 > k:
        raise UsageError(f"k0 = {k0} separated clusters cannot be more than the k = {k} atoms")
    return 1.0 / (4 * (k - k0) + 2)


@dataclass(frozen=True)
class BoundTerms:
    """The terms of the bound, in the units of W1: subspace (`pca`), low-dimensional (`low`), and their sum.

    With constants 1 these are rates, not guarantees.
    """

    pca: float
    low: float

    @property
    def total(self) -> float:
        return self.pca + self.low


def bound(
    k: int,
    d: int,
    levels: ArrayLike,
    counts: ArrayLike | None = None,
    *,
    c_d: float = 1.0,
    c_l: float = 1.0,
    delta: float | None = None,
) -> BoundTerms:
    """Both terms of the heteroscedastic bound (reconstructed, arXiv 2411.02780), with constants `c_d`, `c_l`.

    delta: failure probability; None leaves `log 1/delta` out (the rate of the expected error). At d = 1 there is no
    subspace to find and `pca` is 0. k = 1 is mean estimation: `low = c_l sqrt(d / sum s_i^-2)`, `pca = 0`.
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
    pca = 0.0 if d == 1 else c_d * ((d + log_term) / n_d(levels, counts)) ** 0.25
    return BoundTerms(pca, c_l * (low_factor / n_l(k, levels, counts)) ** lowdim_exponent(k))


def crossover(
    k: int,
    d: float,
    levels: ArrayLike = 1.0,
    shares: ArrayLike = 1.0,
    *,
    c_d: float = 1.0,
    c_l: float = 1.0,
) -> float:
    """Total sample size n* at which the two terms of the bound are equal; above it the low-dimensional term leads.

    Homoscedastic: `n* = (C_d/C_l)^(4(2k-1)/(2k-3)) d^((2k-1)/(2k-3))` (k = 2: d^3, k = 3: d^(5/3)), whatever s. With
    levels of different s in fixed shares both terms are powers of n, so the equation is solved in log n:
    `log(C_d/C_l) + (log d - log a_d)/4 + (log a_l)/(4k-2) = (1/4 - 1/(4k-2)) log n`, `a = sum shares s^-p`.
    Derived here. Raises UsageError for k < 2 (no subspace term) and bad levels. Returns inf beyond float range.
    """
    k = check_k(k, least=2)
    s, share = check_levels(levels, shares)
    share = share / share.sum()
    if not (c_d > 0 and c_l > 0 and d > 0):
        raise UsageError("the dimension d and the constants c_d, c_l must be > 0")
    log_a_d = math.log(float(np.sum(share * s**-4.0)))
    log_a_l = math.log(float(np.sum(share * s ** -(4.0 * k - 2))))
    left = math.log(c_d / c_l) + (math.log(d) - log_a_d) / 4 + log_a_l * lowdim_exponent(k)
    log_n = left / (0.25 - lowdim_exponent(k))
    return math.exp(log_n) if log_n < 709 else math.inf


# ---------------------------------------------------------------------------------------------------- exchange rates


def law_power(law: Law, k: int | None = None) -> float:
    """m of the law `c = (1 + sigma^2/s0^2)^-m`: 1 strong, 2 subspace, 2k-1 lowdim, inf exponential."""
    if law == "strong":
        return 1.0
    if law == "subspace":
        return 2.0
    if law == "lowdim":
        if k is None:
            raise UsageError("the low-dimensional law needs k, the number of atoms")
        return float(2 * check_k(k) - 1)
    if law == "exponential":
        return math.inf
    raise UsageError(f"unknown law {law!r}: choose one of {', '.join(LAWS)}")


def exchange_rate(law: Law, sigma: ArrayLike, s0: float, k: int | None = None) -> Any:
    """Clean samples that one noisy sample is worth in the bound's weights: `c(sigma) = (1 + sigma^2/s0^2)^-m`.

    m = 1 `strong` (a strong signal, where only the noise of the mean counts), 2 `subspace` (weights s^-4), 2k-1
    `lowdim` (weights s^-(4k-2), needs k). `exponential` is the limit m -> inf at fixed m/s0^2, with `s0^2` standing
    for s0^2/m: `c = exp(-sigma^2/s0^2)`. c(0) = 1, smooth and falling. These are the weights of the bound, not the
    marginal worth of a sample (see `ambient_theory.mixtures.fisher.marginal_worth`). Derived here.

    sigma: added noise, any shape; s0: intrinsic width of a clean sample, same unit. Returns a float for a scalar,
    else an array. Raises UsageError for sigma < 0 or not finite, s0 <= 0, an unknown law, lowdim without k.
    """
    m = law_power(law, k)
    ratio = (_check_noise(sigma) / _check_width(s0)) ** 2
    c = np.exp(-ratio) if math.isinf(m) else np.exp(-m * np.log1p(ratio))
    return float(c) if c.ndim == 0 else c


def c_low(sigma: ArrayLike, k: int, s0: float = 1.0) -> Any:
    """`(1 + sigma^2/s0^2)^-(2k-1)`, the exchange rate in n_l."""
    return exchange_rate("lowdim", sigma, s0, k)


def c_pca(sigma: ArrayLike, s0: float = 1.0) -> Any:
    """`(1 + sigma^2/s0^2)^-2`, the exchange rate in n_d."""
    return exchange_rate("subspace", sigma, s0)


def c_strong(sigma: ArrayLike, s0: float = 1.0) -> Any:
    """`(1 + sigma^2/s0^2)^-1`, the exchange rate where the signal is strong (k = 1 or well separated atoms)."""
    return exchange_rate("strong", sigma, s0)


def c_subspace(sigma: ArrayLike, signal: float, s0: float = 1.0) -> Any:
    """Exchange rate of direction finding at signal strength `lambda = rho^2`, with total noise s^2 = s0^2 + sigma^2:

        c = s0^2 (lambda + s0^2) / (s^2 (lambda + s^2)),

    from (s0/s)^4 (weak signal) to (s0/s)^2 (strong). Derived here; cf. weighted PCA, arXiv 1810.12862.
    """
    if not signal >= 0:
        raise UsageError(f"signal strength lambda must be >= 0, not {signal!r}")
    clean = _check_width(s0) ** 2
    total = clean + _check_noise(sigma) ** 2
    c = clean * (signal + clean) / (total * (signal + total))
    return float(c) if np.ndim(c) == 0 else c


def calibrate_s0(law: Law, sigma: float, price: float, k: int | None = None) -> float:
    """The s0 at which the law prices noise sigma at `price = 1/c(sigma)`: `s0^2 = sigma^2 / (price^(1/m) - 1)`.

    Raises UsageError unless sigma > 0 and price > 1.
    """
    m = law_power(law, k)
    if not (math.isfinite(sigma) and sigma > 0):
        raise UsageError(f"calibration needs a noise level sigma > 0, not {sigma!r}")
    if not (math.isfinite(price) and price > 1):
        raise UsageError(f"calibration needs a price 1/c > 1 (clean samples cost more), not {price!r}")
    log_price = math.log(price)
    return sigma / math.sqrt(log_price if math.isinf(m) else math.expm1(log_price / m))


@dataclass(frozen=True)
class IdentifiabilityBand:
    """Prices 1/c that every law gives once all agree at one anchor.

    sigmas: (S,) added noise. prices: law name -> (S,) values of 1/c. low, high: (S,) the band. Where `spread`
    (high/low - 1) is small, data at that sigma cannot tell the laws, hence k, apart.
    """

    anchor_sigma: float
    anchor_price: float
    sigmas: Floats
    prices: Mapping[str, Floats]

    @property
    def low(self) -> Floats:
        return np.min(list(self.prices.values()), axis=0)

    @property
    def high(self) -> Floats:
        return np.max(list(self.prices.values()), axis=0)

    @property
    def spread(self) -> Floats:
        return self.high / self.low - 1

    def to_dict(self) -> dict[str, Any]:
        return {
            "anchor_sigma": self.anchor_sigma,
            "anchor_price": self.anchor_price,
            "sigma": self.sigmas.tolist(),
            "prices": {name: p.tolist() for name, p in self.prices.items()},
            "low": self.low.tolist(),
            "high": self.high.tolist(),
        }


def identifiability_band(
    sigmas: ArrayLike,
    anchor_sigma: float = 0.2,
    anchor_price: float = 1.6,
    ks: Sequence[int] = (2, 3),
) -> IdentifiabilityBand:
    """Prices 1/c at `sigmas` under every law calibrated on one known price (derived here).

    For sigma << s0 every law is `1/c ~ exp(m sigma^2/s0^2)`: only m/s0^2 is identified, so laws that agree at the
    anchor agree below it. Default anchor: 1/c(0.2) = 1.6, the middle of the interval published for ImageNet
    (arXiv 2411.02780). Laws: strong, subspace, low-dimensional for each k of `ks`, exponential limit.
    """
    grid = np.atleast_1d(_check_noise(sigmas))
    laws: list[tuple[str, Law, int | None]] = [("strong (m=1)", "strong", None), ("subspace (m=2)", "subspace", None)]
    laws += [(f"lowdim k={k} (m={2 * k - 1})", "lowdim", k) for k in ks]
    laws.append(("exponential (m->inf)", "exponential", None))
    prices = {
        name: 1.0 / exchange_rate(law, grid, calibrate_s0(law, anchor_sigma, anchor_price, k), k)
        for name, law, k in laws
    }
    return IdentifiabilityBand(anchor_sigma, anchor_price, grid, prices)


# --------------------------------------------------------------------------------------------------------------- SNR


def snr(sigma: ArrayLike, signal_std: float = 1.0) -> Any:
    """Signal-to-noise ratio in power, `signal_std^2 / sigma^2`. Raises UsageError for sigma <= 0."""
    value = _check_noise(sigma)
    if not np.all(value > 0):
        raise UsageError("the signal-to-noise ratio of noise-free data is infinite: give sigma > 0")
    ratio = (_check_width(signal_std) / value) ** 2
    return float(ratio) if ratio.ndim == 0 else ratio


def snr_db(sigma: ArrayLike, signal_std: float = 1.0) -> Any:
    """`10 log10(snr)`, in decibel."""
    value = 10 * np.log10(snr(sigma, signal_std))
    return float(value) if np.ndim(value) == 0 else value


def sigma_from_snr(ratio: ArrayLike, signal_std: float = 1.0) -> Any:
    """Inverse of `snr`: `sigma = signal_std / sqrt(ratio)`. Raises UsageError for ratio <= 0."""
    value = np.asarray(ratio, dtype=float)
    if not np.all(np.isfinite(value) & (value > 0)):
        raise UsageError(f"a signal-to-noise ratio must be finite and > 0, not {ratio!r}")
    sigma = _check_width(signal_std) / np.sqrt(value)
    return float(sigma) if sigma.ndim == 0 else sigma


def sigma_from_snr_db(decibel: ArrayLike, signal_std: float = 1.0) -> Any:
    """Inverse of `snr_db`."""
    return sigma_from_snr(10 ** (np.asarray(decibel, dtype=float) / 10), signal_std)
