"""Everything that denoising errors by level say: bands, laws and the formula, for each data set and checkpoint rule.

Of each data set one condition leads, the one with most cells, most seeds and the longest training; it is judged in full
under each checkpoint rule (fixed compute, held-out best, each level's best duration), and its laws predict left-out
mixtures. Every other condition gives the worth above and below the noise only, so that one can see whether it moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ambient_theory.compare.by_level.bands import Bands, bands
from ambient_theory.compare.by_level.beside import Beside, beside
from ambient_theory.compare.by_level.formula import FormulaTest, judge_formula
from ambient_theory.compare.by_level.goods import TWO, Market, fit_laws
from ambient_theory.compare.by_level.judgement import Judgement, judge
from ambient_theory.compare.by_level.levels import (
    CurveKey,
    LevelTable,
    check_priceable,
    has_levels,
    level_tables,
    uneven_scatter,
)
from ambient_theory.compare.by_level.potency import worth_intervals
from ambient_theory.compare.by_level.unseen import Unseen, unseen_errors, unseen_scores
from ambient_theory.compare.by_level.words import beside_sentence, together
from ambient_theory.compare.cells.tables import Group
from ambient_theory.compare.fitting.clean_curve import BELOW, BEYOND
from ambient_theory.compare.fitting.fits import Interval, control_verdict
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.records import Record

SCHEMA = "ambient.levels/2"


@dataclass(frozen=True)
class Worths:
    """Worth of a noisy image above the noise and below it (at the mixtures' typical ratio) under one condition.

    None where no level was measured on that side.
    """

    key: CurveKey
    sigma_n: float
    coarse: Interval | None
    fine: Interval | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "checkpoint": self.key.checkpoint,
            "duration_nimg": self.key.duration_nimg,
            "told_sigma": float(self.key.told) if self.key.told else None,
            "sigma_n": self.sigma_n,
            "coarse_worth": None if self.coarse is None else self.coarse.to_list(),
            "fine_worth": None if self.fine is None else self.fine.to_list(),
        }


@dataclass(frozen=True, eq=False)
class LevelFindings:
    """One table in full.

    judgements: by sigma_n, controls among them. unseen, unseen_fd: of left-out mixtures, the latter by the label of the
    group of scores; empty where they were not worked out. moves: worths under every condition of the same data set.
    problems: what could not be done, and why.
    """

    table: LevelTable
    found: Bands
    formula: FormulaTest
    judgements: dict[float, Judgement]
    unseen: list[Unseen]
    unseen_fd: dict[str, list[Unseen]]
    moves: list[Worths]
    problems: tuple[str, ...]

    @property
    def priced(self) -> dict[float, Judgement]:
        """Judgements of measured noise levels, without controls."""
        return {s: j for s, j in self.judgements.items() if j.expected is None}

    @cached_property
    def beside(self) -> list[Beside]:
        """Every mixture by itself."""
        return beside(self.table, self.found.confidence)

    def worths(self) -> list[Worths]:
        """Worth above and below each measured noise level, as `worths_of` gives it for a table that is not judged."""
        return [Worths(self.table.key, s, j.coarse, j.fine) for s, j in self.priced.items()]

    def sentences(self) -> list[str]:
        """What is said of each noise level, controls last."""
        where = f"{self.table.key.dataset}, {self.table.key.rule}, "
        return [where + j.sentence() for j in self.priced.values()] + self._others(where)

    def opening(self) -> list[str]:
        """The same with the prices of all noise levels in one sentence, and what is said of several said once."""
        if len(self.priced) < 2:
            return self.sentences()
        where = f"{self.table.key.dataset}, {self.table.key.rule}, "
        return [where + together(self.priced.values()), *self._others(where)]

    def _others(self, where: str) -> list[str]:
        out = []
        if own := beside_sentence(self.beside):
            out.append(where + own)
        for sigma_n, j in self.judgements.items():
            if j.expected is not None:
                verdict = control_verdict(j.one, j.expected)
                out.append(f"{where}control at σ {sigma_n:g}: a noisy image must be worth {j.expected:g}; {verdict}.")
        return out

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "condition": self.table.key.to_dict(),
            "cells": len(self.table.cells),
            "seeds": self.table.n_seeds,
            "bands": self.found.to_dict(),
            "formula": self.formula.to_dict(),
            "noise_levels": [j.to_dict() for j in self.judgements.values()],
            "mixtures": [b.to_dict() for b in self.beside],
            "left_out_errors": [u.to_dict() for u in self.unseen],
            "left_out_scores": {label: [u.to_dict() for u in found] for label, found in self.unseen_fd.items()},
            "moves": [w.to_dict() for w in self.moves],
            "problems": list(self.problems),
        }


def analyse_table(
    table: LevelTable,
    confidence: float = 0.95,
    *,
    groups: Sequence[Group] = (),
    deep: bool = True,
    only: float | None = None,
) -> LevelFindings:
    """Analyse one table. groups: scores of the same models, to be predicted from two goods. deep: predict left-out
    mixtures. only: judge this noise level alone. Raises DataError where the table prices nothing."""
    found = bands(table, confidence)
    problems = list(table.notes)
    judgements: dict[float, Judgement] = {}
    for sigma_n in sorted({c.sigma_n for c in table.mixtures if c.sigma_n is not None and only in (None, c.sigma_n)}):
        try:
            judgements[sigma_n] = judge(table, sigma_n, confidence)
        except DataError as error:
            problems.append(str(error))
    if not table.scatter.dof:
        why = "every cell has one training seed" if table.n_seeds < 2 else "the seeds agree to the last digit"
        problems.append(f"{why}: estimates carry no interval")
    uneven = uneven_scatter(table)
    if uneven is not None and uneven < 0.01:
        problems.append(
            f"the scatter over seeds differs between cells by more than their sizes explain (Bartlett p {uneven:.1g}): "
            "intervals pool the rest, so they are too wide for some cells and too narrow for others"
        )
    problems += _off_the_curve(found)
    priced = {s: j for s, j in judgements.items() if j.expected is None}
    scores = {}
    for group in groups if deep else ():
        if same_models(group, table) and (left_out := unseen_scores(group, priced)):
            scores[group.key.label()] = left_out
    return LevelFindings(
        table=table,
        found=found,
        formula=judge_formula(found, confidence),
        judgements=judgements,
        unseen=unseen_errors(table, list(priced)) if deep else [],
        unseen_fd=scores,
        moves=[],
        problems=tuple(problems),
    )


def _off_the_curve(found: Bands) -> list[str]:
    """A sentence for each noise level at which mixtures lie off the clean-only curve, so that fits extrapolate it."""
    out = []
    for sigma_n in found.table.noise_levels:
        where = [b.where for m in found.mixtures if m.cell.sigma_n == sigma_n and m.cell.n_clean for b in m.bands]
        for side, size, edge in ((BEYOND, "larger", -1), (BELOW, "smaller", 0)):
            if count := where.count(side):
                n = found.table.clean[edge].n_clean
                out.append(
                    f"σ {sigma_n:g}: {count} of {len(where)} errors of mixtures lie off the clean-only curve, which "
                    f"ends at {n:,} images; the laws rest on the form of the curve there, so train clean-only models "
                    f"of {size} numbers"
                )
    return out


def same_models(group: Group, table: LevelTable) -> bool:
    """Whether the scores are Frechet distances to held-out images of the models of the table."""
    key = group.key
    return (
        key.source == "train"
        and key.metric in ("fd", "fid")
        and key.reference == "heldout-clean"
        and not (table.key.told or table.key.noise)
        and (key.dataset, key.duration_nimg, key.checkpoint, key.method)
        == (table.key.dataset, table.key.duration_nimg, table.key.checkpoint, table.key.method)
    )


Condition = tuple[list[LevelTable], list[LevelTable]]


def leading_tables(tables: Sequence[LevelTable]) -> tuple[list[Condition], list[str]]:
    """(conditions, problems): of each data set the tables of the leading condition, one a checkpoint rule, best first,
    and every table that prices a noisy image. problems: why a data set has none, a sentence each."""
    found: list[Condition] = []
    problems: list[str] = []
    for dataset in dict.fromkeys((t.key.dataset, t.key.dim) for t in tables):
        usable, refused = [], []
        for table in (t for t in tables if (t.key.dataset, t.key.dim) == dataset):
            try:
                check_priceable(table)
                usable.append(table)
            except DataError as error:
                refused.append(str(error))
        if not usable:
            problems += refused
            continue
        lead = usable[0].key
        same = (lead.duration_nimg, lead.method, lead.told, lead.noise)
        full = [t for t in usable if (t.key.duration_nimg, t.key.method, t.key.told, t.key.noise) == same]
        found.append((list({t.key.checkpoint: t for t in reversed(full)}.values())[::-1], usable))
    return found, list(dict.fromkeys(problems))


def worths_of(table: LevelTable, confidence: float = 0.95) -> list[Worths]:
    """Worth above and below each measured noise level by the two goods; empty where the table prices nothing."""
    out = []
    for sigma_n in table.noise_levels:
        try:
            law = fit_laws(Market.of(table, sigma_n), (TWO,))[TWO]
        except DataError:
            continue
        above = law.market.above
        ends = worth_intervals(law, confidence)
        out.append(Worths(table.key, sigma_n, ends[0] if above.any() else None, ends[-1] if not above.all() else None))
    return out


@dataclass(frozen=True)
class Told:
    """Worth of a noisy image to models that knew its noise, and to the same trained in the belief that it is `said`."""

    truth: Worths
    said: Worths

    @property
    def kept(self) -> float | None:
        """Share of the worth above the noise that is left without the knowledge; None where nothing was there."""
        known, without = self.truth.coarse, self.said.coarse
        return without.value / known.value if known is not None and without is not None and known.value > 0 else None


def told_and_untold(moves: Iterable[Worths]) -> list[Told]:
    """Every condition and noise level that was measured both ways."""
    rows = list(moves)
    truth = {(w.key, w.sigma_n): w for w in rows if not w.key.told}
    pairs = ((truth.get((replace(w.key, told=""), w.sigma_n)), w) for w in rows if w.key.told)
    return [Told(known, w) for known, w in pairs if known is not None]


def analyse_levels(
    records: Iterable[Record],
    confidence: float = 0.95,
    *,
    groups: Sequence[Group] = (),
    deep: bool = True,
    only: float | None = None,
) -> tuple[list[LevelFindings], list[str]]:
    """(findings, problems): of each data set the leading condition under every checkpoint rule, leading table first.

    groups: all scores among the records. deep False leaves left-out mixtures and other conditions out;
    only: judge this noise level alone. Nothing and no
    problem where no record is an error at a level. problems: data sets that price nothing, a sentence each.
    """
    rows = list(records)
    if not has_levels(rows):
        return [], []
    findings: list[LevelFindings] = []
    conditions, problems = leading_tables(level_tables(rows))
    for full, usable in conditions:
        found = {
            t.key: analyse_table(t, confidence, groups=groups, deep=deep and k == 0, only=only)
            for k, t in enumerate(full)
        }
        if deep:
            moves = [w for t in usable for w in (found[t.key].worths() if t.key in found else worths_of(t, confidence))]
            found[full[0].key] = replace(found[full[0].key], moves=moves)
        findings += found.values()
    return findings, problems
