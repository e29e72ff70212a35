"""Simulation panels from records: the rows that a simulation stored, put before its own test of collapse."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ambient_theory.shared.records import Record
from ambient_theory.simulation.collapse import CONTROL, SimulationPanel, panels


def row_of(record: Record) -> dict[str, Any]:
    """The row of a simulated record: its stored columns, with value and counts from the record itself."""
    columns = {"k": 0, "d": 1, "family": "", "mix": "", "estimator": "", "weights": "-", **record.extra}
    return {
        **columns,
        "dataset": record.dataset,
        "n": record.n_clean + record.n_noisy,
        "w1_mean": record.value,
        "w1_se": math.nan if record.stderr is None else record.stderr,
    }


def panels_of(records: Iterable[Record]) -> list[SimulationPanel]:
    """One panel for each simulated family that was estimated by more than one atom, hard ones first."""
    rows = [row_of(r) for r in records if r.source == "simulate" and r.metric == "w1" and "n_l" in r.extra]
    return [p for p in panels(rows) if p.estimator != CONTROL]
