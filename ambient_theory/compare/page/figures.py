"""Figures of trained models: scores, prices, marginal worth, held-out errors. They only read analyses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ambient_theory.bounds.laws import LAWS, identifiability_band
from ambient_theory.compare.cells.tables import METRIC_NAMES, Group, MeasuredCell
from ambient_theory.compare.fitting.curves import SingleIndex
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.scores.analysis import GroupAnalysis
from ambient_theory.compare.scores.published import PublishedPrice, RowWorth
from ambient_theory.shared.palette import BLACK, BLUE, GREEN, GREY, LEVELS, MARKERS, PURPLE, RED, SKY
from ambient_theory.shared.plotting import log_axis, new_figure, plain_number, shared_legend

Floats = NDArray[np.float64]


def score_label(group: Group) -> str:
    metric = METRIC_NAMES.get(group.key.metric, group.key.metric)
    return f"{metric} ({group.key.extractor_name}), lower is better"


def _error_bar(group: Group, cell: MeasuredCell) -> tuple[float, float, float]:
    """Middle and distances to the ends of +- 2 standard errors over seeds, on the group's scale."""
    y = np.asarray(group.transform(cell.values))
    middle = float(y.mean())
    half = 2 * float(y.std(ddof=1)) / math.sqrt(len(y)) if len(y) > 1 else 0.0
    centre = float(group.back(middle))
    return centre, centre - float(group.back(middle - half)), float(group.back(middle + half)) - centre


def _points(
    ax: Axes,
    group: Group,
    cells: Sequence[MeasuredCell],
    x: Sequence[float],
    colour: str,
    marker: str,
    label: str,
    *,
    hollow: bool = False,
) -> None:
    if not cells:
        return
    bars = np.array([_error_bar(group, c) for c in cells])
    ax.errorbar(
        x,
        bars[:, 0],
        yerr=bars[:, 1:].T,
        fmt=marker,
        color=colour,
        markersize=6,
        markerfacecolor="white" if hollow else colour,
        capsize=2.5,
        linewidth=1.2,
        label=label,
    )


def scores_figure(analysis: GroupAnalysis) -> Figure:
    """Left: score against the raw number of images. Right: against N = n_clean + c n_noisy with the fitted curve."""
    group, single = analysis.group, analysis.single
    figure = new_figure(9.2, 4.9)
    left, right = figure.subplots(1, 2, sharey=True)
    clean = [c for c in group.cells if not c.n_noisy]
    levels = sorted({c.sigma_n for c in group.cells if c.sigma_n is not None})
    _points(left, group, clean, [c.n_clean for c in clean], BLACK, "o", "clean only")
    if len(clean) > 1 and single is None:
        left.plot([c.n_clean for c in clean], [c.mean for c in clean], color=BLACK, linewidth=0.8)
    worth = {} if single is None else {s: c.value for s, c in single.worth.items()}
    if single is not None:
        _points(right, group, clean, [c.n_clean for c in clean], BLACK, "o", "clean only")
    for i, sigma_n in enumerate(levels):
        colour, marker = LEVELS[i % len(LEVELS)], MARKERS[i % len(MARKERS)]
        mixed = [c for c in group.price_cells if c.sigma_n == sigma_n]
        alone = [c for c in group.noisy_only if c.sigma_n == sigma_n]
        _points(left, group, mixed, [c.n_clean + c.n_noisy for c in mixed], colour, marker, f"mixtures, σ {sigma_n:g}")
        _points(
            left, group, alone, [c.n_noisy for c in alone], colour, marker, f"noisy only, σ {sigma_n:g}", hollow=True
        )
        if sigma_n in worth:
            c = worth[sigma_n]
            label = f"mixtures, σ {sigma_n:g}"
            _points(right, group, mixed, [m.n_clean + c * m.n_noisy for m in mixed], colour, marker, label)
            shown = [a for a in alone if c > 0]
            _points(
                right,
                group,
                shown,
                [c * a.n_noisy for a in shown],
                colour,
                marker,
                f"noisy only, σ {sigma_n:g}",
                hollow=True,
            )
    if single is not None:
        _fitted_line(right, analysis)
    fitted = "".join(f"\n{line}" for line in _lines([f"c({s:g}) = {c:.2g}" for s, c in worth.items()]))
    for ax, title, text in (
        (left, "Raw number of images", "n_clean + n_noisy (images)"),
        (right, "In clean images", f"N = n_clean + c n_noisy (clean images){fitted}"),
    ):
        log_axis(ax, "xy" if group.scale == "log" else "x", fine="y")
        ax.set_title(title)
        ax.set_xlabel(text)
        _floor_line(ax, group)
    left.set_ylabel(score_label(group))
    if single is None:
        right.set_visible(False)
    shared_legend(figure, (left, right) if single is not None else (left,))
    return figure


def _lines(parts: Sequence[str], most: int = 3) -> list[str]:
    """Words in lines of at most so many, so that a label does not run out of its panel."""
    return [", ".join(parts[i : i + most]) for i in range(0, len(parts), most)]


def _fitted_line(ax: Axes, analysis: GroupAnalysis) -> None:
    single = analysis.single
    assert single is not None
    curve = single.free.curve
    assert isinstance(curve, SingleIndex)
    table = single.free.table
    index = curve.index(single.free.theta[None, :], table.n_clean, table.n_noisy, table.sigma_n)[0]
    n = np.geomspace(index.min(), index.max(), 200)
    fitted = single.free.predict(n, np.zeros_like(n), np.zeros_like(n))
    ax.plot(n, fitted, color=GREY, linewidth=1.4, zorder=1, label=f"fit, exponent p = {single.exponent.value:.2f}")
    if single.free.floor > 0:
        ax.axhline(single.free.floor, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), label="fitted floor E∞")


def _floor_line(ax: Axes, group: Group) -> None:
    """The score of perfect samples, and of the clean training images themselves, where the records carry them."""
    floors = [c.floor for c in group.cells if c.floor is not None]
    if floors:
        ax.axhline(float(np.mean(floors)), color=GREEN, linewidth=1, linestyle="--", label="floor: other real images")
    copies = {c.n_clean: c.memorisation_floor for c in group.price_cells if c.memorisation_floor is not None}
    if copies:
        sizes = sorted(copies)
        ax.plot(
            sizes,
            [copies[n] for n in sizes],
            "_",
            color=SKY,
            markersize=13,
            markeredgewidth=2,
            label="the clean training images themselves",
        )


def price_figure(analysis: GroupAnalysis, printed: Sequence[PublishedPrice] = ()) -> Figure:
    """Price 1/c against sigma_n: fitted intervals, pairwise bounds, and each law fitted to the same cells."""
    single = analysis.single
    assert single is not None
    figure = new_figure(9.2, 4.4)
    ax = figure.subplots()
    noise_levels = [s for s in single.worth if s > 0]
    grid = np.linspace(min(noise_levels) / 4, max(noise_levels) * 1.25, 160)
    for law, (name, tested) in zip(LAWS.values(), single.laws.items(), strict=True):
        curve = tested.fit.curve
        assert isinstance(curve, SingleIndex)
        c = curve.worth(tested.fit.theta[None, 3:], grid)[0]
        mark = " (rejected)" if tested.verdict == "rejected" else ""
        price = 1 / np.maximum(c, 1e-12)
        ax.plot(grid, price, linestyle=law.line, color=law.colour, linewidth=1.2, label=name + mark)
    prices = {s: single.worth[s].inverse() for s in noise_levels}
    ends = [p.high if p.high is not None and math.isfinite(p.high) else p.value for p in prices.values()]
    top = 3 * max((x for x in ends if math.isfinite(x)), default=10.0)
    bottom = 0.8
    if analysis.pairwise is not None:
        for i, bound in enumerate(analysis.pairwise.bounds):
            if bound.sigma_n in prices:
                low, high = max(bound.price_low, bottom / 2), min(bound.price_high, top * 4)
                if low > high:  # the pairs say that the price lies beyond the axis
                    continue
                label = "pairs whose order is certain" if i == 0 else None
                ax.plot(
                    [bound.sigma_n] * 2,
                    [low, high],
                    color=SKY,
                    linewidth=9,
                    alpha=0.45,
                    solid_capstyle="butt",
                    label=label,
                )
    for i, (sigma_n, p) in enumerate(prices.items()):
        if not math.isfinite(p.value):
            continue
        low = p.value if p.low is None else max(p.low, bottom / 2)  # to the edge of the axis, which shows no 0
        high = p.value if p.high is None else min(p.high, top * 4)
        bar = [[max(p.value - low, 0.0)], [max(high - p.value, 0.0)]]
        label = f"fit, {100 * single.confidence:g} % interval" if i == 0 else None
        ax.errorbar(
            [sigma_n], [p.value], yerr=bar, fmt="o", color=BLACK, capsize=4, markersize=6.5, label=label, zorder=5
        )
    for stated in printed:
        bar = [[stated.value - stated.low], [stated.high - stated.value]]
        label = f"printed, {stated.dataset}"
        beside = stated.sigma_n + 0.02 * grid[-1]
        ax.errorbar([beside], [stated.value], yerr=bar, fmt="d", color=PURPLE, capsize=3, label=label, zorder=4)
    log_axis(ax, "y", fine="y")
    ax.set_ylim(bottom, max(top, 2))
    ax.set_xlim(0, grid[-1])
    ax.axhline(1, color=GREY, linewidth=0.8)
    ax.set_xlabel("σ of the noisy images (pixels in [−1, 1])")
    ax.set_ylabel("price 1/c: noisy images for one clean image")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _forest(ax: Axes, rows: Sequence[tuple[str, Interval, str]], unit: str) -> None:
    """Estimates with intervals, one a line, top to bottom."""
    for i, (_, value, colour) in enumerate(rows):
        y = len(rows) - 1 - i
        if math.isnan(value.value):
            continue
        if not math.isfinite(value.value):
            ax.text(
                0.02,
                y,
                "beyond the clean-only curve",
                fontsize=8,
                color=colour,
                va="center",
                transform=ax.get_yaxis_transform(),
            )
            continue
        if value.low is not None and value.high is not None:
            far = 10 * max(abs(value.value), 1.0)  # an open end runs off the panel
            ax.plot([max(value.low, -far), min(value.high, far)], [y, y], color=colour, linewidth=1.6)
        hollow = value.low is None
        ax.plot([value.value], [y], "o", color=colour, markersize=6, markerfacecolor="white" if hollow else colour)
    ax.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel(unit)


def _span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:,.0f}–{ends[1]:,.0f}"


def utility_figure(analysis: GroupAnalysis) -> Figure:
    """Left: average worth of the noisy images of each mixture. Right: exchange rates from finite differences."""
    levels = sorted({e.sigma_n for e in analysis.equivalents} | {r.sigma_n for r in analysis.rates})
    colour = {s: LEVELS[i % len(LEVELS)] for i, s in enumerate(levels)}
    rows = max(len(analysis.equivalents), len(analysis.rates), 3)
    both = bool(analysis.rates)  # without a rectangle of cells there is no rate, and no panel for it
    figure = new_figure(9.4 if both else 6.4, 1.3 + 0.34 * rows)
    left, right = figure.subplots(1, 2) if both else (figure.subplots(), None)
    _forest(
        left,
        [(e.name.replace(" + ", "\n+ "), e.worth, colour[e.sigma_n]) for e in analysis.equivalents],
        "clean images per noisy image",
    )
    left.set_title("Average worth of the noisy images")
    left.tick_params(axis="y", labelsize=7.5)
    if analysis.single is not None:
        ends = left.get_xlim()  # a band without an end goes to the edge of what is measured
        for sigma_n, c in analysis.single.worth.items():
            if sigma_n in colour and c.low is not None and c.high is not None:
                band = np.clip([c.low, c.high], *ends)
                left.axvspan(*band, color=colour[sigma_n], alpha=0.13, linewidth=0)
        left.set_xlim(ends)
    if right is not None:
        names = [f"σ {r.sigma_n:g}, clean {_span(r.n_clean)},\nnoisy {_span(r.n_noisy)}" for r in analysis.rates]
        _forest(
            right,
            [(n, r.measured, colour[r.sigma_n]) for n, r in zip(names, analysis.rates, strict=True)],
            "(ΔE/Δn_noisy) / (ΔE/Δn_clean)",
        )
        for i, r in enumerate(analysis.rates):
            if r.fitted is not None:
                label = "fitted curve, same differences" if i == 0 else None
                right.plot([r.fitted], [len(names) - 1 - i], "x", color=BLACK, markersize=7, label=label, zorder=5)
        right.tick_params(axis="y", labelsize=7.5)
        right.legend(loc="best")
        right.set_title("Exchange rate along the cells")
        finite = [x for r in analysis.rates for x in (*r.measured.to_list(), r.fitted) if x is not None]
        right.set_xlim(min(0, min(finite)) - 0.03, max(1.0, min(max(finite), 3)) * 1.05)
    return figure


def moves_figure(analyses: Sequence[GroupAnalysis], noise_levels: Sequence[float]) -> Figure:
    """c(sigma_n) in every comparable group: does it move with duration, extractor, metric or reference?"""
    names = []
    for a in analyses:
        key = a.group.key
        duration = f", {key.duration_nimg:,} images" if key.duration_nimg else ""
        rule = f", {key.checkpoint}" if key.checkpoint and key.checkpoint != "last" else ""
        what = key.metric if key.extractor_name == "none" else f"{key.metric} {key.extractor_name}"
        names.append(f"{what}, {key.reference}{duration}, n {plain_number(key.n_eval)}{rule}")
    figure = new_figure(9.4, 1.3 + 0.28 * max(len(names), 2))
    axes = figure.subplots(1, len(noise_levels), sharey=True, squeeze=False)[0]
    for ax, sigma_n in zip(axes, noise_levels, strict=True):
        rows = []
        for name, a in zip(names, analyses, strict=True):
            found = a.single.worth.get(sigma_n) if a.single is not None else None
            colour = GREY if a.single is not None and a.single.free.misfit else BLUE
            rows.append((name, found or Interval(math.nan, None, None), colour))
        _forest(ax, rows, "")
        ends = [x for _, i, _ in rows for x in i.to_list() if x is not None]
        ax.set_xlim(0, 1.08 * min(max(ends, default=1.0), 3))
        ax.set_title(f"σ {sigma_n:g}")
        ax.tick_params(axis="y", labelsize=8)
    figure.supxlabel("worth c (clean images for one noisy)", fontsize=9.5)
    return figure


def held_out_figure(analysis: GroupAnalysis) -> Figure:
    """Median and 95 % quantile of |log ratio| on cells that the fit has not seen, for each curve and split."""
    splits = list(dict.fromkeys(h.split for h in analysis.held_out))
    curves = list(dict.fromkeys(h.curve for h in analysis.held_out))
    figure = new_figure(9.4, 1.3 + 0.26 * len(curves))
    axes = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for ax, split in zip(axes, splits, strict=True):
        noise = None
        for h in analysis.held_out:
            if h.split != split:
                continue
            y = len(curves) - 1 - curves.index(h.curve)
            colour = RED if h.curve.startswith(("naive", "clean only")) else BLUE
            ax.plot([h.median, h.upper], [y, y], color=colour, linewidth=1.4)
            ax.plot([h.median], [y], "o", color=colour, markersize=5.5)
            ax.plot([h.upper], [y], "|", color=colour, markersize=8)
            noise = h.noise
        if noise:
            ax.axvline(noise, color=GREY, linewidth=1, linestyle="--")
        log_axis(ax, "x", fine="x", ticks=4)
        ax.set_title(split)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("|log(predicted / measured)|")
    axes[0].set_yticks(range(len(curves)), list(reversed(curves)))
    axes[0].tick_params(axis="y", labelsize=8)
    return figure


def published_figure(rows: Sequence[RowWorth]) -> Figure:
    """c by arithmetic from the mixed row and from the noisy-only row of each data set in print."""
    names = list(dict.fromkeys(r.dataset for r in rows))
    figure = new_figure(6.4, 2.9)
    ax = figure.subplots()
    for kind, colour, shift in (("mixed", BLUE, -0.19), ("noisy only", RED, 0.19)):
        chosen = [r for r in rows if r.kind == kind]
        at = [names.index(r.dataset) + shift for r in chosen]
        ax.bar(at, [r.c for r in chosen], width=0.36, color=colour, label=f"from the {kind} row")
        for x, r in zip(at, chosen, strict=True):
            ax.text(x, r.c + 0.015, f"{r.c:.2f}", ha="center", fontsize=8.5)
    ax.set_xticks(range(len(names)), names)
    ax.set_ylim(0, 1)
    ax.grid(axis="x", visible=False)
    ax.set_ylabel("worth c of one noisy image\n(clean images), σ 0.2")
    ax.legend(loc="upper left", ncols=2)
    return figure


def identifiability_figure(anchor: PublishedPrice | None) -> Figure:
    """Prices of every law after all are calibrated on one price: where could data tell them apart?"""
    sigma_n, price = (anchor.sigma_n, anchor.value) if anchor else (0.2, 1.6)
    grid = np.geomspace(sigma_n / 4, sigma_n * 4, 120)
    band = identifiability_band(grid, sigma_n, price)
    figure = new_figure(6.4, 3.8)
    ax = figure.subplots()
    for law, (label, p) in zip(band.laws, band.prices.items(), strict=True):
        ax.plot(grid, p, linestyle=law.line, color=law.colour, label=label)
    ax.plot(
        [sigma_n],
        [price],
        "o",
        color=BLACK,
        markersize=6,
        zorder=5,
        label=f"calibrated here: 1/c({sigma_n:g}) = {price:g}",
    )
    log_axis(ax, "xy", fine="x")
    ax.set_xlabel("σ of the noisy images (pixels in [−1, 1])")
    ax.set_ylabel("price 1/c (noisy for one clean)")
    ax.legend(loc="upper left")
    return figure
