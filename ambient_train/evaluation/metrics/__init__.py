"""Distances and scores of generated images (`--metric`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.registry import Registry

if TYPE_CHECKING:
    from ambient_train.evaluation.metrics._base import Metric

TABLE: Registry[Metric] = Registry("ambient_train.evaluation.metrics", "metric")


def metric_name(name: str) -> str:
    """The table's name of a metric, from that or from one of its names in records (`fid` is `fd`: the extractor decides
    which a score carries; `is` is `inception-score`). Raises UsageError for an unknown one."""
    if name in TABLE:
        return name
    for member in TABLE:
        if name in TABLE[member].record_names:
            return member
    raise UsageError(f"unknown metric {name!r}: choose from {', '.join(TABLE)}")
