"""How results are shown on a terminal: one table of scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ambient_theory.shared.console import say
from ambient_theory.shared.records import HELDOUT_BEST, NATS, Record

Floors = Mapping[tuple[str, str, str], float | None]


def short(n: int) -> str:
    """A number for people, three digits and a factor: 960, 50k, 1.28M, 2.5G."""
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= factor:
            return f"{n / factor:.3g}{unit}"
    return str(n)


def show_scores(records: Sequence[Record]) -> None:
    """The table of a run's scores, on stdout."""
    from ambient_train.evaluation.floors import record_cautions  # here: lists of runs need no torch

    if not records:
        print("no scores: the data has no clean image to compare with, or no features fit its images")
        return
    scores = [r for r in records if r.metric not in ("denoise", NATS) and r.checkpoint in (None, "last")]
    rows = [
        (
            r.metric,
            r.extractor,
            r.reference,
            r.value,
            r.extra.get("interval95", (float("nan"), float("nan"))),
            r.n_eval,
            {(r.metric, r.extractor, r.reference): r.extra.get("floor")},
            {(r.metric, r.extractor, r.reference): r.extra.get("memorisation_floor")},
            r.extra.get("n_reference"),
        )
        for r in scores
    ]
    show_score_rows(rows)
    for sentence in (
        *verdicts(rows),
        *denoise_sentences(records),
        *training_verdict(records),
        copies_sentence(scores),
        *record_cautions(scores),
    ):
        say(sentence)
    if any(r.evaluation for r in records):
        print(f"sampler: {sampler_text(next(r.evaluation for r in records if r.evaluation))}")


def denoise_sentences(records: Sequence[Record]) -> list[str]:
    """The held-out denoising error, and what the held-out best checkpoint scores where it is not the last one."""
    out = []
    last = [r for r in records if r.checkpoint in (None, "last")]
    best = [r for r in records if r.checkpoint == HELDOUT_BEST]
    if total := next((r for r in last if r.metric == NATS), None):
        levels = [r for r in last if r.metric == "denoise" and r.level is not None]
        shown = ", ".join(f"{r.value:.3g} at sigma {r.level:.2g}" for r in levels[2::4])
        out.append(
            f"held-out denoising error of {total.n_eval:,} clean images: {total.value:.4g} nats an image; "
            f"per pixel {shown}"
        )
    if best and best[0].extra.get("nimg") != last[0].extra.get("nimg"):
        at = best[0].extra["nimg"]
        found = "; ".join(
            f"{r.metric} {r.extractor.split(':')[0]} {r.value:.4g}"
            for r in best
            if r.reference == best[0].reference and r.level is None and r.metric != NATS
        )
        out.append(f"held-out best: the checkpoint at {at:,} images, against {best[0].reference}: {found}")
    return out


def copies_sentence(scores: Sequence[Record]) -> str:
    """Whether the generated images are copies of the clean training images, or how to find out."""
    found = next((r.extra["memorisation"] for r in scores if r.extra.get("memorisation")), None)
    if found is None:
        return "copies: not looked for here; `ambient evaluate RUN --memorisation` does"
    seen = "it copies" if found["copies"] else "none"
    return (
        f"copies: {seen}; {found['distance']:.1%} of the generated images lie nearer to a clean training image than "
        f"{1 - found['expected']:.0%} of the held-out ones do ({found['expected']:.1%} expected by chance)"
    )


ScoreRow = tuple[str, str, str, float, Sequence[float], int, Floors, Floors, int | None]
"""metric, extractor label, reference, value, interval, generated images, floors, memorisation floors, images of the
reference."""


def verdicts(rows: Iterable[ScoreRow]) -> list[str]:
    """What a Frechet distance means, in a sentence for each set of features, against held-out images where there are
    any: how far from the floor, and whether it beats a model that only repeats its clean images.

    Two numbers are told apart where the interval of the score leaves the other one out.
    """
    distances = [row for row in rows if row[0] in ("fd", "fid")]
    wanted = "heldout-clean" if any(row[2] == "heldout-clean" for row in distances) else None
    out = []
    for metric, extractor, reference, value, (low, high), n, floors, memorised, _ in distances:
        key = (metric, extractor, reference)
        floor, repeated = floors.get(key), memorised.get(key)
        if wanted not in (None, reference) or floor is None or floor <= 0:
            continue
        if low <= floor:
            words = f"as good as real images, as far as {n:,} images tell"
        else:
            words = f"{value / floor:.3g} times the floor"
        if repeated is not None:
            order = "better than" if high < repeated else "worse than" if low > repeated else "not told apart from"
            words += f"; {order} repeating its clean images ({repeated:.4g})"
        out.append(f"verdict, {extractor.split(':')[0]} against {reference}: {words}")
    return out


def training_verdict(records: Sequence[Record]) -> list[str]:
    """Whether a run was trained too short or too long, by where its held-out denoising error was least.

    Past its best is a run whose error rose since by more than two standard errors of the two, taken as independent
    (they are of the same images in part, so this is cautious).
    """
    totals = {r.checkpoint: r for r in records if r.metric == NATS}
    last, best = totals.get("last"), totals.get(HELDOUT_BEST)
    if last is None or best is None or "nimg" not in best.extra or "nimg" not in last.extra:
        return []
    at, end = best.extra["nimg"], last.extra["nimg"]
    if at == end:
        return [
            f"verdict, training: the held-out error was least at the end, {end:,} images: a larger --duration helps"
        ]
    if last.value - best.value > 2 * math.hypot(last.stderr or 0.0, best.stderr or 0.0):
        return [
            f"verdict, training: past its best: the held-out error rose from {best.value:.4g} nats at {at:,} images to "
            f"{last.value:.4g} at {end:,}, so it memorises: use that checkpoint (--at {at}), or more images"
        ]
    return [f"verdict, training: long enough: the held-out error has hardly moved since {at:,} images"]


def show_score_rows(rows: Iterable[ScoreRow]) -> None:
    """Scores with intervals and both floors, on stdout: a table for each reference, in 80 columns."""
    from rich.console import Console
    from rich.table import Table

    names = ("score", "value", "floor", "repeated")
    cells: dict[str, list[tuple[str, ...]]] = {}
    sizes: dict[str, int | None] = {}
    generated, metrics = set(), set()
    for metric, extractor, reference, value, (low, high), n, floors, memorised, images in rows:
        key = (metric, extractor, reference)
        generated.add(n)
        metrics.add(metric)
        sizes[reference] = images
        cells.setdefault(reference, []).append(
            (
                f"{metric} {extractor.split(':')[0]}",
                f"{value:.4g} [{low:.4g}, {high:.4g}]",
                _number(floors.get(key)),
                _number(memorised.get(key)),
            )
        )
    every = [names, *(row for own in cells.values() for row in own)]
    widths = [max(len(row[c]) for row in every) for c in range(len(names))]
    for reference, own in cells.items():
        size = sizes[reference]
        title = f"against {reference}" + ("" if size is None else f", {size:,} images")
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name, width in zip(names, widths, strict=True):
            table.add_column(name, justify="left" if name == "score" else "right", min_width=width)
        for row in own:
            table.add_row(*row)
        Console(highlight=False).print(table, markup=False)
    counts = " or ".join(f"{n:,}" for n in sorted(generated))
    say(
        f"{counts} generated images; value with its 95 % interval. floor: of as many real images; repeated: of a model "
        "that only repeats its clean training images; both drawn with replacement where there are fewer."
    )
    if "kid" in metrics:
        say("kid has no bias, so that the floor of as good a model as can be is 0 give or take, also below it.")


def sampler_text(evaluation: Mapping[str, Any]) -> str:
    """The settings of a sampler that matter, in words."""
    s = evaluation.get("sampler", {})
    if "one_step_sigma" in s:
        return f"one step, a distilled generator at sigma {s['one_step_sigma']:g}"
    words = [f"{s.get('solver')}, {s.get('steps')} steps from sigma {s.get('sigma_max')} to {s.get('sigma_min')}"]
    if s.get("churn"):
        words.append(f"churn {s['churn']:g}")
    if s.get("stop_sigma"):
        words.append(f"stopped at sigma {s['stop_sigma']:g}")
    return ", ".join(words)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
