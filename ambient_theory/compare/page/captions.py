"""Captions of the figures: they state what was done."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ambient_theory.bounds.laws import identifiability_band
from ambient_theory.compare.scores.analysis import GroupAnalysis
from ambient_theory.compare.scores.published import PublishedPrice, RowWorth
from ambient_theory.compare.scores.words import number
from ambient_theory.simulation.collapse import SimulationPanel


def scores_caption(a: GroupAnalysis) -> str:
    seeds = a.group.n_seeds
    text = (
        f"{a.group.key.label()}. Each point is the mean over {'the' if seeds > 1 else 'one'} training "
        f"seed{'s' if seeds > 1 else ''}"
    )
    text += f" (up to {seeds}); bars are two standard errors over seeds. " if seeds > 1 else "; one seed has no bars. "
    if a.single is None:
        return text + "Left out of fits: see the notes."
    text += (
        "Right: the same scores against N = n_clean + c(σ) n_noisy with the fitted c; the grey line is "
        "E∞ + a N^−p fitted to the cells with clean images. Hollow marks are models of noisy images alone: they were "
        "not fitted and show that one worth does not carry over to them."
    )
    if any(c.floor is not None for c in a.group.cells):
        text += (
            " Dashed: the score of other real images at the same number; short bars: the score of the clean "
            "training images themselves. A fitted floor E∞ near one of them is a floor of samples or of "
            "memorisation, not of noise."
        )
    return text


def price_caption(a: GroupAnalysis) -> str:
    assert a.single is not None
    return (
        f"Black: the fitted price with its {100 * a.single.confidence:g} % interval (profile of the least squares, "
        f"scatter over seeds pooled, {a.single.free.dof} degrees of freedom). Blue bars: all prices that no certain "
        "pair of models contradicts, simultaneously over all pairs, without any curve. Lines: each law c = (1 + "
        "σ²/s0²)^−m with s0 fitted to these cells; they are shapes with a fitted constant. Where the lines run "
        "together, these data cannot say which law holds."
    )


def utility_caption(a: GroupAnalysis) -> str:
    text = (
        "The number of clean images that reaches the same score on the measured clean-only curve, less the clean "
        "images in the mixture, per noisy image; bands are the fitted c."
    )
    if not a.rates:
        return f"{text} No rectangle of cells was measured, so there is no exchange rate."
    return (
        f"Left: {text[0].lower()}{text[1:]} Right: ratio of finite differences of the log score on each rectangle of "
        "cells, Fieller intervals; crosses put the fitted curve through the same differences. Steps are large, so "
        "these are chords, not slopes: compare dots with crosses, not with c."
    )


def moves_caption(same: Sequence[GroupAnalysis]) -> str:
    durations = sorted({a.group.key.duration_nimg for a in same})
    text = (
        "The worth of a noisy image read from every group of comparable scores, each analysed alone; grey where the "
        "curve misfits. c is confounded with compute: the same number of training images undertrains large sets and "
        "memorises small ones."
    )
    if len(durations) > 1:
        return text + f" Durations here: {', '.join(f'{d:,}' for d in durations)} training images."
    return text + " Only one training duration was measured, so whether c moves with compute is open."


def held_out_caption(a: GroupAnalysis) -> str:
    return (
        "Each curve was fitted to some of the cells and predicted the others. Dots: median of "
        "|log(predicted/measured)|; ticks: 95 % quantile. Dashed: the median that seed scatter alone gives a "
        "perfect curve. Orange: the controls (every image counts; only clean images count). A level of noise that was "
        "not seen can only be priced by a law."
    )


def bound_caption(a: GroupAnalysis) -> str:
    return (
        f"{a.group.key.label()}. Each curve was fitted to random halves of the cells; shown are the scores of the "
        "other halves. Blue: the shape of the bound, E∞ + a1 N1^−p1 + a2 N2^−p2, with the weights of its two terms "
        "(k = 2) and fitted constants. Right: median and 95 % quantile of |log(predicted/measured)| of every curve; "
        "blue dashes: the median of a perfect curve."
    )


def published_caption(rows: Sequence[RowWorth]) -> str:
    pairs = []
    for name in dict.fromkeys(r.dataset for r in rows):
        c = {r.kind: r.c for r in rows if r.dataset == name}
        if "mixed" in c and "noisy only" in c:
            pairs.append(f"{name} {c['mixed']:.2f} against {c['noisy only']:.2f}")
    return (
        "A power law through the two clean-only rows of each data set gives the number of clean images that would "
        f"reach the score of the other rows, hence c: {', '.join(pairs)}. One worth cannot hold both the mixed row "
        "and the noisy-only row, which is why models of noisy images alone are never fitted with the others. No "
        "intervals: the spread printed beside the scores is of undefined kind."
    )


def separation_caption() -> str:
    return (
        "No training and no simulation: the Fisher information of one sample at total noise s = 1 and s = 2, for the "
        "hard pair of k = 2 atoms at half-width δ. The worth of a noisy sample is its effect on the first-order error "
        "of an efficient estimator, beside all-clean data. It falls to the weight s^−(4k−2) only where the atoms are "
        "closer than the noise, and approaches 1 where they are far apart: c is not a function of the noise alone."
    )


def identifiability_caption(anchor: PublishedPrice | None) -> str:
    sigma_n, price = (anchor.sigma_n, anchor.value) if anchor else (0.2, 1.6)
    band = identifiability_band([sigma_n / 4, sigma_n / 2, 2 * sigma_n, 4 * sigma_n], sigma_n, price)
    below = 100 * float(identifiability_band(np.linspace(0.02, 1, 50) * sigma_n, sigma_n, price).spread.max())
    kind = "the printed price" if anchor else "an example"
    return (
        f"Every law of the theory calibrated on one price, 1/c({sigma_n:g}) = {price:g} ({kind}). Below σ {sigma_n:g} "
        f"they agree within {below:.1f} %: no data there can tell them apart or show a number of atoms k. At σ "
        f"{2 * sigma_n:g} they span {number(float(band.low[2]))} to {number(float(band.high[2]))}, at σ "
        f"{4 * sigma_n:g} {number(float(band.low[3]))} to {number(float(band.high[3]))}."
    )


def shown_panels(found: Sequence[SimulationPanel]) -> list[SimulationPanel]:
    """At most three families: hard ones of the smallest k >= 2 first, then the separated control."""
    order = sorted(found, key=lambda p: (p.d, p.k < 2, p.k, p.family != "hard", p.family != "separated", p.family))
    return order[:3]


def simulation_caption(shown: Sequence[SimulationPanel]) -> str:
    text = (
        "Simulated mixtures of atoms. W1 between estimate and truth against the raw number of samples (left) and "
        "against n_l = Σ s^−(4k−2) (middle); dotted: the one-atom estimator, a control that a real estimator must "
        "beat; dashed: the slope of the rate. Right: the curve of the all-clean samples predicts the mixtures at "
        "equal n_l; these it has not seen. "
    )
    for p in shown:
        if p.transfer is not None:
            text += (
                f"{p.family}, k = {p.k}: scatter about one curve {100 * p.scatter['n']:.0f} % in n, "
                f"{100 * p.scatter[p.axis]:.0f} % in {p.axis}; prediction off by "
                f"{100 * math.expm1(p.transfer[0]):.0f} % in the median. "
            )
    return text + "On separated atoms the prediction should fail: n_l throws away what noisy samples are worth there."
