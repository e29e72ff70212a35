"""Everything that a set of records says: each group of comparable scores analysed alone, panels, printed prices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ambient_theory
from ambient_theory.compare.analysis import GroupAnalysis, analyse_group
from ambient_theory.compare.grouping import group_records, select
from ambient_theory.compare.panels import panels_of
from ambient_theory.compare.published import PublishedPrice, published_prices
from ambient_theory.compare.words import answers
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.records import Record
from ambient_theory.simulation.collapse import SimulationPanel

SCHEMA = "ambient.compare/1"


@dataclass(frozen=True)
class Findings:
    """All analyses of a set of records. leading: the best group of each data set, the others follow in analyses."""

    analyses: tuple[GroupAnalysis, ...]
    leading: tuple[GroupAnalysis, ...]
    simulation: tuple[SimulationPanel, ...]
    printed: tuple[PublishedPrice, ...]
    second_hand: tuple[Record, ...]
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "version": ambient_theory.__version__,
            "confidence": self.confidence,
            "answers": answers(self.leading, self.printed),
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
    groups = select(group_records(rows), metric=metric, extractor=extractor)
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
    )
