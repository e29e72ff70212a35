"""The commands `compare`, `price` and `budget`. Heavy modules are imported inside the functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ambient_theory.compare.settings import PageOptions, PriceOptions, Purse, Scores
from ambient_theory.shared.console import command, print_json, talk
from ambient_theory.shared.options import with_options

if TYPE_CHECKING:
    from ambient_theory.compare.predicted import Measure, PredictedPrice
    from ambient_theory.shared.reading import Reading

NOT_YOURS = (
    "not your data: 8x8 Fashion-MNIST and printed tables, which ship with ambient; name your own runs or .jsonl files."
)
Records = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Run directories, JSONL files of records, or directories that hold some; none = what ships with ambient."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.", rich_help_panel="Output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No talk on stderr.", rich_help_panel="Output")]


def _load(records: list[Path] | None, shipped: bool = False) -> Reading:
    """The records asked for; the shipped ones if none is, or with them if `shipped`."""
    from ambient_theory.compare.grouping import read_shipped
    from ambient_theory.shared.errors import DataError
    from ambient_theory.shared.reading import Reading, read

    own = read(*records) if records else Reading((), 0, 0)
    if records and not own.records:
        raise DataError(
            f"no record in {', '.join(map(str, records))}: name finished runs, or .jsonl files that hold some"
        )
    return own + read_shipped() if shipped or not records else own


def _begin(quiet: bool) -> None:
    """Before anything heavy is imported: a sign of life on a terminal."""
    talk("reading records ...", quiet=quiet or not sys.stderr.isatty())


def _gallery(paths: Iterable[Path]) -> list[Path]:
    """PNG files; of a directory all that it holds, by name."""
    return [file for path in paths for file in (sorted(path.glob("*.png")) if path.is_dir() else [path])]


COMPARE_EXAMPLE = "Example: ambient compare runs/ --outdir report"
PRICE_EXAMPLE = (
    "Example: ambient price --sigma 0.2 results/records.jsonl, or ambient price --sigma 0.2 --from runs/NAME"
)
BUDGET_EXAMPLE = "Example: ambient budget --price-clean 10 --price-noisy 1 --budget 5000 results/records.jsonl"


@command
@with_options
def compare(
    page: PageOptions,
    scores: Scores,
    records: Records = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What is a noisy image worth? Prices, fits, controls and theory from records, as one page and a table."""
    _begin(quiet)
    from ambient_theory.compare.page.build import build_report
    from ambient_theory.compare.terminal import overview_rows, print_table, say
    from ambient_theory.shared.files import finite

    found = _load(records, page.shipped)
    talk(f"{found.sentence()}; working out prices and figures", quiet=quiet)
    report = build_report(
        found.records,
        page.outdir,
        gallery=_gallery(page.gallery),
        confidence=scores.confidence,
        metric=scores.metric,
        extractor=scores.extractor,
    )
    if json:
        print_json(finite({**report.findings.to_dict(), "read": found.to_dict(), "page": str(report.page)}))
        return
    for sentence in report.findings.to_dict()["answers"]:
        say(sentence)
    print_table(
        "Prices by group of comparable scores (every group: table.csv and the page)",
        ["group", "σ", "price 1/c", "by pairs", "fit"],
        overview_rows(report.findings),
    )
    talk(f"page: {report.page}", quiet=quiet)


def _predicted(asked: PriceOptions, scores: Scores, measure: Measure | None, quiet: bool) -> PredictedPrice:
    """The price from one denoiser: from records where the source holds any, else measured."""
    from ambient_theory.compare.predicted import denoiser_of, denoisers, holds_records, predict_price
    from ambient_theory.shared.errors import DataError, UsageError
    from ambient_theory.shared.reading import read

    sigma_n, source = asked.noise(), str(asked.source)
    if not source.startswith("hf:") and not Path(source).exists():
        raise DataError(f"{source}: no such run, file of records or network")
    if asked.data is None and holds_records(source):
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
    asked: PriceOptions, scores: Scores, records: list[Path] | None, measure: Measure | None, json: bool, quiet: bool
) -> None:
    """`price --from`: the prediction, and how the formula stood its tests."""
    from ambient_theory.compare.formula_verdicts import COLUMNS, UNTESTED, formula_verdicts
    from ambient_theory.compare.terminal import print_table, say
    from ambient_theory.shared.files import finite

    predicted = _predicted(asked, scores, measure, quiet)
    tested = formula_verdicts(_load(records, shipped=True).records, scores.confidence)
    if json:
        print_json(finite({**predicted.to_dict(), "tested": [v.to_dict() for v in tested]}))
        return
    for sentence in predicted.sentences():
        say(sentence)
    print_table(f"Predicted by level, σ {asked.noise():g}", predicted.columns, predicted.rows())
    if tested:
        title = "How the formula stood its test: measured worth on predicted, above the noise"
        print_table(title, COLUMNS, [v.row() for v in tested])
    else:
        say(UNTESTED)


def price_command(measure: Measure | None = None) -> Callable[..., None]:
    """The command `price`. measure: denoises held-out images with a network that holds no records (see `Measure`)."""

    @command
    @with_options
    def price(
        asked: PriceOptions,
        scores: Scores,
        records: Records = None,
        json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """How many noisy images is one clean image worth at noise SIGMA? Measured, or the band of the laws (marked).

        With --from it is predicted from one denoiser by V/(V + v), before any mixture is trained.
        """
        asked.noise()
        _begin(quiet)
        if asked.source is not None:
            _price_from(asked, scores, records, measure, json, quiet)
        else:
            asked.check_no_source()
            _price_of_records(asked.noise(), scores, records, json, quiet)

    return price


def _price_of_records(sigma_n: float, scores: Scores, records: list[Path] | None, json: bool, quiet: bool) -> None:
    """`price`: what the records say."""
    from ambient_theory.compare.analysis import analyse_group, price_at
    from ambient_theory.compare.grouping import group_records, select
    from ambient_theory.compare.levels import DENOISE, has_levels
    from ambient_theory.compare.published import published_prices
    from ambient_theory.compare.terminal import price_rows, price_sentences, print_table, say
    from ambient_theory.shared.files import finite

    found = _load(records)
    rows = found.records
    every = group_records(rows)
    only_bands = scores.metric == DENOISE or (not every and has_levels(rows))
    bands = []
    if scores.metric in (None, DENOISE) and scores.extractor is None and (only_bands or has_levels(rows)):
        from ambient_theory.compare.price_bands import price_bands

        bands = price_bands(rows, sigma_n, scores.confidence, required=only_bands)
    groups = [] if only_bands else select(every, metric=scores.metric, extractor=scores.extractor)
    talk(f"{found.sentence()}, {len(groups)} groups of comparable scores", quiet=quiet)
    analyses = [analyse_group(g, scores.confidence, only_price=True) for g in groups]
    prices = [] if only_bands else price_at(analyses, published_prices(rows), sigma_n)
    if json:
        answer = {"schema": "ambient.price/2", "sigma_n": sigma_n, "prices": [p.to_dict() for p in prices]}
        levels = [b.to_dict() for b in bands]
        print_json(finite({**answer, "levels": levels, "shipped": not records, "read": found.to_dict()}))
        return
    if not records:
        say(NOT_YOURS)
    print_table(
        f"Price of one clean image in noisy images, σ {sigma_n:g}", ["from", "price 1/c", "how"], price_rows(prices)
    )
    for sentence in price_sentences(analyses, sigma_n):
        say(sentence)
    for b in bands:
        say(b.sentence())
        print_table(b.title, b.columns, b.rows())


@command
@with_options
def budget(
    purse: Purse,
    scores: Scores,
    records: Records = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What should I buy? The mix of clean and noisy images with the least predicted error, and how sure that is."""
    price_clean, price_noisy = purse.prices()
    _begin(quiet)
    from ambient_theory.compare.budget import Asked, answer_budget
    from ambient_theory.compare.terminal import budget_rows, print_table, say
    from ambient_theory.shared.files import finite

    found = _load(records)
    asked = Asked(price_clean, price_noisy, purse.budget, purse.target_fd, purse.target_nats, scores.confidence)
    answers = answer_budget(
        found.records, asked, sigma_n=purse.sigma_n, metric=scores.metric, extractor=scores.extractor
    )
    if json:
        result: dict[str, Any] = {"schema": "ambient.budget/2", "answers": [a.to_dict() for a in answers]}
        print_json(finite({**result, "shipped": not records, "read": found.to_dict()}))
        return
    talk(found.sentence(), quiet=quiet)
    if not records:
        say(NOT_YOURS)
    for group in dict.fromkeys(a.group for a in answers):
        own = [a for a in answers if a.group == group]
        talk(f"from {group}", quiet=quiet)
        for a in own:
            say(a.sentence())
        print_table(
            f"Mixes, by {own[0].outcome}",
            ["σ", "mix", "clean", "noisy", "on noisy", "predicted error", "extrapolated"],
            budget_rows(own),
        )
