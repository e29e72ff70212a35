"""Figures of simulations: W1 against n and against n_l, and what the clean curve predicts for mixtures."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ambient_theory.bounds.laws import laws_for_atoms
from ambient_theory.mixtures.fisher import marginal_worth
from ambient_theory.mixtures.laws import hard_pair, scaled
from ambient_theory.shared.palette import BLACK
from ambient_theory.shared.plotting import log_axis, new_figure


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
