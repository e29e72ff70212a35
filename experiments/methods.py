"""Writes docs/methods.md from the records of the screens: how fast settings learn, which mixture loses to a part.

    python experiments/methods.py            # writes docs/methods.md
    python experiments/methods.py --check    # says whether what is there is what would be written

Every number comes from experiments/results. A table whose records are not there yet is left out, and said.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import draw_price
import few_clean
import numpy as np

from ambient_theory.compare.by_level.dominance import Losses, PartComparison, compare_with_parts
from ambient_theory.compare.by_level.levels import DENOISE, RULES, LevelTable, level_tables
from ambient_theory.compare.cells.grouping import method_words
from ambient_theory.shared.files import atomic_write_text, read_json
from ambient_theory.shared.reading import read_records
from ambient_theory.shared.records import HELDOUT_BEST, NATS, Record
from ambient_theory.shared.replicates import replicates

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "experiments/results", ROOT / "docs/methods.md"
LEARNING = "learning_screen.jsonl.gz"
USUAL_DRAW = "sigma-first"
DRAWS, LONG = ("evidence_fashion", "evidence_clean_first"), "pilot_evidence_long.jsonl.gz"
FEW_CLEAN, RATES, GAP = "noisy_only.jsonl.gz", "distill_rate.jsonl.gz", "noisy_gap.json"
SCREENS = (
    (
        ("methods_fashion", "clean_first_fashion"),
        "Confirmation, 8x8 Fashion-MNIST, {seeds} of five seeds",
    ),
    (
        ("methods_digits", "clean_first_digits"),
        "Confirmation, digits, {seeds} of five seeds",
    ),
    (("clean_first",), "Screen of the draw clean-first, {seeds} of three seeds"),
    (("methods_screen_muon",), "Screen with Muon, the first of two seeds"),
    (("methods_screen",), "First screen, with Adam, stopped after 15 of 40 trainings"),
)
"""Grids whose trainings are compared with each other, and what they are."""
SAME_ALONE = {"weight": ("x0", "optimal"), "draw": ("sigma-first", "clean-first")}
"""Choices under which models of clean images only, and of noisy ones of one level only, are the same training."""


def with_shared_parts(records: Iterable[Record]) -> list[Record]:
    """The records, and the parts alone under every method of a mixture that differs in `SAME_ALONE` at most.

    `settings` of a method hold what a draw is told, so that other settings must be those of one grid.
    """
    rows = list(records)
    methods = {method_words(r.method): r.method for r in rows if r.n_clean and r.n_noisy}
    out = []
    for r in rows:
        out.append(r)
        if not (r.n_clean and r.n_noisy):
            out.extend(replace(r, method=m) for m in methods.values() if m != r.method and _same_alone(m, r.method))
    return out


def _same_alone(a: Mapping[str, Any] | str | None, b: Mapping[str, Any] | str | None) -> bool:
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return False
    differ = {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)}
    if "draw" in differ:
        differ -= {"settings"}
    return all(k in SAME_ALONE and {a.get(k), b.get(k)} <= {*SAME_ALONE[k]} for k in differ)


# ---------------------------------------------------------------------------------------------------------- learning


def learning_table(records: Sequence[Record]) -> list[str]:
    """Nats and Frechet distance of every setting at every duration, means over seeds; the least of a column is bold."""
    durations = sorted({r.duration_nimg for r in records if r.duration_nimg})
    last = durations[-1]
    columns = [(NATS, n) for n in durations] + [("fd", last)]
    lines = []
    by_data: dict[str, list[str]] = defaultdict(list)
    for cell in dict.fromkeys(str(r.cell) for r in records):
        data, setting = cell.split(": ", 1)
        by_data[data].append(setting)
    for data, settings in by_data.items():
        seeds = {r.seed for r in records if str(r.cell).startswith(f"{data}: ")}
        lines += ["", f"{data} images, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}:", ""]
        lines.append("| setting | " + " | ".join(f"{_metric(m)}, {n:,}" for m, n in columns) + " |")
        lines.append("|---" * (len(columns) + 1) + "|")
        values = {s: [_cell(records, f"{data}: {s}", m, n) for m, n in columns] for s in settings}
        least = [min((x[0] for v in values.values() if (x := v[k])), default=0.0) for k in range(len(columns))]
        for s, row in values.items():
            lines.append(f"| {s} | " + " | ".join(_number(x, best) for x, best in zip(row, least, strict=True)) + " |")
    return lines


def _metric(metric: str) -> str:
    return "nats" if metric == NATS else "FD"


def _cell(records: Iterable[Record], cell: str, metric: str, nimg: int) -> tuple[float, float | None] | None:
    """Mean and standard error over seeds of the last checkpoint, on held-out images; None where there is none."""
    values = [
        r.value
        for r in records
        if (r.cell, r.metric, r.duration_nimg, r.checkpoint) == (cell, metric, nimg, "last")
        and r.reference == "heldout-clean"
    ]
    if not values:
        return None
    found = replicates(values)
    return found.mean, found.stderr


def _number(x: tuple[float, float | None] | None, least: float) -> str:
    if not x:
        return ""
    text = few_clean.with_error(*x)
    return f"**{text}**" if x[0] == least else text


# --------------------------------------------------------------------------------------------------------- dominance


def dominance_tables(records: Sequence[Record]) -> list[str]:
    """Levels lost by method, rule and duration; then every mixture beside its parts after the longest training."""
    rows = with_shared_parts(records)
    found = _found(rows)
    return [*_by_duration(found), *_in_full(found, rows)]


def _found(rows: Iterable[Record]) -> list[tuple[LevelTable, list[PartComparison]]]:
    found = [
        (t, compared)
        for t in level_tables(r for r in rows if r.metric == DENOISE)
        if t.key.checkpoint in RULES and (compared := compare_with_parts(t))
    ]
    found.sort(key=lambda x: (x[0].key.dataset, x[0].key.checkpoint, short_method(x[0].key.method)))
    return found


SAME = "#### The same mixtures and seeds under both draws"
"""Heading of the comparison of today's default with the one before."""


def both_draws(records: Sequence[Record]) -> list[str]:
    """Levels lost by either draw over the mixtures and seeds that have both, and paired differences of their totals."""
    by: dict[str, dict[tuple[int, int, object], set[int]]] = defaultdict(lambda: defaultdict(set))
    for r in records:
        if r.n_clean and r.n_noisy and isinstance(r.method, Mapping) and r.method["weight"] == "x0":
            by[r.method["draw"]][r.n_clean, r.n_noisy, r.sigma_n].add(r.seed or 0)
    if len(by) < 2:
        return []
    first, second = (by[draw] for draw in SAME_ALONE["draw"])
    common = {m: seeds for m in first if len(seeds := first[m] & second[m]) > 1}

    def compared(r: Record) -> bool:
        if not (r.n_clean and r.n_noisy):
            return True
        own = isinstance(r.method, Mapping) and r.method["weight"] == "x0"
        return own and (r.seed or 0) in common.get((r.n_clean, r.n_noisy, r.sigma_n), ())

    chosen = [r for r in records if compared(r)]
    last = max(r.duration_nimg or 0 for r in chosen)
    totals: dict[tuple[object, ...], dict[int, float]] = defaultdict(dict)
    for r in chosen:
        if r.n_clean and r.n_noisy and r.duration_nimg == last and r.reference == "heldout-clean":
            key = (r.n_clean, r.n_noisy, r.sigma_n)
            totals[*key, r.checkpoint, r.metric, r.level, r.method["draw"]][r.seed or 0] = r.value
    lines = ["", SAME, *_by_duration(_found(with_shared_parts(chosen)))]
    lines += ["", "Clean-first less from the start, paired by seed:", ""]
    lines += ["| mixture | rule | seeds | nats | FD |", "|---|---|---|---|---|"]
    for (n_clean, n_noisy, sigma), seeds in common.items():
        for rule in ("last", HELDOUT_BEST):
            told = []
            for metric in (NATS, "fd"):
                own = (totals[n_clean, n_noisy, sigma, rule, metric, None, draw] for draw in SAME_ALONE["draw"])
                before, after = own
                if less := [after[s] - before[s] for s in sorted(before.keys() & after.keys())]:
                    found = replicates(less)
                    told.append(f"{found.mean:+.2f} ± {found.stderr or 0:.2f}")
            if not told:
                continue
            name = f"{n_clean:,} clean + {n_noisy:,} noisy (σ {sigma:g})"
            lines.append(f"| {name} | {RULES[rule]} | {len(seeds)} | {' | '.join(told)} |")
    return lines


Found = Sequence[tuple[LevelTable, list[PartComparison]]]


def _by_duration(found: Found) -> list[str]:
    """One row a method and rule, one column a duration; no table where no cell has two seeds."""
    durations = sorted({t.key.duration_nimg for t, _ in found})
    cells: dict[tuple[str, str, str], dict[int, Losses]] = defaultdict(dict)
    for table, compared in found:
        key = table.key
        losses = Losses.of(compared)
        if losses.compared:
            cells[key.dataset, RULES[key.checkpoint], short_method(key.method)][key.duration_nimg] = losses
    if not cells:
        return []
    lines = ["", "Levels lost, of those compared (by chance at most):", ""]
    lines.append("| data | rule | method | " + " | ".join(f"{n:,} images" for n in durations) + " |")
    lines.append("|---" * (3 + len(durations)) + "|")
    for row, at in cells.items():
        told = [f"{x.lost} of {x.compared} ({x.expected:.1f})" if (x := at.get(n)) else "" for n in durations]
        lines.append(f"| {' | '.join(row)} | {' | '.join(told)} |")
    return lines


def _in_full(found: Found, rows: Iterable[Record]) -> list[str]:
    """Each mixture after the longest training: where it is closest to losing, and its scores beside its parts'."""
    if not found:
        return []
    totals = _totals(rows)
    last = max(t.key.duration_nimg for t, _ in found)
    lines = ["", f"After {last:,} images:", ""]
    compared = ("closest or worst level", "nats: mixture, clean, noisy", "FD", "copies")
    head = ["mixture", "method", "rule", "seeds", *compared]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    body = []
    for table, comparisons in found:
        if table.key.duration_nimg == last and table.key.checkpoint in ("last", HELDOUT_BEST):
            about = f"{short_method(table.key.method)} | {RULES[table.key.checkpoint]}"
            body += [(c.cell.name, about, f"{c.n_seeds} | {_comparison(c, table, totals)}") for c in comparisons]
    order = list(dict.fromkeys(name for name, _, _ in body))
    body.sort(key=lambda x: (order.index(x[0]), x[1]))
    return lines + [f"| {' | '.join(x)} |" for x in body]


def short_method(method: str) -> str:
    """Weight, dropout and draw of a method in words; the draw where it is another than in most of these trainings."""
    parts = dict(part.rsplit(" ", 1) for part in method.split(", "))
    dropout = float(parts.get("dropout", 0))
    draw = parts.get("draw", USUAL_DRAW)
    words = parts.get("weight", "?") + (f", dropout {dropout:g}" if dropout else "")
    return words if draw == USUAL_DRAW else f"{words}, {draw}"


Totals = dict[tuple[str, int | None, str | None, int, int, float | None, str], list[float]]


COPIES = "memorisation"


def _totals(records: Iterable[Record]) -> Totals:
    """Totals in nats, Frechet distances and shares of near copies of every model, by method, duration, rule, mixture
    and kind of score."""
    out: Totals = defaultdict(list)
    for r in records:
        kind = NATS if r.metric == NATS else r.reference if r.metric == "fd" else ""
        if not kind:
            continue
        sigma = r.sigma_n if isinstance(r.sigma_n, float) and r.n_noisy else None
        model = (method_words(r.method), r.duration_nimg, r.checkpoint, r.n_clean, r.n_noisy, sigma)
        out[*model, kind].append(r.value)
        if kind == "heldout-clean" and isinstance(r.extra.get(COPIES), Mapping):
            out[*model, COPIES].append(r.extra[COPIES]["ratio"])
    return out


def _comparison(c: PartComparison, table: LevelTable, totals: Totals) -> str:
    k, cell, key = c.worst, c.cell, table.key
    sure = f"{c.z[k]:+.1f} s.e., " if np.isfinite(c.z[k]) else ""
    worst = f"{100 * np.expm1(c.excess[k]):+.1f} % at {c.levels[k]:.2g} ({sure}{c.better[k]})"
    if lost := int(c.lost.sum()):
        worst = f"**{lost} of {len(c.levels)} lost**, {worst}"

    def mean(n_clean: int, n_noisy: int, kind: str, digits: int) -> str:
        sigma = cell.sigma_n if n_noisy else None
        values = totals.get((key.method, key.duration_nimg, key.checkpoint, n_clean, n_noisy, sigma, kind))
        return f"{float(np.mean(values)):.{digits}f}" if values else "-"

    own = (cell.n_clean, cell.n_noisy)
    nats = ", ".join(mean(*m, NATS, 1) for m in (own, (cell.n_clean, 0), (0, cell.n_noisy)))
    return f"{worst} | {nats} | {mean(*own, 'heldout-clean', 2)} | {mean(*own, COPIES, 2)}"


# -------------------------------------------------------------------------------------------------------------- page

HEAD = """# Which regime needs what

Written by `python experiments/methods.py` from the records in experiments/results; edit the script, not this page.

All scores are on held-out clean images that no training saw. *nats* is the held-out denoising error over all levels of
noise, in nats an image (smaller is better; differences are differences of the likelihood bound); *FD* a Frechet
distance in the features of a small classifier. ± is one standard error over training seeds.
"""

LEARN = """
## How fast each setting learns

The small network on 8x8 Fashion-MNIST; fixed beforehand in experiments/learning_screen.toml. A step of Muon costs 1.15
times one of Adam at batch 128 on one core; batches of 64 cost 1.2 times as much an image as batches of 128.
"""

DOMINANCE = """
## Does a mixture lose to a part of its own data?

At every level of noise the mixture's held-out denoising error is compared with those of its two parts alone (its clean
images, its noisy images), trained alike and paired by seed. A level is *lost* where the mixture is worse than either by
more than the pair's own scatter over seeds explains (Student's t, as rare by chance as two standard errors: 2.3 % of
tests; in brackets how many levels chance loses at most). Until 2026-11-30 the scatter was pooled over all pairs. Models
of noisy images alone scatter several times more than the others, and that hid most losses to the clean part: of
Fashion-MNIST after 65,536 images, 0 of 192 levels were said to be lost at the held-out best. From one seed there is no
standard error, and nothing is called lost; the level of the largest difference is then only where to look. *Copies*:
the share of generated images that are nearer to one of the run's clean images than to any other by more than 95 % of
held-out images are (.05 if nothing is copied), where it was measured. A training that repeats its images also shows as
nats that are far larger at fixed compute than at the held-out best.

Today's default is *x0, dropout 0.1, clean-first*: noisy images come in while the clean ones are repeated, from none at
the start to their full share after 100 epochs of the clean images (not tuned). With noisy images from the start (no
draw named, draw `sigma-first`) a mixture with many clean images loses to them alone, since its steps go to noisy images
while clean ones still teach more. The draw was chosen by the screen below and is confirmed on other seeds; the parts
alone are one training under both.
"""


def seeds_text(records: Iterable[Record]) -> str:
    """How many seeds the mixtures have: `3 to 4`, or one number."""
    found: dict[str, set[int | None]] = defaultdict(set)
    for r in records:
        if r.n_clean and r.n_noisy:
            found[f"{r.cell} {r.sigma_n}"].add(r.seed)
    counts = sorted({len(seeds) for seeds in found.values()})
    return " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))


CONTINUED = "continued_from"
"""In the extra of records whose training had gone on from its held-out best checkpoint, not from the last one."""


def continued(records: Iterable[Record]) -> list[str]:
    """A paragraph on the trainings that went on from their held-out best checkpoint, where there are such."""
    trainings, went_on = set(), set()
    for r in records:
        trainings.add((r.cell, r.seed, r.config_hash))
        if CONTINUED in r.extra:
            went_on.add((r.cell, r.seed, r.config_hash))
    if not went_on:
        return []
    return [
        f"\n**{len(went_on)} of these {len(trainings)} trainings are not what their grid says**: once an earlier "
        "checkpoint had been scored as the held-out best, at 16,384 or 32,768 images, they went on from its weights (a "
        "fault, since mended). What was scored later, above all at fixed compute, is of such trainings, which repeat "
        "their images less; parts alone are among them more often than mixtures. They are to be trained again.\n"
    ]


def page() -> str:
    """The text of docs/methods.md."""
    parts = [HEAD]
    if (RESULTS / LEARNING).exists():
        parts += [LEARN, "\n".join(learning_table(read_records(RESULTS / LEARNING))) + "\n"]
    if (RESULTS / FEW_CLEAN).exists():
        parts += [few_clean.HEAD, "\n".join(few_clean.tables(read_records(RESULTS / FEW_CLEAN))) + "\n"]
    if (RESULTS / GAP).exists():
        parts.append(few_clean.gap_table(read_json(RESULTS / GAP)))
    if (RESULTS / RATES).exists():
        parts += [few_clean.RATES, "\n".join(few_clean.rate_table(read_records(RESULTS / RATES))) + "\n"]
    parts.append(DOMINANCE)
    for grids, title in SCREENS:
        there = [name for name in grids if (RESULTS / f"{name}.jsonl.gz").exists()]
        if there:
            records = [r for name in there for r in read_records(RESULTS / f"{name}.jsonl.gz")]
            files = ", ".join(f"experiments/{name}.toml" for name in there)
            shown = f"{title.format(seeds=seeds_text(records))} ({files})"
            parts += [f"\n### {shown}\n", *continued(records), "\n".join(dominance_tables(records)) + "\n"]
            if len(there) > 1:
                parts.append("\n".join(both_draws(records)) + "\n")
    started, after = (RESULTS / f"{name}.jsonl.gz" for name in DRAWS)
    if started.exists() and after.exists():
        first, records = list(read_records(started)), list(read_records(after))
        parts.append(draw_price.HEAD.format(seeds=seeds_text(records)))
        parts.append("\n".join(draw_price.table(first, records)) + "\n")
        parts.append(draw_price.verdict(first, records, list(read_records(RESULTS / LONG))))
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    text = page()
    same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
    if parser.parse_args().check:
        print(f"{PAGE.relative_to(ROOT)}: {'up to date' if same else 'differs'}")
        raise SystemExit(0 if same else 1)
    atomic_write_text(PAGE, text)


if __name__ == "__main__":
    main()
