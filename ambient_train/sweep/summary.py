"""What a sweep found: mean and standard error over seeds of every cell, duration and score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ambient_theory.shared.records import Record


@dataclass(frozen=True)
class Summary:
    """Mean over seeds of one cell, duration and score. stderr: of the mean over seeds, None from one seed."""

    cell: str
    duration_nimg: int
    metric: str
    extractor: str
    reference: str
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
        key = (str(r.cell), r.duration_nimg or 0, r.metric, r.extractor, r.reference)
        groups.setdefault(key, []).append(r)
    place = {name: i for i, name in enumerate(order)}
    out = []
    for key, group in sorted(groups.items(), key=lambda kv: (kv[0][1:], place.get(kv[0][0], len(place)))):
        values = [r.value for r in group]
        mean = sum(values) / len(values)
        spread = sum((v - mean) ** 2 for v in values)
        stderr = (spread / (len(values) - 1) / len(values)) ** 0.5 if len(values) > 1 else None
        floors = [r.extra.get("floor") for r in group]
        memory = [r.extra.get("memorisation_floor") for r in group]
        first = group[0]
        out.append(
            Summary(
                *key,
                n_clean=first.n_clean,
                n_noisy=first.n_noisy,
                sigma_n=first.sigma_n,
                mean=mean,
                stderr=stderr,
                seeds=len(values),
                floor=_mean(floors),
                memorisation_floor=_mean(memory),
            )
        )
    return out


def _mean(values: Sequence[float | None]) -> float | None:
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present else None
