"""Where what was measured meets what theory says: prices, fits, utility curves, budget, and one self-contained page.

Everything here reads records (`ambient_theory.shared.records`) and nothing else.

    from ambient_theory import compare

    records = compare.read("runs/").records              # or compare.read_shipped().records
    compare.report(records, "report")                    # the page, as `ambient compare`
    compare.price_by_level(records, sigma_n=0.2)         # as `ambient price`

Nothing is imported before it is used, so that the command line stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.lazy import lazily

if TYPE_CHECKING:
    from ambient_theory.compare.advice.adviser import RecordAdviser as adviser
    from ambient_theory.compare.by_level.price_bands import price_bands as price_by_level
    from ambient_theory.compare.cells.grouping import read_shipped as read_shipped
    from ambient_theory.compare.page.build import build_report as report
    from ambient_theory.compare.purchase.budget import Asked as Asked
    from ambient_theory.compare.purchase.budget import answer_budget as budget
    from ambient_theory.shared.reading import read as read

__all__ = ["Asked", "adviser", "budget", "price_by_level", "read", "read_shipped", "report"]

_PLACES = {
    "Asked": "ambient_theory.compare.purchase.budget:Asked",
    "adviser": "ambient_theory.compare.advice.adviser:RecordAdviser",
    "budget": "ambient_theory.compare.purchase.budget:answer_budget",
    "price_by_level": "ambient_theory.compare.by_level.price_bands:price_bands",
    "read": "ambient_theory.shared.reading:read",
    "read_shipped": "ambient_theory.compare.cells.grouping:read_shipped",
    "report": "ambient_theory.compare.page.build:build_report",
}

__getattr__, __dir__ = lazily(__name__, _PLACES)
