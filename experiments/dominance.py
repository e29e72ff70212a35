"""The table of which mixtures lose to a part of their data, for each method, duration and checkpoint rule.

    python experiments/dominance.py experiments/results/methods_screen.jsonl

Models of clean images only, and of noisy images of one level only, are the same under weights `x0` and `optimal`: a
part that was trained under one stands for the other.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ambient_theory.compare.dominance import Losses, compare_with_parts
from ambient_theory.compare.grouping import method_words
from ambient_theory.compare.levels import DENOISE, RULES, LevelTable, level_tables
from ambient_theory.shared.reading import read
from ambient_theory.shared.records import NATS, Record

SAME_ALONE = ("x0", "optimal")


def with_shared_parts(records: Iterable[Record]) -> list[Record]:
    """The records, and the parts alone under every weight of `SAME_ALONE` that a mixture was trained with."""
    rows = list(records)
    used = {r.method["weight"] for r in rows if r.n_clean and r.n_noisy and isinstance(r.method, Mapping)}
    out = []
    for r in rows:
        out.append(r)
        alone = not (r.n_clean and r.n_noisy) and isinstance(r.method, Mapping) and r.method["weight"] in SAME_ALONE
        if alone and isinstance(r.method, Mapping):
            others = [w for w in SAME_ALONE if w in used and w != r.method["weight"]]
            out.extend(replace(r, method={**r.method, "weight": w}) for w in others)
    return out


def main(paths: list[str]) -> None:
    records = with_shared_parts(read(*map(Path, paths)).records)
    totals = _totals(records)
    tables = level_tables(r for r in records if r.metric == DENOISE)
    tables.sort(key=lambda t: (t.key.dataset, t.key.checkpoint, t.key.duration_nimg, t.key.method))
    print("| data | rule | images | method | mixture | seeds | levels lost | worst | nats: mixture, clean, noisy |")
    print("|---|---|---|---|---|---|---|---|---|")
    for table in tables:
        found = compare_with_parts(table)
        rule = RULES.get(table.key.checkpoint, table.key.checkpoint)
        start = f"| {table.key.dataset} | {rule} | {table.key.duration_nimg:,} | {table.key.method} |"
        for c in found:
            k, cell = c.worst, c.cell
            sure = f"{c.z[k]:+.1f} s.e., " if np.isfinite(c.z[k]) else ""
            worst = f"{100 * np.expm1(c.excess[k]):+.1f} % at {c.levels[k]:.2g} ({sure}{c.better[k]})"
            mixture = _mean(totals, table, cell.n_clean, cell.n_noisy, cell.sigma)
            parts = _mean(totals, table, cell.n_clean, 0, None), _mean(totals, table, 0, cell.n_noisy, cell.sigma)
            lost = f"{int(c.lost.sum())} of {len(c.levels)}"
            print(f"{start} {cell.name} | {c.n_seeds} | {lost} | {worst} | {mixture}, {', '.join(parts)} |")
        if found:
            losses = Losses.of(found)
            print(f"{start} all | | {losses.lost} of {losses.compared}, {losses.expected:.1f} by chance | | |")


Totals = dict[tuple[str, int | None, str | None, int, int, float | None], list[float]]


def _totals(records: Iterable[Record]) -> Totals:
    """Total denoising error in nats an image of every model, by method, duration, rule and mixture."""
    out: Totals = defaultdict(list)
    for r in records:
        if r.metric == NATS:
            sigma = r.sigma_n if isinstance(r.sigma_n, float) and r.n_noisy else None
            out[method_words(r.method), r.duration_nimg, r.checkpoint, r.n_clean, r.n_noisy, sigma].append(r.value)
    return out


def _mean(totals: Totals, table: LevelTable, n_clean: int, n_noisy: int, sigma: float | None) -> str:
    """Mean over seeds, empty where there is none."""
    values = totals.get((table.key.method, table.key.duration_nimg, table.key.checkpoint, n_clean, n_noisy, sigma), [])
    return f"{np.mean(values):.1f}" if values else ""


if __name__ == "__main__":
    main(sys.argv[1:])
