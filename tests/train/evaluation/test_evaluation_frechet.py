"""Frechet distance, its statistics and its standard error, against closed forms."""

import contextlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from ambient_theory.shared.errors import DataError, UsageError
from ambient_train.evaluation import frechet
from ambient_train.evaluation.frechet import FrechetReference, frechet_distance, jackknife, jackknife_frechet
from ambient_train.evaluation.statistics import FeatureStatistics, GroupedStatistics, RunningStatistics, merge_all


def gaussian(rng, d, rank=None):
    factor = rng.normal(size=(d, rank or d))
    return FeatureStatistics(1000, rng.normal(size=d), factor @ factor.T)


def test_one_dimensional_gaussians_have_the_closed_form_distance():
    a = FeatureStatistics(10, np.array([1.5]), np.array([[4.0]]))
    b = FeatureStatistics(10, np.array([-0.5]), np.array([[9.0]]))
    assert frechet_distance(a, b) == pytest.approx(2.0**2 + (3 - 2) ** 2, rel=1e-12)


def test_commuting_covariances_have_the_closed_form_distance():
    rng = np.random.default_rng(1)
    q, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    u, v = rng.uniform(0.1, 3, size=(2, 12))
    mu = rng.normal(size=(2, 12))
    a, b = FeatureStatistics(9, mu[0], q @ np.diag(u) @ q.T), FeatureStatistics(9, mu[1], q @ np.diag(v) @ q.T)
    expected = ((mu[0] - mu[1]) ** 2).sum() + ((np.sqrt(u) - np.sqrt(v)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_general_covariances_agree_with_the_matrix_square_root_of_the_product():
    rng = np.random.default_rng(2)
    a, b = gaussian(rng, 16), gaussian(rng, 16)
    cross = np.trace(linalg.sqrtm(a.cov @ b.cov).real)
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.cov) + np.trace(b.cov) - 2 * cross
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-7)


def test_distance_to_itself_is_zero_symmetric_and_invariant_under_rotation_and_shift():
    rng = np.random.default_rng(3)
    a, b = gaussian(rng, 10), gaussian(rng, 10)
    q, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    move = rng.normal(size=10)
    moved = [FeatureStatistics(9, q @ s.mean + move, q @ s.cov @ q.T) for s in (a, b)]
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    assert frechet_distance(*moved) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_scaling_features_by_c_scales_the_distance_by_c_squared():
    rng = np.random.default_rng(4)
    a, b = gaussian(rng, 8), gaussian(rng, 8)
    scaled = [FeatureStatistics(9, 3 * s.mean, 9 * s.cov) for s in (a, b)]
    assert frechet_distance(*scaled) == pytest.approx(9 * frechet_distance(a, b), rel=1e-10)


def test_rank_deficient_covariances_give_the_distance_of_the_projections():
    rng = np.random.default_rng(5)
    a, b = gaussian(rng, 6), gaussian(rng, 6)
    basis = np.linalg.qr(rng.normal(size=(40, 6)))[0]
    wide = [FeatureStatistics(9, basis @ s.mean, basis @ s.cov @ basis.T) for s in (a, b)]
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(a, b), rel=1e-5)
    one_rank = gaussian(rng, 40, rank=1)
    assert frechet_distance(one_rank, one_rank) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("images", "dim"), [(4, 40), (40, 300), (140, 300)])
def test_few_images_in_many_dimensions_are_compared_in_the_range_of_their_covariance(images, dim, monkeypatch):
    rng = np.random.default_rng(11)
    mix = rng.standard_normal((dim, dim)) * np.geomspace(1, 1e-3, dim)
    wanted = FeatureStatistics.from_features(rng.standard_normal((2 * dim, dim)) @ mix.T)
    few = FeatureStatistics.from_features(1.2 * rng.standard_normal((images, dim)) @ mix.T + 0.1)
    basis = frechet.range_of(few)
    assert basis.shape == (dim, images - 1 + 8)
    found = FrechetReference(wanted).distance(few)
    # sums of the products' square roots, by scipy's general root of the product (its rounding: sqrt of 1e-16 of each)
    root = linalg.sqrtm(wanted.cov @ few.cov + 0j).trace().real
    expected = np.sum((wanted.mean - few.mean) ** 2) + np.trace(wanted.cov) + np.trace(few.cov) - 2 * root
    assert found == pytest.approx(expected, rel=1e-5)
    assert FrechetReference(wanted).distance(few, basis[:, : images // 2]) > expected * 1.001  # control: half of it
    monkeypatch.setattr(frechet, "FEW", 0.0)
    assert frechet.range_of(few) is None
    assert FrechetReference(wanted).distance(few) == pytest.approx(found, rel=1e-5)


def test_statistics_of_more_images_than_they_say_are_compared_whole():
    rows = np.random.default_rng(12).standard_normal((500, 60))
    true = FeatureStatistics.from_features(rows)
    lying = replace(true, n=5)
    assert frechet.range_of(lying) is None
    other = FrechetReference(FeatureStatistics.from_features(rows * 1.5))
    assert other.distance(lying) == other.distance(true)


def test_the_jackknife_of_few_images_in_many_dimensions_is_that_of_the_whole_covariance(monkeypatch):
    rng = np.random.default_rng(13)
    reference = FrechetReference(FeatureStatistics.from_features(rng.standard_normal((400, 120))))
    groups = GroupedStatistics(120, 5)
    groups.update(rng.standard_normal((40, 120)) + 0.1)
    small = jackknife_frechet(reference, groups.groups)
    monkeypatch.setattr(frechet, "FEW", 0.0)
    whole = jackknife_frechet(reference, groups.groups)
    assert small.value == pytest.approx(whole.value, rel=1e-6)
    assert small.stderr == pytest.approx(whole.stderr, rel=1e-4)


def test_a_point_mass_is_at_the_trace_of_the_other_covariance():
    rng = np.random.default_rng(6)
    a = gaussian(rng, 7)
    point = FeatureStatistics(5, a.mean, np.zeros((7, 7)))
    assert frechet_distance(a, point) == pytest.approx(np.trace(a.cov), rel=1e-12)


def test_statistics_do_not_depend_on_how_rows_are_cut_and_merged():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(1003, 9)) * 3 + 1e4
    whole = FeatureStatistics.from_features(x)
    parts = [RunningStatistics(9).update(part, chunk=7) for part in np.split(x, [1, 400, 401])]
    merged = merge_all(parts).finish()
    np.testing.assert_allclose(whole.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(whole.cov, np.cov(x.T), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(merged.cov, whole.cov, rtol=1e-9, atol=1e-9)


def test_taking_rows_out_of_the_sums_equals_never_having_added_them():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(500, 5)) + 100
    total, part = RunningStatistics(5).update(x), RunningStatistics(5).update(x[:120])
    rest = total.without(part).finish()
    np.testing.assert_allclose(rest.mean, x[120:].mean(0), rtol=1e-12)
    np.testing.assert_allclose(rest.cov, np.cov(x[120:].T), rtol=1e-9, atol=1e-9)
    with pytest.raises(UsageError):
        part.without(total)


def test_groups_are_balanced_and_do_not_depend_on_the_batches():
    rng = np.random.default_rng(9)
    x = rng.normal(size=(107, 3))
    one = GroupedStatistics(3, 10).update(x)
    cut = GroupedStatistics(3, 10)
    for part in np.array_split(x, 13):
        cut.update(part)
    assert {g.n for g in one.groups} == {10, 11}
    for a, b in zip(one.groups, cut.groups, strict=True):
        assert a.n == b.n
        np.testing.assert_allclose(a.scatter, b.scatter, rtol=1e-9, atol=1e-12)


def test_groups_do_not_line_up_with_periodic_labels():
    labels = np.arange(2000) % 10
    groups = GroupedStatistics(1, 20).update(labels[:, None])
    means = np.array([g.mean[0] for g in groups.groups])
    assert means.std() < 4 * labels.std() / np.sqrt(100)
    naive = np.array([labels[k::20].mean() for k in range(20)])
    assert naive.std() > 4 * labels.std() / np.sqrt(100)  # the control: dealing in turn gives pure groups


def test_jackknife_of_a_mean_is_the_textbook_standard_error_without_bias():
    x = np.random.default_rng(10).normal(size=50)
    result = jackknife(x.mean(), [np.delete(x, i).mean() for i in range(50)])
    assert result.stderr == pytest.approx(x.std(ddof=1) / np.sqrt(50), rel=1e-10)
    assert result.bias == pytest.approx(0, abs=1e-12)


def test_jackknife_bias_is_exact_for_a_bias_of_one_over_n():
    x = np.random.default_rng(11).normal(size=40)
    result = jackknife(x.var(), [np.delete(x, i).var() for i in range(40)])
    assert result.value - result.bias == pytest.approx(x.var(ddof=1), rel=1e-10)


def coverage(stderr_of, repeats=400, n=600, d=4):
    """Share of 95 % intervals that contain the mean of the estimator, for shifted Gaussians."""
    from scipy import stats

    reference = FrechetReference(FeatureStatistics(10**6, np.zeros(d), np.eye(d)))
    values, errors = [], []
    for k in range(repeats):
        x = np.random.default_rng([12, k]).normal(size=(n, d)) * 1.2 + 0.3
        groups = GroupedStatistics(d, 20).update(x)
        result = jackknife_frechet(reference, groups.groups)
        values.append(result.value)
        errors.append(stderr_of(reference, x, result))
    inside = np.abs(np.array(values) - np.mean(values)) <= stats.t.ppf(0.975, 19) * np.array(errors)
    return inside.mean()


def test_jackknife_interval_covers_as_often_as_it_says():
    tolerance = 4 * np.sqrt(0.95 * 0.05 / 400)
    assert coverage(lambda _reference, _x, result: result.stderr) == pytest.approx(0.95, abs=tolerance)


def test_an_error_without_the_jackknife_factor_fails_the_same_coverage_check():
    tolerance = 4 * np.sqrt(0.95 * 0.05 / 400)
    wrong = coverage(lambda _reference, _x, result: result.stderr / np.sqrt(19))
    assert abs(wrong - 0.95) > tolerance


def test_perfect_resampler_has_n_times_distance_d_times_d_plus_5_over_4():
    d, n, repeats = 16, 4000, 60
    reference = FrechetReference(FeatureStatistics(10**6, np.zeros(d), np.eye(d)))
    draws = (np.random.default_rng([13, k]).normal(size=(n, d)) for k in range(repeats))
    scaled = np.array([n * reference.distance(FeatureStatistics.from_features(x)) for x in draws])
    error = scaled.std(ddof=1) / np.sqrt(repeats)
    assert scaled.mean() == pytest.approx(d * (d + 5) / 4, abs=4 * error + 0.01 * d * (d + 5) / 4)
    assert scaled.mean() == pytest.approx(0.27 * d * (d + 3), rel=0.1)


def test_jackknife_bias_estimate_agrees_with_the_known_bias_of_a_perfect_resampler():
    d, n, repeats = 8, 2000, 40
    reference = FrechetReference(FeatureStatistics(10**6, np.zeros(d), np.eye(d)))
    biases = []
    for k in range(repeats):
        groups = GroupedStatistics(d, 20).update(np.random.default_rng([14, k]).normal(size=(n, d)))
        biases.append(n * jackknife_frechet(reference, groups.groups).bias)
    error = np.std(biases, ddof=1) / np.sqrt(repeats)
    assert np.mean(biases) == pytest.approx(d * (d + 5) / 4, abs=4 * error)


def test_resampling_images_with_replacement_biases_the_distance_upward():
    """Why there is no percentile bootstrap here: its centre lies well above the value it should surround."""
    d, n = 16, 800
    rng = np.random.default_rng(15)
    reference = FrechetReference(FeatureStatistics(10**6, np.zeros(d), np.eye(d)))
    x = rng.normal(size=(n, d))
    value = reference.distance(FeatureStatistics.from_features(x))
    boot = [reference.distance(FeatureStatistics.from_features(x[rng.integers(n, size=n)])) for _ in range(100)]
    assert np.percentile(boot, 2.5) > value


def test_statistics_survive_a_file_and_read_a_file_of_mu_and_sigma_alone(tmp_path):
    rng = np.random.default_rng(16)
    ours = FeatureStatistics.from_features(rng.normal(size=(50, 6)), "pixels:0123abcd")
    ours.save(tmp_path / "ours.npz")
    again = FeatureStatistics.load(tmp_path / "ours.npz")
    assert (again.n, again.extractor) == (50, "pixels:0123abcd")
    np.testing.assert_array_equal(again.cov, ours.cov)
    np.savez(tmp_path / "edm.npz", mu=ours.mean, sigma=ours.cov)
    foreign = FeatureStatistics.load(tmp_path / "edm.npz")
    assert foreign.n is None
    assert frechet_distance(ours, foreign) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "damage", ["missing", "truncated", "text", "no sigma", "shape", "nan", "pickle", "asymmetric", "n"]
)
def test_an_unusable_statistics_file_is_an_error_that_names_it(tmp_path, damage):
    path = tmp_path / "stats.npz"
    mu, sigma = np.zeros(3), np.eye(3)
    if damage == "text":
        path.write_text("not an archive")
    elif damage == "no sigma":
        np.savez(path, mu=mu)
    elif damage == "shape":
        np.savez(path, mu=mu, sigma=np.eye(4))
    elif damage == "nan":
        np.savez(path, mu=mu, sigma=sigma * np.nan)
    elif damage == "pickle":
        np.savez(path, mu=np.array([{"a": 1}], dtype=object), sigma=sigma)
    elif damage == "asymmetric":
        np.savez(path, mu=mu, sigma=np.triu(np.ones((3, 3))))
    elif damage == "n":
        np.savez(path, mu=mu, sigma=sigma, n=np.array([1, 2]))
    elif damage == "truncated":
        np.savez(path, mu=mu, sigma=sigma)
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"stats\.npz"):
        FeatureStatistics.load(path)


def test_distances_across_extractors_dimensions_or_non_finite_features_are_refused():
    a = FeatureStatistics(9, np.zeros(2), np.eye(2), "pixels:1")
    with pytest.raises(DataError, match="cannot be compared"):
        frechet_distance(a, FeatureStatistics(9, np.zeros(2), np.eye(2), "smallcnn:2"))
    with pytest.raises(DataError, match="dimensions"):
        frechet_distance(a, FeatureStatistics(9, np.zeros(3), np.eye(3)))
    with pytest.raises(DataError, match="not finite"):
        FeatureStatistics.from_features(np.array([[1.0, np.inf], [0, 1]]))
    with pytest.raises(DataError, match="at least 2"):
        FeatureStatistics.from_features(np.zeros((1, 3)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_a_mutated_statistics_file_is_read_or_refused_and_nothing_else(data):
    rng = np.random.default_rng(17)
    buffer = io.BytesIO()
    np.savez(buffer, mu=rng.normal(size=4), sigma=np.eye(4), n=np.array([50]))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "mutated.npz")
        path.write_bytes(content)
        with contextlib.suppress(DataError):  # any other exception fails the test
            loaded = FeatureStatistics.load(path)
            assert np.isfinite(loaded.cov).all()
