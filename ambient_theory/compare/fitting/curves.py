"""Error curves that can be fitted: `E = E_inf + a N^-p` with `N = n_clean + c(sigma_n) n_noisy`, and its relatives.

*Worth* c(sigma_n): free at each measured noise level, tied to a law, or fixed (the controls c = 1 and c = 0). A law
`c = (1 + sigma_n^2/s0^2)^-m` is written with `kappa = m/s0^2` and `q = 1/m`,

    c(sigma_n) = (1 + q kappa sigma_n^2)^(-1/q),      q -> 0: exp(-kappa sigma_n^2),

because kappa is what small noise identifies (`1/c ~ 1 + kappa sigma_n^2`) and q, the curvature, is what separates the
laws: q = 1 strong signal, 1/2 subspace, 1/(2k-1) low-dimensional, 0 the exponential limit.

The two-term curve is the bound's *shape* with fitted constants, `E_inf + a1 N1^-p1 + a2 N2^-p2`: it is not the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ambient_theory.bounds.laws import law_named, lowdim
from ambient_theory.shared.errors import UsageError

Floats = NDArray[np.float64]
C_MAX = 4.0
EXPONENT = (0.02, 4.0)


def law_worth(sigma_n: Floats, kappa: Floats, q: Floats) -> Floats:
    """`(1 + q kappa sigma_n^2)^(-1/q)`, its limit `exp(-kappa sigma_n^2)` at q = 0. Arguments broadcast."""
    x = kappa * np.square(sigma_n)
    small = np.asarray(q) < 1e-7
    safe = np.where(small, 1.0, q)
    return np.exp(-np.where(small, x, np.log1p(safe * x) / safe))


def law_slopes(sigma_n: Floats, kappa: Floats, q: Floats) -> tuple[Floats, Floats]:
    """(dc/d log kappa, dc/dq) of `law_worth`: with x = kappa sigma_n^2,

    -c x/(1 + q x)    and    c (log(1 + q x) - q x/(1 + q x))/q^2,  its limit c x^2/2 at q = 0.
    """
    x = kappa * np.square(sigma_n)
    c = law_worth(sigma_n, kappa, q)
    small = np.asarray(q) < 1e-4
    safe = np.where(small, 1.0, q)
    by_q = np.where(small, x**2 / 2, (np.log1p(safe * x) - safe * x / (1 + safe * x)) / safe**2)
    return -c * x / (1 + q * x), c * by_q


class Worth(Protocol):
    """c(sigma_n) with parameters: names, bounds, starts, values and slopes for a batch of parameters."""

    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def starts(self) -> list[tuple[float, ...]]: ...

    def __call__(self, theta: Floats, sigma_n: Floats) -> Floats:
        """theta: (B, W); sigma_n: (R,). Returns (B, R)."""
        ...

    def slopes(self, theta: Floats, sigma_n: Floats) -> Floats:
        """Derivatives by the parameters, (B, R, W)."""
        ...


class FreeWorth:
    """One free c >= 0 at each of the measured noise levels."""

    def __init__(self, noise_levels: Sequence[float]):
        self.noise_levels = tuple(float(s) for s in noise_levels)
        self.names = tuple(f"c({s:g})" for s in self.noise_levels)
        self.lower = (0.0,) * len(self.noise_levels)
        self.upper = (C_MAX,) * len(self.noise_levels)
        self._seen: tuple[Floats | None, NDArray[np.intp]] = (None, np.zeros(0, dtype=np.intp))

    def starts(self) -> list[tuple[float, ...]]:
        return [(c,) * len(self.noise_levels) for c in (0.03, 0.3, 0.9)]

    def __call__(self, theta: Floats, sigma_n: Floats) -> Floats:
        if sigma_n is not self._seen[0]:  # a fit asks thousands of times for the same cells
            self._seen = (sigma_n, self._columns(sigma_n))
        return np.concatenate([np.ones((len(theta), 1)), theta], axis=1)[:, self._seen[1]]

    def slopes(self, theta: Floats, sigma_n: Floats) -> Floats:
        own = self._columns(sigma_n)[:, None] == 1 + np.arange(len(self.noise_levels))
        return np.broadcast_to(own.astype(float), (len(theta), *own.shape))

    def _columns(self, sigma_n: Floats) -> NDArray[np.intp]:
        """For each cell 0 (nothing noisy), or 1 + the number of its level. Raises UsageError for a level not fitted."""
        columns = np.where(sigma_n > 0, -1, 0)
        for column, level in enumerate(self.noise_levels):
            columns[sigma_n == level] = 1 + column
        if np.any(columns < 0):
            missing = sigma_n[columns < 0][0]
            raise UsageError(f"no worth was fitted at σ {missing:g}: a law is needed between levels")
        return columns


class LawWorth:
    """One of the theory's laws: kappa free, the curvature q = 1/m fixed, or free when None."""

    def __init__(self, q: float | None, noise_levels: Sequence[float]):
        self.q = q
        top, bottom = max(noise_levels), min(s for s in noise_levels if s > 0)
        self.names = ("log kappa",) + (("q",) if q is None else ())
        self.lower = (float(np.log(1e-4 / top**2)),) + ((0.0,) if q is None else ())
        self.upper = (float(np.log(1e4 / bottom**2)),) + ((8.0,) if q is None else ())
        self._middle = float(np.sqrt(top * bottom))

    def starts(self) -> list[tuple[float, ...]]:
        kappas = [float(np.log(x / self._middle**2)) for x in (0.1, 0.7, 3.0)]
        return [(k, q) for k in kappas for q in (0.1, 1.0)] if self.q is None else [(k,) for k in kappas]

    def __call__(self, theta: Floats, sigma_n: Floats) -> Floats:
        q = theta[:, 1:2] if self.q is None else np.full((len(theta), 1), self.q)
        return law_worth(sigma_n[None, :], np.exp(theta[:, :1]), q)

    def slopes(self, theta: Floats, sigma_n: Floats) -> Floats:
        q = theta[:, 1:2] if self.q is None else np.full((len(theta), 1), self.q)
        both = law_slopes(sigma_n[None, :], np.exp(theta[:, :1]), q)
        return np.stack(both if self.q is None else both[:1], axis=2)


class FixedWorth:
    """A control: c = 1 (every sample counts) or c = 0 (only clean samples count)."""

    def __init__(self, value: float):
        self.value = value
        self.names: tuple[str, ...] = ()
        self.lower: tuple[float, ...] = ()
        self.upper: tuple[float, ...] = ()

    def starts(self) -> list[tuple[float, ...]]:
        return [()]

    def __call__(self, theta: Floats, sigma_n: Floats) -> Floats:
        return np.where(sigma_n[None, :] > 0, self.value, 1.0) * np.ones((len(theta), 1))

    def slopes(self, theta: Floats, sigma_n: Floats) -> Floats:
        return np.zeros((len(theta), len(sigma_n), 0))


@dataclass(frozen=True)
class Units:
    """Numbers that make the parameters of order one: a typical sample size and the smallest score."""

    n: float
    error: float


class SingleIndex:
    """`E = e E_min + exp(a) E_min (N / n)^-p`, `N = n_clean + c(sigma_n) n_noisy`. Parameters (e, a, log p, worth)."""

    def __init__(self, worth: Worth, units: Units):
        self.worth, self.units = worth, units
        self.names = ("E_inf", "log a", "log p", *worth.names)
        low, high = EXPONENT
        self.lower = np.array([0.0, -12.0, np.log(low), *worth.lower])
        self.upper = np.array([1.0, 12.0, np.log(high), *worth.upper])

    def starts(self) -> Floats:
        grid = [(e, 0.5, np.log(p), *w) for e in (0.0, 0.6) for p in (0.25, 0.7, 1.5) for w in self.worth.starts()]
        return np.array(grid, dtype=float)

    def index(self, theta: Floats, n_clean: Floats, n_noisy: Floats, sigma_n: Floats) -> Floats:
        """N, (B, R), in clean samples."""
        return n_clean + self.worth(theta[:, 3:], sigma_n) * n_noisy

    def predict(self, theta: Floats, n_clean: Floats, n_noisy: Floats, sigma_n: Floats) -> Floats:
        """E, (B, R), in the units of the metric."""
        n = np.maximum(self.index(theta, n_clean, n_noisy, sigma_n), 1e-9)
        decay = np.exp(theta[:, 1:2] - np.exp(theta[:, 2:3]) * np.log(n / self.units.n))
        return self.units.error * (theta[:, :1] + decay)

    def slopes(self, theta: Floats, n_clean: Floats, n_noisy: Floats, sigma_n: Floats) -> tuple[Floats, Floats]:
        """E (B, R) and its derivatives by the parameters (B, R, P)."""
        n = np.maximum(self.index(theta, n_clean, n_noisy, sigma_n), 1e-9)
        p, log_n = np.exp(theta[:, 2:3]), np.log(n / self.units.n)
        decay = np.exp(theta[:, 1:2] - p * log_n)
        out = np.empty((*decay.shape, theta.shape[1]))
        out[..., 0] = 1.0
        out[..., 1] = decay
        out[..., 2] = -p * log_n * decay
        if theta.shape[1] > 3:
            out[..., 3:] = (-p * n_noisy / n * decay)[..., None] * self.worth.slopes(theta[:, 3:], sigma_n)
        return self.units.error * (theta[:, :1] + decay), self.units.error * out


class TwoTerm:
    """`E = E_inf + a1 N1^-p1 + a2 N2^-p2`: the bound's shape, constants fitted.

    N1 weighs noisy samples by the subspace law (q = 1/2), N2 by the low-dimensional law (q = 1/(2k-1)), with one s0.
    Exponents tied to `power` times 1/4 and 1/(4k-2) (power 2: the score as the square of a distance), or free.
    Parameters (e, a1, a2, log 1/s0^2[, log p1, log p2]).
    """

    def __init__(
        self, k: int, noise_levels: Sequence[float], units: Units, *, free_exponents: bool = False, power: float = 1
    ):
        self.k, self.units, self.free, self.power = k, units, free_exponents, power
        top, bottom = max(noise_levels), min(s for s in noise_levels if s > 0)
        self.names = ("E_inf", "log a1", "log a2", "log 1/s0^2") + (("log p1", "log p2") if free_exponents else ())
        low, high = (float(np.log(x)) for x in EXPONENT)
        more = (low, low) if free_exponents else ()
        self.lower = np.array([0.0, -14.0, -14.0, np.log(1e-4 / top**2), *more])
        self.upper = np.array([1.0, 12.0, 12.0, np.log(1e4 / bottom**2), *((high, high) if free_exponents else ())])
        self._middle = float(np.sqrt(top * bottom))
        self._laws = (law_named("subspace"), lowdim(k))

    def starts(self) -> Floats:
        exponents = [(np.log(0.25), np.log(0.1)), (np.log(1.0), np.log(0.3))] if self.free else [()]
        return np.array(
            [
                (e, a1, a2, np.log(x / self._middle**2), *p)
                for e in (0.0, 0.5)
                for a1, a2 in ((0.5, -2.0), (-2.0, 0.5), (0.0, 0.0))
                for x in (0.05, 0.5, 3.0)
                for p in exponents
            ],
            dtype=float,
        )

    def predict(self, theta: Floats, n_clean: Floats, n_noisy: Floats, sigma_n: Floats) -> Floats:
        """E, (B, R), in the units of the metric."""
        rate = np.exp(theta[:, 3:4])
        c1, c2 = (law_worth(sigma_n[None, :], law.m * rate, np.full_like(rate, law.q)) for law in self._laws)
        p1 = np.exp(theta[:, 4:5]) if self.free else self.power / 4
        p2 = np.exp(theta[:, 5:6]) if self.free else self.power / (4 * self.k - 2)
        first = np.exp(theta[:, 1:2] - p1 * np.log((n_clean + c1 * n_noisy) / self.units.n))
        second = np.exp(theta[:, 2:3] - p2 * np.log((n_clean + c2 * n_noisy) / self.units.n))
        return self.units.error * (theta[:, :1] + first + second)

    def slopes(self, theta: Floats, n_clean: Floats, n_noisy: Floats, sigma_n: Floats) -> tuple[Floats, Floats]:
        """E (B, R) and its derivatives by the parameters (B, R, P)."""
        rate = np.exp(theta[:, 3:4])
        exponents = (theta[:, 4:5], theta[:, 5:6]) if self.free else ()
        fixed = (self.power / 4, self.power / (4 * self.k - 2))
        out = np.zeros((len(theta), len(n_clean), theta.shape[1]))
        out[..., 0] = 1.0
        total = theta[:, :1]
        for term, law in enumerate(self._laws):
            kappa, q = law.m * rate, np.full_like(rate, law.q)
            size = n_clean + law_worth(sigma_n[None, :], kappa, q) * n_noisy
            p = np.exp(exponents[term]) if self.free else fixed[term]
            log_n = np.log(size / self.units.n)
            value = np.exp(theta[:, 1 + term : 2 + term] - p * log_n)
            total = total + value
            out[..., 1 + term] = value
            out[..., 3] += -p * value * n_noisy / size * law_slopes(sigma_n[None, :], kappa, q)[0]
            if self.free:
                out[..., 4 + term] = -p * log_n * value
        return self.units.error * total, self.units.error * out


class Curve(Protocol):
    """What a fit needs of an error curve."""

    names: tuple[str, ...]
    lower: Floats
    upper: Floats
    units: Units

    def starts(self) -> Floats: ...

    def predict(self, theta: Floats, n_clean: Floats, n_noisy: Floats, sigma_n: Floats) -> Floats: ...
