"""What the page shows, as plain tables and sections of text; the template only lays them out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

import ambient_theory
from ambient_theory.bounds.laws import LAWS
from ambient_theory.compare.findings import Findings
from ambient_theory.compare.fitting.fits import Comparison
from ambient_theory.compare.page.level_section import (
    Section,
    buy_table,
    by_dataset,
    goods_sections,
    more_sections,
    section,
    unseen_tables,
)
from ambient_theory.compare.page.plates import Plate
from ambient_theory.compare.scores.analysis import GroupAnalysis, tell_apart
from ambient_theory.compare.scores.words import QUESTION, between, fit_in_words, number, p_value, span, what_to_buy
from ambient_theory.shared.palette import DARK

# ------------------------------------------------------------------------------------------------------------- tables


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, folded: bool = False
) -> dict[str, Any]:
    return {"caption": caption, "columns": list(columns), "rows": [list(r) for r in rows], "folded": folded}


def price_table(a: GroupAnalysis) -> dict[str, Any]:
    """One line a noise level: fit, pairs, and what to pay."""
    assert a.single is not None
    bounds = {} if a.pairwise is None else {b.sigma_n: b for b in a.pairwise.bounds}
    rows = []
    for sigma_n, c in a.single.worth.items():
        b = bounds.get(sigma_n)
        pairs = "–" if b is None else between(b.price_low, b.price_high)
        rows.append([f"{sigma_n:g}", span(c.inverse()), span(c), pairs, what_to_buy(c)])
    columns = [
        "σ",
        "price 1/c (noisy for one clean)",
        "worth c (clean for one noisy)",
        "price by certain pairs alone",
        "what to buy, by cost of a noisy image relative to a clean one",
    ]
    return table(
        f"One worth: price by {a.group.key.short()}. Between the two costs in the last column the data do not decide.",
        columns,
        rows,
    )


def law_table(a: GroupAnalysis) -> dict[str, Any]:
    assert a.single is not None
    rows: list[list[str]] = []

    def add(kind: str, found: dict[str, Comparison]) -> None:
        rows.extend([kind, name, number(c.f), p_value(c.p), c.verdict] for name, c in found.items())

    add("control", a.single.controls)
    add("law", a.single.laws)
    for name, f in a.two_term.items():
        verdict = "not testable" if f.lack_p is None else ("does not fit" if f.misfit else "fits")
        rows.append(["shape", name, number(f.lack_f), p_value(f.lack_p), verdict])
    caption = (
        "Controls and laws are tested against a free c at each noise level (F test); the two-term shapes of the bound, "
        "constants fitted, against the scatter over seeds (lack of fit)."
    )
    return table(caption, ["", "curve", "F", "p", "verdict"], rows)


def score_table(a: GroupAnalysis) -> dict[str, Any]:
    rows = []
    for c in a.group.cells:
        floor = "–" if c.floor is None else number(c.floor)
        copies = "–" if c.memorisation_floor is None else number(c.memorisation_floor)
        name = c.grid_name or c.kind
        rows.append([name, c.name, str(len(c.values)), number(c.mean, 4), number(c.stderr), floor, copies])
    columns = ["regime", "training images", "seeds", "score", "standard error", "floor", "training images themselves"]
    return table(f"Scores: {a.group.key.label()}.", columns, rows, folded=True)


def pair_table(a: GroupAnalysis) -> dict[str, Any] | None:
    if a.pairwise is None:
        return None
    rows = []
    for b in a.pairwise.bounds:
        for end, pairs in (("c at least", b.binding_low), ("c at most", b.binding_high)):
            value = b.c_low if end == "c at least" else b.c_high
            if not pairs:
                rows.append(
                    [f"{b.sigma_n:g}", "no lower bound" if end == "c at least" else "no upper bound", "no pair"]
                )
                continue
            said = "; ".join(f"{better} beat {worse}" for better, worse in pairs)
            rows.append([f"{b.sigma_n:g}", f"{end} {number(value)}", said])
    rows += [["any", "contradiction", f"{c.better} beat {c.worse}: {c.why}"] for c in a.pairwise.contradictions]
    caption = (
        f"Pairs that bind: {a.pairwise.certain} of {a.pairwise.pairs} pairs have a certain order (Tukey-Kramer, all "
        f"pairs at once at {100 * a.pairwise.confidence:g} %)."
    )
    return table(caption, ["σ", "bound", "pair"], rows, folded=True)


def formula_table() -> dict[str, Any]:
    """Every law that is tried, as a formula."""
    rows: list[list[str]] = []
    for law in LAWS.values():
        stated = law.formula()
        rows.append([law.label, Markup(stated.mathml()), stated.regime, f"{stated.grade}: {stated.source}"])
    caption = "The laws: worth c of a sample with noise σ, in clean samples of width s0."
    return table(caption, ["law", "c", "where the weight comes from", "grade and source"], rows)


def statement_table() -> dict[str, Any]:
    """The statements of the theory that the laws come from."""
    from ambient_theory.bounds.rates import STATEMENTS

    rows: list[list[str]] = [[s.name, Markup(s.mathml()), s.regime, f"{s.grade}: {s.source}"] for s in STATEMENTS]
    caption = "The statements of the theory, with grade and source."
    return table(caption, ["statement", "formula", "regime", "grade and source"], rows, folded=True)


def overview_table(findings: Findings) -> dict[str, Any]:
    rows = []
    for a in findings.analyses:
        if a.single is None:
            rows.append(
                [a.group.key.label(), str(len(a.group.cells)), str(a.group.n_seeds), "–", "; ".join(a.problems)]
            )
            continue
        prices = "; ".join(f"σ {s:g}: {span(c.inverse())}" for s, c in a.single.worth.items())
        note = "; ".join((fit_in_words(a.single), *a.problems))
        rows.append([a.group.key.label(), str(len(a.group.cells)), str(a.group.n_seeds), prices, note])
    caption = "Every group of comparable scores. Scores of different groups never meet in one fit."
    return table(caption, ["group", "cells", "seeds", "price 1/c", "notes"], rows, folded=True)


# --------------------------------------------------------------------------------------------------------------- page


def page_context(findings: Findings, plates: dict[str, list[Plate]], pictures: list[dict[str, str]]) -> dict[str, Any]:
    """Everything the template shows."""
    training = [a for a in findings.leading if a.group.key.source == "train"]
    sections = goods_sections(findings.levels, plates)
    sections += [
        s for s in (_scores(findings, training, plates), _prices(training, plates), _buy(findings, training)) if s
    ]
    sections += more_sections(findings.levels, plates)
    for i, a in enumerate(training):
        sections.append(_data_section(a, plates.get(f"data-{i}", []), i))
    if "simulation" in plates:
        intro = [
            "Theory first: where its assumptions hold by construction, does the error depend on the effective size "
            "it names?"
        ]
        sections.append(section("simulation", "Where the theory is true by construction", intro, plates["simulation"]))
    intro = ["A price at one noise level fixes one number. Which law lies behind it shows only at larger noise."]
    tables = [formula_table(), statement_table()]
    sections.append(section("laws", "What prices can and cannot show", intro, plates["laws"], tables))
    if "published" in plates:
        tables = [score_table(a) for a in findings.leading if a.group.key.source == "published"]
        if findings.second_hand:
            rows = [
                [
                    r.dataset,
                    f"{r.n_clean:,} clean + {r.n_noisy:,} noisy (σ {r.sigma_n})",
                    number(r.value),
                    str(r.method or ""),
                ]
                for r in findings.second_hand
            ]
            tables.append(
                table(
                    "Second-hand numbers, kept out of every analysis.",
                    ["data", "images", "FID", "method"],
                    rows,
                    folded=True,
                )
            )
        intro = ["The scores in print (Daras, Cherapanamjeri, Daskalakis, arXiv 2411.02780), by arithmetic alone."]
        sections.append(section("published", "The published table", intro, plates["published"], tables))
    if findings.analyses:
        sections.append(section("groups", "All groups", [], [], [overview_table(findings)]))
    first = [sentence for found in by_dataset(findings.levels) for sentence in found[0].opening()]
    return {
        "question": QUESTION,
        "answers": first or findings.answers,
        "more": [sentence for sentence in findings.answers if sentence not in first] if first else [],
        "caveats": caveats(findings),
        "sections": sections,
        "gallery": pictures,
        "laws": "; ".join(law.label for law in LAWS.values()),
        "confidence": f"{100 * findings.confidence:g}",
        "version": ambient_theory.__version__,
        "colours": {light.removeprefix("#"): (light, dark) for light, dark in DARK.items()},
    }


FIRST = ("-scores", "-bound", "-heldout")
"""Endings of the figures of trained models that stand in the section of scores; `-price` stands in that of prices."""


def _of(training: Sequence[GroupAnalysis], plates: dict[str, list[Plate]], endings: tuple[str, ...]) -> list[Plate]:
    return [p for i in range(len(training)) for p in plates.get(f"data-{i}", []) if p.name.endswith(endings)]


def _scores(findings: Findings, training: Sequence[GroupAnalysis], plates: dict[str, list[Plate]]) -> Section | None:
    """Scores against the effective size, and of cells that no fit has seen."""
    shown = [*plates.get("scores", []), *_of(training, plates, FIRST)]
    tables = [t for found in by_dataset(findings.levels) for t in unseen_tables(found[0])]
    if not shown and not tables:
        return None
    intro = ["Does the size that the theory names say how good a model is, also of a mixture that no fit has seen?"]
    return section("scores", "Scores against the effective size", intro, shown, tables)


def _prices(training: Sequence[GroupAnalysis], plates: dict[str, list[Plate]]) -> Section | None:
    """The price against the noise, with the laws."""
    shown = [*plates.get("price", []), *_of(training, plates, ("-price",))]
    return section("price", "Price against the noise", [], shown) if shown else None


def _buy(findings: Findings, training: Sequence[GroupAnalysis]) -> Section | None:
    """What to buy, by level and by score."""
    tables = [buy_table(findings.levels)] if any(f.priced for f in findings.levels) else []
    tables += [price_table(a) for a in training if a.single is not None]
    return section("buy", "What to buy", [], [], tables) if tables else None


def _data_section(a: GroupAnalysis, plates: Sequence[Plate], i: int) -> Section:
    intro = [
        f"Best-supported group of this data: {a.group.key.label()}; {len(a.group.cells)} cells, up to "
        f"{a.group.n_seeds} seeds."
    ]
    tables = []
    if a.single is not None:
        intro.append(tell_apart(a.single))
        tables += [] if a.single.all_alike else [law_table(a)]
    if a.rows:
        rows = [[r.row, f"{r.sigma_n:g}", r.kind, number(r.c)] for r in a.rows]
        caption = "By arithmetic: a power law through the two clean-only cells, c from each other cell (no interval)."
        tables.append(table(caption, ["cell", "σ", "kind", "c"], rows))
    pairs = pair_table(a)
    tables += [t for t in (pairs, score_table(a)) if t is not None]
    rest = [p for p in plates if not p.name.endswith((*FIRST, "-price"))]
    notes = [*a.problems, *(calibration_sentence(c) for c in a.calibration)]
    return section(f"data-{i}", f"Trained models: {a.group.key.dataset}", intro, rest, tables, notes)


def calibration_sentence(c: Any) -> str:
    return f"Calibration control at σ {c.sigma_n:g}: c must be {c.expected:g}, measured {span(c.measured)}: {c.verdict}"


def caveats(findings: Findings) -> list[str]:
    """What the answer rests on, said once on top."""
    out = list(findings.level_problems)
    priced = [a for a in findings.leading if a.single is not None]
    for a in priced:
        name = a.group.key.dataset
        if a.pairwise is not None and a.pairwise.contradictions:
            n = len(a.pairwise.contradictions)
            out.append(f"{name}: {n} certain pair{'s' if n > 1 else ''} contradict a single worth c (listed below).")
        if a.group.noisy_only:
            out.append(f"{name}: models of noisy images alone are shown but never fitted; they follow another law.")
        if a.single is not None and a.single.controls["naive n (c = 1)"].verdict == "not rejected":
            out.append(f"{name}: the data do not even reject that a noisy image counts like a clean one.")
    if priced:
        out.append(
            "A price holds for these data, this network and this training duration; c is not a constant of nature."
        )
    return out
