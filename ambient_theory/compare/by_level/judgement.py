"""What the error curves of one table say about a noisy image at one noise level: the surviving law, in words.

A price is given only if the clean-only error falls with the number of images, and if the worth has an interval with two
ends and above 0. Of the nested laws the simplest that the data do not reject survives; where data reject neither of two
laws, the sentence says that they cannot be told apart.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from ambient_theory.compare.by_level import goods
from ambient_theory.compare.by_level.beside import ABOVE, Beside, beside, extremes
from ambient_theory.compare.by_level.formula import Scatters
from ambient_theory.compare.by_level.goods import (
    ADDITIVE,
    CLEAN_ONLY,
    FREE,
    NAIVE,
    NOTHING_BELOW,
    ONE,
    TWO,
    LawFit,
    Market,
)
from ambient_theory.compare.by_level.levels import LevelTable
from ambient_theory.compare.by_level.potency import compare_laws, falls_with_size, parallelism, worth_intervals
from ambient_theory.compare.cells.tables import CLEAN_LIKE, is_control
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.fitting.quadratic import Test
from ambient_theory.compare.scores.words import number, span

FORMULA = "V/(V + v)"
NESTED = (
    (CLEAN_ONLY, ONE),
    (NAIVE, ONE),
    (ONE, TWO),
    (NOTHING_BELOW, TWO),
    (ADDITIVE, TWO),
    (TWO, FREE),
    (FORMULA, FREE),
)
"""Which law is tested as a case of which."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """Everything about one noise level.

    one: the worth of all levels; coarse, fine: above the noise, and below it at the ratio `reference` (None where no
    level is there); saturation: q of the two goods; free: by level. tests: nested law -> against its larger law;
    parallel: do all mixtures agree, of the laws and at each level; agree_above, agree_below: on a worth at each level,
    on either side of the noise. own: every mixture by itself above the noise. trend: does the clean-only error fall
    with size. expected: the worth that a control must have.
    """

    market: Market
    laws: dict[str, LawFit]
    one: Interval
    coarse: Interval | None
    fine: Interval | None
    free: tuple[Interval, ...]
    tests: dict[tuple[str, str], Test]
    parallel: dict[str, Test]
    parallel_by_level: tuple[Test, ...]
    agree_above: Test
    agree_below: Test
    own: tuple[Beside, ...]
    trend: Test
    confidence: float
    notes: tuple[str, ...] = field(default=())

    @property
    def sigma_n(self) -> float:
        return self.market.sigma_n

    @property
    def expected(self) -> float | None:
        if not is_control(self.sigma_n):
            return None
        return 1.0 if self.sigma_n <= CLEAN_LIKE else 0.0

    @property
    def saturation(self) -> float:
        return self.laws[TWO].q

    @property
    def ceiling(self) -> float:
        """Factor by which noisy images multiply the clean ones below the noise at most; infinite if they add."""
        q = self.saturation
        worth = 0.0 if self.fine is None else self.fine.value
        return 1 + worth * (1 + q * self.market.reference) / q if q > 0 else math.inf

    def rejected(self, nested: str, full: str) -> bool | None:
        """Whether the data reject `nested` as a case of `full`; None where that cannot be tested."""
        p = self.tests[nested, full].p if (nested, full) in self.tests else None
        return None if p is None else p < 0.05

    @property
    def surviving(self) -> str:
        """The simplest of one worth, two goods and free worths that the data do not reject; empty if untestable."""
        for nested, full in ((ONE, TWO), (TWO, FREE)):
            rejected = self.rejected(nested, full)
            if rejected is None:
                return ""
            if not rejected:
                return nested
        return FREE

    @property
    def undetermined(self) -> str:
        """Why no price can be given; empty if one can."""
        if self.trend.p is None:
            return "no scatter over training seeds (one a cell, or copies), so no interval"
        if self.trend.p > 0.05:
            return "the clean-only error does not fall with the number of images: train longer, or add seeds"
        worth = self.coarse or self.one
        if worth.low is None or worth.high is None:
            return "there is no interval"
        if worth.low <= 0 and math.isinf(worth.high):
            return "the interval of the worth has no ends"
        return ""

    @property
    def disagree(self) -> bool:
        """Whether the mixtures reject one worth for all of them above the noise (5 %): then there is no one price."""
        return self.agree_above.p is not None and self.agree_above.p < 0.05 and len(self.own) > 1

    @property
    def apart(self) -> str:
        """The prices of the mixtures that differ most, each by itself; empty where one price may serve for all."""
        if self.undetermined or not self.disagree:
            return ""
        each = (f"{b.price} ({b.cell.n_clean:,} clean + {b.cell.n_noisy:,} noisy)" for b in extremes(self.own))
        return " and ".join(each)

    @property
    def price(self) -> str:
        """For tables: noisy images for one clean one above the noise; the two that differ most where mixtures disagree,
        a dash where nothing is determined."""
        if self.coarse is None or self.undetermined:
            return "–"
        if not self.disagree:
            return span(self.coarse.inverse())
        most, least = extremes(self.own)
        return "none" if most.worth.value <= 0 else f"{_short(most)} to {_short(least)}"

    @property
    def priced(self) -> bool:
        """Whether one clean image has a price in noisy ones with two ends (above the noise)."""
        worth = self.coarse or self.one
        return not self.undetermined and bool(worth.low) and worth.high is not None and math.isfinite(worth.high)

    def sentence(self) -> str:
        """What the laws say, in words."""
        return f"σ {self.sigma_n:g}: {self._price()}{'; '.join(self.clauses())}."

    def clauses(self) -> list[str]:
        """What is said beside the price: which laws fit."""
        if self.undetermined:
            return ["no price", self.undetermined]
        law = self.surviving
        if law == "":
            return ["every measured level lies on one side of the noise, so the laws are one"]
        if law == ONE:
            out = ["one worth at every level and two goods cannot be told apart"]
            if self.rejected(NOTHING_BELOW, TWO):
                out.append("below the noise level noisy images are worth something")
        elif law == TWO:
            nothing, additive = self.rejected(NOTHING_BELOW, TWO), self.rejected(ADDITIVE, TWO)
            if nothing is False:
                what = "it adds above the noise level, and nothing is certain below"
            elif additive:
                what = "it adds above the noise level; below, noisy images multiply the clean ones and saturate"
            else:
                what = "it adds above the noise level and less or more below; whether that saturates is not seen"
            out = [f"a noisy image is two goods: {what}"]
        else:
            out = ["neither one worth nor two goods is enough: the worth changes from level to level"]
        if self.rejected(FORMULA, FREE) is False:
            out.append(f"{FORMULA}, without a fitted constant, is not rejected")
        elif self.rejected(FORMULA, FREE):
            largest = int(max(self.market.n_clean[self.market.n_noisy == 0]))
            out.append(f"{FORMULA} with V of the model of {largest:,} clean images is rejected")
        lack = self.laws[FREE].lack
        if lack is not None and lack.p is not None and lack.p < 0.05:
            out.append("no law fits all mixtures, and intervals are widened to what is left")
        return out

    @property
    def leading(self) -> Interval | None:
        """The worth that is said first: above the noise where levels lie on both sides; None without an interval, and
        where mixtures disagree."""
        worth = self.coarse or self.one
        return None if self.undetermined or self.disagree or worth.low is None or worth.high is None else worth

    def _price(self) -> str:
        """The price above the noise with its interval, for the start of a sentence."""
        if self.apart:
            return (
                f"above the noise level mixtures disagree on the price of a clean image in noisy ones: {self.apart}; "
            )
        worth = self.leading
        if worth is None or worth.low is None or worth.high is None:
            return ""
        where = "above the noise level " if self.coarse is not None else ""
        where += "and on average " if where and self.surviving == FREE else ""
        confidence = f"{100 * self.confidence:g} %"
        if worth.value <= 0 or worth.low <= 0:
            low = number(worth.inverse().low)
            return f"{where}one clean image is worth at least {low} noisy ones ({confidence}); "
        price = worth.inverse()
        ends = f"{number(price.low)} to {number(price.high)}"
        if math.isinf(worth.high):
            return f"{where}one clean image is worth at most {number(price.high)} noisy ones ({confidence}); "
        return f"{where}one clean image is worth {number(price.value)} noisy ones ({confidence} interval {ends}); "

    def to_dict(self) -> dict[str, Any]:
        return {
            "sigma_n": self.sigma_n,
            "control_expected": self.expected,
            "levels_above": self.market.levels[self.market.above].tolist(),
            "reference_ratio": self.market.reference,
            "one_worth": self.one.to_list(),
            "coarse_worth": None if self.coarse is None else self.coarse.to_list(),
            "fine_worth": None if self.fine is None else self.fine.to_list(),
            "saturation_q": self.saturation,
            "ceiling_factor": self.ceiling if math.isfinite(self.ceiling) else None,
            "free_worths": [i.to_list() for i in self.free],
            "laws": {
                name: {"sse": law.sse, "lack_of_fit": None if law.lack is None else law.lack.to_dict()}
                for name, law in self.laws.items()
            },
            "tests": {f"{a} in {b}": test.to_dict() for (a, b), test in self.tests.items()},
            "parallelism": {name: test.to_dict() for name, test in self.parallel.items()},
            "parallelism_by_level": [test.to_dict() for test in self.parallel_by_level],
            "mixtures_agree_above": self.agree_above.to_dict(),
            "mixtures_agree_below": self.agree_below.to_dict(),
            "clean_error_falls": self.trend.to_dict(),
            "surviving": self.surviving,
            "undetermined": self.undetermined or None,
            "sentence": self.sentence(),
            "notes": list(self.notes),
        }


def _short(b: Beside) -> str:
    """A price without its interval and with its size, or that there is none."""
    value = b.worth.inverse().value
    return f"{number(value) if b.worth.value > 0 else 'none'} ({b.cell.n_clean:,} + {b.cell.n_noisy:,})"


def all_laws(market: Market, table: LevelTable, names: Collection[str] = goods.LAWS) -> dict[str, LawFit]:
    """The fitted laws of these names and the formula, by name."""
    worth, _ = Scatters.of(table).worth(market.sigma_n, market.levels)
    return {**goods.fit_laws(market, names), FORMULA: goods.fixed_law(market, FORMULA, worth)}


def _own(table: LevelTable, sigma_n: float, confidence: float) -> tuple[Beside, ...]:
    """Every mixture by itself above the noise; over all levels where they lie on one side of it."""
    found = beside(table, confidence, sigma_n)
    return tuple([b for b in found if b.part == ABOVE] or found)


def judge(table: LevelTable, sigma_n: float, confidence: float = 0.95) -> Judgement:
    """Fit every law at one noise level and compare them. Raises DataError where the cells cannot determine a law."""
    market = Market.of(table, sigma_n)
    laws = all_laws(market, table)
    two, free = laws[TWO], laws[FREE]
    above, below = bool(market.above.any()), not bool(market.above.all())
    columns = worth_intervals(two, confidence)
    notes = []
    if market.one_ratio and below:
        notes.append("all mixtures have the same share of noisy images, so saturation below the noise cannot be seen")
    if not above:
        notes.append("no measured level lies above the noise")
    if not below:
        notes.append("no measured level lies below the noise")
    return Judgement(
        market=market,
        laws=laws,
        one=worth_intervals(laws[ONE], confidence)[0],
        coarse=columns[0] if above else None,
        fine=columns[-1] if below else None,
        free=tuple(worth_intervals(free, confidence)),
        tests={(a, b): compare_laws(laws[a], laws[b], free) for a, b in NESTED if a in laws and b in laws},
        parallel={name: parallelism(laws[name]) for name in (ONE, TWO, FREE)},
        parallel_by_level=tuple(parallelism(free, k) for k in range(len(market.levels))),
        agree_above=parallelism(free, market.above),
        agree_below=parallelism(free, ~market.above),
        own=_own(table, sigma_n, confidence),
        trend=falls_with_size(market),
        confidence=confidence,
        notes=tuple(notes),
    )
