"""What `compare`, `price` and `budget` print: rows of their tables, and tables no wider than the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ambient_theory.compare.fits import Interval
from ambient_theory.compare.words import number, p_value, span

if TYPE_CHECKING:
    from ambient_theory.compare.analysis import PriceAnswer
    from ambient_theory.compare.budget import BudgetAnswer
    from ambient_theory.compare.findings import Findings


def overview_rows(findings: Findings) -> list[list[str]]:
    """One line a trained group and noise level, for the terminal: Frechet distances to held-out images where there
    are any, else every group."""
    trained = [a for a in findings.analyses if a.group.key.source == "train"]
    main = [a for a in trained if a.group.key.metric in ("fd", "fid") and a.group.key.reference == "heldout-clean"]
    rows = []
    for a in main or trained:
        name = a.group.key.short()
        if a.single is None:
            rows.append([name, "", "", "", "; ".join(a.problems)])
            continue
        bounds = {} if a.pairwise is None else {b.sigma: b for b in a.pairwise.bounds}
        for sigma, c in a.single.worth.items():
            b = bounds.get(sigma)
            pairs = "–" if b is None else f"{number(b.price_low)} to {number(b.price_high)}"
            p = a.single.free.lack_p
            fit = "not testable" if p is None else ("misfit, widened" if a.single.free.misfit else f"p {p_value(p)}")
            naive = a.single.controls["naive n (c = 1)"].verdict
            rows.append([name, f"{sigma:g}", span(c.inverse()), pairs, f"{fit}; naive n {naive}"])
            name = ""
    return rows


def price_rows(found: Sequence[PriceAnswer]) -> list[list[str]]:
    """The first answer of each data set with its laws, the others in one line."""
    rows = []
    seen: set[str] = set()
    for p in found:
        rows.append([p.source, span(p.price), p.method])
        if p.dataset not in seen:
            rows += [["", f"  {span(value)}", f"  {name}"] for name, value in p.laws.items()]
        seen.add(p.dataset)
    return rows


def budget_rows(answers: Sequence[BudgetAnswer]) -> list[list[str]]:
    rows = []
    for a in answers:
        named = [("recommended", a.best)]
        named += list(zip(("clean only", "half way", "as noisy as measured"), a.alternatives, strict=True))
        for name, m in named:
            error = span(Interval(m.error, m.error_low, m.error_high))
            beyond = "; ".join(m.extrapolated)
            share = f"{m.spent_on_noisy:.0%}"
            rows.append([f"{a.sigma:g}", name, f"{m.n_clean:,}", f"{m.n_noisy:,}", share, error, beyond])
    return rows
