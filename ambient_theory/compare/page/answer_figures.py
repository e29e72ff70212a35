"""Figures of the page's first sections: cells that no fit has seen, the price against the noise, the parts alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ambient_theory.bounds.laws import identifiability_band
from ambient_theory.compare.by_level.beside import extremes
from ambient_theory.compare.by_level.findings import LevelFindings
from ambient_theory.compare.by_level.goods import NAIVE, ONE, TWO
from ambient_theory.compare.by_level.judgement import Judgement
from ambient_theory.compare.by_level.levels import LevelCell, LevelTable
from ambient_theory.compare.by_level.predicted import mean_worth
from ambient_theory.compare.by_level.unseen import Unseen
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.scores.heldout import HeldOut
from ambient_theory.shared.palette import BLACK, BLUE, GREEN, GREY, LEVELS, MARKERS, RED, SKY
from ambient_theory.shared.plotting import log_axis, new_figure, shared_legend

Floats = NDArray[np.float64]
Pairs = Sequence[tuple[float, float]]
SHAPE = "two terms, k = 2, exponents free"
"""The shape that is shown against scores: that of the bound with fitted constants."""


# --------------------------------------------------------------------------------------------------- cells not seen


Series = Sequence[tuple[str, Pairs, str, str, bool]]
"""Label, pairs (measured, predicted), colour, marker, hollow."""


def _ratio(ax: Axes, series: Series, what: str) -> None:
    """Predicted over measured against measured, for outcomes that span decades."""
    ax.axhline(1, color=BLACK, linewidth=0.9, linestyle="--", label="predicted = measured")
    for label, pairs, colour, marker, hollow in series:
        measured, predicted = np.array(pairs).T
        face = "white" if hollow else colour
        ax.plot(measured, predicted / measured, marker, color=colour, markerfacecolor=face, markersize=4, label=label)
    log_axis(ax, "x")
    ax.set_xlabel(f"measured {what}")
    ax.set_ylabel("predicted / measured")
    ax.legend(loc="best", fontsize=7.5)


def _diagonal(ax: Axes, series: Series, what: str) -> None:
    """Predicted against measured, log-log."""
    every = np.array([value for _, pairs, _, _, _ in series for pair in pairs for value in pair])
    ends = float(every.min()) / 1.15, float(every.max()) * 1.15
    ax.plot(ends, ends, color=BLACK, linewidth=0.9, linestyle="--", label="predicted = measured")
    for label, pairs, colour, marker, hollow in series:
        measured, predicted = np.array(pairs).T
        face = "white" if hollow else colour
        ax.plot(measured, predicted, marker, color=colour, markerfacecolor=face, markersize=4.5, label=label)
    ax.set_xlim(ends)
    ax.set_ylim(ends)
    log_axis(ax, "xy", fine="xy")
    ax.set_xlabel(f"measured {what}")
    ax.set_ylabel(f"predicted {what}")
    ax.legend(loc="best", fontsize=7.5)


def _medians(ax: Axes, found: Sequence[tuple[str, float, float, float | None]]) -> None:
    """Median and 95 % quantile of |log ratio|, a line each, in per cent; the dash is what chance gives."""
    for i, (_, median, upper, noise) in enumerate(found):
        y = len(found) - 1 - i
        ax.plot([100 * median, 100 * upper], [y, y], color=GREY, linewidth=1.2)
        ax.plot([100 * median], [y], "o", color=BLACK, markersize=5)
        ax.plot([100 * upper], [y], "|", color=GREY, markersize=8)
        if noise is not None:
            ax.plot([100 * noise] * 2, [y - 0.3, y + 0.3], color=BLUE, linewidth=1.4)
    ax.set_yticks(range(len(found)), [name for name, *_ in reversed(found)])
    ax.set_xscale("log")
    log_axis(ax, "x", fine="x")
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("|log(predicted/measured)|, %")


def unseen_figure(found: Sequence[Unseen], what: str) -> Figure:
    """Left-out mixtures by each law of worth by level. what: the outcome, in words."""
    figure = new_figure(9.2, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 0.9))
    by_law = {u.law: u for u in found}
    styles = ((TWO, BLUE, "o", False), (ONE, RED, "s", True), (NAIVE, GREY, "x", True))
    series = [(n, by_law[n].pairs, c, m, h) for n, c, m, h in reversed(styles) if n in by_law]
    values = [m for _, pairs, *_ in series for m, _ in pairs]
    (_ratio if max(values) > 100 * min(values) else _diagonal)(left, series, what)
    _medians(right, [(u.law, u.median, u.upper, u.noise) for u in found])
    return figure


def bound_figure(held_out: Sequence[HeldOut], what: str) -> Figure:
    """Scores of cells that were left out of the fit, against the shape of the bound, one worth and the naive count."""
    figure = new_figure(9.2, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 0.9))
    shown = {h.curve: h for h in held_out if h.split == "random half"}
    styles = (
        (SHAPE, "shape of the bound, k = 2", BLUE, "o", False),
        ("free c at each σ", "one worth at each σ", GREEN, "s", True),
        ("naive n (c = 1)", "every image counts", GREY, "x", True),
    )
    _diagonal(left, [(label, shown[n].pairs, c, m, h) for n, label, c, m, h in styles if n in shown], what)
    _medians(right, [(h.curve, h.median, h.upper, h.noise) for h in shown.values()])
    right.tick_params(axis="y", labelsize=7)
    return figure


# ------------------------------------------------------------------------------------------------ price against noise


def formula_prices(found: LevelFindings, grid: Floats) -> tuple[Floats, Floats]:
    """Prices [len(grid)] above the noise by V/(V + v), of V of the largest and of the second clean-only model; each
    level counts by the excess nats between the two. NaN where no level lies above."""
    levels, scatters = found.table.levels, found.formula.scatters
    gain = scatters.second - scatters.largest
    gain = gain if gain.sum() > 0 else scatters.largest
    out = np.full((2, len(grid)), np.nan)
    for k, sigma_n in enumerate(grid):
        for row, v in enumerate((scatters.largest, scatters.second)):
            low = max(scatters.noise.lowest_level(float(sigma_n)), float(levels[0]))
            worth = mean_worth(levels, v, gain, float(sigma_n), low, scatters.noise)
            out[row, k] = 1 / worth if worth > 0 else np.nan
    return out[0], out[1]


def level_price_figure(found: Sequence[LevelFindings], confidence: float) -> Figure:
    """Price 1/c above the noise against sigma_n under every checkpoint rule, the formula, and the band of the laws.

    Where mixtures disagree on one price, those of the two that differ most, each by itself, hollow.
    """
    figure = new_figure(7.6, 4.4)
    ax = figure.subplots()
    bars = [(i, f, s, *x) for i, f in enumerate(found) for s, j in f.priced.items() for x in _shown_prices(j)]
    noise = sorted({s for f in found for s, j in f.priced.items() if j.coarse is not None})
    grid = np.geomspace(noise[0] / 1.6, noise[-1] * 1.6, 120)
    ends = [1.0]
    anchor: tuple[float, float] | None = None
    told = set[int]()
    for i, f, sigma_n, price, own in bars:
        at, label = sigma_n * 1.05 ** (i - (len(found) - 1) / 2), f"{f.table.key.rule}, {100 * confidence:g} %"
        style = LEVELS[i % len(LEVELS)], MARKERS[i % len(MARKERS)]
        _price_bar(ax, at, price, *style, None if i in told else label, hollow=own)
        told.add(i)
        ends += [x for x in (price.value, price.high) if x is not None and math.isfinite(x)]
        if anchor is None and not own and not f.priced[sigma_n].undetermined:
            anchor = (sigma_n, price.value)
    low, high = formula_prices(found[0], grid)
    ax.fill_between(grid, np.minimum(low, high), np.maximum(low, high), color=SKY, alpha=0.5, linewidth=0)
    ax.plot(grid, low, color=BLUE, linewidth=1.6, label="V/(V + v), nothing fitted")
    if anchor is not None and anchor[1] > 1:
        band = identifiability_band(grid, *anchor)
        label = f"every law through the price at σ {anchor[0]:g}"
        ax.fill_between(grid, band.low, band.high, color=GREY, alpha=0.18, linewidth=0, label=label)
    log_axis(ax, "xy", fine="xy")
    ax.set_ylim(0.7, 2.5 * min(max(ends), 1e4 * sorted(ends)[len(ends) // 2]))
    ax.set_xlim(grid[0], grid[-1])
    ax.axhline(1, color=GREY, linewidth=0.8)
    ax.set_xlabel("σ of the noisy images (pixels in [−1, 1])")
    ax.set_ylabel("price above the noise: noisy images for one clean")
    ax.legend(loc="upper left", fontsize=7.5)
    return figure


def _shown_prices(j: Judgement) -> list[tuple[Interval, bool]]:
    """The price above the noise, or, where mixtures disagree, those of the two that differ most and True; none where
    it is not above 0."""
    if j.coarse is None:
        return []
    if not j.apart:
        return [(j.coarse.inverse(), False)] if j.coarse.value > 0 else []
    return [(b.worth.inverse(), True) for b in extremes(j.own) if b.worth.value > 0]


def _price_bar(
    ax: Axes, at: float, price: Interval, colour: str, marker: str, label: str | None, *, hollow: bool
) -> None:
    """An estimate with its interval; an end that is open runs off the axis."""
    low = price.value if price.low is None else max(price.low, 1e-3)
    high = price.value if price.high is None else min(price.high, 1e9)
    bar = [[max(price.value - low, 0.0)], [max(high - price.value, 0.0)]]
    face = "white" if hollow else colour
    style: dict[str, Any] = {
        "capsize": 3,
        "markersize": 5.5,
        "markerfacecolor": face,
        "elinewidth": 1.0 if hollow else 1.6,
    }
    ax.errorbar([at], [price.value], yerr=bar, fmt=marker, color=colour, label=label, **style)


# -------------------------------------------------------------------------------------------------------- parts alone


def with_parts(table: LevelTable) -> list[tuple[LevelCell, LevelCell | None, LevelCell | None]]:
    """(mixture, its clean part alone, its noisy part alone), for mixtures with at least one part among the cells."""
    clean = {c.n_clean: c for c in table.clean}
    noisy = {(c.n_noisy, c.sigma_n): c for c in table.noisy_only}
    found = [(m, clean.get(m.n_clean), noisy.get((m.n_noisy, m.sigma_n))) for m in table.mixtures if not m.control]
    return [x for x in found if x[1] is not None or x[2] is not None]


def parts_figure(table: LevelTable, most: int = 6) -> Figure:
    """Denoising error by level of mixtures over that of the largest clean-only model, with their parts alone."""
    found = with_parts(table)
    found = sorted(found, key=lambda x: x[2] is None)[:most]
    columns = min(len(found), 3)
    rows = math.ceil(len(found) / columns)
    figure = new_figure(9.2, 2.9 * rows + 0.5)
    axes = np.atleast_1d(figure.subplots(rows, columns, sharey=True, squeeze=False)).ravel()
    base = table.clean[-1].log_error.mean(axis=0) if table.clean else np.log(np.square(table.levels))
    for ax, (mixture, clean, noisy) in zip(axes, found, strict=False):
        lines = ((clean, "its clean part alone", GREEN, "--"), (noisy, "its noisy part alone", RED, ":"))
        for cell, label, colour, style in (*lines, (mixture, "the mixture", BLUE, "-")):
            if cell is not None:
                ratio = np.exp(cell.log_error.mean(axis=0) - base)
                ax.plot(table.levels, ratio, color=colour, linestyle=style, label=label)
        if mixture.sigma_n is not None:
            ax.axvline(table.noise.lowest_level(mixture.sigma_n), color=GREY, linewidth=1.0, linestyle="--")
        ax.axhline(1, color=GREY, linewidth=0.7)
        log_axis(ax, "xy", fine="y")
        ax.set_title(f"{mixture.n_clean:,} + {mixture.n_noisy:,}, σ {mixture.sigma_n:g}", fontsize=9)
        ax.set_xlabel("diffusion level s")
    for ax in axes[len(found) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("error / that of the\nlargest clean-only model" if table.clean else "error / s²")
    shared_legend(figure, axes[: len(found)])
    return figure
