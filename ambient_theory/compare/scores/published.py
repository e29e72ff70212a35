"""What the published table says by arithmetic alone: one worth c cannot hold both mixed and noisy-only rows.

A power law `E = a N^-p` is drawn through the two clean-only rows of a data set; the N at which it meets the score of
another row gives `c = (N - n_clean) / n_noisy`. No interval: the table states a spread of undefined kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ambient_theory.compare.cells.tables import Group, MeasuredCell
from ambient_theory.shared.records import Record


@dataclass(frozen=True)
class RowWorth:
    """c of one row of one data set, from the power law with exponent p through its two clean-only rows."""

    dataset: str
    row: str
    sigma_n: float
    kind: str
    exponent: float
    c: float

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def worth_of_rows(group: Group) -> list[RowWorth]:
    """c of every row with noisy images; empty unless the group has exactly two clean-only rows that fall with n."""
    clean = sorted((c for c in group.cells if not c.n_noisy), key=lambda c: c.n_clean)
    if len(clean) != 2 or group.scale != "log":
        return []
    few, many = clean
    exponent = math.log(few.mean / many.mean) / math.log(many.n_clean / few.n_clean)
    if exponent <= 0:
        return []

    def worth(cell: MeasuredCell) -> float:
        index = many.n_clean * (many.mean / cell.mean) ** (1 / exponent)
        return (index - cell.n_clean) / cell.n_noisy

    return [
        RowWorth(
            group.key.dataset,
            cell.name,
            cell.sigma_n or 0.0,
            "mixed" if cell.n_clean else "noisy only",
            exponent,
            worth(cell),
        )
        for cell in group.cells
        if cell.n_noisy
    ]


@dataclass(frozen=True)
class PublishedPrice:
    """A price 1/c stated in print, as an interval at one noise level."""

    dataset: str
    sigma_n: float
    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def published_prices(records: Iterable[Record]) -> list[PublishedPrice]:
    """The records with metric `price`; `extra.low` and `extra.high` bound them."""
    return [
        PublishedPrice(
            r.dataset,
            float(r.sigma_n),
            r.value,
            float(r.extra.get("low", r.value)),
            float(r.extra.get("high", r.value)),
        )
        for r in records
        if r.metric == "price" and isinstance(r.sigma_n, int | float)
    ]
