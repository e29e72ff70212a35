"""The table of docs/methods.md on what the draw does to the worth of noisy images, from the records of evidence_fashion
and evidence_clean_first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ambient_theory.compare.by_level.beside import ABOVE, ALL, Beside, beside
from ambient_theory.compare.by_level.levels import DENOISE, RULES, level_tables
from ambient_theory.compare.scores.words import span
from ambient_theory.shared.records import HELDOUT_BEST, Record

HEAD = """
## Does training decide what a noisy image is worth?

In evidence_fashion.toml a noisy image is worth less the more clean images there are. Noisy images also take training
steps from the clean ones, and 65,536 images are few for several hundred clean ones. Here the same mixtures trained with
noisy images from the start (draw `sigma-first`) and with noisy images that come in while the clean ones are repeated
(`clean-first`), both beside the same clean-only models: {seeds} seeds of evidence_clean_first.toml, which says
beforehand what is expected. *Worth*: of one noisy image in clean ones, each mixture by itself, with intervals of 95 %.

"""
WHEN = ("from the start", "after the clean ones")
"""Which draw, in words: sigma-first, clean-first."""


def table(started: Sequence[Record], after: Sequence[Record]) -> list[str]:
    """A line a mixture, rule and draw. started, after: records of the two grids, the first with clean-only models."""
    cells = {_mixture(r) for r in after}
    seeds = {r.seed for r in after}
    clean = [r for r in started if not r.n_noisy]
    method = clean[0].method
    mixtures = ([r for r in started if _mixture(r) in cells and r.seed in seeds and _told(r)], after)
    found: dict[tuple[str, str, str], dict[tuple[str, str], Beside]] = {}
    for when, own in zip(WHEN, mixtures, strict=True):
        for rule, b in _worths([*clean, *(replace(r, method=method) for r in own)]):
            found.setdefault((f"{b.cell.sigma_n:g}", b.cell.name, rule), {})[when, b.part] = b
    parts = (ALL, ABOVE)
    columns = [f"{part}, noisy images {when}" for part in parts for when in WHEN]
    lines = [f"| mixture | rule | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for (_, name, rule), at in sorted(found.items(), key=lambda x: (x[0][1], x[0][0], x[0][2])):
        told = [span(b.worth) if (b := at.get((when, part))) else "–" for part in parts for when in WHEN]
        lines.append(f"| {name} | {rule} | {' | '.join(told)} |")
    return lines


TESTED = (400, 1600, 0.2)
"""The mixture (clean images, noisy ones, sigma) whose worth was expected to come up to that of long trainings."""


def verdict(started: Sequence[Record], after: Sequence[Record], long: Sequence[Record]) -> str:
    """What was expected of the worth of `TESTED`, at the held-out best over all levels, and what was found."""
    method = next(r.method for r in started if not r.n_noisy)
    clean = [r for r in started if not r.n_noisy]
    worths = (_tested(long), _tested([*clean, *(replace(r, method=method) for r in after)]))
    (goal, images), (found, _) = worths
    before, _ = _tested(started)
    verbs = {True: "does not exclude", False: "excludes", None: "has no ends and excludes not"}
    goal_held, same_held = (verbs[found.worth.contains(x.worth.value)] for x in (goal, before))
    return (
        f"\nExpected of {goal.cell.name} at the held-out best, over all levels: {span(goal.worth)}, that of trainings "
        f"of {images:,} images with noisy images from the start (two seeds of evidence_long.toml). Found with "
        f"`clean-first`: {span(found.worth)}. The interval {goal_held} what was expected, and {same_held} that nothing "
        f"changed: {span(before.worth)} with noisy images from the start, all seeds.\n"
    )


def _tested(records: Iterable[Record]) -> tuple[Beside, int]:
    """`TESTED` after the longest training at the held-out best over all levels, and of how many images that is."""
    rows = [r for r in records if r.metric == DENOISE]
    last = max(r.duration_nimg or 0 for r in rows)
    own = (b for rule, b in _worths(rows) if rule == RULES[HELDOUT_BEST] and b.part == ALL)
    return next(b for b in own if (b.cell.n_clean, b.cell.n_noisy, b.cell.sigma_n) == TESTED), last


def _worths(records: Iterable[Record]) -> list[tuple[str, Beside]]:
    """(rule, mixture) after the longest training, over all levels and above the noise."""
    tables = level_tables(r for r in records if r.metric == DENOISE)
    last = max(t.key.duration_nimg for t in tables)
    return [(RULES[t.key.checkpoint], b) for t in tables if t.key.duration_nimg == last for b in beside(t)]


def _mixture(r: Record) -> tuple[int, int, object]:
    return r.n_clean, r.n_noisy, r.sigma_n


def _told(r: Record) -> bool:
    """Whether a training knew the noise of its images: all but those of a control."""
    return "told_sigma" not in (r.method if isinstance(r.method, dict) else {})
