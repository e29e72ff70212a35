"""Kernel distance against enumeration, its unbiasedness, and its standard error."""

import numpy as np
import pytest

from ambient_theory.shared.errors import DataError
from ambient_train.evaluation.frechet import jackknife
from ambient_train.evaluation.kernel import kernel_distance, kernel_mean_within, mmd_squared
from ambient_train.evaluation.statistics import deal_groups


def test_it_equals_the_double_sum_over_all_distinct_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1
    k = lambda a, b: (a @ b / 3 + 1) ** 3  # noqa: E731
    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert mmd_squared(x, y) == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


def test_it_is_zero_on_average_for_equal_distributions_and_negative_half_the_time():
    rng = np.random.default_rng(2)
    values = np.array([mmd_squared(rng.normal(size=(40, 6)), rng.normal(size=(60, 6))) for _ in range(400)])
    assert abs(values.mean()) < 4 * values.std(ddof=1) / np.sqrt(400)
    assert 0.3 < (values < 0).mean() < 0.8


def test_counting_the_diagonal_would_bias_it_upward():
    """Negative control: the same average over all pairs, equal ones included, is far from zero."""
    from ambient_train.evaluation.kernel import cubic_kernel

    rng = np.random.default_rng(3)
    values = []
    for _ in range(100):
        x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 6))
        values.append(cubic_kernel(x, x).mean() + cubic_kernel(y, y).mean() - 2 * cubic_kernel(x, y).mean())
    assert np.mean(values) > 10 * np.std(values, ddof=1) / np.sqrt(100)


def test_a_shift_of_one_feature_has_the_closed_form_value():
    """In one dimension k = (xy + 1)^3, so MMD^2 = 3 (dm1)^2 + 3 (dm2)^2 + (dm3)^2 with differences of raw moments."""
    rng = np.random.default_rng(4)
    shift, n, repeats = 0.7, 300, 200
    moments = np.array([shift, shift**2, shift**3 + 3 * shift])
    expected = 3 * moments[0] ** 2 + 3 * moments[1] ** 2 + moments[2] ** 2
    values = [mmd_squared(rng.normal(size=(n, 1)) + shift, rng.normal(size=(n, 1))) for _ in range(repeats)]
    assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values, ddof=1) / np.sqrt(repeats))


def test_standard_error_matches_the_spread_of_repeated_generations():
    reference = np.random.default_rng(5).normal(size=(600, 4))
    values, errors = [], []
    for k in range(150):
        result = kernel_distance(np.random.default_rng([5, k]).normal(size=(400, 4)) * 1.1 + 0.2, reference)
        values.append(result.value)
        errors.append(result.stderr)
    spread = np.std(values, ddof=1)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=4 * np.sqrt(1 / 300 + 1 / (2 * 19 * 150)))


def test_leave_one_group_out_values_equal_recomputing_them():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(113, 3)) + 0.5, rng.normal(size=(1100, 3))
    labels = deal_groups(0, 113, 7)
    direct = jackknife(mmd_squared(x, y), [mmd_squared(x[labels != k], y) for k in range(7)])
    fast = kernel_distance(x, y, groups=7)
    assert fast.value == pytest.approx(direct.value, rel=1e-9)
    assert fast.stderr == pytest.approx(direct.stderr, rel=1e-9)
    assert kernel_distance(x, y, groups=7, reference_mean=kernel_mean_within(y)) == fast


def test_too_few_or_non_finite_features_are_refused():
    with pytest.raises(DataError, match="too few"):
        kernel_distance(np.zeros((39, 2)), np.zeros((100, 2)))
    with pytest.raises(DataError, match="at least 2"):
        kernel_distance(np.zeros((50, 2)), np.zeros((1, 2)))
    with pytest.raises(DataError, match="not finite"):
        kernel_distance(np.full((50, 2), np.nan), np.zeros((50, 2)))
    with pytest.raises(DataError, match="compared"):
        mmd_squared(np.zeros((5, 2)), np.zeros((5, 3)))
