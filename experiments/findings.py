"""What the committed records show, as a page: reads records, runs nothing, and says what is missing.

    python experiments/findings.py                                # the grids below -> docs/findings.md
    python experiments/findings.py a.jsonl b.jsonl --out page.md

Every number on the page comes from the records given; the same records give the same bytes. Questions: is a mixture as
good as the paper says, and at which compute; what is a noisy image worth by level, and beside what is there already;
which law survives; do the two hypotheses hold (H1: at the held-out best the worth is V/(V + v) above the noise and
nothing below; H2: at fixed compute noisy images multiply the clean ones below the noise by a factor that saturates);
does the worth move with compute, network, resolution and data; how well were left-out cells predicted; where does it
all fail.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import mix_distances

from ambient_theory.compare.by_level.beside import ABOVE, ALL
from ambient_theory.compare.by_level.findings import LevelFindings, analyse_levels, told_and_untold
from ambient_theory.compare.by_level.formula import NOT_REJECTED
from ambient_theory.compare.by_level.goods import ADDITIVE, FREE, NAIVE, NOTHING_BELOW, ONE, TWO
from ambient_theory.compare.by_level.judgement import FORMULA, Judgement
from ambient_theory.compare.by_level.unseen import Unseen
from ambient_theory.compare.by_level.verdicts import Verdict
from ambient_theory.compare.by_level.words import BESIDE_COLUMNS, TOLD_COLUMNS, beside_rows, told_row, worth_text
from ambient_theory.compare.cells.grouping import group_records
from ambient_theory.compare.cells.tables import Group
from ambient_theory.compare.scores.analysis import GroupAnalysis, analyse_group
from ambient_theory.compare.scores.words import answer, number, span
from ambient_theory.shared.errors import AmbientError, DataError
from ambient_theory.shared.files import atomic_write_text
from ambient_theory.shared.reading import read_records
from ambient_theory.shared.records import HELDOUT_BEST, Record

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "experiments" / "results", ROOT / "docs" / "findings.md"
GRIDS = ("evidence_*.jsonl.gz", "price_*.jsonl", "table1_*.jsonl")
"""Committed results that the page is about; the screens of methods have a page of their own (docs/methods.md)."""
LAWS = ((ONE, TWO), (NOTHING_BELOW, TWO), (ADDITIVE, TWO), (FORMULA, FREE))
"""Which law is tested as a case of which."""
BAR_DENOISE, BAR_FD = 0.05, 0.10
"""Median held-out error that a law should reach."""
BAR_PRICE = 1.6
"""Upper over lower end of an interval by which a price counts as known."""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; nothing where there is no row."""
    lines = ["| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in rows]
    head = ["| " + " | ".join(c.replace("|", "\\|") for c in columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*head, *lines]) + "\n" if lines else ""


def headline(text: str) -> str:
    """A line that is also said at the top of the page."""
    return f"**{text}**\n"


def is_headline(line: str) -> bool:
    return line.startswith("**") and line.endswith("**\n") and "**" not in line[2:-3]


# ------------------------------------------------------------------------------------ the mix against its parts


def mix_section(groups: Sequence[Group]) -> list[str]:
    out = ["## Is a mixture as good as the paper says, and at which compute?\n", mix_distances.HEAD]
    for what, found in mix_distances.by_condition(groups).items():
        last = found[-1].duration
        short = mix_distances.in_short(what, found)
        if not short:
            out.append(f"*{what}.*\n")
        else:
            counts = [f"than {name}" for name in mix_distances.ASIDE]
            out += [headline(short), "Better / not certain / worse, by duration:\n"]
            out.append(table(["training images", "mixtures", *counts], mix_distances.duration_rows(found)))
        out.append(f"After {last:,} training images:\n")
        out.append(table(["mixture", "score", *mix_distances.ASIDE], (m.row() for m in found if m.duration == last)))
    if len(out) == 2:
        out.append("Missing: no record is a distance of a mixture beside one of its parts.\n")
    return out


# ------------------------------------------------------------------------------------ worth by level


def worth_section(found: Sequence[LevelFindings]) -> list[str]:
    out = ["## What is a noisy image worth, by level?\n"]
    if not found:
        return [*out, "Missing: no records with denoising errors of clean-only models and mixtures.\n"]
    rows = []
    for f in found:
        for sigma_n, j in f.priced.items():
            low = j.market.above.sum()
            rows.append([f.table.key.dataset, f.table.key.rule, f"{sigma_n:g}", j.price, worth_text(j.coarse),
                         worth_text(j.fine), f"{low} of {len(j.market.levels)}", width(j)])  # fmt: skip
    out.append(
        table(
            [
                "data",
                "rule",
                "σ",
                "price above σ",
                "worth above σ",
                "worth below σ",
                "levels above",
                "interval, factor",
            ],
            rows,
        )
    )
    out += [f"{f.table.key.label()}: {len(f.table.cells)} cells, up to {f.table.n_seeds} seeds.\n" for f in found]
    for f in found:
        known = [f"{j.price} at σ {s:g}" for s, j in f.priced.items() if j.price != "–"]
        if known:
            where = f"{f.table.key.dataset}, {f.table.key.rule}"
            out.append(headline(f"{where}: noisy images for one clean one, above the noise: {'; '.join(known)}."))
            out.append(headline(f"{where}, above the noise: {_beside_more(f)}."))
    return out


def _beside_more(f: LevelFindings) -> str:
    """At how many noise levels the mixtures disagree, and whether noisy images are worth least beside the most clean
    ones."""
    judged = list(f.priced.values())
    own = [j.own for j in judged if len({b.cell.n_clean for b in j.own}) > 1]
    least = sum(min(o, key=lambda b: b.worth.value).cell.n_clean == max(b.cell.n_clean for b in o) for o in own)
    disagree = f"mixtures disagree on the worth at {sum(j.disagree for j in judged)} of {len(judged)} noise levels"
    return f"{disagree}; a noisy image is worth least beside the most clean ones at {least} of {len(own)}"


def width(j: Judgement) -> str:
    """Upper over lower end of the interval of the price above the noise."""
    c = j.coarse
    if c is None or not c.low or c.high is None or math.isinf(c.high) or j.undetermined or j.disagree:
        return "–"
    return f"{c.high / c.low:.2f}"


def beside_section(found: Sequence[LevelFindings]) -> list[str]:
    """Every mixture by itself: no law, and so nothing that misfits."""
    out = ["## What is a noisy image worth beside what is there already?\n"]
    if not found:
        return [*out, "Missing: see above.\n"]
    out.append(
        "Of each mixture by itself, in nats of the held-out denoising error: the number of clean images that do as "
        "well, read on the curve of the clean-only models, and the mean worth of its noisy images in clean ones. "
        "Nothing is said here of other mixtures.\n"
    )
    parts = []
    for f in found:
        parts.append(f"**{f.table.key.label()}**.\n")
        for part in (ALL, ABOVE):
            chosen = [b for b in f.beside if b.part == part]
            sharp = [f"{sum(b.width <= BAR_PRICE for b in own)} of {len(own)} at σ {s:g}"
                     for s in sorted({b.cell.sigma_n or 0.0 for b in chosen})
                     if (own := [b for b in chosen if b.cell.sigma_n == s])]  # fmt: skip
            parts.append(f"*{part.capitalize()}*: prices known to a factor of {BAR_PRICE:g}: {', '.join(sharp)}.\n")
        parts.append(table(BESIDE_COLUMNS, beside_rows(f.beside)))
    return [*out, *parts]


def law_section(found: Sequence[LevelFindings]) -> list[str]:
    out = ["## Which law survives?\n"]
    if not found:
        return [*out, "Missing: see above.\n"]
    rows = []
    for f in found:
        for sigma_n, j in f.priced.items():
            tests = [j.tests.get(x) for x in LAWS]
            rows.append([f.table.key.dataset, f.table.key.rule, f"{sigma_n:g}", j.undetermined or j.surviving or "–",
                         *("–" if t is None else t.verdict for t in tests)])  # fmt: skip
    columns = ["data", "rule", "σ", "survives", "one worth", "nothing below", "adds below", FORMULA]
    judged = [j for f in found for j in f.priced.values() if j.surviving and not j.undetermined and testable(j)]
    out += ["Each law is tested as a case of a larger one.\n", table(columns, rows)]
    if judged:
        survived = [j.surviving for j in judged]
        counts = ", ".join(f"{law} {survived.count(law)} times" for law in dict.fromkeys(survived))
        fits = sum(not lacking(j) for j in judged)
        where = f"Of {len(judged)} pairs of noise level and rule, some law fits all mixtures in {fits}"
        out.append(headline(f"{where}; the simplest that is not rejected against a larger one: {counts}."))
    return out


def testable(j: Judgement) -> bool:
    """Whether something is left over to tell by if the free worths fit."""
    lack = j.laws[FREE].lack
    return lack is not None and lack.p is not None


def lacking(j: Judgement) -> bool:
    """Whether no law fits all mixtures: even free worths miss them by more than the scatter over seeds."""
    return testable(j) and j.laws[FREE].lack.p < 0.05


# ------------------------------------------------------------------------------------ hypotheses


def first_hypothesis(found: Sequence[LevelFindings]) -> list[str]:
    out = ["### H1: at the held-out best the worth is V/(V + v) above the noise, and nothing below\n"]
    judged = [f for f in found if f.table.key.checkpoint in (HELDOUT_BEST, "level-best") and f.formula.above.points]
    if not judged:
        return [*out, "Not tested: no held-out best checkpoint of mixtures among the records.\n"]
    rows, verdicts = [], []
    for f in judged:
        v = Verdict.of(f.table.key, f.formula)
        below = f.formula.below
        mean = "–" if below.intercept is None else span(below.intercept)
        verdicts.append((v.verdict, below.verdict))
        rows.append([*v.row(), mean, below.verdict])
    columns = [
        "condition",
        "points",
        "slope (1)",
        "intercept (0)",
        "median error",
        "above",
        "mean worth below (0)",
        "below",
    ]
    return [*out, table(columns, rows), headline(verdict_words(verdicts))]


def verdict_words(verdicts: Sequence[tuple[str, str]]) -> str:
    """H1 as a whole: held where both parts hold everywhere."""
    above, below = ([v[k] for v in verdicts] for k in (0, 1))
    parts = []
    for name, of in (("above the noise", above), ("below it", below)):
        holds, fails, open_ = of.count("holds"), of.count("fails"), of.count(NOT_REJECTED)
        undecided = f", and {open_} say nothing," if open_ else ""
        parts.append(f"{name} it holds in {holds} and fails in {fails}{undecided} of {len(of)} conditions")
    return f"H1: {'; '.join(parts)}."


def second_hypothesis(found: Sequence[LevelFindings]) -> list[str]:
    out = ["### H2: at fixed compute noisy images multiply the clean ones below the noise, and saturate\n"]
    rows, said = [], []
    for f in (f for f in found if f.table.key.checkpoint == "last"):
        for sigma_n, j in f.priced.items():
            nothing, additive = j.rejected(NOTHING_BELOW, TWO), j.rejected(ADDITIVE, TWO)
            if j.undetermined or nothing is None:
                verdict = "not determined"
            elif not nothing:
                verdict = "nothing certain below"
            elif additive:
                agree = j.agree_below.p
                verdict = "holds" if agree is not None and agree >= 0.05 else "saturates, but not by their ratio alone"
            else:
                verdict = "worth something, saturation not seen"
            ceiling = f"{number(j.ceiling)} times" if math.isfinite(j.ceiling) else "none seen"
            said.append(verdict)
            rows.append([f.table.key.dataset, f"{sigma_n:g}", worth_text(j.fine), ceiling, verdict])
    if not rows:
        return [*out, "Not tested: no mixtures at fixed compute among the records.\n"]
    counts = "; ".join(f"{v}: {said.count(v)}" for v in dict.fromkeys(said))
    columns = ["data", "σ", "worth below σ", "ceiling", "verdict"]
    return [*out, table(columns, rows), headline(f"H2, of {len(said)} noise levels: {counts}.")]


# ------------------------------------------------------------------------------------ moves, unseen


def moves_section(found: Sequence[LevelFindings]) -> list[str]:
    out = ["## Does the worth move with compute, network, resolution and data?\n"]
    moves = [w for f in found for w in f.moves]
    rows = [
        [w.key.dataset, f"{w.sigma_n:g}", w.key.rule, f"{w.key.duration_nimg:,}", w.key.method or "–",
         worth_text(w.coarse), worth_text(w.fine)]
        for w in sorted(moves, key=lambda w: (w.sigma_n, w.key))
    ]  # fmt: skip
    if not rows:
        return [*out, "Missing: see above.\n"]
    out.append(table(["data", "σ", "rule", "training images", "method", "worth above σ", "worth below σ"], rows))
    durations, methods = {w.key.duration_nimg for w in moves}, {w.key.method for w in moves}
    datasets = {w.key.dataset for w in moves}
    for what, count in (
        ("duration", len(durations)),
        ("network or method", len(methods)),
        ("data set or resolution", len(datasets)),
    ):
        if count < 2:
            out.append(f"Missing: one {what} only, so whether the worth moves with it is open.\n")
    return out


def told_section(found: Sequence[LevelFindings]) -> list[str]:
    out = ["## How much of the worth comes from knowing the noise?\n"]
    pairs = told_and_untold(w for f in found for w in f.moves)
    if not pairs:
        return [*out, "Missing: no mixture was trained both told its noise and told another.\n"]
    rows = [[p.said.key.dataset, *told_row(p)] for p in pairs]
    return [*out, table(["data", *TOLD_COLUMNS], rows)]


def unseen_section(found: Sequence[LevelFindings]) -> list[str]:
    out = ["## How well were left-out mixtures predicted?\n"]
    rows = []
    for f in found:
        rows += [_unseen_row(f"{f.table.key.dataset}, denoising error", u) for u in f.unseen]
        rows += [_unseen_row(label, u) for label, scores in f.unseen_fd.items() for u in scores]
    if not rows:
        return [*out, "Missing: too few cells to leave one out.\n"]
    out.append("|log(predicted/measured)|; chance: the median that the scatter over seeds gives a perfect law.\n")
    for f in found:
        for what, scores in (("the denoising error", f.unseen), *(("FD", s) for s in f.unseen_fd.values())):
            missed = {u.law: f"{100 * u.median:.1f} %" for u in scores}
            if TWO in missed:
                others = ", ".join(f"{law} {by}" for law, by in missed.items() if law in (ONE, NAIVE))
                where = f"{f.table.key.dataset}, {f.table.key.rule}"
                goods = f"two goods predict {what} of a left-out mixture within {missed[TWO]} in the median ({others})"
                out.append(headline(f"{where}: {goods}."))
    return [*out, table(["outcome", "law", "tested", "median", "95 %", "chance"], rows)]


def _unseen_row(what: str, u: Unseen) -> list[str]:
    chance = "–" if u.noise is None else f"{100 * u.noise:.1f} %"
    return [what, u.law, str(u.tested), f"{100 * u.median:.1f} %", f"{100 * u.upper:.1f} %", chance]


def score_section(analyses: Sequence[GroupAnalysis]) -> list[str]:
    out = ["## One worth, from scores alone\n"]
    said = [f"- {answer(a, s)}" for a in analyses if a.single is not None for s in a.single.noise_levels]
    return [*out, "\n".join(said) + "\n" if said else "Missing: no scores of clean-only models and mixtures.\n"]


def failures(found: Sequence[LevelFindings], problems: Sequence[str]) -> list[str]:
    """Where it fails, a line each."""
    out = [f"- {p}" for p in problems]
    for f in found:
        where = f"{f.table.key.dataset}, {f.table.key.rule}"
        for sigma_n, j in f.judgements.items():
            if j.expected is not None and j.one.contains(j.expected) is False:
                out.append(
                    f"- {where}: the control at σ {sigma_n:g} fails: worth {span(j.one)}, must be {j.expected:g}"
                )
            elif j.expected is None and j.undetermined:
                out.append(f"- {where}, σ {sigma_n:g}: no price; {j.undetermined}")
            if lacking(j):
                out.append(f"- {where}, σ {sigma_n:g}: no law fits all mixtures (p {j.laws[FREE].lack.p:.2g})")
        for bar, unseen in ((BAR_DENOISE, f.unseen), *((BAR_FD, s) for s in f.unseen_fd.values())):
            best = next((u for u in unseen if u.law == TWO), None)
            if best is not None and best.median > bar:
                out.append(
                    f"- {where}: two goods miss left-out mixtures by {best.median:.1%} in the median (bar {bar:.0%})"
                )
        out += [f"- {where}: {p}" for p in f.problems]
    return list(dict.fromkeys(out))


def page(records: Sequence[Record], files: Sequence[str]) -> str:
    """The whole page. files: names of the files that the records are from."""
    if not records:
        raise DataError("there are no records in these files: name files of records")
    groups = group_records(records)
    found, problems = analyse_levels(records, groups=groups)
    seen: set[str] = set()
    scored = []
    for g in mix_distances.distances(groups):
        if g.key.dataset not in seen and g.noise_levels:
            seen.add(g.key.dataset)
            scored.append(analyse_group(g, only_price=True))
    trainings = {(r.dataset, r.config_hash, r.seed) for r in records if r.source == "train"}
    parts = ["# Findings\n"]
    parts.append(
        f"Made by `python experiments/findings.py` from {', '.join(f'`{f}`' for f in files)}: {len(records):,} records "
        f"of {len(trainings):,} trainings. Intervals are at 95 %, from the scatter over training seeds.\n"
    )
    answers = mix_section(groups) + worth_section(found) + beside_section(found) + law_section(found)
    answers += ["## The hypotheses\n", *first_hypothesis(found), *second_hypothesis(found)]
    answers += moves_section(found) + told_section(found) + unseen_section(found) + score_section(scored)
    lines = failures(found, problems)
    said = [f"- {line.strip().strip('*')}" for line in answers if is_headline(line)]
    if lines:
        said.append(f"- {len(lines)} things that fail or are not known stand at the end.")
    parts += ["## In short\n", "\n".join(said) + "\n", *answers]
    parts += ["## Where it fails\n", "\n".join(lines) + "\n" if lines else "Nothing beyond what stands above.\n"]
    parts.append("Not in these records: the sensitivity of a Fréchet distance to single levels.\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="*", type=Path, help="JSONL files of records; default: experiments/results")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page to write; default: docs/findings.md")
    asked = parser.parse_args()
    files = sorted(asked.records or (f for pattern in GRIDS for f in RESULTS.glob(pattern)))
    try:
        records = read_records(*files)
        atomic_write_text(asked.out, page(records, [f.name for f in files]))
    except AmbientError as error:
        sys.exit(f"findings: {error}")


if __name__ == "__main__":
    main()
