"""The command `ambient compare`. Heavy modules are imported inside the function."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ambient_theory.compare.commands.common import Records, about, load
from ambient_theory.compare.commands.settings import PageOptions, Scores
from ambient_theory.shared.console import command, print_json, say, starting, talk
from ambient_theory.shared.options import with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal

EXAMPLE = "Example: ambient compare runs/ --outdir report"


@command
@leave_on_signal()
@with_options
def compare(
    page: PageOptions,
    scores: Scores,
    output: Output,
    records: Records = None,
) -> None:
    """What is a noisy image worth? Prices, fits, controls and theory from records, as one page and a table."""
    with starting("reading records", quiet=output.quiet):
        from ambient_theory.compare.commands.terminal import overview_rows
        from ambient_theory.compare.page.build import build_report
        from ambient_theory.shared.files import finite
        from ambient_theory.shared.wide_tables import print_table

        found = load(records, page.shipped)
    talk(f"{found.sentence()}; working out prices and figures", quiet=output.quiet)
    with about(records):
        report = build_report(
            found.records,
            page.outdir,
            gallery=_gallery(page.gallery),
            confidence=scores.confidence,
            metric=scores.metric,
            extractor=scores.extractor,
        )
    if output.json:
        print_json(finite({**report.findings.to_dict(), "read": found.to_dict(), "page": str(report.page)}))
        return
    for sentence in report.findings.to_dict()["answers"]:
        say(sentence)
    print_table(
        "Prices by group of comparable scores (every group: table.csv and the page)",
        ["group", "σ", "price 1/c", "by pairs", "fit"],
        overview_rows(report.findings),
    )
    talk(f"page: {report.page}", quiet=output.quiet)


def _gallery(paths: Iterable[Path]) -> list[Path]:
    """PNG files; of a directory all that it holds, by name."""
    return [file for path in paths for file in (sorted(path.glob("*.png")) if path.is_dir() else [path])]
