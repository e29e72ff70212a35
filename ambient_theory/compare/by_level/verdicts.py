"""How V/(V + v) stood its test, a line for each data set and checkpoint rule: what `price --from` rests on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ambient_theory.compare.by_level.bands import bands
from ambient_theory.compare.by_level.findings import leading_tables
from ambient_theory.compare.by_level.formula import Calibration, FormulaTest, judge_formula
from ambient_theory.compare.by_level.levels import CurveKey, has_levels, level_tables
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.scores.words import number, span
from ambient_theory.shared.records import Record

UNTESTED = "The formula has not yet been tested on committed records: none of them holds denoising errors of mixtures."


@dataclass(frozen=True)
class Verdict:
    """The formula above the noise under one condition. median: of |measured - predicted| worth over `points`."""

    key: CurveKey
    points: int
    slope: Interval | None
    intercept: Interval | None
    median: float | None
    verdict: str

    @classmethod
    def of(cls, key: CurveKey, test: FormulaTest) -> Verdict:
        c: Calibration = test.above
        return cls(key, c.points, c.slope, c.intercept, median_error(test), c.verdict)

    def row(self) -> list[str]:
        slope, intercept = ("–" if i is None else span(i) for i in (self.slope, self.intercept))
        return [f"{self.key.dataset}, {self.key.rule}", str(self.points), slope, intercept, number(self.median, 2),
                self.verdict]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        return {
            "condition": self.key.to_dict(),
            "points": self.points,
            "slope": None if self.slope is None else self.slope.to_list(),
            "intercept": None if self.intercept is None else self.intercept.to_list(),
            "median_error": self.median,
            "verdict": self.verdict,
        }


COLUMNS = ("tested on", "points", "slope (1)", "intercept (0)", "median error", "verdict")


def median_error(test: FormulaTest) -> float | None:
    """Median of |measured - predicted| worth of the mixtures at levels above the noise; None without a point."""
    p = test.points
    above = p.predicted > 0
    return float(np.median(np.abs(p.measured[above] - p.predicted[above]))) if above.any() else None


def formula_verdicts(records: Iterable[Record], confidence: float = 0.95) -> list[Verdict]:
    """Of each data set the leading condition under every checkpoint rule; empty where no record can test it."""
    rows = list(records)
    if not has_levels(rows):
        return []
    conditions, _ = leading_tables(level_tables(rows))
    return [Verdict.of(t.key, judge_formula(bands(t, confidence), confidence)) for full, _ in conditions for t in full]
