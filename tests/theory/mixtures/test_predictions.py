"""Empirical Bayes: posterior means, posterior deviations, samples, and the methods that fit and predict at once."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from two_atoms import LAW

from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.laws import AtomicLaw
from ambient_theory.mixtures.w1 import w1
from ambient_theory.shared.errors import UsageError


def knows(law):
    """An estimator that has the law already: its posteriors are then exact."""
    model = HeteroscedasticMixture(law.k).fit(np.linspace(-1, 1, 5 * law.d).reshape(5, law.d), noise_std=1.0)
    model.means_, model.weights_ = law.atoms, law.weights
    return model


def drawn(n, seed=0, law=LAW):
    rng = np.random.default_rng(seed)
    s = rng.uniform(0.4, 3.0, n)
    labels = rng.choice(law.k, n, p=law.weights)
    return law.atoms[labels] + s[:, None] * rng.standard_normal((n, law.d)), s, labels


def test_the_posterior_of_two_atoms_is_the_logistic_formula():
    x, s = np.array([[0.3], [-1.0]]), np.array([0.5, 2.0])
    a, b = LAW.line()
    odds = np.log(0.65 / 0.35) + ((x[:, 0] - a) ** 2 - (x[:, 0] - b) ** 2) / (2 * s**2)
    p = 1 / (1 + np.exp(-odds))
    model = knows(LAW)
    np.testing.assert_allclose(model.predict_proba(x, noise_std=s)[:, 1], p, rtol=1e-12)
    np.testing.assert_allclose(model.predict_mean(x, noise_std=s)[:, 0], a + p * (b - a), rtol=1e-12)
    np.testing.assert_allclose(model.predict_std(x, noise_std=s)[:, 0], np.sqrt(p * (1 - p)) * (b - a), rtol=1e-12)
    np.testing.assert_array_equal(model.transform(x, noise_std=s), model.predict_mean(x, noise_std=s))


def test_posterior_probabilities_are_calibrated_and_with_the_wrong_noise_they_are_not():
    x, s, labels = drawn(40_000)
    model = knows(LAW)

    def off(noise):
        p = model.predict_proba(x, noise_std=noise)[:, 1]
        bins = np.clip((p * 10).astype(int), 0, 9)
        gap = [
            (np.mean(labels[bins == b] - p[bins == b]))
            / np.sqrt(np.mean(p[bins == b] * (1 - p[bins == b])) / np.sum(bins == b))
            for b in range(10)
        ]
        return np.abs(gap).max()  # the largest of ten standard normals, if calibrated

    assert off(s) < 4
    assert off(0.7 * s) > 10


def test_the_posterior_mean_is_nearer_to_the_truth_than_the_sample_and_any_linear_shrinkage():
    x, s, labels = drawn(20_000)
    y = LAW.atoms[labels]
    model = HeteroscedasticMixture().fit(x, noise_std=s)
    error = np.mean((model.predict_mean(x, noise_std=s) - y) ** 2)
    variance = 0.35 * 0.65 * 3.5**2
    linear = 0.775 + (x - 0.775) * (variance / (variance + s**2))[:, None]
    assert error < 0.9 * np.mean((linear - y) ** 2) < 0.8 * np.mean((x - y) ** 2)
    exact = np.mean((knows(LAW).predict_mean(x, noise_std=s) - y) ** 2)
    assert error == pytest.approx(exact, rel=0.01)
    npmle = HeteroscedasticMixture(method="npmle").fit(x, noise_std=s)
    assert np.mean((npmle.predict_mean(x, noise_std=s) - y) ** 2) == pytest.approx(exact, rel=0.02)


def test_the_posterior_deviation_is_the_error_of_the_posterior_mean():
    x, s, labels = drawn(40_000)
    model = knows(LAW)
    squares = (model.predict_mean(x, noise_std=s) - LAW.atoms[labels]) ** 2
    variance = model.predict_std(x, noise_std=s) ** 2
    assert abs(np.mean(squares - variance)) < 4 * np.std(squares - variance) / np.sqrt(len(x))
    assert abs(np.mean(squares - 1.2 * variance)) > 4 * np.std(squares - 1.2 * variance) / np.sqrt(len(x))


@pytest.mark.parametrize("d", [1, 3])
def test_samples_have_the_fitted_law_and_the_noise_asked_for(d):
    law = LAW if d == 1 else AtomicLaw(np.outer([-1.5, 2.0], np.eye(d)[0]), LAW.weights)
    model, n = knows(law), 40_000
    s = np.where(np.arange(n) % 2, 0.3, 2.0)
    x, labels = model.sample(n, noise_std=s, random_state=1)
    assert x.shape == (n, d)
    residual = (x - law.atoms[labels]) / s[:, None]
    assert residual.var() == pytest.approx(1, abs=4 * np.sqrt(2 / residual.size))
    assert labels.mean() == pytest.approx(0.65, abs=4 * np.sqrt(0.35 * 0.65 / n))
    np.testing.assert_array_equal(
        model.sample(9, noise_std=1.0, random_state=1)[0], model.sample(9, noise_std=1.0, random_state=1)[0]
    )
    again = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    assert w1(again.law_, law) < 0.1


def test_samples_need_noise_and_a_number():
    model = knows(LAW)
    with pytest.raises(UsageError, match="noise_std is required"):
        model.sample(3)
    with pytest.raises(UsageError, match="n_samples must be a whole number"):
        model.sample(0, noise_std=1.0)
    assert HeteroscedasticMixture(common_noise=1.0).fit(np.arange(9.0)[:, None]).sample(4)[0].shape == (4, 1)


def test_fit_and_predict_at_once_are_fit_then_predict():
    x, s, _ = drawn(300)
    w = np.arange(300) % 3
    model = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s, sample_weight=w)
    same = clone(model)
    np.testing.assert_array_equal(same.fit_predict(x, noise_std=s, sample_weight=w), model.predict(x, noise_std=s))
    np.testing.assert_array_equal(same.fit_transform(x, noise_std=s, sample_weight=w), model.transform(x, noise_std=s))
    assert model.score(x, noise_std=s, sample_weight=w) == pytest.approx(
        np.average(model.score_samples(x, noise_std=s), weights=w)
    )


def test_denoising_is_a_step_of_a_pipeline_with_noise_routed_to_it():
    x, s, _ = drawn(300)
    with sklearn.config_context(enable_metadata_routing=True):
        step = (
            HeteroscedasticMixture(random_state=0).set_fit_request(noise_std=True).set_transform_request(noise_std=True)
        )
        pipeline = make_pipeline(step, FunctionTransformer()).fit(x, noise_std=s)
        out = pipeline.transform(x, noise_std=s)
    direct = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s)
    np.testing.assert_allclose(out, direct.transform(x, noise_std=s))
    assert list(direct.get_feature_names_out()) == ["x0"]


@pytest.mark.parametrize(
    ("weights", "words"),
    [([-1.0] * 9, "finite and >= 0"), ([0.0] * 9, "zero"), ([1.0] * 8, "each of the 9"), (["a"] * 9, "numbers")],
)
def test_bad_weights_get_a_sentence(weights, words):
    with pytest.raises(UsageError, match=words):
        HeteroscedasticMixture().fit(np.arange(9.0)[:, None], noise_std=1.0, sample_weight=weights)
    model = HeteroscedasticMixture().fit(np.arange(9.0)[:, None], noise_std=1.0)
    with pytest.raises(UsageError, match=words):
        model.score(np.arange(9.0)[:, None], noise_std=1.0, sample_weight=weights)


def test_a_score_weighs_samples_and_a_column_of_weights_is_one():
    x, w = np.arange(9.0)[:, None], np.arange(9.0)
    model = HeteroscedasticMixture().fit(x, noise_std=1.0)
    expected = w @ model.score_samples(x, noise_std=1.0) / w.sum()
    for weights in (w, w[:, None]):
        assert model.score(x, noise_std=1.0, sample_weight=weights) == pytest.approx(expected, rel=1e-12)
