"""Distances and scores of generated images (`--metric`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.registry import Registry

if TYPE_CHECKING:
    from ambient_train.evaluation.metrics._base import Metric

TABLE: Registry[Metric] = Registry("ambient_train.evaluation.metrics", "metric")
