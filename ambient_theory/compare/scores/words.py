"""Numbers, intervals and prices in words: the sentences that commands and page share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ambient_theory.compare.cells.tables import METRIC_NAMES
from ambient_theory.compare.fitting.fits import Interval, SingleC
from ambient_theory.compare.scores.analysis import GroupAnalysis, alike_sentence
from ambient_theory.compare.scores.published import PublishedPrice

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
    """`1.54 [1.42, 1.66]`, the bare estimate where one seed leaves no interval; without an upper end `1.54, at least
    1.42`, without any `not determined`."""
    if math.isinf(i.value) and i.value > 0:
        if i.low is None:
            return "no finite price (no interval)"
        return "not determined" if i.low <= 0 else f"at least {number(i.low)}"
    if i.low is None or i.high is None:
        return f"{number(i.value)} (no interval)"
    if math.isinf(i.high):
        return "not determined" if i.low <= 0 else f"{number(i.value)}, at least {number(i.low)}"
    return f"{number(i.value)} [{number(i.low)}, {number(i.high)}]"


def between(low: float, high: float) -> str:
    """A range of prices: `1 to 11`, `at least 1`, `at most 11`, `no bound`, or `no finite price`."""
    if math.isinf(low):
        return "no finite price"
    if low <= 0:
        return "no bound" if math.isinf(high) else f"at most {number(high)}"
    return f"at least {number(low)}" if math.isinf(high) else f"{number(low)} to {number(high)}"


def what_to_buy(c: Interval) -> str:
    """By the cost of a noisy image relative to a clean one: noisy ones pay below c, clean ones above it."""
    if c.low is None or c.high is None:
        return "not determined (one seed)"
    noisy = f"noisy if below {number(c.low)}" if c.low > 0 else ""
    clean = f"clean if above {number(c.high)}" if math.isfinite(c.high) else ""
    if noisy and clean:
        return f"{noisy}, {clean}"
    if noisy or clean:
        return f"{noisy or clean}, else not determined"
    return "not determined at any cost"


def fit_in_words(single: SingleC, misfit: str = "misfit") -> str:
    """How the one-worth curve fits: `fits`, `misfit (p ...)`, not testable, or nothing to fit."""
    if single.all_alike:
        return "all cells alike"
    if single.free.lack_p is None:
        return "not testable"
    return f"{misfit} (p {p_value(single.free.lack_p)})" if single.free.misfit else "fits"


def p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0")


def answer(a: GroupAnalysis, sigma_n: float) -> str:
    """One sentence for one noise level of one group."""
    assert a.single is not None
    c = a.single.worth_at(sigma_n)
    key = a.group.key
    where = f"{key.dataset}, σ {sigma_n:g}: "
    score = f"{METRIC_NAMES.get(key.metric, key.metric)}, {key.extractor_name} features"
    if a.single.all_alike:
        return f"{where}these scores do not determine the price: {alike_sentence(a.group)} ({score})."
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
        elif price.low <= 0:
            text = f"{where}one clean image is worth at most {number(price.high)} noisy ones ({confidence}; {score})"
        elif math.isinf(price.high):
            text = f"{where}one clean image is worth at least {number(price.low)} noisy ones ({confidence}; {score})"
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
    out = [answer(a, s) for a in leading if a.single is not None for s in a.single.noise_levels]
    if not out:
        out = [
            f"{p.dataset}, σ {p.sigma_n:g}: one clean image is worth {number(p.low)} to {number(p.high)} noisy ones "
            "(as printed; nothing among these records measures it)."
            for p in printed
        ]
    return out or ["These records price nothing: see below why, and run a sweep that holds clean and mixed cells."]
