"""The laws of the worth c(sigma) of a noisy sample, in one table, and what prices can show of them.

A noisy sample counts as `c(sigma)` clean ones in the weights of the bound (see `ambient_theory.bounds.sizes`):

    c(sigma) = (1 + sigma^2/s0^2)^-m,      m -> inf at fixed m/s0^2:  exp(-sigma^2/s0^2), s0^2 standing for s0^2/m,

with sigma the added noise and s0 the intrinsic width of a clean sample. These are weights of a bound, not the marginal
worth of a sample (see `ambient_theory.mixtures.fisher.marginal_worth`). Derived here.

`LAWS` is the only list of laws: the band below, the fits, the legends and the page read it, so a new law is one entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambient_theory.bounds.sizes import check_k, check_noise, check_width
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.palette import BLUE, GREEN, GREY, ORANGE, RED

if TYPE_CHECKING:
    from ambient_theory.bounds.rates import Statement

Floats = NDArray[np.float64]
Dashes = tuple[float, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Law:
    """One law `c(sigma) = (1 + sigma^2/s0^2)^-m`.

    name: for programs. label: for tables, legends and captions. m: the exponent, inf for the exponential limit.
    regime: where the weight comes from. k: the number of atoms it belongs to, None where it belongs to any. colour,
    line: how figures draw it (matplotlib's colour and line style).
    """

    name: str
    label: str
    m: float
    regime: str
    colour: str
    line: str | Dashes
    k: int | None = None

    def __post_init__(self) -> None:
        if not self.m > 0:
            raise UsageError(f"the exponent m of law {self.name!r} must be > 0 (inf is the limit), not {self.m!r}")

    @property
    def q(self) -> float:
        """The curvature 1/m, 0 in the limit: with kappa = m/s0^2, `c = (1 + q kappa sigma^2)^(-1/q)`."""
        return 1 / self.m

    def worth(self, sigma: ArrayLike, s0: float) -> Any:
        """c(sigma) in clean samples; c(0) = 1, smooth and falling. sigma: added noise, any shape, in the unit of s0.

        Returns a float for a scalar, else an array. Raises UsageError for sigma < 0 or not finite, or s0 <= 0.
        """
        ratio = (check_noise(sigma) / check_width(s0)) ** 2
        c = np.exp(-ratio) if math.isinf(self.m) else np.exp(-self.m * np.log1p(ratio))
        return float(c) if c.ndim == 0 else c

    def calibrate(self, sigma: float, price: float) -> float:
        """The s0 at which noise sigma has the price `1/c(sigma)`: `s0^2 = sigma^2 / (price^(1/m) - 1)`.

        Raises UsageError unless sigma > 0 and price > 1.
        """
        if not (math.isfinite(sigma) and sigma > 0):
            raise UsageError(f"calibration needs a noise level sigma > 0, not {sigma!r}")
        if not (math.isfinite(price) and price > 1):
            raise UsageError(f"calibration needs a price 1/c > 1 (clean samples cost more), not {price!r}")
        log_price = math.log(price)
        return sigma / math.sqrt(log_price if math.isinf(self.m) else math.expm1(log_price / self.m))

    def formula(self) -> Statement:
        """The law as a SymPy expression with its source, grade and regime (SymPy is imported here)."""
        from ambient_theory.bounds import rates

        return rates.exchange_rate(self.label, self.m, self.regime)


def _lowdim(k: int, colour: str, line: str | Dashes) -> Law:
    m = 2 * k - 1
    return Law(
        name=f"lowdim-k{k}",
        label=f"low-dimensional k = {k}, m = {m}",
        m=m,
        regime=f"weights s^-{2 * m}: telling laws of {k} atoms apart inside their subspace",
        colour=colour,
        line=line,
        k=k,
    )


#: Every law that is tried, drawn and printed, in this order.
LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            name="strong",
            label="strong signal, m = 1",
            m=1,
            regime="weights s^-2: k = 1, or a strong signal, where only the noise of a mean counts",
            colour=BLUE,
            line="-",
        ),
        Law(
            name="subspace",
            label="subspace, m = 2",
            m=2,
            regime="weights s^-4: finding the directions of a weak signal",
            colour=GREEN,
            line="--",
        ),
        _lowdim(2, ORANGE, "-."),
        _lowdim(3, RED, ":"),
        Law(
            name="exponential",
            label="exponential limit",
            m=math.inf,
            regime="m to infinity at fixed m/s_0^2, with s_0^2 standing for s_0^2/m: very many atoms",
            colour=GREY,
            line=(0, (5, 1, 1, 1, 1, 1)),
        ),
    )
}


def law_named(name: str) -> Law:
    """The law of this name. Raises UsageError with the names there are."""
    if name not in LAWS:
        raise UsageError(f"unknown law {name!r}: choose one of {', '.join(LAWS)}")
    return LAWS[name]


def lowdim(k: int) -> Law:
    """The low-dimensional law of k atoms, m = 2k - 1; also for a k that is not in the table."""
    return LAWS.get(f"lowdim-k{check_k(k)}") or _lowdim(k, GREY, ":")


def laws_for_atoms(k: int) -> tuple[Law, ...]:
    """The laws with a finite exponent that speak of k atoms, flattest first: those of any k, and the k-atomic one."""
    chosen = {law.name: law for law in LAWS.values() if math.isfinite(law.m) and law.k in (None, k)}
    chosen[lowdim(k).name] = lowdim(k)
    return tuple(sorted(chosen.values(), key=lambda law: law.m))


@dataclass(frozen=True)
class IdentifiabilityBand:
    """Prices 1/c that every law gives once all agree at one anchor.

    sigmas: (S,) added noise. laws: in the order of `prices`, label -> (S,) values of 1/c. low, high: (S,) the band.
    Where `spread` (high/low - 1) is small, data at that sigma cannot tell the laws, hence k, apart.
    """

    anchor_sigma: float
    anchor_price: float
    sigmas: Floats
    laws: tuple[Law, ...]
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


def identifiability_band(
    sigmas: ArrayLike,
    anchor_sigma: float = 0.2,
    anchor_price: float = 1.6,
    laws: Sequence[Law] | None = None,
) -> IdentifiabilityBand:
    """Prices 1/c at `sigmas` under every law of the table, calibrated on one known price (derived here).

    For sigma << s0 every law is `1/c ~ exp(m sigma^2/s0^2)`: only m/s0^2 is identified, so laws that agree at the
    anchor agree below it. Default anchor: 1/c(0.2) = 1.6, the middle of the interval published for ImageNet
    (arXiv 2411.02780). laws: all of `LAWS` unless given.
    """
    grid = np.atleast_1d(check_noise(sigmas))
    chosen = tuple(LAWS.values()) if laws is None else tuple(laws)
    prices = {law.label: 1.0 / law.worth(grid, law.calibrate(anchor_sigma, anchor_price)) for law in chosen}
    return IdentifiabilityBand(anchor_sigma, anchor_price, grid, chosen, prices)
