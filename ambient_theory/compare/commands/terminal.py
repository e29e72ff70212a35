"""What `compare`, `price` and `budget` print: rows of their tables, for `shared.wide_tables`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.scores.words import answer, between, fit_in_words, span

if TYPE_CHECKING:
    from ambient_theory.compare.findings import Findings
    from ambient_theory.compare.purchase.purchases import BudgetAnswer
    from ambient_theory.compare.scores.analysis import GroupAnalysis, PriceAnswer


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
        bounds = {} if a.pairwise is None else {b.sigma_n: b for b in a.pairwise.bounds}
        for sigma_n, c in a.single.worth.items():
            b = bounds.get(sigma_n)
            pairs = "–" if b is None else between(b.price_low, b.price_high)
            fit = fit_in_words(a.single, "misfit, widened")
            naive = a.single.controls["naive n (c = 1)"].verdict
            rows.append([name, f"{sigma_n:g}", span(c.inverse()), pairs, f"{fit}; naive n {naive}"])
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


def price_sentences(analyses: Sequence[GroupAnalysis], sigma_n: float) -> list[str]:
    """For each data set what its best-supported group says of noise sigma_n, in the words of `compare`."""
    said: dict[str, str] = {}
    for a in analyses:
        name = a.group.key.dataset
        if a.single is None or name in said:
            continue
        if sigma_n in a.single.noise_levels:
            said[name] = answer(a, sigma_n)
        else:
            measured = ", ".join(f"{s:g}" for s in a.single.noise_levels)
            said[name] = f"{name}, σ {sigma_n:g}: not measured (measured: {measured}), so only the laws price it."
    return list(said.values())


def budget_rows(answers: Sequence[BudgetAnswer]) -> list[list[str]]:
    """The recommended mix, where there is one, beside fixed ones."""
    rows = []
    for a in answers:
        named = [("recommended", a.best)] if a.determined else []
        if a.open_shares is None and not a.why_not:
            named = [("least predicted", a.best)]
        named += list(zip(("clean only", "half way", "as noisy as measured"), a.alternatives, strict=True))
        for name, m in named:
            error = span(Interval(m.error, m.error_low, m.error_high))
            beyond = "; ".join(m.extrapolated)
            share = f"{m.spent_on_noisy:.0%}"
            rows.append([f"{a.sigma_n:g}", name, f"{m.n_clean:,}", f"{m.n_noisy:,}", share, error, beyond])
    return rows
