"""Everything that is asked of one group of comparable cells, and the price at one noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambient_theory.bounds.laws import identifiability_band
from ambient_theory.compare.cells.tables import CLEAN_LIKE, Group, Table, is_control, table_of, uneven_scatter
from ambient_theory.compare.fitting import fits
from ambient_theory.compare.fitting.curves import FreeWorth, SingleIndex
from ambient_theory.compare.fitting.fits import Interval, SingleC, curves_for, law_interval
from ambient_theory.compare.scores import heldout, prices, published, utility
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.replicates import mean_of_known

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """A control inside the sweep: noise so small that c must be 1, or so large that c must be 0."""

    sigma_n: float
    expected: float
    measured: Interval

    @property
    def verdict(self) -> str:
        return fits.control_verdict(self.measured, self.expected)

    def to_dict(self) -> dict[str, Any]:
        measured = self.measured.to_list()
        return {"sigma_n": self.sigma_n, "expected_c": self.expected, "c": measured, "verdict": self.verdict}


@dataclass(frozen=True)
class GroupAnalysis:
    """All analyses of one group; `problems` says in words what could not be done and why."""

    group: Group
    table: Table | None
    pairwise: prices.PairwiseResult | None
    single: SingleC | None
    two_term: dict[str, fits.Fit] = field(default_factory=dict)
    held_out: list[heldout.HeldOut] = field(default_factory=list)
    equivalents: list[utility.Equivalent] = field(default_factory=list)
    rates: list[utility.Rate] = field(default_factory=list)
    rows: list[published.RowWorth] = field(default_factory=list)
    calibration: list[Calibration] = field(default_factory=list)
    problems: tuple[str, ...] = ()

    @property
    def priced(self) -> bool:
        return self.single is not None

    def to_dict(self) -> dict[str, Any]:
        return {
            "group": self.group.key.to_dict(),
            "cells": len(self.group.cells),
            "seeds": self.group.n_seeds,
            "pairwise": None if self.pairwise is None else self.pairwise.to_dict(),
            "single_c": None if self.single is None else fits.to_dict(self.single),
            "laws_told_apart": None if self.single is None else tell_apart(self.single),
            "two_term": {n: _fit_dict(f) for n, f in self.two_term.items()},
            "held_out": [h.to_dict() for h in self.held_out],
            "equivalent_clean": [e.to_dict() for e in self.equivalents],
            "exchange_rates": [r.to_dict() for r in self.rates],
            "published_rows": [r.to_dict() for r in self.rows],
            "calibration": [c.to_dict() for c in self.calibration],
            "problems": list(self.problems),
        }


def _fit_dict(f: fits.Fit) -> dict[str, Any]:
    parameters = dict(zip(f.curve.names, map(float, f.theta), strict=True))
    return {"sse": f.sse, "lack_of_fit_F": f.lack_f, "lack_of_fit_p": f.lack_p, "parameters": parameters}


def analyse_group(
    group: Group, confidence: float = 0.95, *, deep: bool = True, only_price: bool = False
) -> GroupAnalysis:
    """Run every analysis the group allows.

    deep=False leaves out the two-term fits and the held-out cells, only_price all but the single-c fit. Two-term fits
    and held-out cells are left out, and said to be, where all cells score alike.
    """
    if not 0.5 <= confidence < 1:
        raise UsageError(f"--confidence must lie in [.5, 1), not {confidence}")
    problems = list(group.notes)
    rows = published.worth_of_rows(group)
    if not group.price_cells:
        return GroupAnalysis(
            group, None, None, None, problems=(*problems, "every cell is noisy-only: nothing to price")
        )
    table = table_of(group)
    if group.key.source == "published":
        problems.append("printed scores carry no standard error: no interval and no fit, arithmetic only")
        return GroupAnalysis(group, table, None, None, rows=rows, problems=tuple(problems))
    if table.dof == 0:
        why = "every cell has one training seed" if group.n_seeds < 2 else "the seeds agree to the last digit"
        problems.append(f"{why}: estimates carry no interval and no order is certain")
    uneven = uneven_scatter(group)
    if uneven is not None and uneven < 0.01:
        problems.append(
            f"the scatter over seeds differs between cells by more than their sizes explain (Bartlett p {uneven:.1g}): "
            "intervals pool the rest, so they are too wide for some cells and too narrow for others"
        )
    pairwise = prices.price_bounds(table, confidence) if table.dof and not only_price else None
    single = None
    try:
        single = fits.fit_single_c(table, group.scale, confidence)
    except DataError as error:
        problems.append(f"no fit: {error}")
    two_term: dict[str, fits.Fit] = {}
    unseen: list[heldout.HeldOut] = []
    if single is not None and single.all_alike:
        problems.append(alike_sentence(group))
    if only_price:
        return GroupAnalysis(group, table, pairwise, single, problems=tuple(problems))
    if deep and single is not None and not single.all_alike:
        two_term = fits.two_term_fits(table, group.scale)
        unseen = heldout.held_out(table, group.scale)
    curve = None
    if single is not None:
        free = single.free

        def curve(t: Table) -> Floats:
            return np.asarray(group.transform(free.predict(t.n_clean, t.n_noisy, t.sigma_n)))

    return GroupAnalysis(
        group=group,
        table=table,
        pairwise=pairwise,
        single=single,
        two_term=two_term,
        held_out=unseen,
        equivalents=utility.equivalents(table, confidence),
        rates=utility.exchange_rates(table, confidence, curve),
        rows=rows,
        calibration=calibrate(group, confidence) if single is not None else [],
        problems=tuple(problems),
    )


def calibrate(group: Group, confidence: float = 0.95) -> list[Calibration]:
    """Worth at the control levels, from a fit of their own: all cells with clean samples, a free c at each level.

    The controls stay out of the price fit, so that a control that fails cannot move a price.
    """
    if not group.controls:
        return []
    table = table_of(group, (*group.price_cells, *group.controls))
    noise_levels = sorted({float(s) for s in table.sigma_n[table.n_noisy > 0]})
    try:
        fitted = fits.fit(
            "calibration", SingleIndex(FreeWorth(noise_levels), fits.units_of(table, group.scale)), table, group.scale
        )
    except DataError:
        return []
    found = []
    for column, sigma_n in enumerate(noise_levels):
        if is_control(sigma_n):
            worth = fits.interval(fitted, 3 + column, confidence)
            found.append(Calibration(sigma_n, 1.0 if sigma_n <= CLEAN_LIKE else 0.0, worth))
    return found


def alike_sentence(group: Group) -> str:
    """In words: the mixtures made no difference to the score, and what may be done about it."""
    scores = [c.mean for c in group.price_cells]
    text = f"all cells score alike ({min(scores):.3g} to {max(scores):.3g}, no more apart than seeds are)"
    floor = mean_of_known(c.floor for c in group.price_cells)
    if floor is not None and floor > 0 and min(scores) > 2 * floor:
        text += f" and far from the floor ({floor:.3g}): undertrained"
    return text + "; no shape and no law is tested: train longer or add seeds"


def tell_apart(single: SingleC) -> str:
    """In words: which laws the data reject, which they do not, and what that does not show."""
    if single.all_alike:
        return "All cells score alike, so no law is tested and no number of atoms k can be read from these data."
    rejected = [n for n, c in single.laws.items() if c.verdict == "rejected"]
    kept = [n for n, c in single.laws.items() if c.verdict == "not rejected"]
    if not single.laws:
        return "No noise level above zero was measured, so no law is tested."
    if not rejected and not kept:
        return (
            "The laws cannot be told apart: with one noise level, or without replicated seeds, each has a scale s0 "
            "that fits; no number of atoms k can be read from these data."
        )
    if not rejected:
        return f"The data reject none of the {len(kept)} laws and cannot tell them apart; no k can be read from them."
    if not kept:
        return "The data reject every law in the list: no k can be read from them."
    text = f"Rejected: {'; '.join(rejected)}. Not rejected: {'; '.join(kept)}."
    return text + (" A law that is not rejected is not shown to be true." if len(kept) > 1 else "")


@dataclass(frozen=True)
class PriceAnswer:
    """The price 1/c of a noisy image at noise sigma_n, in noisy images for one clean image.

    measured: from cells at this level; otherwise a band over the laws (`laws`: name -> interval). price.low and high
    are None where one seed a cell leaves no interval.
    """

    dataset: str
    source: str
    sigma_n: float
    measured: bool
    price: Interval
    method: str
    laws: dict[str, Interval] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "source": self.source,
            "sigma_n": self.sigma_n,
            "measured": self.measured,
            "price_1_over_c": self.price.to_list(),
            "method": self.method,
            "laws": {n: p.to_list() for n, p in self.laws.items()},
        }


def price_from_group(analysis: GroupAnalysis, sigma_n: float) -> PriceAnswer:
    """Price at sigma_n from one analysed group. Raises DataError where the group prices nothing."""
    single = analysis.single
    if single is None:
        raise DataError(f"{analysis.group.key.label()}: {'; '.join(analysis.problems) or 'nothing to price'}")
    dataset, label = analysis.group.key.dataset, analysis.group.key.short()
    if sigma_n in single.noise_levels:
        note = "; the curve misfits, interval widened" if single.free.misfit else ""
        price = single.worth_at(sigma_n).inverse()
        return PriceAnswer(dataset, label, sigma_n, True, price, f"measured, single-c fit{note}")
    fitted, _ = curves_for(single, sigma_n)
    laws = {}
    for f in fitted:
        kappa = fits.interval(f, 3, single.confidence)
        if kappa.low is None or kappa.high is None:
            value, _, _ = law_interval(f, sigma_n, (kappa.value,) * 3)
            laws[f.name] = Interval(value, None, None).inverse()
        else:
            value, low, high = law_interval(f, sigma_n, (kappa.value, kappa.low, kappa.high))
            laws[f.name] = Interval(value, low, high).inverse()
    return _band(dataset, label, sigma_n, laws, "not measured: band of the laws that the data do not reject")


def price_from_print(price: published.PublishedPrice, sigma_n: float) -> PriceAnswer:
    """Price at sigma_n from a printed price: itself at its own level, else the band of the laws calibrated on it."""
    dataset, label = price.dataset, f"{price.dataset}, printed price at σ {price.sigma_n:g}"
    if sigma_n == price.sigma_n:
        stated = Interval(price.value, price.low, price.high)
        return PriceAnswer(dataset, label, sigma_n, True, stated, "as printed (an interval of unstated kind)")
    bands = [identifiability_band([sigma_n], price.sigma_n, p) for p in (price.value, price.low, price.high)]
    laws = {name: Interval(*(float(b.prices[name][0]) for b in bands)) for name in bands[0].prices}
    return _band(dataset, label, sigma_n, laws, "not measured: band of the laws, each calibrated on the printed price")


def _band(dataset: str, label: str, sigma_n: float, laws: dict[str, Interval], method: str) -> PriceAnswer:
    values = [p.value for p in laws.values()]
    middle = math.exp(float(np.mean(np.log(values)))) if all(0 < v < math.inf for v in values) else math.inf
    lows = [p.low if p.low is not None else p.value for p in laws.values()]
    highs = [p.high if p.high is not None else p.value for p in laws.values()]
    return PriceAnswer(dataset, label, sigma_n, False, Interval(middle, min(lows), max(highs)), method, laws)


def price_at(
    analyses: Sequence[GroupAnalysis], printed: Sequence[published.PublishedPrice], sigma_n: float
) -> list[PriceAnswer]:
    """Every price that the records support at noise sigma_n, measured ones first. Raises DataError if there is none."""
    if not (math.isfinite(sigma_n) and sigma_n >= 0):
        raise UsageError(f"--sigma must be a number >= 0 (noise standard deviation, pixels in [-1, 1]), not {sigma_n}")
    answers = []
    problems = []
    for analysis in analyses:
        try:
            answers.append(price_from_group(analysis, sigma_n))
        except DataError as error:
            problems.append(str(error))
    answers += [price_from_print(p, sigma_n) for p in printed]
    if not answers:
        raise DataError("these records price nothing" + (f": {problems[0]}" if problems else ""))
    return answers
