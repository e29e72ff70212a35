"""Everything that a set of records says: each group of comparable scores analysed alone, panels, printed prices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ambient_theory
from ambient_theory.compare.by_level.findings import LevelFindings, analyse_levels
from ambient_theory.compare.by_level.levels import DENOISE, has_levels
from ambient_theory.compare.cells.grouping import group_records, select
from ambient_theory.compare.cells.panels import panels_of
from ambient_theory.compare.scores.analysis import GroupAnalysis, analyse_group
from ambient_theory.compare.scores.published import PublishedPrice, published_prices
from ambient_theory.compare.scores.words import answers
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.records import Record
from ambient_theory.simulation.collapse import SimulationPanel

SCHEMA = "ambient.compare/2"


@dataclass(frozen=True, repr=False)
class Findings:
    """All analyses of a set of records. leading: the best group of each data set, the others follow in analyses."""

    analyses: tuple[GroupAnalysis, ...]
    leading: tuple[GroupAnalysis, ...]
    simulation: tuple[SimulationPanel, ...]
    printed: tuple[PublishedPrice, ...]
    second_hand: tuple[Record, ...]
    confidence: float
    levels: tuple[LevelFindings, ...] = ()
    level_problems: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Findings({len(self.analyses)} groups of scores, {len(self.levels)} tables by level)"

    @property
    def answers(self) -> list[str]:
        """The sentences on top: by level where that was measured, then one worth by score."""
        by_level = [sentence for found in self.levels for sentence in found.sentences()]
        scored = any(a.single is not None for a in self.leading) or bool(self.printed)
        return by_level + (answers(self.leading, self.printed) if scored or not by_level else [])

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "version": ambient_theory.__version__,
            "confidence": self.confidence,
            "answers": self.answers,
            "levels": [f.to_dict() for f in self.levels],
            "level_problems": list(self.level_problems),
            "groups": [a.to_dict() for a in self.analyses],
            "printed_prices": [p.to_dict() for p in self.printed],
            "simulation": [p.to_dict() for p in self.simulation],
        }


def gather_findings(
    records: Iterable[Record],
    *,
    confidence: float = 0.95,
    metric: str | None = None,
    extractor: str | None = None,
) -> Findings:
    """Group the records by what is comparable and analyse each group alone.

    Held-out cells and the two-term shape are worked out for the leading group of each data set. Raises DataError if
    there is no record, or none of the metric and extractor asked for.
    """
    rows = list(records)
    if not rows:
        raise DataError("there is no record to compare: give JSONL files of records, or directories that hold some")
    every = group_records(rows)
    by_level = metric in (None, DENOISE) and extractor is None and has_levels(rows)
    levels, problems = analyse_levels(rows, confidence, groups=every) if by_level else ([], [])
    groups = [] if metric == DENOISE and by_level else select(every, metric=metric, extractor=extractor)
    seen: set[tuple[str, str]] = set()
    analyses = []
    for group in groups:
        name = (group.key.source, group.key.dataset)
        analyses.append(analyse_group(group, confidence, deep=name not in seen))
        if analyses[-1].priced or group.key.source == "published":
            seen.add(name)
    leading: dict[tuple[str, str], GroupAnalysis] = {}
    for a in analyses:
        name = (a.group.key.source, a.group.key.dataset)
        if name not in leading or (a.priced and not leading[name].priced):
            leading[name] = a
    return Findings(
        analyses=tuple(analyses),
        leading=tuple(leading.values()),
        simulation=tuple(panels_of(rows)),
        printed=tuple(published_prices(rows)),
        second_hand=tuple(r for r in rows if r.extra.get("grade") == "second-hand"),
        confidence=confidence,
        levels=tuple(levels),
        level_problems=tuple(problems),
    )
