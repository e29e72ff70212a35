"""One test of collapse for terminal and page, and one figure of W1: predictions, the control, what is drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ambient_theory.shared.palette import BLACK
from ambient_theory.simulation.cells import in_plan_order, simulate
from ambient_theory.simulation.collapse import collapse_table, panels, predicted_at_equal, transfer_errors
from ambient_theory.simulation.figures import w1_figure
from ambient_theory.simulation.grid import SimulationConfig, plan


def rows_of(mix, factor=1.0, *, stretch=1, family="hard", estimator="dmm", slope=-1 / 6):
    """W1 = factor n_l^slope at four sizes; `stretch` raw samples count as one effective one."""
    base = {"family": family, "k": 2, "d": 1, "mix": mix, "estimator": estimator, "weights": "gls", "w1_se": 0.0}
    sizes = [10**i for i in range(3, 7)]
    return [{**base, "n": stretch * n, "n_l": n, "n_d": n / 4, "w1_mean": factor * n**slope} for n in sizes]


def test_a_power_law_is_predicted_exactly_and_nothing_outside_its_range():
    at = [{"n_l": n} for n in (500, 1_000, 31_622, 1e6, 2e6)]
    found = predicted_at_equal("n_l", rows_of("clean"), at)
    assert found[1:4] == pytest.approx([n["n_l"] ** (-1 / 6) for n in at[1:4]], rel=1e-12)
    assert np.isnan(found[[0, 4]]).all()


@pytest.mark.parametrize("factor", [1.0, 1.25, 0.5])
def test_page_and_terminal_give_the_same_median(factor):
    rows = rows_of("clean") + rows_of("noisy", factor, stretch=64)
    (panel,), (collapse,) = panels(rows), collapse_table(rows)
    assert panel.transfer[0] == pytest.approx(collapse.spread_effective, rel=1e-12)
    assert collapse.spread_effective == pytest.approx(abs(math.log(factor)), abs=1e-12)
    assert ("do not collapse" in collapse.verdict) == (factor != 1.0)


def test_the_weak_subspace_is_tested_on_its_own_effective_size():
    rows = [{**r, "n_d": 5 * r["n_d"], "n_l": 1.0 + i} for i, r in enumerate(rows_of("clean", family="pca-hard"))]
    rows += [{**r, "n_d": 5 * r["n_d"], "n_l": 1e9} for r in rows_of("noisy", family="pca-hard", stretch=7)]
    (collapse,), (panel,) = collapse_table(rows), panels(rows)
    assert (collapse.axis, panel.axis) == ("n_d", "n_d")
    assert collapse.spread_effective < 1e-12


def test_without_a_second_mix_nothing_is_tested_or_predicted():
    rows = rows_of("clean")
    assert collapse_table(rows) == []
    assert panels(rows)[0].transfer is None
    assert len(transfer_errors("n_l", rows, [])) == 0
    assert len(w1_figure(panels(rows)).axes) == 2


def drawn(figure):
    """(line style, label) of every curve of the first panel."""
    return [(c.lines[0].get_linestyle(), c.get_label()) for c in figure.axes[0].containers]


def test_every_estimator_is_drawn_and_the_control_is_dotted():
    config = SimulationConfig(
        families=("separated",), n=(1000, 10_000), reps=4, bins=150, weights=("gls", "none"), mixes=("clean", "10:90")
    )
    cells = plan(config).cells
    figure = w1_figure(panels(in_plan_order(cells, simulate(cells))))
    assert len(figure.axes) == 3
    lines = drawn(figure)
    assert len(lines) == 2 * 3
    assert [line for line, label in lines if label.startswith("_")] == [":", ":"]
    assert ("-", "clean") in lines
    assert ("--", "10:90, dmm (none)") in lines
    colours = {c.get_label(): c.lines[0].get_color() for c in figure.axes[0].containers}
    assert colours["clean"] == BLACK != colours["10:90"]
