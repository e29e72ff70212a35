"""The part of docs/findings.md on Frechet distances: a mixture beside as many clean images, and beside its parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ambient_theory.compare.cells.tables import DISTANCES, Group, GroupKey, MeasuredCell, Table, table_of
from ambient_theory.compare.fitting.clean_curve import CleanCurve
from ambient_theory.compare.scores.words import number

HEAD = """\
Fréchet distance to held-out clean images, lower is better. The paper (Daras, Cherapanamjeri, Daskalakis, arXiv \
2411.02780) finds a mixture near as many clean images and far below both of its parts alone. Each comparison is \
Student's t at 5 %, without correction for their number. *As many clean*: a model of as many images, all clean; \
between the clean-only sizes that were trained it is read on their curve (a monotone cubic through the means, pooled \
where they rise). Means are over seeds, on the log scale, with seeds as blocks.
"""
BETTER, WORSE, OPEN = "mix better", "mix worse", "not certain"
ASIDE = ("as many clean", "its clean part alone", "noisy alone")


@dataclass(frozen=True)
class Other:
    """The score of something else, and how the mixture stands to it. verdict: empty from one seed a cell."""

    score: float
    verdict: str
    read: bool = False

    def __str__(self) -> str:
        curve = ", on the curve" if self.read else ""
        return f"{number(self.score)} ({self.verdict or 'one seed'}{curve})"


@dataclass(frozen=True)
class Mix:
    """A mixture of one group beside `ASIDE`, None where there is no such thing."""

    group: Group
    cell: MeasuredCell
    score: float
    others: tuple[Other | None, ...]

    @property
    def duration(self) -> int:
        return self.group.key.duration_nimg or 0

    def row(self) -> list[str]:
        seeds = "one seed" if len(self.cell.values) == 1 else f"{len(self.cell.values)} seeds"
        beside = ("–" if o is None else str(o) for o in self.others)
        return [self.cell.name, f"{number(self.score)} ({seeds})", *beside]


def mixtures(group: Group) -> list[Mix]:
    """Every mixture that has at least one of its parts, or as many clean images, beside it.

    Seeds are blocks and their scatter is pooled over the group (`compare.cells.blocks`).
    """
    pooled = table_of(group, group.cells)
    clean = {c.n_clean: k for k, c in enumerate(group.cells) if not c.n_noisy}
    noisy = {(c.n_noisy, c.sigma_n): k for k, c in enumerate(group.cells) if not c.n_clean}
    curve = _curve(pooled, sorted(clean.items()))
    found = []
    for ours, m in enumerate(group.cells):
        if not (m.n_clean and m.n_noisy) or m not in group.price_cells:
            continue
        total = m.n_clean + m.n_noisy
        part = noisy.get((total, m.sigma_n), noisy.get((m.n_noisy, m.sigma_n)))
        as_many = _cell(group, pooled, ours, clean.get(total))
        if as_many is None and curve is not None:
            as_many = _on_curve(group, pooled, ours, curve, math.log(total))
        others = (as_many, _cell(group, pooled, ours, clean.get(m.n_clean)), _cell(group, pooled, ours, part))
        if any(o is not None for o in others):
            found.append(Mix(group, m, float(group.back(pooled.y[ours])), others))
    return found


def _curve(pooled: Table, clean: Sequence[tuple[int, int]]) -> CleanCurve | None:
    """Of the clean-only sizes and where they are in the table; None from fewer than two."""
    if len(clean) < 2:
        return None
    sizes, at = (np.array(x) for x in zip(*clean, strict=True))
    return CleanCurve.of(np.log(sizes.astype(float)), pooled.y[at], pooled.seeds[at])


def _cell(group: Group, pooled: Table, ours: int, other: int | None) -> Other | None:
    if other is None:
        return None
    verdict = _verdict(pooled, ours, float(pooled.y[other]), 1 / float(pooled.seeds[other]))
    return Other(float(group.back(pooled.y[other])), verdict)


def _on_curve(group: Group, pooled: Table, ours: int, curve: CleanCurve, x: float) -> Other | None:
    """None outside the sizes of the curve."""
    if not curve.x[0] < x < curve.x[-1]:
        return None
    at = np.array([x])
    y, spread = float(curve(at)[0]), float((curve.weights(at) ** 2 @ (1 / curve.seeds))[0])
    return Other(float(group.back(y)), _verdict(pooled, ours, y, spread), read=True)


def _verdict(pooled: Table, ours: int, y: float, spread: float) -> str:
    """How a mixture stands to y, whose variance is `spread` times that of one model."""
    if not pooled.dof:
        return ""
    gap = y - float(pooled.y[ours])
    error = math.sqrt(pooled.variance * (1 / float(pooled.seeds[ours]) + spread))
    limit = float(special.stdtrit(pooled.dof, 0.975)) * error
    return OPEN if abs(gap) <= limit else BETTER if gap > 0 else WORSE


def distances(groups: Sequence[Group]) -> list[Group]:
    """Frechet distances to held-out clean images, of the last checkpoint."""
    return [
        g
        for g in groups
        if g.key.source == "train"
        and g.key.metric in DISTANCES
        and g.key.reference == "heldout-clean"
        and g.key.checkpoint in ("", "last")
    ]


def by_condition(groups: Sequence[Group]) -> dict[str, list[Mix]]:
    """Mixtures of all durations by what else is alike, in words; shorter trainings first."""
    found: dict[str, list[Mix]] = {}
    for g in sorted(distances(groups), key=lambda g: g.key):
        if rows := mixtures(g):
            found.setdefault(condition(g.key), []).extend(rows)
    return {what: sorted(rows, key=lambda m: m.duration) for what, rows in found.items()}


def condition(key: GroupKey) -> str:
    """What is alike in scores of several durations, in words."""
    more = [f"weights {key.extractor.partition(':')[2]}"] if ":" in key.extractor else []
    more += [f"evaluation {key.evaluation}"] if key.evaluation else []
    more += [f"method {key.method}"] if key.method else []
    return ", ".join(
        [f"{key.dataset}, {key.metric.upper()} in {key.extractor_name} of {key.n_eval:,} generated images", *more]
    )


def counted(found: Iterable[Mix], k: int) -> tuple[int, int, int]:
    """How often a mixture is better than the k-th of `ASIDE`, not certainly otherwise, and worse."""
    verdicts = [o.verdict for m in found if (o := m.others[k]) is not None]
    return verdicts.count(BETTER), verdicts.count(OPEN), verdicts.count(WORSE)


def duration_rows(found: Sequence[Mix]) -> list[list[str]]:
    """A row a duration: mixtures, and the three counts beside each of `ASIDE`; none where there is no verdict."""
    rows: list[list[str]] = []
    if not any(sum(counted(found, k)) for k in range(len(ASIDE))):
        return rows
    for duration in dict.fromkeys(m.duration for m in found):
        chosen = [m for m in found if m.duration == duration]
        counts = (counted(chosen, k) for k in range(len(ASIDE)))
        rows.append(
            [f"{duration:,}", str(len(chosen)), *("–" if not sum(c) else " / ".join(map(str, c)) for c in counts)]
        )
    return rows


def in_short(what: str, found: Sequence[Mix]) -> str:
    """One sentence about the mixtures of the longest training; empty from one seed a cell, which has no verdict."""
    last = found[-1].duration
    chosen = [m for m in found if m.duration == last]
    parts = []
    for k, name in enumerate(("as many clean images", "their clean part alone", "noisy images alone")):
        better, open_, worse = counted(chosen, k)
        if better + open_ + worse:
            parts.append(f"beside {name} {better} are better, {worse} worse, {open_} not certainly either")
    if not parts:
        return ""
    return f"{what}, after {last:,} training images, of {len(chosen)} mixtures: {'; '.join(parts)}."
