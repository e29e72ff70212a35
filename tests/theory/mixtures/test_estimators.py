"""HeteroscedasticMixture: scikit-learn's contract, invariances, streaming, likelihoods, bad input."""

import warnings

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from two_atoms import LAW, drawn

from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.inference import number_of_components
from ambient_theory.mixtures.laws import AtomicLaw, separated_law
from ambient_theory.mixtures.likelihood import (
    em_step,
    fit_em,
    fit_mle,
    fit_npmle,
)
from ambient_theory.mixtures.points import Points, line_points, mean_log_likelihood
from ambient_theory.mixtures.w1 import w1
from ambient_theory.shared.errors import AmbientError, DataError, UsageError


@pytest.mark.parametrize(
    "method", ["auto", "dmm", *(pytest.param(m, marks=pytest.mark.slow) for m in ("mle", "em", "npmle"))]
)
def test_scikit_learns_checks_pass(method):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(HeteroscedasticMixture(method=method, common_noise=1.0), on_fail=None, on_skip=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert failed == []
    assert sum(r["status"] == "passed" for r in results) > 45


def test_noise_is_routed_as_metadata_through_a_pipeline():
    x, s = drawn(500)
    with sklearn.config_context(enable_metadata_routing=True):
        mixture = HeteroscedasticMixture().set_fit_request(noise_std=True).set_predict_request(noise_std=True)
        pipeline = Pipeline([("shift", FunctionTransformer(lambda v: v + 10)), ("mixture", mixture)])
        pipeline.fit(x, noise_std=s)
        routed = pipeline.named_steps["mixture"].means_ - 10
        labels = pipeline.predict(x, noise_std=s)
    direct = HeteroscedasticMixture().fit(x, noise_std=s)
    np.testing.assert_allclose(routed, direct.means_, atol=1e-8)
    assert np.array_equal(labels, direct.predict(x, noise_std=s))
    assert (
        np.abs(HeteroscedasticMixture(common_noise=1.0).fit(x).means_ - direct.means_).max() > 0.05
    )  # without routing: another answer


@pytest.mark.parametrize("method", ["dmm", "mle", "em", "npmle"])
def test_error_is_small_on_easy_data(method):
    x, s = drawn(4000)
    model = HeteroscedasticMixture(method=method, random_state=0).fit(x, noise_std=s)
    assert w1(model.law_, LAW) < (0.4 if method == "npmle" else 0.12)
    assert model.converged_
    assert model.weights_.sum() == pytest.approx(1)


@pytest.mark.parametrize("method", ["dmm", "mle"])
@pytest.mark.parametrize(("k", "d"), [(1, 3), (2, 8), (3, 8), (4, 2)])
def test_atoms_are_found_in_space(k, d, method):
    rng = np.random.default_rng(k * d)
    atoms = rng.standard_normal((k, d))
    atoms *= 8 / np.linalg.norm(atoms, axis=1, keepdims=True)
    law = AtomicLaw(atoms)
    x, s = drawn(3000, 1, law, (0.5, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = HeteroscedasticMixture(k, method=method, random_state=0).fit(x, noise_std=s)
    assert model.means_.shape == (k, d)
    assert w1(model.law_, law) < 0.35
    labels = model.predict(x, noise_std=s)
    nearest = np.argmin(np.linalg.norm(x[:, None] - model.means_, axis=2), axis=1)
    assert np.mean(labels == nearest) > 0.9


def test_scalar_level_and_sample_noise_are_the_same_thing():
    x, _ = drawn(300)
    one = HeteroscedasticMixture().fit(x, noise_std=0.7)
    each = HeteroscedasticMixture().fit(x, noise_std=np.full(300, 0.7))
    np.testing.assert_allclose(one.means_, each.means_, rtol=1e-9)
    x, s = drawn(300)
    levels, index = np.unique(s, return_inverse=True)
    by_level = HeteroscedasticMixture().fit(x, noise_std=levels, noise_level=index)
    np.testing.assert_allclose(by_level.means_, HeteroscedasticMixture().fit(x, noise_std=s).means_)
    common = HeteroscedasticMixture(common_noise=1.5).fit(x)
    np.testing.assert_allclose(common.means_, HeteroscedasticMixture().fit(x, noise_std=1.5).means_)
    column = HeteroscedasticMixture().fit(x, noise_std=s[:, None])
    np.testing.assert_allclose(column.means_, HeteroscedasticMixture().fit(x, noise_std=s).means_)


def test_continuous_noise_uses_each_samples_own_s():
    rng = np.random.default_rng(5)
    s = rng.uniform(0.3, 2.5, 6000)
    x = LAW.sample(s, rng)
    model = HeteroscedasticMixture().fit(x, noise_std=s)
    assert w1(model.law_, LAW) < 0.08
    assert len(model.diagnostics_.levels) <= 64


@settings(max_examples=15, deadline=None)
@given(st.floats(-50, 50), st.floats(0.1, 10), st.integers(0, 10_000), st.sampled_from([1, 3]))
def test_fit_follows_permutation_translation_and_scale(shift, scale, seed, d):
    law = LAW if d == 1 else AtomicLaw(np.outer([-1.5, 2.0], np.ones(3) / np.sqrt(3)), LAW.weights)
    x, s = drawn(400, seed, law)
    base = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    order = np.random.default_rng(seed).permutation(len(x))
    moved = HeteroscedasticMixture(random_state=0).fit(shift + scale * x[order], noise_std=scale * s[order])
    expected = AtomicLaw(shift + scale * base.means_, base.weights_)
    assert w1(moved.law_, expected) < 1e-4 * scale * (1 + abs(shift) / scale)


def test_rotating_the_samples_rotates_the_atoms_where_they_are_binned_too():
    rng = np.random.default_rng(1)
    law = AtomicLaw(np.outer([-2, 2], np.eye(6)[0]), [0.35, 0.65])
    x, s = drawn(2000, law=law)
    base = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    for _ in range(4):
        q, _ = np.linalg.qr(rng.standard_normal((6, 6)))
        turned = HeteroscedasticMixture(random_state=0).fit(x @ q, noise_std=s)
        np.testing.assert_allclose(turned.means_ @ q.T, base.means_, atol=1e-7)


def test_atoms_do_not_depend_on_how_much_of_the_offset_they_carry():
    x, s = drawn(2000)
    near, far = (HeteroscedasticMixture().fit(x + c, noise_std=s).means_ - c for c in (0, 1e6))
    np.testing.assert_allclose(near, far, atol=1e-5)


def test_streaming_equals_fit_in_any_chunks():
    x, s = drawn(3000)
    whole = HeteroscedasticMixture(method="dmm").fit(x, noise_std=s)
    for cuts in ([10, 11, 900], [1500]):
        model = HeteroscedasticMixture()
        for part_x, part_s in zip(np.split(x, cuts), np.split(s, cuts), strict=True):
            model.partial_fit(part_x, noise_std=part_s)
        assert model.diagnostics_.n == 3000
        assert w1(model.law_, whole.law_) < 1e-3  # the range of the data is the same, sums differ by rounding only
        assert model.diagnostics_.n_l == pytest.approx(whole.diagnostics_.n_l)
    assert HeteroscedasticMixture().fit(x, noise_std=s).partial_fit(x, noise_std=s).diagnostics_.n == 3000


def test_streaming_in_space_keeps_samples_then_moments():
    law = AtomicLaw(np.outer([-3, 3], np.eye(4)[0]), [0.5, 0.5])
    x, s = drawn(30_000, 0, law)
    model = HeteroscedasticMixture(random_state=0)
    model.partial_fit(x[:1000], noise_std=s[:1000])
    assert w1(model.law_, HeteroscedasticMixture(random_state=0).fit(x[:1000], noise_std=s[:1000]).law_) < 1e-9
    model.partial_fit(x[1000:], noise_std=s[1000:])
    assert w1(model.law_, law) < 0.1
    third = HeteroscedasticMixture(3, random_state=0)
    with pytest.raises(UsageError, match="use fit"):
        third.partial_fit(x, noise_std=s)


def test_split_uses_each_half_once_and_still_finds_the_atoms():
    law = AtomicLaw(np.outer([-3, 3], np.eye(6)[2]), [0.5, 0.5])
    x, s = drawn(4000, 0, law)
    model = HeteroscedasticMixture(split=True, random_state=1).fit(x, noise_std=s)
    assert 0 < w1(model.law_, law) < 0.25
    assert w1(model.law_, HeteroscedasticMixture(random_state=1).fit(x, noise_std=s).law_) > 0


def test_more_starts_are_never_worse():
    law = AtomicLaw(np.random.default_rng(3).normal(0, 2, (4, 3)))
    x, s = drawn(400, 1, law, (1.0,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        scores = [
            HeteroscedasticMixture(4, method="mle", n_init=n, random_state=0).fit(x, noise_std=s).score(x, noise_std=s)
            for n in (1, 3, 9)
        ]
    assert scores[0] <= scores[1] + 1e-9
    assert scores[1] <= scores[2] + 1e-9


def test_em_never_lowers_the_likelihood_and_mle_ends_at_least_as_high():
    x, s = drawn(500)
    points = line_points(x[:, 0], s)
    atoms, weights = np.array([[0.0], [0.1]]), np.array([0.5, 0.5])
    values = []
    for _ in range(50):
        atoms, weights, value = em_step(points, atoms, weights)
        values.append(value)
    assert np.diff(values).min() > -1e-12
    em = fit_em(points, np.array([[-1.0], [1.0]]), np.array([0.5, 0.5]))
    box = np.array([10.0])
    mle = fit_mle(points, np.array([[-1.0], [1.0]]), np.array([0.5, 0.5]), -box, box)
    npmle = fit_npmle(points, -6.0, 6.0, grid=240)
    assert mle.log_likelihood >= em.log_likelihood - 1e-9
    assert npmle.log_likelihood >= mle.log_likelihood - 1e-3  # all laws on a grid contain nearly every law of 2 atoms


def test_the_mle_is_stationary():
    x, s = drawn(800)
    points = line_points(x[:, 0], s)
    box = np.array([10.0])
    fit = fit_mle(points, np.array([[-1.0], [1.0]]), np.array([0.5, 0.5]), -box, box)
    for step in (1e-3, -1e-3):
        for j in range(2):
            moved = fit.atoms.copy()
            moved[j] += step
            assert mean_log_likelihood(points, moved, fit.weights) < fit.log_likelihood


def test_binned_likelihood_equals_the_samples():
    x, s = drawn(25_000, levels=(0.5, 1.0))
    raw = Points(x, s, np.ones(len(x)))
    binned = line_points(x[:, 0], s)
    assert len(binned.x) < 2000
    box = np.array([10.0])
    fits = [fit_mle(p, np.array([[-1.0], [1.0]]), np.array([0.5, 0.5]), -box, box) for p in (raw, binned)]
    np.testing.assert_allclose(fits[0].atoms, fits[1].atoms, atol=2e-3)


def test_predictions_use_the_noise_of_the_sample():
    x, s = drawn(3000)
    model = HeteroscedasticMixture().fit(x, noise_std=s)
    sharp, blurred = (model.predict_proba([[1.2]], noise_std=s)[0, 1] for s in (0.5, 20.0))
    assert sharp > 0.99
    assert blurred == pytest.approx(model.weights_[1], abs=0.02)
    assert model.predict([[-1.5], [2.0]], noise_std=[0.1, 0.1]).tolist() == [0, 1]


def test_fewer_atoms_than_asked_come_with_weight_zero_or_close_together():
    x, s = drawn(2000, law=AtomicLaw([0.5]))
    model = HeteroscedasticMixture(2).fit(x, noise_std=s)
    assert w1(model.law_, AtomicLaw([0.5])) < 0.35
    assert HeteroscedasticMixture(2).fit(np.ones((5, 1)), noise_std=1.0).means_.shape == (2, 1)


def test_four_components_warn_with_the_rate():
    x, s = drawn(200)
    with pytest.warns(UserWarning, match=r"n_l\^\(-1/14\)"):
        HeteroscedasticMixture(4).fit(x, noise_std=s)


X, S = drawn(50)


@pytest.mark.parametrize(
    ("parameters", "fit", "words"),
    [
        ({}, {"noise_std": 0.0}, "finite and > 0"),
        ({}, {"noise_std": -1.0}, "finite and > 0"),
        ({}, {"noise_std": np.nan}, "finite and > 0"),
        ({}, {"noise_std": np.inf}, "finite and > 0"),
        ({}, {"noise_std": np.append(S[:-1], 0.0)}, "finite and > 0"),
        ({}, {"noise_std": np.ones(49)}, "49 values for 50 samples"),
        ({}, {"noise_std": np.ones((50, 2))}, "one-dimensional"),
        ({}, {"noise_level": np.zeros(50, int)}, "needs noise_std"),
        ({}, {"noise_std": [1.0, 2.0], "noise_level": np.zeros(50, int)}, "level 1 .* no sample"),
        ({}, {"noise_std": [1.0], "noise_level": np.ones(50, int)}, "0..0"),
        ({}, {"noise_std": [1.0], "noise_level": np.zeros(49, int)}, "one for each sample"),
        ({}, {"noise_std": ["much"] * 50}, "must hold numbers"),
        ({}, {}, "noise_std is required"),
        ({}, {"y": S}, "noise does not go there"),
        *(
            (bad, {"noise_std": 1.0}, words)
            for bad, words in [
                ({"n_components": 0}, "'n_components' parameter .* must be an int"),
                ({"n_components": 2.0}, "'n_components' parameter .* must be an int"),
                ({"n_components": 51}, "n_samples=50 is less"),
                ({"method": "magic"}, "'method' parameter .* must be a str among"),
                ({"weights": "magic"}, "'weights' parameter .* must be a str among"),
                ({"radius": -1}, "'radius' parameter .* must be"),
                ({"radius": "a"}, "'radius' parameter .* must be"),
                ({"radius": 0.01}, "outside the ball"),
                ({"n_init": 0}, "'n_init' parameter .* must be an int"),
                ({"n_init": 1.5}, "'n_init' parameter .* must be an int"),
                ({"tol": "a"}, "'tol' parameter .* must be a float"),
                ({"common_noise": -1.0}, "'common_noise' parameter .* must be"),
                ({"random_state": "seven"}, "'random_state' parameter .* must be"),
            ]
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bad_input_gets_a_sentence(parameters, fit, words):
    with pytest.raises(AmbientError, match=words):
        HeteroscedasticMixture(**parameters).fit(X, **fit)


@pytest.mark.parametrize("method", ["score", "score_samples", "predict", "predict_proba"])
def test_noise_forgotten_after_a_fit_with_it_is_refused(method):
    model = HeteroscedasticMixture().fit(X, noise_std=S)
    with pytest.raises(UsageError, match="noise_std is required"):
        getattr(model, method)(X)
    assert np.all(np.isfinite(getattr(model, method)(X, noise_std=S)))
    assert np.all(np.isfinite(getattr(HeteroscedasticMixture(common_noise=1.0).fit(X), method)(X)))


@pytest.mark.parametrize("method", ["fit", "partial_fit", "fit_predict", "fit_transform"])
def test_noise_that_is_stated_twice_is_refused(method):
    """Else a score without noise_std, after a fit with it, would take the common noise in silence."""
    with pytest.raises(UsageError, match=r"common_noise=3 states .* leave one of them out"):
        getattr(HeteroscedasticMixture(common_noise=3.0), method)(X, noise_std=S)
    search = GridSearchCV(HeteroscedasticMixture(common_noise=3.0), {"n_components": [1, 2]})
    with pytest.raises(ValueError, match="leave one of them out"):
        search.fit(X, noise_std=S)


def test_a_fit_with_common_noise_answers_for_samples_of_other_noise_and_is_bootstrapped():
    model = HeteroscedasticMixture(common_noise=1.0, random_state=0).fit(X)
    assert model.score(X, noise_std=2.0) != model.score(X)
    assert np.all(model.intervals(X, kind="bootstrap", n_boot=19).means_stderr > 0)
    same = HeteroscedasticMixture(random_state=0)
    assert number_of_components(model, X, 1.0) == number_of_components(same, X, 1.0)


@pytest.mark.filterwarnings("ignore:k = 5")
def test_what_a_fit_that_has_not_converged_advises_is_what_would_help():
    x = separated_law(2).sample(np.ones(300), np.random.default_rng(0))
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        HeteroscedasticMixture(method="em", max_iter=2, random_state=0).fit(x, noise_std=1.0)
    law, rng = AtomicLaw([-8, 0, 8.0], [0.3, 0.3, 0.4]), np.random.default_rng(4)
    s = rng.choice([1, 2.5], 300)
    with pytest.warns(ConvergenceWarning, match="take fewer n_components"):  # far from max_iter, in a flat direction
        model = HeteroscedasticMixture(5, random_state=0, n_init=1).fit(law.sample(s, rng), noise_std=s)
    assert model.n_iter_ < model.max_iter


def test_model_selection_without_routing_is_refused_and_with_it_scores_with_the_noise():
    x, s = drawn(1500, 3)
    asked = {"n_components": [1, 2]}
    with pytest.raises(UsageError, match="set_score_request"):
        GridSearchCV(HeteroscedasticMixture(), asked).fit(x, noise_std=s)
    with pytest.raises(UsageError, match="set_score_request"):
        cross_val_score(HeteroscedasticMixture(), x, params={"noise_std": s})
    with sklearn.config_context(enable_metadata_routing=True):
        model = HeteroscedasticMixture().set_fit_request(noise_std=True).set_score_request(noise_std=True)
        search = GridSearchCV(model, asked).fit(x, noise_std=s)
        scores = cross_val_score(model, x, params={"noise_std": s})
    assert search.best_params_ == {"n_components": 2}
    assert np.mean(scores) == pytest.approx(search.best_score_)
    with pytest.raises(UsageError, match="needs a fitted"):
        HeteroscedasticMixture().score(x, noise_std=s)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_infinite_data_are_refused(bad):
    x = X.copy()
    x[3] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        HeteroscedasticMixture().fit(x, noise_std=S)


def test_data_error_for_a_mean_outside_the_ball_in_space():
    with pytest.raises(DataError, match="outside the ball"):
        HeteroscedasticMixture(1, radius=1.0).fit(np.full((50, 3), 5.0), noise_std=1.0)


def test_cloning_keeps_all_options():
    model = HeteroscedasticMixture(3, method="mle", weights="order", radius=2.0, split=True, n_init=2, random_state=5)
    assert clone(model).get_params() == model.get_params()


def test_error_falls_with_n_at_the_parametric_slope_on_separated_data():
    law, errors = separated_law(2), []
    for n in (400, 40_000):
        sets = (drawn(n, i, law) for i in range(20))
        runs = [w1(HeteroscedasticMixture(method="dmm").fit(x, noise_std=s).law_, law) for x, s in sets]
        errors.append(np.mean(runs))
    assert np.log(errors[1] / errors[0]) / np.log(100) == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("order", [1, 3, 5, 7])
def test_sums_by_dot_products_equal_the_recurrence(order):
    from ambient_theory.mixtures.moments import hermite
    from ambient_theory.mixtures.streaming import hermite_sums

    z = np.random.default_rng(order).normal(1.0, 2.0, 500)
    np.testing.assert_allclose(hermite_sums(z, 1.4, order), hermite(z, 1.4, order).sum(axis=1), rtol=1e-9)


def test_a_rare_noise_level_late_in_the_data_is_not_lost():
    x, s = drawn(5000, levels=(1.0,))
    s[-3:] = 7.0
    levels = HeteroscedasticMixture().fit(x, noise_std=s).diagnostics_
    assert levels.counts.tolist() == [4997, 3]
    np.testing.assert_allclose(levels.levels, [1.0, 7.0])
