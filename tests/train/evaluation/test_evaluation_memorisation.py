"""The memorisation check against brute force, its null law, and models that copy or do not."""

import json

import numpy as np
import pytest
from scipy import stats

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.data.load import load_images
from ambient_train.evaluation.memorisation import memorisation_check, nearest_two, share_below


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", split="train").images, load_images("digits", split="heldout").images


def test_nearest_two_equals_brute_force_over_block_borders():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 5)).astype(np.float32), rng.normal(size=(16_011, 5)).astype(np.float32)
    y[16_005] = x[3]
    full = np.sqrt(((x[:, None].astype(float) - y[None]) ** 2).sum(2))
    distances, index = nearest_two(x, y)
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :2], rtol=1e-6)
    np.testing.assert_array_equal(index, full.argmin(1))
    assert distances[3, 0] == 0
    np.testing.assert_allclose(nearest_two(x, y[:2])[0], np.sort(full[:, :2], axis=1), rtol=1e-6)


def test_the_p_value_is_uniform_or_larger_if_both_samples_are_of_one_law():
    rng = np.random.default_rng(2)
    p = np.array([share_below(rng.exponential(size=300), rng.exponential(size=200), 10).p_value for _ in range(2000)])
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 4 * np.sqrt(level * (1 - level) / 2000)
    assert (p <= 0.2).mean() > 0.1
    shares = [share_below(rng.normal(size=300), rng.normal(size=200), 10).share for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(10 / 201, abs=4 * np.std(shares) / np.sqrt(2000))


def test_a_binomial_law_that_ignores_the_held_out_sample_would_reject_too_often():
    """Negative control: with the threshold taken as known, 1 % of tests on equal laws become many more."""
    rng = np.random.default_rng(3)
    wrong = []
    for _ in range(500):
        found = share_below(rng.normal(size=2000), rng.normal(size=200), 10)
        wrong.append(stats.binom.sf(round(found.share * 2000) - 1, 2000, found.expected))
    assert (np.array(wrong) <= 0.01).mean() > 0.05


def test_the_interval_is_clopper_pearson():
    found = share_below(np.r_[np.zeros(7), np.ones(93)], np.linspace(0.1, 0.5, 50), 5)
    exact = stats.binomtest(7, 100).proportion_ci(0.95, method="exact")
    assert found.interval == pytest.approx((exact.low, exact.high))


def test_fresh_real_images_are_not_called_copies(digits):
    train, heldout = digits
    order = np.random.default_rng(4).permutation(len(heldout))
    half = len(order) // 2
    result = memorisation_check(heldout[order[:half]], train, heldout[order[half:]])
    assert not result.copies
    assert result.distance.p_value > 1e-3
    assert result.median_distance == pytest.approx(result.median_distance_heldout, rel=0.2)


@pytest.mark.parametrize("noise", [0, 6])
def test_a_generator_that_repeats_training_images_is_caught(digits, noise):
    train, heldout = digits
    rng = np.random.default_rng(5)
    source = rng.integers(len(train), size=200)
    copies = np.clip(train[source] + rng.normal(0, noise, train[source].shape), 0, 255).astype(np.uint8)
    result = memorisation_check(copies, train, heldout)
    assert result.copies
    assert min(result.distance.share, result.ratio.share) > 0.9
    if noise == 0:
        assert all(distance == 0 for _, _, distance in result.closest)
        assert all(np.array_equal(copies[i], train[j]) for i, j, _ in result.closest)


def test_a_tenth_of_copies_among_fresh_images_is_found(digits):
    train, heldout = digits
    fresh, yardstick = heldout[:150], heldout[150:]
    result = memorisation_check(np.concatenate([fresh, train[:40]]), train, yardstick)
    assert result.distance.interval[0] > result.distance.expected
    assert result.copies


def test_plain_blurred_images_are_close_but_not_called_copies(digits):
    """The mean of many images is near to everything: distance alone would accuse it, the ratio does not."""
    train, heldout = digits
    rng = np.random.default_rng(6)
    blurred = np.stack([train[rng.integers(len(train), size=400)].mean(0) for _ in range(200)])
    blurred = (blurred + rng.normal(0, 1, blurred.shape)).round().astype(np.uint8)
    result = memorisation_check(blurred, train, heldout, share=0.5)
    assert result.ratio.p_value > 1e-3
    assert not result.copies


def test_the_result_is_json(digits):
    train, heldout = digits
    d = memorisation_check(train[:30], train, heldout).to_dict()
    assert json.dumps(d, allow_nan=False).startswith('{"schema": "ambient.memorisation/1"')
    assert d["copies"] is True
    assert (d["n"], d["n_train"], d["n_heldout"]) == (30, len(train), len(heldout))


def test_unusable_requests_are_refused(digits):
    train, heldout = digits
    with pytest.raises(UsageError, match="between 0 and 1"):
        memorisation_check(train, train, heldout, share=5)
    with pytest.raises(DataError, match="held-out images are too few"):
        memorisation_check(train, train, heldout[:10])
    with pytest.raises(DataError, match="no yardstick"):
        memorisation_check(train, train, train[:100])
    with pytest.raises(DataError, match="at least 2"):
        memorisation_check(train, train[:1], heldout)
