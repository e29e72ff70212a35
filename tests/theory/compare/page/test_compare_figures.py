"""What a reader sees in the figures: no text runs out of its figure, scales can be read, legends are in order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compare_sweeps import sweep
from level_sweeps import level_sweep, two_goods
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from ambient_theory.compare.findings import Findings, gather_findings
from ambient_theory.compare.page import figures, level_figures
from ambient_theory.shared import plotting

WORTH = {0.1: 0.812, 0.2: 0.231, 0.4: 0.0522, 0.8: 0.0143, 1.6: 0.0071}
"""As many noise levels, with as many digits, as the shipped records have."""


@pytest.fixture(scope="module")
def found() -> Findings:
    rng = np.random.default_rng(0)
    mixtures = ((400, 1600), (100, 400), (200, 800), (100, 1600))
    levels = level_sweep(rng, two_goods(0.4, 1.2, 2.0), seeds=2, mixed=mixtures)
    return gather_findings([*levels, *sweep(rng, worth=WORTH)])


def drawn(figure: Figure) -> Figure:
    with plotting.styled():
        FigureCanvasAgg(figure).draw()
    return figure


def outside(figure: Figure) -> list[str]:
    """Texts that do not lie within the figure as a whole."""
    frame, undrawn = figure.bbox.padded(1), []
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        low, high = sorted(axis.get_view_interval())
        undrawn += [t.label1 for t in axis.get_major_ticks() if not low <= t.get_loc() <= high]
    shown = (t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and t not in undrawn)
    boxes = ((t.get_text(), t.get_window_extent()) for t in shown)
    return [text for text, box in boxes if box.width and not (frame.contains(*box.min) and frame.contains(*box.max))]


def legend_of(figure: Figure) -> Legend:
    (legend,) = figure.findobj(Legend)
    return legend


@pytest.mark.parametrize("name", ["scores_figure", "price_figure", "utility_figure", "held_out_figure"])
def test_no_text_runs_out_of_a_figure(found: Findings, name: str) -> None:
    analysis = next(a for a in found.leading if a.single is not None and a.group.key.metric == "fd")
    assert outside(drawn(getattr(figures, name)(analysis))) == []
    cut = plotting.new_figure(4, 3)
    cut.subplots().set_xlabel("c(0.1) = 0.81, " * 20)
    assert len(outside(drawn(cut))) == 1


def test_a_scale_of_less_than_a_decade_has_two_numbers(found: Findings) -> None:
    analysis = next(a for a in found.leading if a.held_out)
    near = [replace(h, median=0.08, upper=0.3, noise=0.04) for h in analysis.held_out]
    for ax in drawn(figures.held_out_figure(replace(analysis, held_out=near))).axes:
        low, high = ax.get_xlim()
        assert sum(low <= x <= high for x in ax.get_xticks()) >= 2


def test_the_legend_of_the_price_hides_no_price(found: Findings) -> None:
    analysis = next(a for a in found.leading if a.single is not None and a.group.key.metric == "fd")
    figure = drawn(figures.price_figure(analysis))
    assert not legend_of(figure).get_window_extent().overlaps(figure.axes[0].get_window_extent())


def test_mixtures_stand_in_the_legend_by_their_sizes_whichever_panel_names_them_first(found: Findings) -> None:
    levels = found.levels[0]
    reordered = replace(levels, found=replace(levels.found, mixtures=tuple(reversed(levels.found.mixtures))))
    shown = [text.get_text() for text in legend_of(level_figures.equivalents_figure(reordered)).get_texts()]
    assert shown == ["noise level of the data", "100 + 400", "100 + 1,600", "200 + 800", "400 + 1,600"]
