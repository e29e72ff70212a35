"""Figures of worth by level: equivalent clean images, worth beside the formula, measured against predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ambient_theory.bounds.laws import law_named
from ambient_theory.compare.by_level.bands import MixtureBands
from ambient_theory.compare.by_level.findings import LevelFindings
from ambient_theory.compare.by_level.formula import BOUND_TERMS, predicted_worth
from ambient_theory.compare.by_level.goods import TWO
from ambient_theory.compare.by_level.judgement import Judgement
from ambient_theory.compare.fitting.clean_curve import BELOW, BEYOND
from ambient_theory.shared.palette import BLACK, BLUE, GREY, LEVELS, MARKERS, SKY
from ambient_theory.shared.plotting import log_axis, new_figure, shared_legend

Floats = NDArray[np.float64]
PANELS = 5
"""Noise levels that get a panel."""
NOISE_LINE = "noise level of the data"


def shown_noise_levels(found: LevelFindings) -> list[float]:
    """Measured noise levels with a panel of their own: all, or evenly spread ones."""
    noise_levels = list(found.table.noise_levels)
    if len(noise_levels) <= PANELS:
        return noise_levels
    return [noise_levels[k] for k in np.unique(np.linspace(0, len(noise_levels) - 1, PANELS).round().astype(int))]


def _grid(count: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    figure = new_figure(9.2, height * rows + 0.4)
    axes = list(np.atleast_1d(figure.subplots(rows, columns, sharey=True, squeeze=False)).ravel())
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


def _noise_line(ax: Axes, lowest: float, levels: Floats) -> None:
    """The level above which a noisy image counts, and the band in which noisy images cannot be more than multiplied."""
    if levels[0] < lowest:
        ax.axvspan(levels[0] / 1.1, min(lowest, levels[-1] * 1.1), color=GREY, alpha=0.09, linewidth=0)
    if levels[0] < lowest < levels[-1]:
        ax.axvline(lowest, color=GREY, linewidth=1.2, linestyle="--", label=NOISE_LINE)


def equivalents_figure(found: LevelFindings) -> Figure:
    """Equivalent clean images of every mixture by level, a panel for each noise level."""
    noise_levels = shown_noise_levels(found)
    figure, axes = _grid(len(noise_levels), 3.3)
    levels = found.table.levels
    sizes = [c.n_clean for c in found.table.clean]
    mixed = [m for m in found.found.mixtures if m.cell.sigma_n in noise_levels and m.cell.n_clean]
    order = sorted({(m.cell.n_clean, m.cell.n_noisy) for m in mixed})
    for ax, sigma_n in zip(axes, noise_levels, strict=True):
        _noise_line(ax, found.table.noise.lowest_level(sigma_n), levels)
        for m in (m for m in mixed if m.cell.sigma_n == sigma_n):
            i = order.index((m.cell.n_clean, m.cell.n_noisy))
            _mixture(ax, m, levels, sizes, LEVELS[i % len(LEVELS)], MARKERS[i % len(MARKERS)])
        ax.set_ylim(sizes[0] / 1.25, sizes[-1] * 1.25)
        ax.set_xlim(levels[0] / 1.1, levels[-1] * 1.1)
        log_axis(ax)
        ax.set_title(f"noise σ {sigma_n:g}")
        ax.set_xlabel("diffusion level s")
    for ax in axes[:: min(len(axes), 3)]:
        ax.set_ylabel("equivalent clean images")
    named = [NOISE_LINE, *(_mixture_name(n, m) for n, m in order)]
    shared_legend(figure, axes, ncols=5, order=named)
    return figure


def _mixture_name(n_clean: int, n_noisy: int) -> str:
    return f"{n_clean:,} + {n_noisy:,}"


def _mixture(ax: Axes, m: MixtureBands, levels: Floats, sizes: Sequence[int], colour: str, marker: str) -> None:
    """Points with intervals; triangles at the edge for what lies off the clean-only curve; dots: its clean part."""
    low, high = float(sizes[0]), float(sizes[-1])
    value = np.clip([b.equivalent.value for b in m.bands], low, high)
    inside = np.array([b.inside for b in m.bands])
    label = _mixture_name(m.cell.n_clean, m.cell.n_noisy)
    ax.plot(levels, value, color=colour, linewidth=0.9)
    ends = [(b.equivalent.low, b.equivalent.high) for b in m.bands]
    if inside.any():
        bars = None
        if all(a is not None and b is not None for a, b in ends):
            clipped = np.clip([[a or 0.0, b or 0.0] for a, b in ends], low, high).T
            bars = np.maximum(np.stack([value - clipped[0], clipped[1] - value]), 0.0)[:, inside]
        ax.errorbar(levels[inside], value[inside], yerr=bars, fmt=marker, color=colour, markersize=3.5, linewidth=0.9,
                    label=label)  # fmt: skip
    for where, edge, sign in ((BEYOND, high, "^"), (BELOW, low, "v")):
        off = np.array([b.where == where for b in m.bands])
        if off.any():
            ax.plot(levels[off], np.full(off.sum(), edge), sign, color=colour, markersize=5, markerfacecolor="white")
    ax.axhline(m.cell.n_clean, color=colour, linewidth=0.8, linestyle=":")


def worth_figure(found: LevelFindings) -> Figure:
    """Worth of one noisy image by level: measured, by two goods, by the formula, and the bound's two terms."""
    shown = [s for s in shown_noise_levels(found) if s in found.judgements]
    figure, axes = _grid(len(shown), 3.1)
    levels = found.table.levels
    fine = np.geomspace(levels[0], levels[-1], 300)
    scatters = found.formula.scatters
    top = 1.1
    for ax, sigma_n in zip(axes, shown, strict=True):
        judged = found.judgements[sigma_n]
        _noise_line(ax, found.table.noise.lowest_level(sigma_n), levels)
        dense = [
            np.exp(np.interp(np.log(fine), np.log(levels), np.log(v))) for v in (scatters.largest, scatters.second)
        ]
        ends = [predicted_worth(v, sigma_n, fine, noise=scatters.noise) for v in dense]
        ax.fill_between(fine, ends[0], ends[1], color=SKY, alpha=0.45, linewidth=0)
        ax.plot(fine, ends[0], color=BLUE, linewidth=1.8, label="V/(V + v), nothing fitted")
        for name in BOUND_TERMS:
            law = law_named(name)
            bound = predicted_worth(dense[0], sigma_n, fine, law, scatters.noise)
            ax.plot(fine, bound, color=law.colour, linestyle=law.line, linewidth=1.1, label=f"bound: {law.label}")
        two = judged.laws[TWO]
        ax.step(levels, two.worth, where="mid", color=GREY, linewidth=1.2, label="two goods, fitted")
        top = max(top, _measured(ax, judged, levels))
        log_axis(ax, "x")
        ax.set_xlim(levels[0] / 1.1, levels[-1] * 1.1)
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.set_title(f"noise σ {sigma_n:g}")
        ax.set_xlabel("diffusion level s")
    for ax in axes:
        ax.set_ylim(-0.06, min(top, 1.6))
    for ax in axes[:: min(len(axes), 3)]:
        ax.set_ylabel("worth of a noisy image\n(clean images)")
    shared_legend(figure, axes)
    return figure


def _measured(ax: Axes, judged: Judgement, levels: Floats) -> float:
    """Free worths with intervals; returns the highest estimate. An open end runs out of the panel."""
    value = np.array([i.value for i in judged.free])
    bars = None
    if all(i.low is not None and i.high is not None for i in judged.free):
        low = np.array([i.low for i in judged.free], dtype=float)
        high = np.minimum(np.array([i.high for i in judged.free], dtype=float), 9.0)
        bars = np.maximum(np.stack([value - low, high - value]), 0.0)
    ax.errorbar(levels, value, yerr=bars, fmt="o", color=BLACK, markersize=4, capsize=2, linewidth=1, label="measured")
    return 1.15 * float(value.max())


def formula_figure(found: LevelFindings) -> Figure:
    """Measured worth of every mixture and level above the noise against V/(V + v), with the fitted line."""
    figure = new_figure(9.2, 4.0)
    ax = figure.subplots()
    points, levels = found.formula.points, found.table.levels
    above = levels[points.level] > points.sigma_n
    error = np.sqrt(np.maximum(np.diag(points.covariance), 0.0))
    for i, sigma_n in enumerate(sorted(set(points.sigma_n[above]))):
        chosen = above & (points.sigma_n == sigma_n)
        ax.errorbar(
            points.predicted[chosen],
            points.measured[chosen],
            yerr=2 * error[chosen],
            fmt=MARKERS[i % len(MARKERS)],
            color=LEVELS[i % len(LEVELS)],
            markersize=4,
            linewidth=0.8,
            label=f"σ {sigma_n:g}",
        )
    ax.plot([0, 1], [0, 1], color=BLACK, linewidth=1, linestyle="--", label="measured = predicted")
    line = found.formula.above
    if line.slope is not None and line.intercept is not None:
        x = np.array([0.0, 1.0])
        ax.plot(x, line.intercept.value + line.slope.value * x, color=GREY, label=f"fit, slope {line.slope.value:.2f}")
    shown = points.measured[above]
    if len(shown):
        low, high = (float(np.quantile(shown, q)) for q in (0.02, 0.98))
        ax.set_ylim(min(-0.1, low - 0.1), max(1.1, high + 0.1))
    ax.set_xlabel("V/(V + v)")
    ax.set_ylabel("measured worth (clean images)")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
