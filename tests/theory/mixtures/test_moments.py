"""Hermite moments, their covariance, pooling, quadrature, projection. Expectations are exact: Gauss-Hermite sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient_theory.mixtures.dmm import fit_dmm, mean_only
from ambient_theory.mixtures.laws import AtomicLaw, hard_pair, scaled
from ambient_theory.mixtures.moments import (
    WEIGHTS,
    LevelMoments,
    gauss_quadrature,
    hermite,
    law_moments,
    moment_covariance,
    pool,
    shift_moments,
)
from ambient_theory.mixtures.projection import project_moments
from ambient_theory.mixtures.w1 import w1_line
from ambient_theory.shared.errors import UsageError

LAW = AtomicLaw([-0.9, 0.2, 1.4], [0.2, 0.5, 0.3])


def expectation(f, law, s):
    """E f(Y + s Z), exact for polynomials of degree < 80."""
    z, w = np.polynomial.hermite_e.hermegauss(40)
    x = law.line()[:, None] + s * z
    return np.einsum("...jz,j,z->...", f(x), law.weights, w / w.sum())


@pytest.mark.parametrize("s", [0.1, 1.0, 3.0])
def test_hermite_moments_are_unbiased(s):
    got = expectation(lambda x: hermite(x, s, 7), LAW, s)
    np.testing.assert_allclose(got, LAW.moments(7)[1:], rtol=1e-9, atol=1e-7)


def test_wrong_noise_makes_them_biased():
    got = expectation(lambda x: hermite(x, 1.1, 4), LAW, 1.0)
    assert abs(got[1] - LAW.moments(2)[2]) == pytest.approx(0.21)


@pytest.mark.parametrize("s", [0.2, 1.0, 2.0])
def test_covariance_of_the_moments(s):
    order = 5
    gamma = lambda x: hermite(x, s, order)  # noqa: E731
    second = expectation(lambda x: gamma(x)[:, None] * gamma(x)[None, :], LAW, s)
    first = expectation(gamma, LAW, s)
    expected = second - np.outer(first, first)
    np.testing.assert_allclose(moment_covariance(LAW.moments(10), s, order)[0], expected, rtol=1e-9, atol=1e-9)


def test_z_scores_of_sampled_moments_are_standard():
    rng, n, order, s = np.random.default_rng(3), 4000, 5, np.array([1.0, 2.0])
    z = []
    for _ in range(200):
        for level in s:
            g = hermite(LAW.sample(np.full(n, level), rng)[:, 0], level, order).mean(axis=1)
            cov = moment_covariance(LAW.moments(10), level, order)[0] / n
            z.append(np.linalg.solve(np.linalg.cholesky(cov), g - LAW.moments(order)[1:]))
    z = np.array(z)
    assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(len(z))
    assert np.abs(z.var(axis=0) - 1).max() < 5 * np.sqrt(2 / len(z)) * 1.3  # high orders have heavy tails


@given(st.floats(-3, 3))
def test_shifted_moments_are_those_of_the_shifted_law(c):
    expected = AtomicLaw(LAW.line() - c, LAW.weights).moments(5)[1:]
    np.testing.assert_allclose(shift_moments(LAW.moments(5)[1:], c), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_pooling_keeps_exact_moments_and_states_its_covariance(weights):
    s, n = np.array([0.7, 1.0, 2.0]), np.array([100.0, 50.0, 1000.0])
    exact = LevelMoments(s, n, np.tile(LAW.moments(5)[1:], (3, 1)))
    pooled = pool(exact, LAW.moments(10), weights, 3)
    np.testing.assert_allclose(pooled.mean, LAW.moments(5)[1:], rtol=1e-10)
    noisy = LevelMoments(s, n, exact.means + np.eye(3)[:, :1] * 1e-3)  # the estimate is linear in each level
    c = moment_covariance(LAW.moments(10), s, 5)
    draws = np.random.default_rng(4).standard_normal((20000, 3, 5))
    means = exact.means + np.einsum("lab,rlb->rla", np.linalg.cholesky(c / n[:, None, None]), draws)
    got = pool(LevelMoments(s, n, means), np.tile(LAW.moments(10), (20000, 1)), weights, 3).mean
    ratio = np.diag(np.cov(got.T)) / np.diag(pooled.covariance)
    assert np.abs(ratio - 1).max() < 5 * np.sqrt(2 / 20000)
    assert not np.allclose(pool(noisy, LAW.moments(10), weights, 3).mean, pooled.mean)


def test_gls_has_the_least_variance_of_all_weights():
    s, n = np.array([1.0, 3.0]), np.array([100.0, 900.0])
    m = LevelMoments(s, n, np.tile(LAW.moments(5)[1:], (2, 1)))
    best = pool(m, LAW.moments(10), "gls", 3).covariance
    for weights in ("order", "sigma", "none"):
        excess = pool(m, LAW.moments(10), weights, 3).covariance - best
        assert np.linalg.eigvalsh(excess / np.sqrt(np.outer(np.diag(best), np.diag(best)))).min() > -1e-9


def test_one_level_needs_no_weights():
    m = LevelMoments(np.array([1.3]), np.array([70.0]), LAW.moments(5)[None, 1:])
    for weights in WEIGHTS:
        pooled = pool(m, LAW.moments(10), weights, 3)
        np.testing.assert_allclose(pooled.covariance, moment_covariance(LAW.moments(10), 1.3, 5)[0] / 70, rtol=1e-8)


def test_an_empty_level_changes_nothing():
    full = LevelMoments(np.array([1.0, 2.0]), np.array([10.0, 20.0]), np.array([[0.1, 1, 0.2], [0.2, 1.1, 0.1]]))
    padded = LevelMoments(np.append(full.s, 3.0), np.append(full.n, 0.0), np.vstack([full.means, [np.nan] * 3]))
    pilot = AtomicLaw([-1, 1]).moments(6)
    for weights in WEIGHTS:
        np.testing.assert_allclose(pool(padded, pilot, weights, 2).mean, pool(full, pilot, weights, 2).mean)


def test_unknown_weights_are_refused():
    with pytest.raises(UsageError, match="gls, order, sigma, none"):
        pool(LevelMoments(np.ones(1), np.ones(1), np.ones((1, 3))), np.ones(7), "best", 2)  # type: ignore[arg-type]


atoms_of = st.integers(1, 4).flatmap(
    lambda k: st.tuples(
        st.lists(st.floats(0.3, 1.5), min_size=k, max_size=k), st.lists(st.floats(0.1, 1), min_size=k, max_size=k)
    )
)


@settings(max_examples=200)
@given(atoms_of, st.floats(-3, 3))
def test_quadrature_returns_the_law_of_its_moments(gaps_weights, start):
    gaps, weights = (np.array(x) for x in gaps_weights)
    atoms = start + np.cumsum(gaps)
    law = AtomicLaw(atoms, weights / weights.sum())
    k = law.k
    q = gauss_quadrature(shift_moments(law.moments(2 * k - 1)[1:], atoms.mean()), -20.0, 20.0)
    assert q.feasible
    tolerance = 1e-10 if k <= 3 else 1e-7  # the moment map loses digits with every atom
    np.testing.assert_allclose(q.atoms + atoms.mean(), atoms, atol=tolerance * 10)
    np.testing.assert_allclose(q.weights, law.weights, atol=tolerance * 10)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_quadrature_round_trip_on_the_hard_pair(k):
    for law in hard_pair(k):
        q = gauss_quadrature(law.moments(2 * k - 1)[1:], -1.001, 1.001)
        assert float(w1_line(q.atoms, q.weights, law.line(), law.weights)) < 1e-10


def test_infeasible_moments_are_seen():
    assert not gauss_quadrature(np.array([0.0, -0.1, 0.0]), -1.0, 1.0).feasible  # negative variance
    assert not gauss_quadrature(np.array([0.0, 1.0, 0.0, 0.5, 0.0]), -2.0, 2.0).feasible  # m4 < m2^2
    assert not gauss_quadrature(np.array([0.0, 0.25, 0.0]), -0.4, 0.4).feasible  # atoms outside
    assert gauss_quadrature(np.array([0.0, 0.25, 0.0]), -0.6, 0.6).feasible


def infeasible_cases(k, count, seed=0):
    """Moment vectors of one atom plus noise, with the covariance of that noise; most are infeasible."""
    rng, order = np.random.default_rng(seed), 2 * k - 1
    one = AtomicLaw([0.2]).moments(2 * order)
    cov = moment_covariance(one, 1.0, order)[0] / 500
    draws = one[1 : order + 1] + rng.standard_normal((count, order)) @ np.linalg.cholesky(cov).T
    return [m for m in draws if not gauss_quadrature(m, -1.5, 1.5).feasible], cov


@pytest.mark.parametrize("k", [2, 3])
def test_projection_satisfies_the_optimality_conditions(k):
    """At the minimum over all laws, moving mass to any x cannot help: g(x) - E g >= 0 on the whole interval."""
    cases, cov = infeasible_cases(k, 60)
    assert len(cases) > 20
    order, x = 2 * k - 1, np.linspace(-1.5, 1.5, 3001)
    for m in cases:
        p = project_moments(m, cov, -1.5, 1.5)
        fitted = law_moments(p.atoms, p.weights, order)[1:]
        residual = np.linalg.solve(cov, fitted - m)
        g = residual @ x ** np.arange(1, order + 1)[:, None]
        assert p.objective == pytest.approx((fitted - m) @ residual, rel=1e-4)
        assert g.min() - residual @ fitted > -1e-4 * (1 + p.objective)
        assert p.weights.sum() == pytest.approx(1)
        assert np.all((p.atoms >= -1.5) & (p.atoms <= 1.5))


def test_projection_of_feasible_moments_is_the_identity():
    law = AtomicLaw([-0.7, 0.4, 1.1], [0.3, 0.3, 0.4])
    p = project_moments(law.moments(5)[1:], np.eye(5) * 1e-2, -1.5, 1.5)
    assert p.objective < 1e-8


@pytest.mark.parametrize("k", [1, 2, 3])
def test_projection_equals_a_semidefinite_programme(k):
    cp = pytest.importorskip("cvxpy")
    cases, cov = infeasible_cases(k, 40) if k > 1 else ([np.array([1.9]), np.array([-2.2])], np.eye(1))
    order = 2 * k - 1
    for m in cases[:12]:
        v = cp.Variable(order + 1)
        hankel = lambda shift, v=v: cp.bmat([[v[i + j + shift] for j in range(k)] for i in range(k)])  # noqa: E731
        white = np.linalg.inv(np.linalg.cholesky(cov))
        problem = cp.Problem(
            cp.Minimize(cp.sum_squares(white @ (v[1:] - m))),
            [v[0] == 1, hankel(1) + 1.5 * hankel(0) >> 0, 1.5 * hankel(0) - hankel(1) >> 0],
        )
        problem.solve(solver=cp.CLARABEL)
        p = project_moments(m, cov, -1.5, 1.5)
        assert p.objective == pytest.approx(problem.value, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_exact_moments_give_the_exact_law(weights):
    law = scaled(hard_pair(2)[0], 0.8)
    m = LevelMoments(np.array([1.0, 2.0]), np.array([1e3, 1e4]), np.tile(law.moments(3)[1:], (2, 1)))
    fit = fit_dmm(m, -2.0, 2.0, weights=weights)
    assert not fit.projected
    assert float(w1_line(fit.atoms, fit.weights, law.line(), law.weights)) < 1e-9


@settings(max_examples=25, deadline=None)
@given(st.floats(-20, 20), st.floats(0.1, 10), st.integers(0, 1000), st.booleans())
def test_dmm_moves_and_scales_with_the_data(shift, scale, seed, hard):
    rng = np.random.default_rng(seed)
    law = scaled(hard_pair(2)[0], 0.2 if hard else 2.0)
    s = np.array([1.0, 2.0])
    x = [law.sample(np.full(500, level), rng)[:, 0] for level in s]

    def fitted(a, b):
        means = np.array(
            [hermite(a + b * values, b * level, 3).mean(axis=1) for values, level in zip(x, s, strict=True)]
        )
        local = LevelMoments(b * s, np.full(2, 500.0), means)
        return fit_dmm(local, a - 3 * b, a + 3 * b)

    base, moved = fitted(0.0, 1.0), fitted(shift, scale)
    error = w1_line(moved.atoms, moved.weights, shift + scale * base.atoms, base.weights)
    assert float(error) < 1e-4 * scale * (1 + abs(shift / scale))


def test_mean_only_is_the_gauss_markov_mean():
    m = LevelMoments(np.array([1.0, 2.0]), np.array([10.0, 40.0]), np.array([[1.0, 0, 0], [3.0, 0, 0]]))
    assert mean_only(m).atoms == pytest.approx(2.0)
