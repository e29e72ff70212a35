"""The worst case over a fixed grid of half-widths. Nothing in the instance is tied to n: the slope is informative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ambient_theory.simulation.grid import Skipped

Row = Mapping[str, Any]
ENVELOPES = ("envelope", "pca-envelope")


def worst_of_grid(rows: Sequence[Row]) -> tuple[list[Row], list[Skipped]]:
    """Keep, of every envelope group (k, d, mix, n, estimator, weights), the row of the worst delta.

    A group whose worst delta is an end of the grid says nothing about the true worst case: it is left out and named.
    The `mean-only` control is exempt: it is worst at the largest delta by construction, whatever n, and its slope of 0
    is what shows that the envelope is informative. Other families pass through.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for number, row in enumerate(rows):
        key: tuple[Any, ...] = (number,)
        if row["family"] in ENVELOPES:
            key = (row["family"], *(row[c] for c in ("k", "d", "mix", "n", "estimator", "weights")))
        groups.setdefault(key, []).append(row)
    kept: list[Row] = []
    skipped: list[Skipped] = []
    for key, group in groups.items():
        if key[0] not in ENVELOPES:
            kept += group
            continue
        family, k, d, mix, n, estimator, weights = key
        ordered = sorted(group, key=lambda r: r["delta"])
        worst = max(ordered, key=lambda r: r["w1_mean"])
        if estimator != "mean-only" and (worst is ordered[0] or worst is ordered[-1]):
            end = "smallest" if worst is ordered[0] else "largest"
            name = f"{family}-k{k}-d{d}-{mix}-n{n}-{estimator}" + ("" if weights == "-" else f"/{weights}")
            skipped.append(Skipped(name, f"the worst delta, {worst['delta']:.3g}, is the {end} of the grid"))
        else:
            kept.append(worst)
    return kept, skipped
