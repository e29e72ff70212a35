"""The section "Two goods" of the page: pictures, tables and captions of worth by level. It only reads findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ambient_theory.bounds.laws import law_named
from ambient_theory.compare.by_level.findings import LevelFindings, Told, Worths, told_and_untold
from ambient_theory.compare.by_level.formula import BOUND_TERMS
from ambient_theory.compare.by_level.judgement import FORMULA, Judgement
from ambient_theory.compare.by_level.unseen import Unseen
from ambient_theory.compare.by_level.words import (
    BESIDE_COLUMNS,
    TOLD_COLUMNS,
    band_columns,
    band_rows,
    beside_rows,
    told_row,
    worth_text,
)
from ambient_theory.compare.page import answer_figures, level_figures
from ambient_theory.compare.page.plates import Plate, plate
from ambient_theory.compare.scores.words import number, p_value, span, what_to_buy

Table = dict[str, Any]
HEADING = "Two goods: worth by level"
METHOD = (
    "How: every model is judged by its error in denoising the same held-out clean images with the same noise, level by "
    "level. At each level E = E∞ + a N^−p with three constants of its own; a law says what N is for a mixture. Fits "
    "are exact profiles, the seed of training is the unit of replication, what a seed does to all its models alike is "
    "taken out where cells share seeds, models of few images count for less where they are seen to scatter more, and "
    "the correlation of levels is allowed for."
)


UNSEEN_FD = (
    "Every mixture was left out in turn; its score is predicted from the two goods of its denoising error, "
    "F∞ + a N_coarse^−p + b N_fine^−q fitted to the others, and by one worth and by the naive count beside it. Right: "
    "median and 95 % quantile of |log(predicted/measured)|; blue dashes: the median that the scatter over seeds alone "
    "gives a perfect law."
)
UNSEEN = (
    "Every mixture was left out in turn and its error predicted at every level by laws fitted to the others. Right: "
    "median and 95 % quantile of |log(predicted/measured)|; blue dashes: the median of a perfect law."
)
PARTS = (
    "Error of a mixture at each level over that of the largest clean-only model, beside its clean part alone and its "
    "noisy part alone, where such models were trained. Dashed vertical: the noise of the data. A mixture above one of "
    "its parts loses something by the other images. A model of noisy images alone is not trained below their noise."
)


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, folded: bool = False) -> Table:
    return {"caption": caption, "columns": list(columns), "rows": [list(r) for r in rows], "folded": folded}


# -------------------------------------------------------------------------------------------------------------- figures


def level_plates(found: LevelFindings, prefix: str, *, leads: bool = True) -> list[Plate]:
    """The pictures of one table of a data set; only those of the worth for a table that does not lead."""
    key = found.table.key
    out = []
    if leads and found.table.noise_levels:
        out.append(
            plate(
                f"{prefix}-goods",
                "Equivalent clean images by level",
                equivalents_caption(found),
                level_figures.equivalents_figure(found),
            )
        )
    if found.priced:
        title = f"Worth of a noisy image by level, {key.rule}"
        out.append(plate(f"{prefix}-worth", title, worth_caption(found), level_figures.worth_figure(found)))
    if found.formula.above.points > 2:
        title = f"The formula against what was measured, {key.rule}"
        out.append(plate(f"{prefix}-formula", title, formula_caption(found), level_figures.formula_figure(found)))
    if leads and answer_figures.with_parts(found.table):
        title = f"Denoising error by level, with the parts of the data alone, {key.rule}"
        out.append(plate(f"{prefix}-parts", title, PARTS, answer_figures.parts_figure(found.table)))
    return out


def score_plates(found: LevelFindings, prefix: str) -> list[Plate]:
    """Left-out mixtures: scores of the same models from the two goods, and denoising errors."""
    out = []
    for k, (label, scores) in enumerate(found.unseen_fd.items()):
        figure = answer_figures.unseen_figure(scores, "score")
        out.append(
            plate(f"{prefix}-unseen-fd-{k}", "Scores of mixtures that were left out", f"{label}. {UNSEEN_FD}", figure)
        )
    if found.unseen:
        figure = answer_figures.unseen_figure(found.unseen, "denoising error")
        title = "Denoising errors of mixtures that were left out"
        out.append(plate(f"{prefix}-unseen", title, f"{found.table.key.label()}. {UNSEEN}", figure))
    return out


def price_plates(found: Sequence[LevelFindings], prefix: str) -> list[Plate]:
    """The price above the noise against the noise of the images, under every checkpoint rule of a data set."""
    if not any(j.coarse is not None and j.coarse.value > 0 for f in found for j in f.priced.values()):
        return []
    confidence = found[0].found.confidence
    figure = answer_figures.level_price_figure(found, confidence)
    large, second = found[0].formula.scatters.sizes
    apart = (
        " Hollow: no one price, since mixtures disagree; the two that differ most, each by itself, but for one "
        "whose noisy images do no good, which has no price."
        if any(j.apart for f in found for j in f.priced.values())
        else ""
    )
    caption = (
        f"{found[0].table.key.dataset}. Points: the price 1/c of a clean image in noisy ones at levels above their "
        "noise, where noisy images add, with profile intervals; an interval without an end runs off the axis."
        f"{apart} Blue: "
        f"V/(V + v) with V of {large:,} clean images (band: of {second:,}), each level weighed by the excess nats "
        "between the two models; a price in the same units, from other weights. Grey: every law of the theory through "
        "the first price that serves all mixtures; where it is narrow no data tell the laws apart."
    )
    return [plate(f"{prefix}-price", "Price of a clean image against the noise", caption, figure)]


def equivalents_caption(found: LevelFindings) -> str:
    c = f"{100 * found.found.confidence:g}"
    return (
        f"{found.table.key.label()}. For each mixture (clean + noisy images) the number of clean images alone that "
        "reaches its held-out denoising error at each diffusion level, read on the curve of the clean-only models; "
        f"bars are {c} % intervals from the scatter over training seeds. Dotted: the mixture's own clean images. "
        "Dashed: the noise level of the data; in the grey band below it, a noisy image's own noise hides what is to be "
        "learnt. Hollow triangles lie off the clean-only curve, which is never extrapolated."
    )


def worth_caption(found: LevelFindings) -> str:
    large, second = found.formula.scatters.sizes
    return (
        "Black: the worth of one noisy image at each level, all mixtures of the noise level together, with profile "
        "intervals; below the noise at the mixtures' typical ratio of noisy to clean images. Blue: V/(V + v) with V(s) "
        f"the error of the model of {large:,} clean images, the band up to V of {second:,}; v = σ²s²/(s² − σ²). "
        "Nothing in it is fitted. Other colours: the weights of the bound's two terms on the same ratio, which are no "
        "prediction of a marginal worth. Grey steps: the two goods as fitted."
    )


def formula_caption(found: LevelFindings) -> str:
    judged = found.formula.above
    text = f"Each point is one mixture at one level above the noise ({judged.points} of them"
    text += f"; {judged.left_out} lie off the clean-only curve and are left out). " if judged.left_out else "). "
    if judged.slope is not None and judged.intercept is not None:
        text += f"Measured on predicted: slope {span(judged.slope)}, intercept {span(judged.intercept)}. "
    return text + (
        "The formula says slope 1 and intercept 0. Bars are two standard errors; points share models and levels, which "
        "the intervals allow for."
    )


# --------------------------------------------------------------------------------------------------------------- tables


def goods_table(found: Sequence[LevelFindings]) -> Table:
    """The worth above and below, by noise level and checkpoint rule."""
    rows = []
    for f in found:
        for sigma_n, j in f.priced.items():
            rows.append(
                [
                    f"{sigma_n:g}",
                    f.table.key.rule,
                    worth_text(j.coarse),
                    j.price,
                    worth_text(j.fine),
                    _ceiling(j),
                    j.surviving or "–",
                    span(j.one),
                ]
            )
    columns = [
        "σ",
        "rule",
        "worth above σ",
        "price above σ (noisy for one clean)",
        "worth below σ",
        "below σ at most",
        "law that survives",
        "one worth for all levels",
    ]
    return _table(
        "Two goods: above the noise level a noisy image adds, below it noisy images multiply the clean ones.",
        columns,
        rows,
    )


def _ceiling(j: Judgement) -> str:
    if j.fine is None:
        return "–"
    return f"{number(j.ceiling)} times the clean images" if math.isfinite(j.ceiling) else "no ceiling seen"


def beside_table(found: LevelFindings) -> Table:
    """Every mixture by itself."""
    caption = (
        f"Each mixture by itself, {found.table.key.rule}: the number of clean images that do as well in nats of the "
        "held-out denoising error, read on the curve of the clean-only models, in multiples of its own, and the mean "
        "worth of one of its noisy images in clean ones. No law is fitted, and nothing is said of other mixtures."
    )
    return _table(caption, BESIDE_COLUMNS, beside_rows(found.beside), folded=True)


def law_table(found: LevelFindings) -> Table:
    rows = []
    for sigma_n, j in found.priced.items():
        for (nested, full), test in j.tests.items():
            rows.append([f"{sigma_n:g}", nested, full, number(test.f), p_value(test.p), test.verdict])
        for law, test in j.parallel.items():
            rows.append([f"{sigma_n:g}", f"all mixtures agree on {law}", "each its own size", number(test.f),
                         p_value(test.p), test.verdict])  # fmt: skip
    caption = (
        "Nested laws, each tested as a case of a larger one, and parallelism: whether all mixtures agree. F forms "
        "whose degrees of freedom allow for the correlation of levels."
    )
    return _table(caption, ["σ", "law", "as a case of", "F", "p", "verdict"], rows, folded=True)


def formula_table(found: Sequence[LevelFindings]) -> Table:
    rows = []
    for f in found:
        test = f.formula
        for c in (test.above, test.above_second, test.below, *test.by_sigma_n.values(), *test.by_level.values()):
            if c.points:
                slope = "–" if c.slope is None else span(c.slope)
                intercept = "–" if c.intercept is None else span(c.intercept)
                rows.append([f.table.key.rule, c.what, str(c.points), slope, intercept, c.verdict])
    caption = (
        f"{FORMULA}: measured worth on predicted. It holds where the slope may be 1 and the intercept 0; without a "
        "slope (predictions alike) the intercept is the mean of measured less predicted."
    )
    return _table(caption, ["rule", "where", "points", "slope", "intercept", "verdict"], rows, folded=True)


def band_table(j: Judgement, found: LevelFindings) -> Table:
    terms = [law_named(name).label for name in BOUND_TERMS]
    caption = f"By level, σ {j.sigma_n:g}, {found.table.key.rule}"
    return _table(caption, band_columns(terms), band_rows(j, found.formula.scatters), folded=True)


def unseen_tables(found: LevelFindings) -> list[Table]:
    out = []
    if found.unseen:
        caption = (
            "Left-out mixtures: denoising error at every level, |log(predicted/measured)|; the last column is what the "
            "scatter over seeds alone gives a perfect law."
        )
        out.append(_table(caption, ["law", "errors", "median", "95 %", "noise"], _unseen_rows(found.unseen)))
    for label, scores in found.unseen_fd.items():
        caption = f"Left-out mixtures: {label}, from N_coarse and N_fine of the denoising errors, |log ratio|."
        out.append(_table(caption, ["law", "scores", "median", "95 %", "noise"], _unseen_rows(scores)))
    return out


def _unseen_rows(found: Sequence[Unseen]) -> list[list[str]]:
    rows = []
    for u in found:
        noise = "–" if u.noise is None else f"{100 * u.noise:.1f} %"
        rows.append([u.law, str(u.tested), f"{100 * u.median:.1f} %", f"{100 * u.upper:.1f} %", noise])
    return rows


def moves_table(moves: Sequence[Worths]) -> Table:
    rows = [
        [
            f"{w.sigma_n:g}",
            w.key.rule,
            f"{w.key.duration_nimg:,}" if w.key.duration_nimg else "–",
            ", ".join(
                [w.key.method or "–"]
                + ([f"noise {w.key.noise}"] if w.key.noise else [])
                + ([f"told {w.key.told}"] if w.key.told else [])
            ),
            worth_text(w.coarse),
            worth_text(w.fine),
        ]
        for w in sorted(moves, key=lambda w: (w.sigma_n, w.key.checkpoint, w.key.duration_nimg, w.key))
    ]
    caption = "Does the worth move with compute and with the checkpoint rule?"
    columns = ["σ", "rule", "training images", "method", "worth above σ", "worth below σ"]
    return _table(caption, columns, rows, folded=True)


def told_table(pairs: Sequence[Told]) -> Table:
    """The worth with and without knowledge of the noise, a line each."""
    caption = (
        "How much of the worth comes from knowing the noise? The same training, told the true noise of its noisy "
        "images and told another (0: that they are clean)."
    )
    return _table(caption, TOLD_COLUMNS, [told_row(p) for p in pairs])


# -------------------------------------------------------------------------------------------------------------- section


Section = dict[str, Any]


def by_dataset(findings: Sequence[LevelFindings]) -> list[list[LevelFindings]]:
    """The findings of each data set, its leading table first."""
    names = list(dict.fromkeys((f.table.key.dataset, f.table.key.dim) for f in findings))
    return [[f for f in findings if (f.table.key.dataset, f.table.key.dim) == name] for name in names]


def section(
    name: str,
    heading: str,
    intro: Sequence[str] = (),
    plates: Sequence[Plate] = (),
    tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
) -> Section:
    """A section as the template takes it."""
    parts = {"intro": list(intro), "plates": list(plates), "tables": list(tables), "notes": list(notes)}
    return {"id": name, "heading": heading, **parts}


def goods_sections(findings: Sequence[LevelFindings], plates: dict[str, list[Plate]]) -> list[Section]:
    """The two goods of each data set: the picture, worths above and below; the sentences stand on top of the page."""
    out = []
    for i, found in enumerate(by_dataset(findings)):
        notes = list(dict.fromkeys(p for f in found for p in (*f.problems, *_notes(f))))
        heading = f"{HEADING}, {found[0].table.key.dataset}"
        tables = [goods_table(found), beside_table(found[0])]
        out.append(section(f"goods-{i}", heading, [METHOD], plates.get(f"goods-{i}", []), tables, notes))
    return out


def more_sections(findings: Sequence[LevelFindings], plates: dict[str, list[Plate]]) -> list[Section]:
    """What else is known by level of each data set: worth beside the formula, tests, every number."""
    out = []
    for i, found in enumerate(by_dataset(findings)):
        lead = found[0]
        tables = [formula_table(found), law_table(lead)]
        tables += [band_table(j, f) for f in found for j in f.priced.values()]
        if len({w.key for w in lead.moves}) > 1:
            tables.append(moves_table(lead.moves))
        if pairs := told_and_untold(lead.moves):
            tables.append(told_table(pairs))
        heading = f"Laws and formula by level, {lead.table.key.dataset}"
        out.append(section(f"levels-{i}", heading, [], plates.get(f"levels-{i}", []), tables))
    return out


def buy_table(findings: Sequence[LevelFindings]) -> Table:
    """What to buy by the cost of a noisy image relative to a clean one, and how far noisy images can go below."""
    rows = []
    for f in findings:
        for sigma_n, j in f.priced.items():
            coarse = "–" if j.coarse is None else j.undetermined or _above(j)
            where = f"{f.table.key.dataset}, {f.table.key.rule}"
            rows.append([where, f"{sigma_n:g}", coarse, _below(j)])
    caption = (
        "By level: what to buy, by the cost of a noisy image relative to a clean one. Both goods are needed; "
        "the command ambient budget works out the mix for prices and a budget."
    )
    return _table(caption, ["data and rule", "σ", "for levels above σ", "for levels below σ"], rows)


def _above(j: Judgement) -> str:
    assert j.coarse is not None
    return (
        f"by what is there already, mixtures disagree: noisy ones for one clean {j.price}"
        if j.disagree
        else what_to_buy(j.coarse)
    )


def _below(j: Judgement) -> str:
    if j.fine is None:
        return "no level below was measured"
    if j.undetermined:
        return "not determined"
    if j.fine.low is not None and j.fine.low <= 0:
        return "clean: noisy images buy nothing certain"
    if math.isfinite(j.ceiling):
        return f"clean: noisy images give at most {number(j.ceiling)} times the clean ones"
    return f"noisy images add too: {what_to_buy(j.fine)}"


def _notes(found: LevelFindings) -> list[str]:
    return [f"σ {s:g}: {note}" for s, j in found.judgements.items() for note in j.notes if j.expected is None]


def all_level_plates(findings: Sequence[LevelFindings]) -> dict[str, list[Plate]]:
    """Pictures by section; those of the worth under every rule of a data set, of the rest only the leading table's."""
    out: dict[str, list[Plate]] = {"scores": [], "price": []}
    for i, found in enumerate(by_dataset(findings)):
        made = level_plates(found[0], f"g{i}")
        out[f"goods-{i}"] = [p for p in made if p.name.endswith("-goods")]
        rest = [p for p in made if not p.name.endswith("-goods")]
        for k, f in enumerate(found[1:], 1):
            rest += level_plates(f, f"g{i}-{k}", leads=False)
        out[f"levels-{i}"] = rest
        out["scores"] += score_plates(found[0], f"g{i}")
        out["price"] += price_plates(found, f"g{i}")
    return out
