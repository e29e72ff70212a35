"""Our three metrics against torch-fidelity's, where it is installed."""

import numpy as np
import pytest
import torch

from ambient_train.evaluation.frechet import frechet_distance
from ambient_train.evaluation.kernel import mmd_squared
from ambient_train.evaluation.metrics.inception_score import inception_score
from ambient_train.evaluation.statistics import FeatureStatistics


@pytest.fixture(scope="module")
def oracle():
    try:
        from torch_fidelity import metric_fid, metric_isc, metric_kid
    except ImportError:
        pytest.skip("torch-fidelity or torchvision is not installed")
    return metric_fid, metric_isc, metric_kid


def test_frechet_distance_inception_score_and_kid_agree_with_torch_fidelity(oracle):
    metric_fid, metric_isc, metric_kid = oracle
    rng = np.random.default_rng(0)
    a = rng.normal(size=(900, 32)) @ rng.normal(size=(32, 32)) / 5
    b = rng.normal(size=(700, 32)) @ rng.normal(size=(32, 32)) / 5 + 0.3
    statistics = [metric_fid.fid_features_to_statistics(torch.tensor(x)) for x in (a, b)]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    ours = frechet_distance(FeatureStatistics.from_features(a), FeatureStatistics.from_features(b))
    assert ours == pytest.approx(theirs, rel=1e-8)

    logits = torch.tensor(rng.normal(size=(500, 20)) * 2)
    theirs = metric_isc.isc_features_to_metric(logits, splits=1, shuffle=False)["inception_score_mean"]
    assert inception_score(logits.softmax(1).numpy(), splits=1)[0] == pytest.approx(theirs, rel=1e-6)

    kernel = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    a = a[: len(b)]  # torch-fidelity compares equal numbers
    aa, bb, ab = (metric_kid.kernel_poly(x, y, **kernel) for x, y in ((a, a), (b, b), (a, b)))
    theirs = metric_kid.mmd2(aa, ab, bb, unit_diagonal=False, mmd_est="unbiased")
    assert mmd_squared(a, b) == pytest.approx(theirs, rel=1e-8)
