"""Purchases: shares of a budget on clean and noisy images, the best of them, and where that is not determined.

Candidates spend a share x of the budget M on noisy images: `n_noisy = x M / price_noisy`,
`n_clean = (1 - x) M / price_clean`. What predicts the error of a mix, and draws of that prediction, is a `Planner`'s
own; this module compares the mixes. Outside the measured sizes, shares and noise levels a mix says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ambient_theory.shared.errors import DataError, UsageError

Floats = NDArray[np.float64]
SHARES = 101


def drawn_interval(draws: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Ends [...] of an interval over draws [D, ...]: order statistics number p (D + 1), between which lies, on average,
    the share `confidence` of further draws (Weibull 1939; numpy's own rule encloses less: 92 % for 95 of 60 draws)."""
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(draws, ends, axis=0, method="weibull")
    return low, high


@dataclass(frozen=True)
class Purchase:
    """A purchase and its predicted error (interval None from one seed a cell)."""

    n_clean: int
    n_noisy: int
    spent_on_noisy: float
    error: float
    error_low: float | None
    error_high: float | None
    extrapolated: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "extrapolated": list(self.extrapolated)}


@dataclass(frozen=True, repr=False)
class BudgetAnswer:
    """What to buy at noise sigma_n.

    best: the mix of least predicted error, recommended only where `determined`. open_shares: (low, high) share of the
    budget spent on noisy images that may be best, None without intervals. decisive: the width of open_shares below
    which a mix is recommended. alternatives: corners and the even split. target: the score to reach, if one was asked
    for (then budget is what it takes). outcome: what error is predicted. law: of the worth, in words. short: the good
    that is short, in words, empty where there is one good. why_not: why nothing can be determined, empty if it can.
    """

    group: str
    sigma_n: float
    sigma_n_measured: bool
    price_clean: float
    price_noisy: float
    budget: float
    best: Purchase
    open_shares: tuple[float, float] | None
    alternatives: tuple[Purchase, ...]
    target: float | None = None
    curves: tuple[str, ...] = ()
    decisive: float = 0.2
    outcome: str = "score"
    law: str = ""
    short: str = ""
    why_not: str = ""

    def __repr__(self) -> str:
        return f"BudgetAnswer({self.sentence()})"

    @property
    def determined(self) -> bool:
        """The law is known, and the shares that may be best span less than `decisive` of the budget."""
        known = self.open_shares is not None and not self.why_not
        return known and self.open_shares[1] - self.open_shares[0] < self.decisive  # type: ignore[index]

    def counts(self) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """((least, most) clean, (least, most) noisy) images of the mixes that may be best."""
        if self.open_shares is None:
            return None
        low, high = self.open_shares
        clean = [int((1 - x) * self.budget / self.price_clean) for x in (high, low)]
        noisy = [int(x * self.budget / self.price_noisy) for x in (low, high)]
        return (clean[0], clean[1]), (noisy[0], noisy[1])

    def sentence(self, where: str = "") -> str:
        """where: what the noise level is called, by default `σ 0.2`."""
        b, head = self.best, f"At {where or f'σ {self.sigma_n:g}'}"
        spent = f"for {self.budget:,.6g}"
        if self.why_not:
            return f"{head}, what to buy {spent} is not determined: {self.why_not}."
        if self.open_shares is not None and not self.determined:
            low, high = self.open_shares
            return (
                f"{head}, what to buy {spent} is not determined: any share from {low:.0%} to {high:.0%} of the budget "
                "on noisy images may be best."
            )
        text = f"{head}, buy {b.n_clean:,} clean and {b.n_noisy:,} noisy images {spent}"
        counts = self.counts()
        if self.law and counts is not None:
            (least, most), (few, many) = counts
            text += f" (clean {least:,} to {most:,}, noisy {few:,} to {many:,})"
        text += f": predicted {self.outcome} {b.error:.3g}"
        if b.error_low is not None:
            text += f" [{b.error_low:.3g}, {b.error_high:.3g}]"
        if self.open_shares is None:
            text += "; no scatter over seeds, so how sure this is cannot be said"
        else:
            text += "; the data exclude clearly different mixes"
        if self.short:
            text += f"; {self.short}"
        return text + (f" (extrapolated: {', '.join(b.extrapolated)})" if b.extrapolated else "") + "."

    def to_dict(self) -> dict[str, Any]:
        counts = self.counts()
        return {
            "group": self.group,
            "outcome": self.outcome,
            "sigma_n": self.sigma_n,
            "sigma_n_measured": self.sigma_n_measured,
            "price_clean": self.price_clean,
            "price_noisy": self.price_noisy,
            "budget": self.budget,
            "target": self.target,
            "law": self.law or "one worth",
            "best": self.best.to_dict(),
            "recommended": self.best.to_dict() if self.determined else None,
            "undetermined_shares_of_budget_on_noisy": None if self.open_shares is None else list(self.open_shares),
            "n_clean_interval": None if counts is None else list(counts[0]),
            "n_noisy_interval": None if counts is None else list(counts[1]),
            "determined": self.determined,
            "why_not_determined": self.why_not or None,
            "short": self.short or None,
            "alternatives": [m.to_dict() for m in self.alternatives],
            "curves": list(self.curves),
            "sentence": self.sentence(),
        }


class Mix(Protocol):
    """A measured training mixture."""

    @property
    def n_clean(self) -> int: ...

    @property
    def n_noisy(self) -> int: ...


@dataclass(frozen=True)
class Seen:
    """What was measured: (least, most) clean images, most noisy ones, greatest noisy share of the images; least: the
    fewest clean images of a mixture."""

    clean: tuple[int, int]
    noisy: int
    share: float
    least: int

    @classmethod
    def of(cls, cells: Sequence[Mix]) -> Seen:
        """cells: all with clean images, some with noisy ones."""
        noisy = [c for c in cells if c.n_noisy]
        return cls(
            (min(c.n_clean for c in cells), max(c.n_clean for c in cells)),
            max(c.n_noisy for c in noisy),
            max(c.n_noisy / (c.n_clean + c.n_noisy) for c in noisy),
            min(c.n_clean for c in noisy),
        )

    def outside(self, n_clean: float, n_noisy: float) -> tuple[str, ...]:
        """In which respects a mix lies outside what was measured."""
        out = []
        fewest = self.least if n_noisy else self.clean[0]
        if n_clean > self.clean[1]:
            out.append(f"more clean images than measured ({self.clean[1]:,})")
        if n_clean < fewest:
            out.append(f"fewer clean images than measured ({fewest:,})")
        if n_noisy > self.noisy:
            out.append(f"more noisy images than measured ({self.noisy:,})")
        if n_noisy and n_noisy / (n_clean + n_noisy) > self.share * (1 + 1e-3):
            out.append(f"a greater noisy share than measured ({self.share:.1%})")
        return tuple(out)


class Planner(ABC):
    """Predicted errors of mixes at one noise level, with draws for uncertainty, and the best mix by them."""

    group: str
    sigma_n: float
    measured: bool
    seen: Seen
    curves: tuple[str, ...]

    @abstractmethod
    def errors(self, n_clean: Floats, n_noisy: Floats) -> tuple[Floats, Floats | None]:
        """Point predictions (X,), and draws (D, X) or None."""

    @property
    @abstractmethod
    def floor(self) -> float:
        """The error that no number of images passes."""

    def open_shares(self, shares: Floats, draws: Floats, best: int, confidence: float) -> tuple[float, float]:
        """Shares that fewer than `confidence` of the draws call worse than the best one."""
        worse = np.mean(draws > draws[:, [best]], axis=0)
        still = np.union1d(np.nonzero(worse < confidence)[0], [best])
        return float(shares[still[0]]), float(shares[still[-1]])

    def complete(self, answer: BudgetAnswer) -> BudgetAnswer:
        """The answer with what this kind of planner has to say besides."""
        return answer

    def _most(self, price_clean: float, price_noisy: float) -> float:
        """The greatest share of the budget on noisy images that keeps the noisy share of the images as measured."""
        share = self.seen.share
        return share * price_noisy / (share * price_noisy + (1 - share) * price_clean)

    def plan(self, price_clean: float, price_noisy: float, budget: float, confidence: float = 0.95) -> BudgetAnswer:
        """The best mix that keeps at least the measured share of clean images. Raises UsageError on bad prices."""
        for name, value in (("price-clean", price_clean), ("price-noisy", price_noisy), ("budget", budget)):
            if not (np.isfinite(value) and value > 0):
                raise UsageError(f"--{name} must be a number > 0, not {value}")
        shares = np.linspace(0.0, self._most(price_clean, price_noisy), SHARES)
        n_clean = np.floor((1 - shares) * budget / price_clean)
        n_noisy = np.floor(shares * budget / price_noisy)
        if n_clean[-1] < 1:
            raise UsageError(
                f"a budget of {budget:g} buys no clean image at {price_clean:g} beside noisy ones in the measured "
                "shares; models of noisy images alone follow another law and are not predicted"
            )
        point, draws = self.errors(n_clean, n_noisy)
        best = int(np.argmin(point))
        region = None
        low = high = None
        if draws is not None:
            region = self.open_shares(shares, draws, best, confidence)
            low, high = drawn_interval(draws, confidence)

        def mix(i: int) -> Purchase:
            bottom, top = (None, None) if low is None or high is None else (float(low[i]), float(high[i]))
            outside = self.seen.outside(float(n_clean[i]), float(n_noisy[i]))
            if not self.measured and n_noisy[i] > 0:
                outside = (f"σ {self.sigma_n:g} was not measured", *outside)
            return Purchase(int(n_clean[i]), int(n_noisy[i]), float(shares[i]), float(point[i]), bottom, top, outside)

        return self.complete(
            BudgetAnswer(
                group=self.group,
                sigma_n=self.sigma_n,
                sigma_n_measured=self.measured,
                price_clean=price_clean,
                price_noisy=price_noisy,
                budget=budget,
                best=mix(best),
                open_shares=region,
                alternatives=tuple(mix(i) for i in (0, SHARES // 2, SHARES - 1)),
                curves=self.curves,
            )
        )

    def cheapest(self, price_clean: float, price_noisy: float, target: float, confidence: float = 0.95) -> BudgetAnswer:
        """The smallest budget with which the best mix is predicted to reach `target`.

        Raises DataError where the target lies below the fitted floor, which no budget passes.
        """
        if target <= self.floor:
            raise DataError(
                f"a target of {target:g} lies below the fitted floor {self.floor:.3g}: no number of images reaches it"
            )
        most = self._most(price_clean, price_noisy)
        low = high = 1.001 * price_clean / (1 - most)  # buys one clean image in every share
        while self._best(price_clean, price_noisy, high) > target:
            low, high = high, high * 4
            if high > 1e15 * price_clean:
                raise DataError(f"a target of {target:g} is not reached by any sensible budget")
        for _ in range(40 if high > low else 0):
            middle = float(np.sqrt(low * high))
            if self._best(price_clean, price_noisy, middle) > target:
                low = middle
            else:
                high = middle
        return replace(self.plan(price_clean, price_noisy, high, confidence), target=target)

    def _best(self, price_clean: float, price_noisy: float, budget: float) -> float:
        shares = np.linspace(0.0, self._most(price_clean, price_noisy), SHARES)
        n_clean = np.maximum(np.floor((1 - shares) * budget / price_clean), 1.0)
        return float(self.point(n_clean, np.floor(shares * budget / price_noisy)).min())

    @abstractmethod
    def point(self, n_clean: Floats, n_noisy: Floats) -> Floats:
        """Point predictions (X,)."""
