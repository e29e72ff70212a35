"""The answer of `price` by level: for records with denoising errors, what a noisy image is worth at each level."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ambient_theory.bounds.laws import law_named
from ambient_theory.compare.by_level.findings import analyse_levels
from ambient_theory.compare.by_level.formula import BOUND_TERMS, Scatters
from ambient_theory.compare.by_level.judgement import Judgement
from ambient_theory.compare.by_level.levels import CurveKey
from ambient_theory.compare.by_level.words import band_columns, band_rows
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.records import Record


@dataclass(frozen=True, eq=False)
class BandAnswer:
    """One condition at one noise level."""

    key: CurveKey
    judgement: Judgement
    scatters: Scatters

    @property
    def title(self) -> str:
        return f"By level, σ {self.judgement.sigma_n:g}: {self.key.label()}"

    @property
    def columns(self) -> list[str]:
        return band_columns([law_named(name).label for name in BOUND_TERMS])

    def rows(self) -> list[list[str]]:
        return band_rows(self.judgement, self.scatters)

    def sentence(self) -> str:
        return f"{self.key.dataset}, {self.key.rule}, {self.judgement.sentence()}"

    def to_dict(self) -> dict[str, Any]:
        worth, second = self.scatters.worth(self.judgement.sigma_n, self.judgement.market.levels)
        formula = {"formula": worth.tolist(), "formula_V_second": second.tolist()}
        return {"condition": self.key.to_dict(), **self.judgement.to_dict(), **formula}


def price_bands(
    records: Iterable[Record], sigma_n: float, confidence: float = 0.95, *, required: bool = False
) -> list[BandAnswer]:
    """Answers at noise sigma_n, of each data set the leading condition under every checkpoint rule.

    Empty where that noise was not measured by level; with `required`, DataError then, naming what was measured.
    """
    findings, problems = analyse_levels(records, confidence, deep=False, only=sigma_n)
    found = [
        BandAnswer(f.table.key, f.judgements[sigma_n], f.formula.scatters) for f in findings if sigma_n in f.judgements
    ]
    if required and not found:
        measured = sorted({s for f in findings for s in f.table.noise_levels})
        if measured:
            listed = ", ".join(f"{s:g}" for s in measured)
            raise DataError(f"σ {sigma_n:g} was not measured by level (measured: {listed})")
        raise DataError(problems[0] if problems else "no record is a denoising error at a level")
    return found
