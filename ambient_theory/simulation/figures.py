"""Figures of simulations: W1 against n and the effective size, what the clean curve predicts, exchange rates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ambient_theory.bounds.laws import laws_for_atoms
from ambient_theory.shared.files import atomic_write_bytes
from ambient_theory.shared.palette import BLACK, BLUE, GREY, LEVELS, MARKERS, PURPLE
from ambient_theory.shared.plotting import log_axis, new_figure, styled, to_bytes
from ambient_theory.simulation.calibration import Calibration
from ambient_theory.simulation.collapse import CONTROL, LEARNED_ON, SimulationPanel
from ambient_theory.simulation.exchange import Exchange
from ambient_theory.simulation.slopes import theory_slope

AXES = {"n": "raw n", "n_l": "effective size n_l", "n_d": "effective size n_d"}
#: Line styles of the estimators in their order; the one-atom control is dotted.
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.svg and `path`.png; reproducible bytes (fixed ids, no date)."""
    files = []
    for form, data in to_bytes(figure).items():
        files.append(path.with_suffix(f".{form}"))
        atomic_write_bytes(files[-1], data)
    return files


def panel_title(panel: SimulationPanel) -> str:
    return f"{panel.family} atoms, k = {panel.k}, d = {panel.d}"


def w1_figure(shown: Sequence[SimulationPanel]) -> Figure:
    """One row a family: W1 against n, against the effective size, and, where the clean curve predicts mixtures,
    predicted against measured.

    Colours are mixes, line styles estimators (the one-atom control is dotted); bars are 95 % intervals; the dashed
    line has the slope of the theory and is laid through the first clean point.
    """
    transfer = any(np.isfinite(p.predicted).any() for p in shown)
    mixes = list(dict.fromkeys(mix for p in shown for mix, _, _ in p.lines))
    mixes.sort(key=lambda m: (m != LEARNED_ON, m == "noisy", m))
    looks = {
        m: ((BLACK, *LEVELS)[i % (1 + len(LEVELS))], ("o", *MARKERS)[i % (1 + len(MARKERS))])
        for i, m in enumerate(mixes)
    }
    with styled():
        figure = new_figure(9.6 if transfer else 7.4, 0.5 + 3.1 * len(shown))
        grid = figure.subplots(len(shown), 3 if transfer else 2, squeeze=False)
        for axes, panel in zip(grid, shown, strict=True):
            for ax, axis in zip(axes[:2], ("n", panel.axis), strict=True):
                _errors(ax, panel, axis, looks)
            axes[0].set_ylabel("W1 to the truth")
            axes[0].set_title(panel_title(panel))
            axes[0].legend(loc="lower left", title="samples", title_fontsize=8.5)
            if transfer:
                _transfer(axes[2], panel, looks)
    return figure


def _errors(ax: Axes, panel: SimulationPanel, axis: str, looks: dict[str, tuple[str, str]]) -> None:
    kinds = list(dict.fromkeys(key[1:] for key in panel.lines if key[1] != CONTROL))
    kinds.sort(key=lambda kind: kind[0] != panel.estimator)
    for (mix, estimator, weights), rows in panel.lines.items():
        control = estimator == CONTROL
        number = 0 if control else kinds.index((estimator, weights))
        label = mix if not number else f"{mix}, {estimator}" + ("" if weights == "-" else f" ({weights})")
        colour, marker = looks[mix]
        rows = sorted(rows, key=lambda r: r[axis])
        ax.errorbar(
            [r[axis] for r in rows],
            [r["w1_mean"] for r in rows],
            yerr=1.96 * np.nan_to_num([r["w1_se"] for r in rows]),
            color=colour,
            marker=None if control else marker,
            markersize=4.5,
            linewidth=0.9 if control else 1.3,
            linestyle=":" if control else LINES[number % len(LINES)],
            alpha=0.55 if control else 1.0,
            label=None if control else label,
        )
    slope = theory_slope(panel.family, panel.k)
    if slope is not None:
        x = panel.n if axis == "n" else panel.effective
        clean = np.array([mix == LEARNED_ON for mix in panel.mixes])
        first = np.where(clean | ~clean.any(), x, np.inf).argmin()
        ends = np.array([x.min(), x.max()])
        ax.plot(ends, panel.w1[first] * (ends / x[first]) ** slope, "--", color=GREY, linewidth=0.9, zorder=1)
    log_axis(ax, "xy", fine="y", ticks=7)
    ax.set_xlabel(f"{AXES[axis]} (samples); scatter {100 * panel.scatter[axis]:.0f} %")


def _transfer(ax: Axes, panel: SimulationPanel, looks: dict[str, tuple[str, str]]) -> None:
    seen = np.isfinite(panel.predicted)
    for mix, (colour, marker) in looks.items():
        chosen = seen & np.array([m == mix for m in panel.mixes])
        ax.plot(panel.predicted[chosen], panel.w1[chosen], marker, color=colour, markersize=5, linestyle="none")
    if seen.any():
        both = np.concatenate([panel.predicted[seen], panel.w1[seen]])
        ends = np.array([both.min(), both.max()])
        ax.plot(ends, ends, color=GREY, linewidth=0.9, linestyle="--", zorder=1)
    log_axis(ax, "xy", fine="xy", ticks=6)
    ax.set_xlabel(f"predicted at equal {panel.axis}")
    ax.set_ylabel("measured")
    ax.set_title("W1 of unseen mixtures", fontweight="normal")


def calibration_figure(found: Calibration) -> Figure:
    """Measured against predicted worst cases: by the constants (filled where fitted, open where held out), and, right,
    by the same fit with n for the effective sizes."""
    with styled():
        figure = new_figure(8.2, 4.0)
        axes = figure.subplots(1, 2, sharey=True)
        dims = list(dict.fromkeys(p.d for p in found.points))
        for ax, naive in zip(axes, (False, True), strict=True):
            at = [p.naive if naive else p.predicted for p in found.points]
            for number, d in enumerate(dims):
                for fitted in (True, False):
                    rows = [(x, p.w1) for x, p in zip(at, found.points, strict=True) if (p.d, p.fitted) == (d, fitted)]
                    ax.plot(
                        [x for x, _ in rows],
                        [y for _, y in rows],
                        MARKERS[number % len(MARKERS)],
                        color=(BLACK, *LEVELS)[number % (1 + len(LEVELS))],
                        markersize=5,
                        markerfacecolor=None if fitted else "none",
                        label=f"d = {d}" if fitted else None,
                    )
            ends = np.array([min(min(at), *(p.w1 for p in found.points)), max(max(at), *(p.w1 for p in found.points))])
            ax.plot(ends, ends, "--", color=GREY, linewidth=0.9, zorder=1)
            log_axis(ax, "xy", fine="xy", ticks=6)
            ax.set_xlabel("predicted by n (control)" if naive else "predicted by n_d and n_l")
        axes[0].set_ylabel("W1 in the worst case")
        axes[0].set_title(f"k = {found.k}: open are mixtures, not fitted")
        axes[0].legend(loc="upper left")
    return figure


def exchange_figure(table: Sequence[Exchange]) -> Figure:
    """c at equal error over the half-width delta (both log), with 95 % intervals; Fisher, marginal, powers of s."""
    with styled():
        return _exchange_figure(table)


def _exchange_figure(table: Sequence[Exchange]) -> Figure:
    figure = new_figure(6.8, 4.8)
    ax = figure.subplots()
    first = table[0]
    delta = [x.delta for x in table]
    shown = [x for x in table if x.c is not None]
    if shown:
        at, c, low, high = np.array([[x.delta, x.c, x.low, x.high] for x in shown], dtype=float).T
        bars = np.maximum([c - low, high - c], 0)
        label = f"simulated, {first.estimator} (95 % interval)"
        ax.errorbar(at, c, yerr=bars, fmt="o", color=BLUE, capsize=3, label=label)
    ax.plot(delta, [x.fisher for x in table], "-", color=BLACK, label="efficient estimator, equal error (Fisher)")
    ax.plot(delta, [x.marginal for x in table], "--", color=PURPLE, label="marginal worth (Fisher)")
    for law, weight in zip(laws_for_atoms(first.k), first.weights.values(), strict=True):
        ax.axhline(weight, color=law.colour, linestyle=law.line, linewidth=1, label=f"weight of {law.label}")
    log_axis(ax, "xy", ticks=6)
    ax.set_xlabel("half-width δ of the pair (units of the atoms)")
    ax.set_ylabel("clean samples that one noisy sample is worth")
    ax.set_title(f"k = {first.k}, s = {first.s:g}, {first.n_clean:.3g} clean + {first.n_noisy:.3g} noisy")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
