"""The command `ambient budget`. Heavy modules are imported inside the function."""

from __future__ import annotations

from typing import Any

from ambient_theory.compare.commands.common import NOT_YOURS, Records, about, load
from ambient_theory.compare.commands.settings import Purse, Scores
from ambient_theory.shared.console import command, print_json, say, starting, talk
from ambient_theory.shared.options import with_options
from ambient_theory.shared.output import Output
from ambient_theory.shared.signals import leave_on_signal

EXAMPLE = "Example: ambient budget --price-clean 10 --price-noisy 1 --budget 5000 results/records.jsonl"


@command
@leave_on_signal()
@with_options
def budget(
    purse: Purse,
    scores: Scores,
    output: Output,
    records: Records = None,
) -> None:
    """What should I buy? The mix of clean and noisy images with the least predicted error, and how sure that is."""
    price_clean, price_noisy = purse.prices()
    with starting("reading records", quiet=output.quiet):
        from ambient_theory.compare.commands.terminal import budget_rows
        from ambient_theory.compare.purchase.budget import Asked, answer_budget
        from ambient_theory.shared.files import finite
        from ambient_theory.shared.wide_tables import print_table

        found = load(records)
    asked = Asked(price_clean, price_noisy, purse.budget, purse.target_fd, purse.target_nats, scores.confidence)
    with about(records):
        answers = answer_budget(
            found.records, asked, sigma_n=purse.sigma_n, metric=scores.metric, extractor=scores.extractor
        )
    if output.json:
        result: dict[str, Any] = {"schema": "ambient.budget/2", "answers": [a.to_dict() for a in answers]}
        print_json(finite({**result, "shipped": not records, "read": found.to_dict()}))
        return
    talk(found.sentence(), quiet=output.quiet)
    if not records:
        say(NOT_YOURS)
    for group in dict.fromkeys(a.group for a in answers):
        own = [a for a in answers if a.group == group]
        talk(f"from {group}", quiet=output.quiet)
        for a in own:
            say(a.sentence())
        print_table(
            f"Mixes, by {own[0].outcome}",
            ["σ", "mix", "clean", "noisy", "on noisy", "predicted error", "extrapolated"],
            budget_rows(own),
            keys=2,
        )
