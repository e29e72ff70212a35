"""The command `ambient price`. Heavy modules are imported inside the functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ambient_theory.compare.commands.common import NOT_YOURS, Records, about, load
from ambient_theory.compare.commands.settings import PriceOptions, Scores
from ambient_theory.shared.console import command, print_json, say, starting, talk
from ambient_theory.shared.options import with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal

if TYPE_CHECKING:
    from ambient_theory.compare.by_level.predicted import Measure, PredictedPrice

EXAMPLE = "Example: ambient price --sigma 0.2 results/records.jsonl, or ambient price --sigma 0.2 --from runs/NAME"


def _predicted(asked: PriceOptions, scores: Scores, measure: Measure | None, quiet: bool) -> PredictedPrice:
    """The price from one denoiser: from records where the source holds any, else measured."""
    from ambient_theory.compare.by_level.predicted import denoiser_of, denoisers, holds_records, predict_price
    from ambient_theory.shared.errors import DataError, UsageError
    from ambient_theory.shared.reading import read

    sigma_n, source = asked.noise(), str(asked.source)
    if not source.startswith("hf:") and not Path(source).exists():
        raise DataError(f"{source}: no such run, file of records or network")
    if asked.data is None and holds_records(source):
        asked.check_of_records()
        found = read(source)
        try:
            first, second = denoisers(found.records, scores.confidence)
        except DataError as error:
            raise DataError(f"{source}: {error}") from None
        talk(found.sentence(), quiet=quiet)
        return predict_price(first, sigma_n, second=second, confidence=scores.confidence)
    if measure is None:
        raise UsageError(f"{source} holds no records: run `ambient evaluate {source} --outdir X` and take X")
    measured = measure(source, data=asked.data, resolution=asked.resolution, images=asked.images, quiet=quiet)
    return predict_price(denoiser_of(measured, scores.confidence), sigma_n, confidence=scores.confidence)


def _price_from(
    asked: PriceOptions, scores: Scores, records: list[Path] | None, measure: Measure | None, output: Output
) -> None:
    """`price --from`: the prediction, and how the formula stood its tests."""
    with starting("loading the theory", quiet=output.quiet):
        from ambient_theory.compare.by_level.verdicts import COLUMNS, UNTESTED, formula_verdicts
        from ambient_theory.shared.files import finite
        from ambient_theory.shared.wide_tables import print_table

    predicted = _predicted(asked, scores, measure, output.quiet)
    tested = formula_verdicts(load(records, shipped=True).records, scores.confidence)
    if output.json:
        print_json(finite({**predicted.to_dict(), "tested": [v.to_dict() for v in tested]}))
        return
    for sentence in predicted.sentences():
        say(sentence)
    print_table(f"Predicted by level, σ {asked.noise():g}", predicted.columns, predicted.rows(), keys=1)
    if tested:
        title = "How the formula stood its test: measured worth on predicted, above the noise"
        print_table(title, COLUMNS, [v.row() for v in tested])
    else:
        say(UNTESTED)


def price_command(measure: Measure | None = None) -> Callable[..., None]:
    """The command `price`. measure: denoises held-out images with a network that holds no records (see `Measure`)."""

    @command
    @leave_on_signal()
    @with_options
    def price(
        asked: PriceOptions,
        scores: Scores,
        output: Output,
        records: Records = None,
    ) -> None:
        """How many noisy images is one clean image worth at noise SIGMA? Measured, or the band of the laws (marked).

        With --from it is predicted from one denoiser by V/(V + v), before any mixture is trained.
        """
        asked.noise()
        if asked.source is not None:
            _price_from(asked, scores, records, measure, output)
        else:
            asked.check_no_source()
            with about(records):
                _price_of_records(asked.noise(), scores, records, output)

    return price


def _price_of_records(sigma_n: float, scores: Scores, records: list[Path] | None, output: Output) -> None:
    """`price`: what the records say."""
    with starting("reading records", quiet=output.quiet):
        from ambient_theory.compare.by_level.levels import DENOISE, has_levels
        from ambient_theory.compare.by_level.words import BESIDE_SHORT, beside_short
        from ambient_theory.compare.cells.grouping import group_records, longest, select
        from ambient_theory.compare.commands.terminal import price_rows, price_sentences
        from ambient_theory.compare.scores.analysis import analyse_group, price_at
        from ambient_theory.compare.scores.published import published_prices
        from ambient_theory.shared.files import finite
        from ambient_theory.shared.wide_tables import print_table

        found = load(records)
    rows = found.records
    every = group_records(rows)
    only_bands = scores.metric == DENOISE or (not every and has_levels(rows))
    bands = []
    if scores.metric in (None, DENOISE) and scores.extractor is None and (only_bands or has_levels(rows)):
        from ambient_theory.compare.by_level.price_bands import price_bands

        bands = price_bands(rows, sigma_n, scores.confidence, required=only_bands)
    chosen = [] if only_bands else select(every, metric=scores.metric, extractor=scores.extractor)
    groups, shorter = longest(chosen)
    left = f" ({shorter} of shorter trainings are left to `ambient compare`)" if shorter else ""
    talk(f"{found.sentence()}, {len(groups)} groups of comparable scores{left}", quiet=output.quiet)
    analyses = [analyse_group(g, scores.confidence, only_price=True) for g in groups]
    prices = [] if only_bands else price_at(analyses, published_prices(rows), sigma_n)
    if output.json:
        answer = {"schema": "ambient.price/2", "sigma_n": sigma_n, "prices": [p.to_dict() for p in prices]}
        levels = [b.to_dict() for b in bands]
        print_json(finite({**answer, "levels": levels, "shipped": not records, "read": found.to_dict()}))
        return
    if not records:
        say(NOT_YOURS)
    for b in bands:
        say(b.sentence())
        print_table(b.title, b.columns, b.rows(), keys=1)
        title = f"Each mixture by itself, in nats, σ {sigma_n:g}, {b.key.rule}"
        print_table(title, BESIDE_SHORT, beside_short(b.beside))
    print_table(
        f"Price of one clean image in noisy images, σ {sigma_n:g}", ["from", "price 1/c", "how"], price_rows(prices)
    )
    for sentence in price_sentences(analyses, sigma_n):
        say(sentence)
