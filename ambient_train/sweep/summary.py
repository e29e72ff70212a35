"""What a sweep found: mean and standard error over seeds of every cell, duration and score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ambient_theory.shared.records import Record
from ambient_theory.shared.replicates import mean_of_known, replicates


@dataclass(frozen=True)
class Summary:
    """Mean over seeds of one cell, duration and score. level: of a metric that has one. checkpoint: the rule by which
    the weights were chosen. stderr: of the mean over seeds, None from one seed."""

    cell: str
    duration_nimg: int
    metric: str
    extractor: str
    reference: str
    level: float | None
    checkpoint: str
    n_clean: int
    n_noisy: int
    sigma_n: float | tuple[float, ...] | None
    mean: float
    stderr: float | None
    seeds: int
    floor: float | None
    memorisation_floor: float | None


def summarise(records: Sequence[Record], order: Sequence[str]) -> list[Summary]:
    """Mean and standard error over seeds of every cell, duration and score, in the order of the grid."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for r in records:
        key = (str(r.cell), r.duration_nimg or 0, r.metric, r.extractor, r.reference, r.level, r.checkpoint or "last")
        groups.setdefault(key, []).append(r)
    place = {name: i for i, name in enumerate(order)}
    out = []

    def order_of(key: tuple[Any, ...]) -> tuple[Any, ...]:
        cell, *score, level, checkpoint = key
        return (*score, level or 0.0, checkpoint, place.get(cell, len(place)))

    for key, group in sorted(groups.items(), key=lambda item: order_of(item[0])):
        found = replicates(r.value for r in group)
        floors = [r.extra.get("floor") for r in group]
        memory = [r.extra.get("memorisation_floor") for r in group]
        first = group[0]
        out.append(
            Summary(
                *key,
                n_clean=first.n_clean,
                n_noisy=first.n_noisy,
                sigma_n=first.sigma_n,
                mean=found.mean,
                stderr=found.stderr,
                seeds=found.n,
                floor=mean_of_known(floors),
                memorisation_floor=mean_of_known(memory),
            )
        )
    return out
