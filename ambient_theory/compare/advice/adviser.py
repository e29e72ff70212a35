"""The theory as a sweep sees it (`shared.advice.Adviser`): designs, rough prices, worths, the page, a purchase.

What is asked while models train (`advise`, `rough`) is answered from one table, that of the held-out best checkpoint
where there is one; what is asked at the end, under every checkpoint rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ambient_theory.compare.advice.design import design
from ambient_theory.compare.by_level.goods import TWO, Market, fit_laws
from ambient_theory.compare.by_level.levels import DENOISE, LEVEL_BEST, LevelTable, has_levels, level_tables
from ambient_theory.compare.by_level.potency import worth_interval
from ambient_theory.compare.by_level.price_bands import price_bands
from ambient_theory.compare.cells.grouping import read_shipped
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.purchase.budget import Asked, answer_budget
from ambient_theory.compare.scores.analysis import price_from_print
from ambient_theory.compare.scores.published import published_prices
from ambient_theory.compare.scores.words import between, span
from ambient_theory.shared.advice import Advice, Mixture, Purchase, Worth
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.records import HELDOUT_BEST, NATS, Record

Ends = tuple[float, float | None, float | None]


class RecordAdviser:
    """Answers from records alone; see `Adviser`. It keeps nothing."""

    def advise(
        self,
        records: Iterable[Record],
        sigma_n: float,
        candidates: Sequence[Mixture],
        *,
        cost: Callable[[Mixture], float],
        cells: int | None = None,
        budget: float | None = None,
        pending: Sequence[Mixture] = (),
        duration_nimg: int | None = None,
    ) -> Advice:
        table = judged_table(records, duration_nimg)
        return design(table, sigma_n, candidates, cost=cost, cells=cells, budget=budget, pending=pending)

    def rough(self, records: Iterable[Record], sigma_n: float, duration_nimg: int | None = None) -> str:
        table = judged_table(records, duration_nimg)
        if table is None:
            return "nothing is known yet"
        try:
            law = fit_laws(Market.of(table, sigma_n), (TWO,))[TWO]
        except DataError as error:
            return f"not yet: {error}"
        if not law.market.above.any():
            return "no measured level lies above the noise"
        return f"1/c = {span(worth_interval(law, 0).inverse())} above the noise, {table.key.rule}"

    def worths(self, records: Iterable[Record], sigma_n: float) -> list[Worth]:
        found = price_bands(_levels(records), sigma_n, required=True)
        return [
            Worth(
                sigma_n=sigma_n,
                rule=a.key.rule,
                above=_ends(a.judgement.coarse),
                below=_ends(a.judgement.fine),
                sentence=a.judged(),
                columns=tuple(a.columns),
                rows=tuple(tuple(row) for row in a.rows()),
                details=a.to_dict(),
            )
            for a in sorted(found, key=lambda a: _ORDER.get(a.key.checkpoint, len(_ORDER)))
        ]

    def page(self, records: Iterable[Record], outdir: Path) -> Path:
        from ambient_theory.compare.page.build import build_report

        return build_report(_levels(records), outdir, metric=DENOISE).page

    def purchase(
        self,
        records: Iterable[Record],
        sigma_n: float,
        price_clean: float,
        price_noisy: float,
        budget: float | None = None,
        where: str = "",
    ) -> Purchase:
        rows, start, spent = _levels(records), "", budget
        if spent is None:
            table = judged_table(rows)
            sizes = [] if table is None else [(c.n_clean, c.n_noisy) for c in table.mixtures if c.sigma_n == sigma_n]
            if not sizes:
                raise DataError(f"no mixture with noise σ {sigma_n:g} was measured")
            spent = max(n * price_clean + m * price_noisy for n, m in sizes)
            start = f"for {spent:,.6g}, what the largest mixture measured would cost: "
        found = answer_budget(rows, Asked(price_clean, price_noisy, budget=spent), sigma_n=sigma_n, metric=DENOISE)[0]
        return Purchase(start + found.sentence(where), found.to_dict())

    def guess(self, sigma_n: float) -> str:
        printed = published_prices(read_shipped().records)
        prices = [price_from_print(p, sigma_n).price for p in printed]
        lows = [p.low for p in prices if p.low is not None]
        highs = [p.high for p in prices if p.high is not None]
        if not lows or not highs:
            return "nothing that ships with ambient prices this noise level"
        return (
            f"a guess from printed tables of other images, by the laws: one clean image is worth "
            f"{between(min(lows), max(highs))} noisy ones at σ {sigma_n:g}"
        )


_ORDER = {HELDOUT_BEST: 0, "last": 1, LEVEL_BEST: 2}


def judged_table(records: Iterable[Record], duration_nimg: int | None = None) -> LevelTable | None:
    """The table that the next cell is chosen by: of the longest duration (or of the one given) and the held-out best
    checkpoint, else the last. None where no record is an error at a level."""
    rows = [r for r in _levels(records) if duration_nimg in (None, r.duration_nimg)]
    if not has_levels(rows):
        return None
    tables = level_tables(rows, level_best=False)
    longest = max(t.key.duration_nimg for t in tables)
    return min(
        (t for t in tables if t.key.duration_nimg == longest),
        # noise that is not white has a table of its own, beside that of the clean-only models
        key=lambda t: (not t.mixtures, _ORDER.get(t.key.checkpoint, 9)),
    )


def _levels(records: Iterable[Record]) -> list[Record]:
    return [r for r in records if r.metric in (DENOISE, NATS)]


def _ends(interval: Interval | None) -> Ends | None:
    return None if interval is None else (interval.value, interval.low, interval.high)
