"""Simulation panels: collapse where it must be, none where it must not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from compare_sweeps import simulated

from ambient_theory.compare.cells.panels import panels_of


def test_a_risk_in_n_l_alone_collapses_on_n_l_and_not_on_n():
    (panel,) = panels_of(simulated(2, "hard", lambda a, b, size: size ** (-1 / 6)))
    assert panel.scatter["n_l"] < 0.02
    assert panel.scatter["n"] > 0.2
    assert panel.transfer[0] < 0.02


def test_a_risk_in_n_alone_fails_the_transfer():
    (panel,) = panels_of(simulated(2, "separated", lambda a, b, size: (a + b) ** -0.5))
    assert panel.scatter["n"] < 0.02
    assert panel.transfer[0] > math.log(2)


def test_the_curve_is_learned_from_clean_samples_only():
    rows = simulated(2, "hard", lambda a, b, size: size ** (-1 / 6))
    spoiled = [replace(r, value=2 * r.value) if r.n_noisy else r for r in rows]
    first, second = panels_of(rows)[0], panels_of(spoiled)[0]
    seen = np.isfinite(first.predicted)
    assert first.predicted[seen] == pytest.approx(second.predicted[seen])
    assert second.transfer[0] == pytest.approx(math.log(2), abs=0.05)


def test_nothing_is_predicted_outside_the_clean_range():
    (panel,) = panels_of(simulated(2, "hard", lambda a, b, size: size ** (-1 / 6)))
    least = panel.effective[np.array(panel.mixes) == "clean"].min()
    assert np.all(np.isnan(panel.predicted[panel.effective < least * (1 - 1e-9)]))


def test_the_one_atom_control_is_no_part_of_the_verdict():
    rows = simulated(2, "hard", lambda a, b, size: size ** (-1 / 6))
    control = simulated(2, "hard", lambda a, b, size: 1.0, estimator="mean-only")
    assert panels_of(rows + control)[0].scatter == pytest.approx(panels_of(rows)[0].scatter)
    assert panels_of(control) == []


def test_hard_families_come_first():
    rows = simulated(2, "separated", lambda a, b, s: (a + b) ** -0.5) + simulated(
        2, "hard", lambda a, b, s: s ** (-1 / 6)
    )
    assert [p.family for p in panels_of(rows)] == ["hard", "separated"]
