"""How long each training may be, and of how many images, so that the time is enough for an answer.

A stage is one duration T with sizes that data, not compute, limit: clean-only sizes a, 2a, ..., 16a with a = T/1024,
and mixtures of a, 2a or 4a clean images with 1, 2, 4, 8 or 16 times as many noisy ones. An answer compares models of
one stage. Where the longest possible trainings would keep the first answer waiting, a short stage comes first and gives
a rough one. Time that is added later begins a longer stage where that is at least `LONGER` times as long; else it
narrows the answer that there is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ambient_theory.shared.advice import Mixture
from ambient_theory.shared.errors import UsageError
from ambient_train.evaluation.denoising import LEVELS, QUICK_IMAGES, QUICK_LEVELS
from ambient_train.runs.heldout import FIRST_POINT

SHORTEST, LONGEST = 2**12, 2**18
"""Durations in images."""
IMAGES_PER_SIZE, LEAST_SIZE = 1024, 8
"""Training images for each of the smallest clean-only size, and that size at least."""
FIRST_ANSWER_S = 240.0
MARGIN = 1.5
"""Time for all cells of a stage, in that of its first ones: the rest is for designed ones."""
LONGER = 4
"""Least ratio of durations for which a further stage begins anew."""
START_S, CELL_S, PAGE_S = 15.0, 1.5, 30.0
"""Before the first cell; of every cell beside training and scoring; for the analysis at the end."""
CLEAN_SIZES, SEEDS = 4, 2
"""Of the first cells, as `Adviser.advise` spreads them."""
_RULES, _QUICK = 2, QUICK_IMAGES * QUICK_LEVELS


@dataclass(frozen=True)
class Rates:
    """Of one process: images trained a second, evaluations of the network a second.

    slowdown: how much of that is other work on the machine, seconds that passed for each second computed.
    """

    train_img_per_s: float
    evaluations_per_s: float
    slowdown: float = 1.0


@dataclass(frozen=True)
class Stage:
    """Trainings of one duration. unit: the smallest clean-only size."""

    duration_nimg: int
    unit: int

    @property
    def score_at(self) -> tuple[int, ...]:
        """Points at which models are scored: powers of two up to the end, of short trainings the end alone."""
        count = sum(self.duration_nimg >= size for size in (0, 2**14, 2**16))
        return tuple(self.duration_nimg // 2**k for k in reversed(range(count)))

    def candidates(self, sigma_n: float, n_train: int) -> list[Mixture]:
        """What may be trained for the price at one noise level."""
        sizes = [self.unit * 2**k for k in range(5) if self.unit * 2**k <= n_train]
        pairs = [(n, n * 2**k) for n in sizes[:3] for k in range(5)]
        return [Mixture(n) for n in sizes] + [Mixture(n, m, sigma_n) for n, m in pairs if n + m <= n_train]

    def cell_s(self, rates: Rates, denoise: int) -> float:
        """Predicted time of one training with its scores, in one process."""
        evaluations = len(self.score_at) * _RULES * denoise * LEVELS
        evaluations += _QUICK * (1 + 2 * max(0, round(math.log2(self.duration_nimg / FIRST_POINT))))
        return self.duration_nimg / rates.train_img_per_s + evaluations / rates.evaluations_per_s + CELL_S

    def to_dict(self) -> dict[str, Any]:
        return {"duration_nimg": self.duration_nimg, "unit": self.unit}


def stage(duration_nimg: int, n_train: int) -> Stage:
    """The stage of a duration, with sizes that the data can give."""
    return Stage(duration_nimg, max(LEAST_SIZE, min(duration_nimg // IMAGES_PER_SIZE, n_train // 16)))


def first_cells(sigmas: int) -> int:
    """Trainings of a first answer."""
    return SEEDS * (CLEAN_SIZES + sigmas)


def stages_for(
    time_s: float, rates: Rates, *, workers: int, sigmas: int, n_train: int, denoise: int, read_s: float = 0.0
) -> tuple[Stage, ...]:
    """One stage, or a short one and a long one. read_s: what reading the images took. Raises UsageError, with the least
    time, where even the first cells of the shortest trainings take longer."""

    def needed(duration: int, share: float = 1.0) -> float:
        return _first_cells_s(stage(duration, n_train), rates, workers, sigmas, denoise, share)

    before = max(START_S, read_s) + PAGE_S
    left = time_s - before
    if needed(SHORTEST) / rates.slowdown > left:  # other work may end; that a free machine is too slow does not
        least = needed(SHORTEST) + before
        raise UsageError(
            f"--time {time_s:,.0f}s is too short: the {first_cells(sigmas)} trainings of a first answer take about "
            f"{math.ceil(least / 60)} min here; give at least --time {math.ceil(least / 60)}m"
            + ("" if workers > 1 else ", or more --workers")
        )
    every = _durations()
    long = _longest(every, lambda d: needed(d, MARGIN) <= left)
    if needed(long) <= FIRST_ANSWER_S:
        return (stage(long, n_train),)
    short = _longest(every, lambda d: needed(d) <= min(FIRST_ANSWER_S, left / 4))
    long = _longest(every, lambda d: needed(d, MARGIN) <= left - needed(short))
    return (stage(short, n_train), stage(long, n_train)) if long > short else (stage(short, n_train),)


def further_stage(
    last: Stage, left_s: float, rates: Rates, *, workers: int, sigmas: int, n_train: int, denoise: int
) -> Stage | None:
    """The stage to begin after `last` with `left_s` seconds for trainings; None where it would not be `LONGER`."""

    def fits(duration: int) -> bool:
        needed = _first_cells_s(stage(duration, n_train), rates, workers, sigmas, denoise, MARGIN)
        return needed <= left_s

    longest = max((d for d in _durations() if fits(d)), default=0)
    return stage(longest, n_train) if longest >= LONGER * last.duration_nimg else None


def _durations() -> list[int]:
    return [SHORTEST * 2**k for k in range(int(math.log2(LONGEST // SHORTEST)) + 1)]


def _first_cells_s(chosen: Stage, rates: Rates, workers: int, sigmas: int, denoise: int, share: float) -> float:
    """Seconds of `share` times the first cells of a stage."""
    return math.ceil(share * first_cells(sigmas) / workers) * chosen.cell_s(rates, denoise)


def _longest(durations: Sequence[int], fits: Any) -> int:
    return max((d for d in durations if fits(d)), default=durations[0])
