"""Figures of simulations: W1 against n and against n_l, and what the clean curve predicts for mixtures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ambient_theory.bounds.laws import laws_for_atoms
from ambient_theory.compare.panels import SimulationPanel
from ambient_theory.mixtures.fisher import marginal_worth
from ambient_theory.mixtures.laws import hard_pair, scaled
from ambient_theory.shared.palette import BLACK, GREY, LEVELS, MARKERS
from ambient_theory.shared.plotting import log_axis, new_figure


def panel_title(panel: SimulationPanel) -> str:
    return f"{panel.family} atoms, k = {panel.k}, d = {panel.d}"


def simulation_figure(shown: Sequence[SimulationPanel]) -> Figure:
    """One row a family: W1 against raw n, against n_l, and predicted against measured for the unseen mixtures."""
    figure = new_figure(9.6, 0.5 + 3.1 * len(shown))
    grid = figure.subplots(len(shown), 3, squeeze=False)
    mixes = list(dict.fromkeys(m for p in shown for m in p.mixes))
    mixes.sort(key=lambda m: (m != "clean", m == "noisy", m))
    colours = {m: (BLACK, *LEVELS)[i % 7] for i, m in enumerate(mixes)}
    markers = {m: ("o", *MARKERS)[i % 7] for i, m in enumerate(mixes)}
    for axes, panel in zip(grid, shown, strict=True):
        for ax, x, name in ((axes[0], panel.n, "n"), (axes[1], panel.n_l, "n_l")):
            for mix in mixes:
                for control in (False, True):
                    wanted = "mean-only" if control else panel.estimator
                    chosen = np.array(
                        [m == mix and e == wanted for m, e in zip(panel.mixes, panel.estimators, strict=True)]
                    )
                    if not chosen.any():
                        continue
                    order = np.argsort(x[chosen])
                    se = np.nan_to_num(panel.se[chosen][order])
                    ax.errorbar(
                        x[chosen][order],
                        panel.w1[chosen][order],
                        yerr=1.96 * se,
                        color=colours[mix],
                        marker=None if control else markers[mix],
                        markersize=4.5,
                        linewidth=0.9 if control else 1.3,
                        linestyle=":" if control else "-",
                        alpha=0.55 if control else 1.0,
                        label=None if control else mix,
                    )
            log_axis(ax, "xy", fine="y", ticks=7)
            scatter = panel.scatter[name]
            ax.set_xlabel(
                f"{'raw n' if name == 'n' else 'effective size n_l'} (samples); scatter {100 * scatter:.0f} %"
            )
        axes[0].set_ylabel("W1 to the truth")
        axes[0].set_title(panel_title(panel))
        axes[0].legend(loc="lower left", title="samples", title_fontsize=8.5)
        _transfer(axes[2], panel, colours, markers)
    return figure


def _transfer(ax: Axes, panel: SimulationPanel, colours: dict[str, str], markers: dict[str, str]) -> None:
    seen = np.isfinite(panel.predicted)
    for mix, colour in colours.items():
        chosen = seen & np.array([m == mix for m in panel.mixes])
        ax.plot(panel.predicted[chosen], panel.w1[chosen], markers[mix], color=colour, markersize=5, linestyle="none")
    if seen.any():
        ends = np.array(
            [
                min(panel.predicted[seen].min(), panel.w1[seen].min()),
                max(panel.predicted[seen].max(), panel.w1[seen].max()),
            ]
        )
        ax.plot(ends, ends, color=GREY, linewidth=0.9, linestyle="--", zorder=1)
    log_axis(ax, "xy", fine="xy", ticks=6)
    ax.set_xlabel("predicted at equal n_l")
    ax.set_ylabel("measured")
    ax.set_title("W1 of unseen mixtures", fontweight="normal")


def separation_figure() -> Figure:
    """Marginal worth of a noisy sample (s = 2, clean s = 1) against the separation of the k = 2 hard pair."""
    law, _ = hard_pair(2)
    deltas = np.geomspace(0.1, 24, 40)
    worth = [marginal_worth(scaled(law, float(delta)), 2.0) for delta in deltas]
    figure = new_figure(6.8, 4.2)
    ax = figure.subplots()
    ax.plot(deltas, worth, color=BLACK, label="efficient estimator (Fisher information)")
    for weigh in laws_for_atoms(2):
        ax.axhline(2.0 ** (-2 * weigh.m), color=weigh.colour, linestyle=weigh.line, label=f"weight of {weigh.label}")
    log_axis(ax, "xy", ticks=6)
    ax.set_ylim(0.01, 1.3)
    ax.set_xlabel("half-width δ of the atoms (units of the clean noise)")
    ax.set_ylabel("clean samples for one noisy")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
