"""The verdict under a score: against the floor, against repetition, and whether training was too short or too long."""

from __future__ import annotations

from typing import Any

import pytest

from ambient_theory.shared.records import HELDOUT_BEST, NATS, Record
from ambient_train.tasks.show import ScoreRow, training_verdict, verdicts

KEY = ("fd", "pixels:0", "heldout-clean")


def row(value: float, half: float, floor: float | None = 1.0, repeated: float | None = 3.0, key: Any = KEY) -> ScoreRow:
    return (*key, value, (value - half, value + half), 500, {key: floor}, {key: repeated})


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (row(2.0, 0.5), "2 times the floor; better than repeating its clean images (3)"),
        (row(2.8, 0.5), "2.8 times the floor; not told apart from repeating its clean images (3)"),
        (row(4.0, 0.5), "4 times the floor; worse than repeating its clean images (3)"),
        (row(1.2, 0.5), "as good as real images, as far as 500 images tell; better than repeating"),
        (row(2.0, 0.5, repeated=None), "2 times the floor"),
    ],
)
def test_a_distance_is_held_against_the_floor_and_against_repetition(score: ScoreRow, words: str) -> None:
    [said] = verdicts([score])
    assert said.startswith("verdict, pixels against heldout-clean: ")
    assert words in said


def test_there_is_one_verdict_a_set_of_features_and_none_without_a_floor() -> None:
    train = ("fd", "pixels:0", "train-clean")
    kid = ("kid", "pixels:0", "heldout-clean")
    assert len(verdicts([row(2.0, 0.5), row(2.0, 0.5, key=train), row(2.0, 0.5, key=kid)])) == 1
    assert len(verdicts([row(2.0, 0.5, key=train)])) == 1
    assert verdicts([row(2.0, 0.5, floor=None)]) == []


def total(value: float, nimg: int, checkpoint: str, stderr: float = 1.0) -> Record:
    return Record(
        source="train",
        dataset="digits",
        n_clean=1,
        n_noisy=0,
        sigma_n=None,
        metric=NATS,
        extractor="none",
        value=value,
        stderr=stderr,
        n_eval=100,
        seed=0,
        config_hash="x",
        checkpoint=checkpoint,
        extra={"nimg": nimg},
    )


@pytest.mark.parametrize(
    ("last", "best", "at", "words"),
    [
        (100.0, 100.0, 4000, "a larger --duration helps"),
        (110.0, 100.0, 2000, "past its best: the held-out error rose from 100 nats at 2,000 images to 110 at 4,000"),
        (102.0, 100.0, 2000, "hardly moved since 2,000"),
    ],
)
def test_the_training_was_too_short_too_long_or_long_enough(last: float, best: float, at: int, words: str) -> None:
    [said] = training_verdict([total(last, 4000, "last"), total(best, at, HELDOUT_BEST)])
    assert words in said
    assert training_verdict([total(last, 4000, "last")]) == []
