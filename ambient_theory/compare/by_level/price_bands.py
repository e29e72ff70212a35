"""The answer of `price` by level: for records with denoising errors, what a noisy image is worth at each level."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ambient_theory.bounds.laws import law_named
from ambient_theory.compare.by_level.beside import Beside, beside
from ambient_theory.compare.by_level.findings import leading_tables
from ambient_theory.compare.by_level.formula import BOUND_TERMS, Scatters
from ambient_theory.compare.by_level.judgement import Judgement, judge
from ambient_theory.compare.by_level.levels import CurveKey, has_levels, level_tables
from ambient_theory.compare.by_level.words import band_columns, band_rows
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.frames import frame
from ambient_theory.shared.records import Record


@dataclass(frozen=True, eq=False, repr=False)
class BandAnswer:
    """One condition at one noise level."""

    key: CurveKey
    judgement: Judgement
    scatters: Scatters
    beside: tuple[Beside, ...]

    def __repr__(self) -> str:
        return f"BandAnswer({self.sentence()})"

    def to_frame(self) -> Any:
        """The table by level as a `pandas.DataFrame`, one row a level. Raises UsageError without pandas."""
        return frame(dict(zip(self.columns, row, strict=True)) for row in self.rows())

    @property
    def title(self) -> str:
        return f"By level, σ {self.judgement.sigma_n:g}: {self.key.label()}"

    @property
    def columns(self) -> list[str]:
        return band_columns([law_named(name).label for name in BOUND_TERMS])

    def rows(self) -> list[list[str]]:
        return band_rows(self.judgement, self.scatters)

    def sentence(self) -> str:
        return f"{self.key.dataset}, {self.key.rule}, {self.judged()}"

    def judged(self) -> str:
        """What the laws say, in words, and where noise that is not white ends: that is what "above it" means."""
        return self.judgement.sentence() + self._lowest()

    def _lowest(self) -> str:
        noise = self.judgement.market.noise
        if noise.white:
            return ""
        lowest = noise.lowest_level(self.judgement.sigma_n)
        return f" Noise {self.key.noise!r} ends at level {lowest:.3g}, the root of its largest eigenvalue."

    def to_dict(self) -> dict[str, Any]:
        worth, second = self.scatters.worth(self.judgement.sigma_n, self.judgement.market.levels)
        formula = {"formula": worth.tolist(), "formula_V_second": second.tolist()}
        mixtures = [b.to_dict() for b in self.beside]
        return {"condition": self.key.to_dict(), **self.judgement.to_dict(), **formula, "mixtures": mixtures}


def price_bands(
    records: Iterable[Record], sigma_n: float, confidence: float = 0.95, *, required: bool = False
) -> list[BandAnswer]:
    """Answers at noise sigma_n, of each data set the leading condition under every checkpoint rule.

    Empty where that noise was not measured by level; with `required`, DataError then, naming what was measured.
    """
    rows = list(records)
    conditions, problems = leading_tables(level_tables(rows)) if has_levels(rows) else ([], [])
    tables = [t for full, _ in conditions for t in full]
    found = []
    for table in (t for t in tables if any(c.sigma_n == sigma_n for c in t.mixtures)):
        try:
            own = tuple(b for b in beside(table, confidence) if b.cell.sigma_n == sigma_n)
            found.append(BandAnswer(table.key, judge(table, sigma_n, confidence), Scatters.of(table), own))
        except DataError as error:
            problems.append(str(error))
    if required and not found:
        measured = sorted({s for t in tables for s in t.noise_levels})
        if measured:
            listed = ", ".join(f"{s:g}" for s in measured)
            raise DataError(f"σ {sigma_n:g} was not measured by level (measured: {listed})")
        raise DataError(problems[0] if problems else "no record is a denoising error at a level")
    return found
