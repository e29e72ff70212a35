"""Inception Score: its bounds, its closed forms, its splits."""

import numpy as np
import pytest

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.evaluation.features import get_extractor
from ambient_train.evaluation.metrics.inception_score import RunningInceptionScore, inception_score
from ambient_train.evaluation.scores import score_images


def test_certain_and_balanced_predictions_score_the_number_of_classes():
    value, _ = inception_score(np.eye(7).repeat(1000, axis=0), splits=1)
    assert value == pytest.approx(7, rel=1e-12)


def test_predictions_that_do_not_depend_on_the_image_score_one():
    p = np.random.default_rng(1).dirichlet(np.ones(5))
    assert inception_score(np.tile(p, (100, 1)))[0] == pytest.approx(1, rel=1e-12)


def test_it_equals_the_exponential_of_the_mutual_information():
    p = np.random.default_rng(2).dirichlet(np.full(6, 0.3), size=500)
    marginal = p.mean(0)
    assert inception_score(p, splits=1)[0] == pytest.approx(np.exp((p * np.log(p / marginal)).sum(1).mean()), rel=1e-10)


def test_images_sorted_by_class_score_as_shuffled_ones_do():
    p = np.eye(10).repeat(500, axis=0)
    assert inception_score(p)[0] == pytest.approx(10, rel=0.05)
    contiguous = np.mean([inception_score(part, splits=1)[0] for part in np.array_split(p, 10)])
    assert contiguous == pytest.approx(1)  # the control: contiguous splits of sorted images hold one class each


def test_it_does_not_depend_on_the_batches():
    p = np.random.default_rng(3).dirichlet(np.ones(4), size=1000)
    running = RunningInceptionScore(4)
    for part in np.array_split(p, 17):
        running.update(part)
    assert running.mean_and_stderr() == pytest.approx(inception_score(p), rel=1e-12)


def test_scores_of_an_extractor_with_classes_need_no_reference():
    noise = np.random.default_rng(4).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8)
    smallcnn, pixels = get_extractor("smallcnn"), get_extractor("pixels")
    (score,) = score_images(noise, {}, [pixels, smallcnn], ["is"])
    assert (score.metric, score.reference, score.n) == ("is", "none", 300)
    assert score.value == pytest.approx(inception_score(smallcnn.probabilities(noise))[0], rel=1e-6)


def test_rows_that_are_not_probabilities_are_refused():
    with pytest.raises(DataError, match="sum to 1"):
        inception_score(np.full((20, 3), 0.5))
    with pytest.raises(DataError, match="too few"):
        inception_score(np.eye(3))
    with pytest.raises(DataError, match="shape"):
        inception_score(np.ones(3))
    with pytest.raises(UsageError, match="split"):
        RunningInceptionScore(3, splits=0)
