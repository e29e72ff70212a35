"""The verdict under a score: against the floor, against repetition, and whether training was too short or too long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient_theory.shared.records import HELDOUT_BEST, NATS, Record
from ambient_train.tasks.show import ScoreRow, copies_sentence, show_scores, training_verdict, verdicts

KEY = ("fd", "pixels:0", "heldout-clean")


def row(value: float, half: float, floor: float | None = 1.0, repeated: float | None = 3.0, key: Any = KEY) -> ScoreRow:
    return (*key, value, (value - half, value + half), 500, {key: floor}, {key: repeated}, 400)


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


def record(**fields: Any) -> Record:
    own = {"source": "train", "dataset": "digits", "n_clean": 1, "n_noisy": 0, "sigma_n": None, "seed": 0}
    return Record(**own, config_hash="x", **fields)


def total(value: float, nimg: int, checkpoint: str, stderr: float = 1.0) -> Record:
    fields = {"metric": NATS, "extractor": "none", "n_eval": 100, "checkpoint": checkpoint}
    return record(value=value, stderr=stderr, extra={"nimg": nimg}, **fields)


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


def distance(n_reference: int, features: int = 10, **extra: Any) -> Record:
    known = {"n_reference": n_reference, "features": features, "floor": 1.0, "memorisation_floor": 3.0}
    return record(
        metric="fd",
        extractor="pixels:0",
        reference="heldout-clean",
        value=2.0,
        stderr=0.05,
        n_eval=500,
        checkpoint="last",
        extra={**known, "interval95": (1.9, 2.1), **extra},
    )


def test_scores_say_with_how_many_images_they_compare_and_warn_below_200(capsys: pytest.CaptureFixture[str]) -> None:
    show_scores([distance(53)])
    said = capsys.readouterr().out
    assert "heldout-clean has 53 images" in said
    assert "--holdout" in said
    show_scores([distance(200)])
    said = capsys.readouterr().out
    assert "heldout-clean has" not in said
    assert " 200 " in said


def test_more_features_than_images_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    show_scores([distance(5000, features=768)])
    assert "500 generated images in 768 dimensions" in capsys.readouterr().out


def test_a_table_of_scores_fits_80_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = {"interval95": (0.061123, 0.123912), "floor": -0.0071812, "memorisation_floor": -0.0046091}
    scored = replace(distance(12_345, **long), metric="kid", value=-0.002566, extractor="effnet-lite0")
    show_scores([scored, replace(scored, reference="train-clean")])
    table = capsys.readouterr().out.splitlines()[:6]
    assert max(map(len, table)) <= 80
    row = "kid effnet-lite0 -0.002566 [0.06112, 0.1239] -0.00718 -0.00461"
    assert [" ".join(line.split()) for line in table] == [
        "against heldout-clean, 12,345 images",
        "score value floor repeated",
        row,
        "against train-clean, 12,345 images",
        "score value floor repeated",
        row,
    ]


def test_copies_are_told_in_a_sentence_or_how_to_find_out() -> None:
    assert "evaluate RUN --memorisation" in copies_sentence([distance(500)])
    seen = {"distance": 0.02, "ratio": 0.01, "expected": 0.04, "copies": False}
    assert copies_sentence([distance(500, memorisation=seen)]) == (
        "copies: none; 2.0% of the generated images lie nearer to a clean training image than 96% of the held-out "
        "ones do (4.0% expected by chance)"
    )
    assert "it copies" in copies_sentence([distance(500, memorisation={**seen, "copies": True})])
