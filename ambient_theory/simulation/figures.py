"""Figures of a simulation: W1 against n and against n_l. Reads rows only; SVG and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ambient_theory.bounds.laws import laws_for_atoms
from ambient_theory.simulation.exchange import Exchange
from ambient_theory.simulation.slopes import group_rows, theory_slope

Row = Mapping[str, Any]
# Okabe and Ito's palette, safe for colour-blind readers.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.svg and `path`.png; reproducible bytes (fixed ids, no date)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = []
    with matplotlib.rc_context({"svg.hashsalt": "ambient", "svg.fonttype": "none"}):
        for suffix, metadata in ((".svg", {"Date": None}), (".png", {"Software": None})):
            file = path.with_suffix(suffix)
            figure.savefig(file, dpi=150, metadata=metadata)
            files.append(file)
    return files


def error_figure(rows: Sequence[Row]) -> Figure:
    """One row of panels for each (family, k, d): left against n, right against n_l (n_d for the pca families).

    Lines: mixes (colour) and estimators (style; the mean-only control is dotted grey-toned); bars are 95 %
    intervals; the dashed line has the slope of the theory and is laid through the first clean point.
    """
    panels = list(dict.fromkeys((r["family"], r["k"], r["d"]) for r in rows))
    figure = Figure(figsize=(10, 3.4 * max(1, len(panels)) + 0.3), layout="constrained")
    axes = figure.subplots(max(1, len(panels)), 2, squeeze=False)
    groups = group_rows(rows)
    mixes = list(dict.fromkeys(r["mix"] for r in rows))
    for row_axes, (family, k, d) in zip(axes, panels, strict=False):
        size = "n_d" if family == "pca-hard" else "n_l"
        for axis, ax in zip(("n", size), row_axes, strict=True):
            for (f, kk, dd, mix, estimator, weights), group in groups.items():
                if (f, kk, dd) != (family, k, d):
                    continue
                control = estimator == "mean-only"
                label = f"{mix}, {estimator}" + ("" if weights == "-" else f" ({weights})")
                colour = PALETTE[mixes.index(mix) % len(PALETTE)]
                ax.errorbar(
                    [r[axis] for r in group],
                    [r["w1_mean"] for r in group],
                    yerr=[1.96 * r["w1_se"] for r in group],
                    color=colour,
                    alpha=0.45 if control else 1.0,
                    linestyle=":" if control else "-",
                    marker=MARKERS[mixes.index(mix) % len(MARKERS)],
                    markersize=3.5,
                    linewidth=1.2,
                    capsize=2,
                    label=label,
                )
            slope = theory_slope(family, k)
            base = [
                r for r in rows if (r["family"], r["k"], r["d"]) == (family, k, d) and r["estimator"] != "mean-only"
            ]
            if slope is not None and base:
                first = min(base, key=lambda r: r[axis])
                x = np.array([min(r[axis] for r in base), max(r[axis] for r in base)], dtype=float)
                ax.plot(
                    x, first["w1_mean"] * (x / first[axis]) ** slope, "k--", linewidth=1, label=f"slope {slope:.3f}"
                )
            ax.set(xscale="log", yscale="log", ylabel="W1 (units of the atoms)")
            ax.set_xlabel(
                {"n": "n (samples)", "n_l": "n_l (effective samples)", "n_d": "n_d (effective samples)"}[axis]
            )
            ax.set_title(f"{family}, k = {k}, d = {d}", fontsize=10)
            ax.grid(True, which="major", linewidth=0.3)
        row_axes[1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def exchange_figure(table: Sequence[Exchange]) -> Figure:
    """c at equal error over the half-width delta (both log), with 95 % intervals; Fisher, marginal, powers of s."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    ax = figure.subplots()
    first = table[0]
    delta = [x.delta for x in table]
    shown = [x for x in table if x.c is not None]
    if shown:
        at, c, low, high = np.array([[x.delta, x.c, x.low, x.high] for x in shown], dtype=float).T
        bars = np.maximum([c - low, high - c], 0)
        label = f"simulated, {first.estimator} (95 % interval)"
        ax.errorbar(at, c, yerr=bars, fmt="o", color=PALETTE[0], capsize=3, label=label)
    ax.plot(delta, [x.fisher for x in table], "-", color=PALETTE[1], label="efficient estimator, equal error (Fisher)")
    ax.plot(delta, [x.marginal for x in table], "--", color=PALETTE[2], label="marginal worth (Fisher)")
    for law, weight in zip(laws_for_atoms(first.k), first.weights.values(), strict=True):
        ax.axhline(weight, color=law.colour, linestyle=law.line, linewidth=1, label=f"weight of {law.label}")
    ax.set(xscale="log", yscale="log", xlabel="half-width delta of the pair (units of the atoms)")
    ax.set_ylabel("clean samples that one noisy sample is worth")
    ax.set_title(f"k = {first.k}, s = {first.s:g}, {first.n_clean:.3g} clean + {first.n_noisy:.3g} noisy", fontsize=10)
    ax.grid(True, which="major", linewidth=0.3)
    ax.legend(fontsize=7)
    return figure
