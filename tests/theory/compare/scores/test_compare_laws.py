"""A law is one entry of one table: whoever lists laws finds it there, and none is dropped in silence."""

from __future__ import annotations

import numpy as np
import pytest
from compare_sweeps import sweep

from ambient_theory.bounds.laws import LAWS, Law, identifiability_band, laws_for_atoms
from ambient_theory.compare.cells.grouping import group_records
from ambient_theory.compare.page.build import build_report
from ambient_theory.compare.page.figures import identifiability_figure, price_figure
from ambient_theory.compare.page.figures_simulation import separation_figure
from ambient_theory.compare.scores import heldout
from ambient_theory.compare.scores.analysis import analyse_group, price_from_print
from ambient_theory.compare.scores.published import PublishedPrice
from ambient_theory.simulation.cells import in_plan_order, simulate
from ambient_theory.simulation.exchange import ExchangeConfig, exchange_table, plan_exchange
from ambient_theory.simulation.figures import exchange_figure

STEEP = Law(name="steep", label="made-up, m = 7.5", m=7.5, regime="a test", colour="#123456", line="-")


@pytest.fixture
def steep(monkeypatch):
    monkeypatch.setitem(LAWS, "steep", STEEP)


def legend(figure):
    return [label for ax in figure.axes for label in ax.get_legend_handles_labels()[1]]


def colours(figure, label):
    return [line.get_color() for ax in figure.axes for line in ax.lines if line.get_label() == label]


def test_a_new_law_is_in_the_band_the_fits_and_the_held_out_cells(steep):
    assert STEEP.label in identifiability_band([0.1]).prices
    found = analyse_group(group_records(sweep(np.random.default_rng(0)))[0], deep=False)
    assert list(found.single.laws) == [law.label for law in LAWS.values()]
    assert found.single.laws[STEEP.label].p is not None
    assert STEEP.label in heldout.candidates([0.2, 0.6], found.single.free.curve.units)
    assert STEEP.label in price_from_print(PublishedPrice("x", 0.2, 1.6, 1.5, 1.75), 0.4).laws


def test_a_new_law_is_in_the_legends_with_its_own_style(steep):
    found = analyse_group(group_records(sweep(np.random.default_rng(0)))[0], deep=False)
    for figure in (price_figure(found), identifiability_figure(None)):
        assert any(STEEP.label in name for name in legend(figure))
        assert len([name for name in legend(figure) if any(law.label in name for law in LAWS.values())]) == len(LAWS)
    assert colours(identifiability_figure(None), STEEP.label) == [STEEP.colour]
    assert f"weight of {STEEP.label}" in legend(separation_figure())


def test_a_new_law_is_beside_the_simulated_exchange_rate(steep):
    config = ExchangeConfig(deltas=(2.0,), n_clean=1000, n_noisy=64_000, reps=4, bins=200)
    cells = plan_exchange(config)
    (row,) = exchange_table(config, in_plan_order(cells, simulate(cells)), draws=50)
    assert list(row.weights) == [law.name for law in laws_for_atoms(2)]
    assert row.weights["steep"] == pytest.approx(2.0**-15)
    assert f"weight of {STEEP.label}" in legend(exchange_figure([row]))


def test_the_page_prints_the_formula_of_every_law(steep, tmp_path):
    text = build_report(sweep(np.random.default_rng(0)), tmp_path).page.read_text(encoding="utf-8")
    for law in LAWS.values():
        assert law.formula().mathml() in text
        assert law.label in text
    assert "<mn>15</mn>" in STEEP.formula().mathml()  # (1 + sigma^2/s_0^2)^(15/2)


def test_a_figure_whose_fits_are_of_another_table_is_refused_and_not_cut(monkeypatch):
    found = analyse_group(group_records(sweep(np.random.default_rng(0)))[0], deep=False)
    assert len(found.single.laws) == len(LAWS)
    monkeypatch.setitem(LAWS, "steep", STEEP)
    with pytest.raises(ValueError, match="shorter"):
        price_figure(found)
