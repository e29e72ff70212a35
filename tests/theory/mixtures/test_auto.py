"""The default never loses to its own alternatives: pilot, whitening, starts, convergence that is honest."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from ambient_theory.mixtures import dmm
from ambient_theory.mixtures.estimators import HeteroscedasticMixture
from ambient_theory.mixtures.information import scores, scoring_step
from ambient_theory.mixtures.laws import AtomicLaw, hard_pair, scaled, separated_law
from ambient_theory.mixtures.likelihood import fit_mle
from ambient_theory.mixtures.moments import gaussian_moments, inverse
from ambient_theory.mixtures.points import Points, line_points, log_density, mean_log_likelihood, merged
from ambient_theory.mixtures.projection import whitener
from ambient_theory.mixtures.streaming import MomentStream
from ambient_theory.mixtures.subspace import capped
from ambient_theory.mixtures.w1 import w1

NOISES = {
    "one level": lambda n, rng: np.full(n, 1.0),
    "two levels": lambda n, rng: np.where(rng.random(n) < 0.1, 1.0, 2.0),
    "log-normal 0.5": lambda n, rng: 2 * np.exp(0.5 * rng.standard_normal(n)),
    "log-normal 1": lambda n, rng: 2 * np.exp(rng.standard_normal(n)),
    "log-normal 2": lambda n, rng: 2 * np.exp(2 * rng.standard_normal(n)),
    "one precise": lambda n, rng: np.append(0.1, np.full(n - 1, 2.0)),
}


def law_of(k, d):
    if d == 1:
        return separated_law(k)
    atoms = np.random.default_rng(k).standard_normal((k, d))
    return AtomicLaw(atoms * 4.5 / np.linalg.norm(atoms, axis=1, keepdims=True), separated_law(k).weights)


def fitted(x, s, k, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return HeteroscedasticMixture(k, random_state=0, **options).fit(x, noise_std=s)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("k", "d"), [(2, 1), (5, 1), (3, 20), (2, 100)])
def test_the_default_gives_a_law_whatever_the_noise(k, d, noise):
    rng = np.random.default_rng(7)
    s = NOISES[noise](300, rng)
    model = fitted(law_of(k, d).sample(s, rng), s, k)
    assert model.means_.shape == (k, d)
    assert np.all(np.isfinite(model.means_))
    assert model.weights_.sum() == pytest.approx(1)
    assert model.converged_


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("k", "d"), [(2, 1), (5, 1), (3, 20)])
def test_the_default_has_at_most_1_2_times_the_risk_of_its_best_alternative(k, d, noise):
    law, reps, risk = law_of(k, d), 12, {}
    methods = ("auto", "dmm", "mle", "em") + (("npmle",) if d == 1 else ())
    for rep in range(reps):
        rng = np.random.default_rng([rep, k, d])
        s = NOISES[noise](1000, rng)
        x = law.sample(s, rng)
        for method in methods:
            risk.setdefault(method, []).append(w1(fitted(x, s, k, method=method, max_iter=200).law_, law))
    best = min(risk, key=lambda m: np.mean(risk[m]))
    lost = np.array(risk["auto"]) - 1.2 * np.array(risk[best])  # paired: the same samples
    assert lost.mean() < 2 * lost.std(ddof=1) / np.sqrt(reps)


def precise_among_thousands(reps=10):
    for rep in range(reps):
        rng = np.random.default_rng(rep)
        s = np.append(0.1, np.full(4999, 2.0))
        yield separated_law(2).sample(s, rng)[:, 0], s


def moments_error(x, s):
    stream = MomentStream.starting_at(3, x, s).add(x, s)
    fit = dmm.fit_dmm(stream.moments(), stream.low - stream.origin, stream.high - stream.origin)
    return w1(AtomicLaw(fit.atoms + stream.origin, fit.weights), separated_law(2))


def test_one_precise_sample_among_thousands_does_not_take_over_the_moments(monkeypatch):
    broad = [moments_error(x, s) for x, s in precise_among_thousands()]
    assert np.mean(broad) < 0.2
    monkeypatch.setattr(dmm, "broad_pilot", lambda m: (dmm.mean_only(m).atoms[..., 0], np.zeros(m.means.shape[:-2])))
    point = [moments_error(x, s) for x, s in precise_among_thousands()]  # the control: a point mass as the pilot
    assert np.mean(point) > 3 * np.mean(broad)


def test_a_gaussian_pilot_has_the_moments_of_its_law():
    s = np.array([0.5, 2.0])
    rng = np.random.default_rng(0)
    noise = rng.choice(s, 200_000)
    x = AtomicLaw([-1.0, 2.0], [0.4, 0.6]).sample(noise, rng)[:, 0]
    stream = MomentStream.starting_at(3, x, noise).add(x, noise)
    mean, variance = dmm.broad_pilot(stream.moments())
    assert mean + stream.origin == pytest.approx(0.8, abs=0.02)
    assert variance == pytest.approx(0.24 * 9, abs=0.03)
    np.testing.assert_allclose(gaussian_moments(2.0, 6), [1, 0, 2, 0, 12, 0, 120])


def test_whitening_and_inverting_never_fail():
    singular = np.array([[1.0, 2.0], [2.0, 4.0]])
    assert np.all(np.isfinite(whitener(singular)))
    assert np.all(np.isfinite(inverse(singular)))
    rng = np.random.default_rng(0)
    root, unit = rng.standard_normal((5, 4, 6)), 10.0 ** np.arange(4)
    c = root @ np.swapaxes(root, -1, -2) * unit * unit[:, None]
    np.testing.assert_allclose(inverse(c) @ c, np.broadcast_to(np.eye(4), c.shape), atol=1e-6)
    w = whitener(c[0])
    np.testing.assert_allclose(w @ c[0] @ w.T, np.eye(4), atol=1e-8)


def test_capped_weights_carry_at_most_their_share():
    counts = np.array([1.0, 2.0, 100.0])
    w = capped(np.array([1e6, 3.0, 1.0]), counts, 0.1)
    assert w[0] / (w @ counts) == pytest.approx(0.1)
    np.testing.assert_allclose(w[1:], [3.0, 1.0])
    even = np.ones(3)
    np.testing.assert_array_equal(capped(even, counts, 0.1), even)


# ------------------------------------------------------------------------------------------------ the likelihood


def test_scores_are_the_derivatives_of_the_log_density():
    rng = np.random.default_rng(0)
    points = Points(rng.standard_normal((7, 2)), rng.uniform(0.5, 2, 7), np.ones(7))
    atoms, weights = rng.standard_normal((3, 2)), np.array([0.2, 0.5, 0.3])
    found, left_out = scores(points, atoms, weights)
    assert left_out == 1
    h = 1e-6
    for column in range(8):
        ends = []
        for sign in (h, -h):
            a, w = atoms.copy(), weights.copy()
            if column < 6:
                a[column // 2, column % 2] += sign
            else:
                w[(0, 2)[column - 6]] += sign
                w[1] -= sign
            ends.append(log_density(points, a, w))
        np.testing.assert_allclose(found[:, column], (ends[0] - ends[1]) / (2 * h), atol=1e-6)


def test_a_fit_says_converged_only_at_a_maximum():
    law = scaled(hard_pair(2)[0], 0.35)
    rng = np.random.default_rng(0)
    x = law.sample(np.ones(100_000), rng)
    with pytest.warns(ConvergenceWarning, match="without converging"):
        em = HeteroscedasticMixture(method="em", random_state=0, max_iter=40, n_init=1).fit(x, noise_std=1.0)
    mle = HeteroscedasticMixture(random_state=0).fit(x, noise_std=1.0)
    assert not em.converged_
    assert mle.converged_
    points = line_points(x[:, 0], np.ones(1))
    left = [scoring_step(points, m.means_, m.weights_).gain for m in (em, mle)]
    assert left[0] > 1e-9 > left[1]
    assert mle.diagnostics_.log_likelihood > em.diagnostics_.log_likelihood


def test_em_starts_like_em_and_not_from_the_moments():
    x = separated_law(2).sample(np.ones(500), np.random.default_rng(1))
    assert fitted(x, 1.0, 2, method="em", n_init=3).diagnostics_.starts == 3
    assert fitted(x, 1.0, 2, method="mle", n_init=3).diagnostics_.starts == 4


def test_the_default_keeps_the_most_likely_and_says_whose_it_is():
    x = separated_law(3).sample(np.ones(800), np.random.default_rng(2))
    model = fitted(x, 1.0, 3)
    assert model.method_ == "mle"
    assert set(model.diagnostics_.tried) == {"dmm", "mle"}
    assert model.diagnostics_.tried["mle"] >= model.diagnostics_.tried["dmm"]


@pytest.mark.parametrize(("k", "tau"), [(4, 1.0), (5, 2.0)])
def test_the_starts_find_what_the_truth_would(k, tau):
    law, rng = separated_law(k), np.random.default_rng(3)
    s = 2 * np.exp(tau * rng.standard_normal(2000))
    x = law.sample(s, rng)
    model = fitted(x, s, k)
    from_truth = fit_mle(line_points(x[:, 0], s), law.atoms, law.weights, x.min(axis=0), x.max(axis=0))
    assert 2000 * (from_truth.log_likelihood - model.diagnostics_.tried["mle"]) < 0.01


@pytest.mark.parametrize("levels", [1, 2, 20_000])
def test_bins_of_each_level_have_the_samples_likelihood(levels):
    rng, n = np.random.default_rng(4), 20_000
    s = {1: np.ones(1), 2: rng.choice([0.7, 2.0], n)}.get(levels, np.exp(rng.uniform(-0.7, 0.7, n)))
    law = separated_law(2)
    x = law.sample(np.broadcast_to(s, n), rng)[:, 0]
    raw = Points(x[:, None], np.broadcast_to(s, n), np.ones(n))
    binned = line_points(x, s)
    assert binned.n == n
    assert len(binned.x) < (n if levels > 2 else 1000)
    for other in (law, scaled(law, 0.9)):
        values = [mean_log_likelihood(p, other.atoms, other.weights) for p in (raw, binned)]
        assert values[0] == pytest.approx(values[1], abs=2e-3)
    gains = [
        mean_log_likelihood(p, law.atoms, law.weights) - mean_log_likelihood(p, 0.9 * law.atoms, law.weights)
        for p in (raw, binned)
    ]
    moved = 0.2 / 0.5 * (1 / 6) / 12**0.5  # a sample moves by s/6 sqrt(1/12) rms, the ratio's slope is at most 0.2/s^2
    assert gains[0] == pytest.approx(gains[1], abs=4 * moved / n**0.5)


def test_a_precise_sample_among_binned_ones_stays_itself():
    s = np.append(1e-4, np.ones(9999))
    x = separated_law(2).sample(s, np.random.default_rng(0))[:, 0]
    points = line_points(x, s, np.full(10_000, 2.0))
    assert points.s.min() == 1e-4
    assert points.x[np.argmin(points.s), 0] == x[0]
    assert points.n == 20_000


# ---------------------------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("method", ["auto", "dmm", "em", "npmle"])
@pytest.mark.parametrize("d", [1, 3])
def test_a_weight_is_a_repetition_and_the_order_is_nothing_to_the_last_digit(method, d):
    rng = np.random.default_rng(0)
    s, times = rng.uniform(0.5, 2, 200), rng.integers(0, 4, 200)
    x = law_of(2, d).sample(s, rng)
    weighted = HeteroscedasticMixture(method=method, random_state=0).fit(x, noise_std=s, sample_weight=times)
    index = rng.permutation(np.repeat(np.arange(200), times))
    written = HeteroscedasticMixture(method=method, random_state=0).fit(x[index], noise_std=s[index])
    np.testing.assert_array_equal(weighted.means_, written.means_)
    np.testing.assert_array_equal(weighted.weights_, written.weights_)
    assert weighted.diagnostics_.n == times.sum()
    plain = HeteroscedasticMixture(method=method, random_state=0).fit(x, noise_std=s)
    assert w1(plain.law_, weighted.law_) > 1e-3


def test_large_weighted_samples_have_the_same_moments_and_likelihood_as_repeated_ones():
    rng, n = np.random.default_rng(1), 21_000
    s, times = rng.choice([0.5, 1.5], n), rng.integers(0, 3, n)
    x = separated_law(2).sample(s, rng)
    weighted = HeteroscedasticMixture(random_state=0).fit(x, noise_std=s, sample_weight=times)
    written = HeteroscedasticMixture(random_state=0).fit(np.repeat(x, times, axis=0), noise_std=np.repeat(s, times))
    np.testing.assert_allclose(weighted.means_, written.means_, atol=1e-4)  # the bins start at another smallest x


def test_joined_samples_are_sorted_and_counted():
    x = np.array([[2.0], [1.0], [2.0], [0.0]])
    points = merged(x, np.ones(4), np.array([1.0, 1.0, 2.0, 0.0]))
    assert points.x.ravel().tolist() == [1.0, 2.0]
    assert points.counts.tolist() == [1.0, 3.0]
