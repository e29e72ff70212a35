"""Rows of the tables by level that commands and page share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ambient_theory.compare.by_level.beside import ALL, extremes
from ambient_theory.compare.by_level.formula import Scatters
from ambient_theory.compare.by_level.judgement import Judgement
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.scores.words import number, span

if TYPE_CHECKING:
    from ambient_theory.compare.by_level.beside import Beside
    from ambient_theory.compare.by_level.findings import Told


def worth_text(worth: Interval | None) -> str:
    """A worth with its interval, a dash where none was measured."""
    if worth is None:
        return "–"
    return span(worth)


def band_columns(terms: Sequence[str]) -> list[str]:
    """Columns of `band_rows`; terms: labels of the bound's terms."""
    return ["level s", "", "worth of a noisy image", "V/(V + v)", *(f"bound: {term}" for term in terms)]


def band_rows(judged: Judgement, scatters: Scatters) -> list[list[str]]:
    """A line a level: the measured worth, the formula by two models, and the weights of the bound's terms."""
    market = judged.market
    low, high = scatters.worth(judged.sigma_n, market.levels)
    terms = scatters.bound_terms(judged.sigma_n, market.levels)
    noise = "σ" if market.noise.white else "noise"
    rows = []
    for k, level in enumerate(market.levels):
        formula = number(float(low[k]), 2)
        if number(float(high[k]), 2) != formula:
            formula += f" to {number(float(high[k]), 2)}"
        side = f"{'above' if market.above[k] else 'below'} {noise}"
        rows.append(
            [
                f"{level:.3g}",
                side,
                worth_text(judged.free[k]),
                formula,
                *(number(float(t[k]), 2) for t in terms.values()),
            ]
        )
    return rows


BESIDE_COLUMNS = ("mixture", "levels", "seeds", "times its clean images", "worth", "price", "interval, factor")


def beside_sentence(found: Iterable[Beside]) -> str:
    """Of each noise level the mixtures whose noisy images are worth most and least over all levels, by themselves;
    empty where no worth has an interval with two ends."""
    by_level: dict[float, list[Beside]] = {}
    for b in found:
        if b.part == ALL and b.worth.low is not None and b.worth.high is not None and math.isfinite(b.worth.high):
            by_level.setdefault(b.cell.sigma_n or 0.0, []).append(b)
    each = (
        f"{b.cell.name} do as well as {span(b.equivalent)} clean ones (price {b.price})"
        for sigma_n in sorted(by_level)
        for b in extremes(by_level[sigma_n])
    )
    said = "; ".join(each)
    return f"each mixture by itself, in nats over all levels, most and least at each noise: {said}." if said else ""


def together(judged: Iterable[Judgement]) -> str:
    """What is said of several noise levels: their prices in one sentence, and each other thing once, with where it
    holds."""
    every = list(judged)
    out = []
    known = [(j, j.leading) for j in every if j.leading is not None]
    if known:
        prices = "; ".join(f"{span(worth.inverse())} at σ {j.sigma_n:g}" for j, worth in known if worth is not None)
        where = "above the noise level " if all(j.coarse is not None for j, _ in known) else ""
        out.append(f"{where}one clean image is worth so many noisy ones: {prices} ({100 * every[0].confidence:g} %).")
    if apart := [f"{j.apart} at σ {j.sigma_n:g}" for j in every if j.apart]:
        out.append(f"no one price above the noise, since mixtures disagree: {'; '.join(apart)}.")
    said: dict[str, list[float]] = {}
    for j in every:
        for clause in j.clauses():
            said.setdefault(clause, []).append(j.sigma_n)
    by_place: dict[str, list[str]] = {}
    for clause, sigmas in said.items():
        place = "at every σ" if len(sigmas) == len(every) else f"at σ {', '.join(f'{s:g}' for s in sigmas)}"
        by_place.setdefault(place, []).append(clause)
    out += [f"{place}: {'; '.join(clauses)}." for place, clauses in by_place.items()]
    return " ".join([*out[:1], *(text[0].upper() + text[1:] for text in out[1:])])


BESIDE_SHORT = ("clean + noisy", "levels", "as good as clean times", "noisy for one clean")


def beside_short(found: Iterable[Beside]) -> list[list[str]]:
    """The same in few words, at one noise level."""
    chosen = list(found)
    names = {b.cell.name: f"{b.cell.n_clean:,} + {b.cell.n_noisy:,}" for b in chosen}
    return [[names[name], part, times, price] for name, part, _, times, _, price, _ in beside_rows(chosen)]


def beside_rows(found: Iterable[Beside]) -> list[list[str]]:
    """A line a mixture and range of levels, by noise and size."""
    order = sorted(found, key=lambda b: (b.cell.sigma_n or 0.0, b.cell.n_clean, b.cell.n_noisy))
    rows = []
    for b in order:
        wide = f"{b.width:.2f}" if math.isfinite(b.width) else "–"
        rows.append([b.cell.name, b.part, str(len(b.cell.seeds)), span(b.times), span(b.worth), b.price, wide])
    return rows


TOLD_COLUMNS = (
    "σ",
    "rule",
    "training images",
    "told instead",
    "price above σ, noise known",
    "price above σ, told otherwise",
    "worth below σ, noise known",
    "worth below σ, told otherwise",
    "worth kept above σ",
)
"""Columns of `told_row`."""


def told_row(pair: Told) -> list[str]:
    """The price and the worth with and without knowledge of the noise."""
    known, otherwise = pair.truth, pair.said
    prices = ("–" if w.coarse is None else span(w.coarse.inverse()) for w in (known, otherwise))
    kept = "–" if pair.kept is None else f"{pair.kept:.0%}"
    duration = f"{known.key.duration_nimg:,}" if known.key.duration_nimg else "–"
    below = (worth_text(known.fine), worth_text(otherwise.fine))
    return [f"{known.sigma_n:g}", known.key.rule, duration, otherwise.key.told, *prices, *below, kept]
