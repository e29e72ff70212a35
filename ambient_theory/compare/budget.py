"""What to buy: the mix of clean and noisy samples that minimises the predicted error at a budget.

Candidates spend a share x of the budget on noisy samples: `n_noisy = x M / price_noisy`,
`n_clean = (1 - x) M / price_clean`. With one worth c the best mix is a corner: noisy samples pay where c(sigma_n) is
more than price_noisy / price_clean. Uncertainty comes from curves refitted to data drawn about the fit: a share is
*excluded* where at least `confidence` of the curves say that it is worse than the recommended one; the shares that
remain are the region in which the answer is not determined. Outside the measured sizes, shares and noise levels the
answer is an extrapolation and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.curves import LawWorth, SingleIndex
from ambient_theory.compare.fits import Fit, SingleC, fit_single_c, resample
from ambient_theory.compare.grouping import group_records, select
from ambient_theory.compare.tables import Group, table_of
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.records import Record

Floats = NDArray[np.float64]
SHARES = 101


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


@dataclass(frozen=True)
class BudgetAnswer:
    """What to buy at noise sigma_n.

    best: the mix of least predicted error, recommended only where `determined`. open_shares: (low, high) share of the
    budget spent on noisy samples within which the data do not exclude a mix, None without intervals. alternatives:
    corners and the even split. target: the score to reach, if one was asked for (then budget is what it takes).
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

    @property
    def determined(self) -> bool:
        """The shares that are not excluded span less than a fifth of the budget."""
        return self.open_shares is not None and self.open_shares[1] - self.open_shares[0] < 0.2

    def sentence(self) -> str:
        b = self.best
        if self.open_shares is not None and not self.determined:
            low, high = self.open_shares
            return (
                f"At σ {self.sigma_n:g}, what to buy for {self.budget:,.6g} is not determined: any share from "
                f"{low:.0%} to {high:.0%} of the budget on noisy images may be best."
            )
        text = f"At σ {self.sigma_n:g}, buy {b.n_clean:,} clean and {b.n_noisy:,} noisy images for {self.budget:,.6g}"
        text += f": predicted error {b.error:.3g}"
        if b.error_low is not None:
            text += f" [{b.error_low:.3g}, {b.error_high:.3g}]"
        if self.open_shares is None:
            text += "; one seed a cell, so how sure this is cannot be said"
        else:
            text += "; the data exclude clearly different mixes"
        return text + (f" (extrapolated: {', '.join(b.extrapolated)})" if b.extrapolated else "") + "."

    def to_dict(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "sigma_n": self.sigma_n,
            "sigma_n_measured": self.sigma_n_measured,
            "price_clean": self.price_clean,
            "price_noisy": self.price_noisy,
            "budget": self.budget,
            "target": self.target,
            "best": self.best.to_dict(),
            "recommended": self.best.to_dict() if self.determined else None,
            "undetermined_shares_of_budget_on_noisy": None if self.open_shares is None else list(self.open_shares),
            "determined": self.determined,
            "alternatives": [m.to_dict() for m in self.alternatives],
            "curves": list(self.curves),
            "sentence": self.sentence(),
        }


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


class Planner:
    """Predicted errors at noise sigma_n, with draws of the curve for uncertainty."""

    def __init__(self, group: Group, single: SingleC, sigma_n: float, *, draws: int = 400, seed: int = 0):
        self.group, self.single, self.sigma_n = group, single, sigma_n
        self.fits, self.measured = curves_for(single, sigma_n)
        rng = np.random.default_rng(seed)
        self._thetas: list[Floats] | None = None
        if single.free.dof >= 1 and np.isfinite(single.free.variance):
            self._thetas = [resample(f, max(draws // len(self.fits), 50), rng) for f in self.fits]
        cells = group.price_cells
        self._clean = (min(c.n_clean for c in cells), max(c.n_clean for c in cells))
        noisy = [c for c in cells if c.n_noisy]
        self._noisy = max(c.n_noisy for c in noisy)
        self._share = max(c.n_noisy / (c.n_clean + c.n_noisy) for c in noisy)
        self._least = min(c.n_clean for c in noisy)

    def errors(self, n_clean: Floats, n_noisy: Floats) -> tuple[Floats, Floats | None]:
        """Point predictions (X,), the mean over the curves, and draws (D, X) or None."""
        sigma_n = np.where(n_noisy > 0, self.sigma_n, 0.0)
        point = np.mean([f.predict(n_clean, n_noisy, sigma_n) for f in self.fits], axis=0)
        if self._thetas is None:
            return point, None
        pairs = zip(self.fits, self._thetas, strict=True)
        return point, np.concatenate([f.curve.predict(t, n_clean, n_noisy, sigma_n) for f, t in pairs])

    def outside(self, n_clean: float, n_noisy: float) -> tuple[str, ...]:
        """In which respects a mix lies outside what was measured."""
        out = []
        if not self.measured and n_noisy > 0:
            out.append(f"σ {self.sigma_n:g} was not measured")
        if n_clean > self._clean[1]:
            out.append(f"more clean images than measured ({self._clean[1]:,})")
        if n_clean < (self._least if n_noisy else self._clean[0]):
            out.append(f"fewer clean images than measured ({self._least if n_noisy else self._clean[0]:,})")
        if n_noisy > self._noisy:
            out.append(f"more noisy images than measured ({self._noisy:,})")
        if n_noisy and n_noisy / (n_clean + n_noisy) > self._share * (1 + 1e-3):
            out.append(f"a greater noisy share than measured ({self._share:.1%})")
        return tuple(out)

    def plan(self, price_clean: float, price_noisy: float, budget: float, confidence: float = 0.95) -> BudgetAnswer:
        """The best mix that keeps at least the measured share of clean images. Raises UsageError on bad prices."""
        for name, value in (("price-clean", price_clean), ("price-noisy", price_noisy), ("budget", budget)):
            if not (np.isfinite(value) and value > 0):
                raise UsageError(f"--{name} must be a number > 0, not {value}")
        # The greatest share of the budget on noisy images that keeps the noisy share of the images as measured.
        most = self._share * price_noisy / (self._share * price_noisy + (1 - self._share) * price_clean)
        shares = np.linspace(0.0, most, SHARES)
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
            worse = np.mean(draws > draws[:, [best]], axis=0)
            still = np.nonzero(worse < confidence)[0]
            still = np.union1d(still, [best])
            region = (float(shares[still[0]]), float(shares[still[-1]]))
            low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)

        def mix(i: int) -> Purchase:
            bottom, top = (None, None) if low is None or high is None else (float(low[i]), float(high[i]))
            outside = self.outside(float(n_clean[i]), float(n_noisy[i]))
            return Purchase(int(n_clean[i]), int(n_noisy[i]), float(shares[i]), float(point[i]), bottom, top, outside)

        return BudgetAnswer(
            group=self.group.key.label(),
            sigma_n=self.sigma_n,
            sigma_n_measured=self.measured,
            price_clean=price_clean,
            price_noisy=price_noisy,
            budget=budget,
            best=mix(best),
            open_shares=region,
            alternatives=tuple(mix(i) for i in (0, SHARES // 2, SHARES - 1)),
            curves=tuple(f.name for f in self.fits),
        )

    def cheapest(self, price_clean: float, price_noisy: float, target: float, confidence: float = 0.95) -> BudgetAnswer:
        """The smallest budget with which the best mix is predicted to reach `target`.

        Raises DataError where the target lies below the fitted floor E_inf, which no budget passes.
        """
        floor = max(f.floor for f in self.fits)
        if target <= floor:
            raise DataError(
                f"a target of {target:g} lies below the fitted floor {floor:.3g}: no number of images reaches it"
            )
        low = price_clean
        while True:
            try:
                self.plan(price_clean, price_noisy, low, confidence)
                break
            except UsageError:
                low *= 2
                if low > 1e15 * price_clean:
                    raise
        if self._best(price_clean, price_noisy, low) <= target:
            high = low
        else:
            high = low
            while self._best(price_clean, price_noisy, high) > target:
                low, high = high, high * 4
                if high > 1e15 * price_clean:
                    raise DataError(f"a target of {target:g} is not reached by any sensible budget")
            for _ in range(40):
                middle = float(np.sqrt(low * high))
                if self._best(price_clean, price_noisy, middle) > target:
                    low = middle
                else:
                    high = middle
        answer = self.plan(price_clean, price_noisy, high, confidence)
        return BudgetAnswer(**{**vars(answer), "target": target})

    def _best(self, price_clean: float, price_noisy: float, budget: float) -> float:
        most = self._share * price_noisy / (self._share * price_noisy + (1 - self._share) * price_clean)
        shares = np.linspace(0.0, most, SHARES)
        point, _ = self.errors(
            np.maximum(np.floor((1 - shares) * budget / price_clean), 1.0), np.floor(shares * budget / price_noisy)
        )
        return float(point.min())


def law_interval(fitted: Fit, sigma_n: float, kappa: tuple[float, float, float]) -> tuple[float, float, float]:
    """c(sigma_n) of a law at the estimate and at both ends of the interval of log kappa; c falls with kappa."""
    assert isinstance(fitted.curve, SingleIndex)
    assert isinstance(fitted.curve.worth, LawWorth)
    theta = np.array([[x] for x in kappa])
    value, low, high = fitted.curve.worth(theta, np.array([sigma_n]))[:, 0]
    return float(value), float(high), float(low)


def answer_budget(
    records: Iterable[Record],
    *,
    price_clean: float,
    price_noisy: float,
    budget: float | None = None,
    target: float | None = None,
    sigma_n: float | None = None,
    metric: str | None = None,
    extractor: str | None = None,
    confidence: float = 0.95,
) -> list[BudgetAnswer]:
    """The best mix by the best-supported group of comparable scores, one answer a noise level.

    Give `budget` or `target` (the score to reach), not both. sigma_n None: every measured level. Raises UsageError for
    bad prices or options, DataError where the records price nothing.
    """
    if (budget is None) == (target is None):
        raise UsageError("give either --budget or --target-fd: what may be spent, or the score to reach")
    if target is not None and not (np.isfinite(target) and target > 0):
        raise UsageError(f"--target-fd must be a number > 0, not {target}")
    for name, value in (("price-clean", price_clean), ("price-noisy", price_noisy)):
        if not (np.isfinite(value) and value > 0):
            raise UsageError(f"--{name} must be a number > 0, not {value}")
    if sigma_n is not None and not (np.isfinite(sigma_n) and sigma_n >= 0):
        raise UsageError(f"--sigma must be a number >= 0, not {sigma_n}")
    problems = []
    for group in select(group_records(records), metric=metric, extractor=extractor):
        if group.key.source == "published" or not group.noise_levels:
            problems.append(f"{group.key.label()}: scores without seeds or without mixtures")
            continue
        try:
            single = fit_single_c(table_of(group), group.scale, confidence)
        except DataError as error:
            problems.append(f"{group.key.label()}: {error}")
            continue
        answers = []
        for level in [sigma_n] if sigma_n is not None else list(single.noise_levels):
            planner = Planner(group, single, level)
            if budget is not None:
                answers.append(planner.plan(price_clean, price_noisy, budget, confidence))
            elif target is not None:
                answers.append(planner.cheapest(price_clean, price_noisy, target, confidence))
        return answers
    why = f" ({problems[0]})" if problems else ""
    raise DataError(f"no group of these records prices a noisy image{why}: give records of a sweep with mixtures")
