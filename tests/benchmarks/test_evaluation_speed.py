"""Speed of scoring: features, Frechet distance and KID."""

import numpy as np
import pytest
import torch

from ambient_train.evaluation.features import get_extractor
from ambient_train.evaluation.frechet import FrechetReference, jackknife_frechet
from ambient_train.evaluation.kernel import kernel_distance
from ambient_train.evaluation.memorisation import nearest_two
from ambient_train.evaluation.statistics import FeatureStatistics, GroupedStatistics, RunningStatistics
from ambient_train.runs.resolve import resolve
from ambient_train.runs.scoring_work import scoring_work
from ambient_train.settings.layers import settings_from
from ambient_train.training.cost import measure


@pytest.mark.parametrize("name", ["pixels", "smallcnn"])
def test_features_of_ten_thousand_8x8_images(benchmark, name):
    images = np.random.default_rng(0).integers(0, 256, (10_000, 1, 8, 8), dtype=np.uint8)
    extractor = get_extractor(name)
    features = benchmark.pedantic(extractor, (images,), rounds=3, warmup_rounds=1)
    assert features.shape == (10_000, 64)
    benchmark.extra_info["images_per_s"] = 10_000 / benchmark.stats.stats.median


def gaussian_statistics(d, seed, n=4096):
    return FeatureStatistics.from_features(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


@pytest.mark.parametrize("d", [64, 1280, 2048])
def test_frechet_distance_to_a_prepared_reference(benchmark, d):
    reference, other = FrechetReference(gaussian_statistics(d, 0)), gaussian_statistics(d, 1)
    value = benchmark.pedantic(reference.distance, (other,), rounds=3, warmup_rounds=1)
    assert value > 0


def test_jackknife_over_twenty_groups_of_64_features(benchmark):
    reference = FrechetReference(gaussian_statistics(64, 0))
    groups = GroupedStatistics(64, 20).update(np.random.default_rng(1).normal(size=(10_000, 64))).groups
    result = benchmark(jackknife_frechet, reference, groups)
    assert result.stderr > 0


def test_covariance_of_a_thousand_rows_of_2048_features(benchmark):
    rows = np.random.default_rng(0).normal(size=(1000, 2048)).astype(np.float32)
    sums = benchmark.pedantic(lambda: RunningStatistics(2048).update(rows), rounds=3, warmup_rounds=1)
    assert sums.n == 1000


def test_kid_of_ten_thousand_images_with_64_features(benchmark):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 10_000, 64)).astype(np.float32)
    result = benchmark.pedantic(kernel_distance, (x, y), {"reference_mean": 1.0}, rounds=2, warmup_rounds=0)
    assert result.stderr > 0


def test_nearest_of_sixty_thousand_for_two_thousand_images(benchmark):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 64)).astype(np.float32), rng.normal(size=(60_000, 64)).astype(np.float32)
    distances, _ = benchmark.pedantic(nearest_two, (x, y), rounds=2, warmup_rounds=0)
    assert distances.shape == (2000, 2)


@pytest.mark.parametrize(("data", "preset"), [("digits", "digits"), ("photos32", "small")])
def test_scores_of_a_preset_beside_its_training(benchmark, data, preset):
    """Share of a training's time that its scores take at most (see `scoring_work`), by the rates of this machine."""
    job = resolve(settings_from({"data": data, "preset": preset}))
    mixture, device = job.training_set(), torch.device("cpu")
    cost = benchmark.pedantic(measure, (job.config, mixture, 0, device), rounds=3, warmup_rounds=1)
    share = scoring_work(job).share(job.schedule.duration_nimg / cost.train_img_per_s, cost.evaluations_per_s)
    benchmark.extra_info["scoring_share"] = share
    benchmark.extra_info["trained_over_evaluated"] = cost.evaluations_per_s / cost.train_img_per_s
    assert 0 < share < 1
