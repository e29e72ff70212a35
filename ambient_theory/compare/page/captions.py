"""Sentences: the answer in one line, and captions that state what was done."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ambient_theory.bounds.laws import identifiability_band
from ambient_theory.compare.analysis import GroupAnalysis
from ambient_theory.compare.fits import Interval
from ambient_theory.compare.panels import SimulationPanel
from ambient_theory.compare.published import PublishedPrice, RowWorth
from ambient_theory.compare.tables import METRIC_NAMES

QUESTION = "I have clean and noisy images. What is one more noisy image worth, how sure is that, and what should I buy?"


def number(x: float | None, digits: int = 3) -> str:
    """Three significant digits without exponents for ordinary sizes; infinity in words."""
    if x is None:
        return "–"
    if math.isnan(x):
        return "not defined"
    if math.isinf(x):
        return "no upper end" if x > 0 else "no lower end"
    if x == 0:
        return "0"
    if 1e-4 <= abs(x) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
        return f"{x:,.{decimals}f}"
    return f"{x:.{digits - 1}e}"


def span(i: Interval) -> str:
    """`1.54 [1.42, 1.66]`, or the bare estimate where one seed leaves no interval."""
    if i.low is None or i.high is None:
        return f"{number(i.value)} (no interval)"
    return f"{number(i.value)} [{number(i.low)}, {number(i.high)}]"


def p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")


# ------------------------------------------------------------------------------------------------------------ answers


def answer(a: GroupAnalysis, sigma: float) -> str:
    """One sentence for one noise level of one group."""
    assert a.single is not None
    c = a.single.worth[sigma]
    key = a.group.key
    where = f"{key.dataset}, σ {sigma:g}: "
    score = f"{METRIC_NAMES.get(key.metric, key.metric)}, {key.extractor_name} features"
    if c.value <= 0:
        text = f"{where}the noisy images bought nothing measurable (c = {span(c)} clean images each; {score})"
    else:
        price = c.inverse()
        confidence = f"{100 * a.single.confidence:g} %"
        if price.low is None or price.high is None:
            text = f"{where}one clean image is worth {number(price.value)} noisy ones"
            text += f" ({score}; one training seed a cell, so no interval can be given)"
        elif math.isinf(price.high) and price.low <= 0:
            text = f"{where}these scores do not determine the price ({confidence} interval without ends; {score})"
        elif math.isinf(price.high):
            text = f"{where}one clean image is worth at least {number(price.low)} noisy ones ({confidence}, no upper "
            text += f"end; {score})"
        else:
            text = f"{where}one clean image is worth {number(price.value)} noisy ones"
            text += f" ({confidence} interval {number(price.low)} to {number(price.high)}; {score})"
    determined = c.value > 0 and price.low is not None and not (math.isinf(price.high or 0.0) and price.low <= 0)
    if a.single.free.misfit and not determined:
        text += "; a single worth does not fit them"
    elif a.single.free.misfit:
        text += "; the one-worth curve does not fit these scores, so read this as a rough average"
    return text + "."


def answers(leading: Sequence[GroupAnalysis], printed: Sequence[PublishedPrice]) -> list[str]:
    """The sentences on top of the page."""
    out = [answer(a, s) for a in leading if a.single is not None for s in a.single.worth]
    if not out:
        out = [
            f"{p.dataset}, σ {p.sigma:g}: one clean image is worth {number(p.low)} to {number(p.high)} noisy ones "
            "(as printed; nothing among these records measures it)."
            for p in printed
        ]
    return out or ["These records price nothing: see below why, and run a sweep that holds clean and mixed cells."]


# ----------------------------------------------------------------------------------------------------------- captions


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
    return (
        "Left: the number of clean images that reaches the same score on the measured clean-only curve, less the "
        "clean images in the mixture, per noisy image; bands are the fitted c. Right: ratio of finite differences "
        "of the log score on each rectangle of cells, Fieller intervals; crosses put the fitted curve through the "
        "same differences. Steps are large, so these are chords, not slopes: compare dots with crosses, not with c."
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
        "perfect curve. Red: the controls (every image counts; only clean images count). A level of noise that was "
        "not seen can only be priced by a law."
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
    sigma, price = (anchor.sigma, anchor.value) if anchor else (0.2, 1.6)
    band = identifiability_band([sigma / 4, sigma / 2, 2 * sigma, 4 * sigma], sigma, price)
    below = 100 * float(identifiability_band(np.linspace(0.02, 1, 50) * sigma, sigma, price).spread.max())
    kind = "the printed price" if anchor else "an example"
    return (
        f"Every law of the theory calibrated on one price, 1/c({sigma:g}) = {price:g} ({kind}). Below σ {sigma:g} "
        f"they agree within {below:.1f} %: no data there can tell them apart or show a number of atoms k. At σ "
        f"{2 * sigma:g} they span {number(float(band.low[2]))} to {number(float(band.high[2]))}, at σ {4 * sigma:g} "
        f"{number(float(band.low[3]))} to {number(float(band.high[3]))}."
    )


def shown_panels(found: Sequence[SimulationPanel]) -> list[SimulationPanel]:
    """At most three families: hard ones of the smallest k >= 2 first, then the separated control."""
    order = sorted(found, key=lambda p: (p.d, p.k < 2, p.k, p.family != "hard", p.family != "separated", p.family))
    return order[:3]


def simulation_caption(shown: Sequence[SimulationPanel]) -> str:
    text = (
        "Simulated mixtures of atoms. W1 between estimate and truth against the raw number of samples (left) and "
        "against n_l = Σ s^−(4k−2) (middle); dotted: the one-atom estimator, a control that a real estimator must "
        "beat. Right: the curve of the all-clean samples predicts the mixtures at equal n_l; these it has not seen. "
    )
    for p in shown:
        if p.transfer is not None:
            text += (
                f"{p.family}, k = {p.k}: scatter about one curve {100 * p.scatter['n']:.0f} % in n, "
                f"{100 * p.scatter['n_l']:.0f} % in n_l; prediction off by {100 * math.expm1(p.transfer[0]):.0f} % "
                "in the median. "
            )
    return text + "On separated atoms the prediction should fail: n_l throws away what noisy samples are worth there."
