"""What to buy: the mix of clean and noisy samples that minimises the predicted error at a budget.

With one worth c the best mix is a corner: noisy samples pay where c(sigma_n) is more than price_noisy / price_clean.
Where two goods survive (`compare.purchase.goods`) it is a mix.

Uncertainty comes from curves refitted to data drawn about the fit: a share is *excluded* where at least `confidence` of
the curves say that it is worse than the recommended one; the shares that remain are the region in which the answer is
not determined. Outside the measured sizes, shares and noise levels the answer is an extrapolation and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ambient_theory.compare.by_level.levels import DENOISE, has_levels
from ambient_theory.compare.cells.grouping import group_records, select
from ambient_theory.compare.cells.tables import DISTANCES, Group, table_of
from ambient_theory.compare.fitting.fits import SingleC, curves_for, fit_single_c, resample
from ambient_theory.compare.purchase.purchases import BudgetAnswer, Planner, Seen
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.records import Record

if TYPE_CHECKING:
    from ambient_theory.compare.by_level.findings import LevelFindings

Floats = NDArray[np.float64]


class OneWorthPlanner(Planner):
    """Errors by one worth c, with draws of the curve."""

    def __init__(self, group: Group, single: SingleC, sigma_n: float, *, draws: int = 400, seed: int = 0):
        self.group, self.single, self.sigma_n = group.key.label(), single, sigma_n
        self.fits, self.measured = curves_for(single, sigma_n)
        self.curves = tuple(f.name for f in self.fits)
        rng = np.random.default_rng(seed)
        self._thetas: list[Floats] | None = None
        if single.free.dof >= 1 and np.isfinite(single.free.variance):
            self._thetas = [resample(f, max(draws // len(self.fits), 50), rng) for f in self.fits]
        self.seen = Seen.of(group.price_cells)

    @property
    def floor(self) -> float:
        return max(f.floor for f in self.fits)

    def point(self, n_clean: Floats, n_noisy: Floats) -> Floats:
        """The mean over the curves."""
        return np.asarray(np.mean([f.predict(n_clean, n_noisy, self._noise(n_noisy)) for f in self.fits], axis=0))

    def errors(self, n_clean: Floats, n_noisy: Floats) -> tuple[Floats, Floats | None]:
        point = self.point(n_clean, n_noisy)
        if self._thetas is None:
            return point, None
        pairs = zip(self.fits, self._thetas, strict=True)
        sigma_n = self._noise(n_noisy)
        return point, np.concatenate([f.curve.predict(t, n_clean, n_noisy, sigma_n) for f, t in pairs])

    def _noise(self, n_noisy: Floats) -> Floats:
        return np.where(n_noisy > 0, self.sigma_n, 0.0)


@dataclass(frozen=True)
class Asked:
    """What may be spent, or the score to reach (a distance or nats): one of the three."""

    price_clean: float
    price_noisy: float
    budget: float | None = None
    target_fd: float | None = None
    target_nats: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.budget, self.target_fd, self.target_nats)) != 1:
            raise UsageError(
                "give either --budget, --target-fd or --target-nats: what may be spent, or the score to reach"
            )
        for name in ("price_clean", "price_noisy", "budget", "target_fd", "target_nats"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise UsageError(f"--{name.replace('_', '-')} must be a number > 0, not {value}")

    def of(self, planner: Planner) -> BudgetAnswer:
        """A planner's answer."""
        if self.budget is not None:
            return planner.plan(self.price_clean, self.price_noisy, self.budget, self.confidence)
        target = self.target_fd if self.target_fd is not None else self.target_nats
        assert target is not None
        return planner.cheapest(self.price_clean, self.price_noisy, target, self.confidence)


def answer_budget(
    records: Iterable[Record],
    asked: Asked,
    *,
    sigma_n: float | None = None,
    metric: str | None = None,
    extractor: str | None = None,
) -> list[BudgetAnswer]:
    """The best mix by denoising errors where there are any, then by the best-supported group of comparable scores;
    one answer a noise level.

    Where two goods survive, scores of the same models are planned by them. sigma_n None: every measured level. Raises
    UsageError for bad options, DataError where the records price nothing.
    """
    if sigma_n is not None and not (np.isfinite(sigma_n) and sigma_n >= 0):
        raise UsageError(f"--sigma must be a number >= 0, not {sigma_n}")
    rows = list(records)
    problems: list[str] = []
    found: LevelFindings | None = None
    if has_levels(rows):
        found, problems = _by_level(rows, sigma_n, asked.confidence)
    answers: list[BudgetAnswer] = []
    if found is not None and metric in (None, DENOISE) and extractor is None and asked.target_fd is None:
        from ambient_theory.compare.purchase.goods import nats_planners

        answers += [asked.of(p) for p in nats_planners(found.judgements, found.table, asked.confidence).values()]
    if metric != DENOISE and asked.target_nats is None:
        answers += _by_score(rows, asked, sigma_n, metric, extractor, found, problems)
    if not answers:
        why = f" ({problems[0]})" if problems else ""
        raise DataError(f"no group of these records prices a noisy image{why}: give records of a sweep with mixtures")
    return answers


def _by_level(rows: list[Record], sigma_n: float | None, confidence: float) -> tuple[LevelFindings | None, list[str]]:
    """The leading table judged, and why not."""
    from ambient_theory.compare.by_level.findings import analyse_levels

    findings, problems = analyse_levels(rows, confidence, deep=False, only=sigma_n)
    if not findings:
        return None, problems
    lead = findings[0]
    if sigma_n is not None and not lead.priced:
        known = ", ".join(f"{s:g}" for s in lead.table.noise_levels)
        return None, [f"{lead.table.key.dataset}: σ {sigma_n:g} was not measured by level (measured: {known})"]
    return (lead if lead.priced else None), [*lead.problems]


def _by_score(
    rows: list[Record],
    asked: Asked,
    sigma_n: float | None,
    metric: str | None,
    extractor: str | None,
    found: LevelFindings | None,
    problems: list[str],
) -> list[BudgetAnswer]:
    """Answers by the first group of scores that prices a noisy image; adds to `problems` what the others lack."""
    every = group_records(rows)
    for group in select(every, metric=metric, extractor=extractor):
        if asked.target_fd is not None and group.key.metric not in DISTANCES:
            problems.append(f"{group.key.label()}: no Fréchet distance, which --target-fd is in")
            continue
        if group.key.source == "published" or not group.noise_levels:
            problems.append(f"{group.key.label()}: scores without seeds or without mixtures")
            continue
        try:
            single = fit_single_c(table_of(group), group.scale, asked.confidence)
        except DataError as error:
            problems.append(f"{group.key.label()}: {error}")
            continue
        levels = [sigma_n] if sigma_n is not None else list(single.noise_levels)
        return [asked.of(_planner(group, single, level, found, asked.confidence)) for level in levels]
    return []


def _planner(group: Group, single: SingleC, sigma_n: float, found: LevelFindings | None, confidence: float) -> Planner:
    """By two goods where the denoising errors of the same models keep them, else by one worth."""
    judged = None if found is None else found.priced.get(sigma_n)
    if found is not None and judged is not None and group.scale == "log" and sigma_n in single.noise_levels:
        from ambient_theory.compare.by_level.findings import same_models
        from ambient_theory.compare.by_level.goods import TWO
        from ambient_theory.compare.purchase.goods import ScorePlanner, draws_for

        if judged.surviving == TWO and same_models(group, found.table):
            return ScorePlanner(judged, found.table, group, draws=draws_for(confidence))
    return OneWorthPlanner(group, single, sigma_n)
