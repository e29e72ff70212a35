"""Weighted PCA: the same subspace by every route, invariance, and the two passes against the bound's weights."""

import numpy as np
import pytest

from ambient_theory.mixtures import subspace as module
from ambient_theory.mixtures.laws import AtomicLaw, embed
from ambient_theory.mixtures.subspace import (
    Subspace,
    leading_of_matrix,
    overlap,
    pass_weights,
    subspace_from_moments,
    weighted_subspace,
)
from ambient_theory.shared.errors import UsageError
from ambient_theory.simulation.wishart import draw_second_moments


def sample(n, d, rho, rng, levels=(1.0, 3.0)):
    s = rng.choice(levels, n)
    return embed(AtomicLaw([-rho, rho]), d).sample(s, rng), s


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("n", "d"), [(60, 20), (20, 60)])
def test_every_route_gives_the_same_subspace(n, d, rank, monkeypatch):
    rng = np.random.default_rng(0)
    x, s = sample(n, d, 3.0, rng)
    usual = weighted_subspace(x, s, rank, rng)
    monkeypatch.setattr(module, "DENSE_DIMENSION", 1)  # forces the matrix-free routes
    free = weighted_subspace(x, s, rank, rng)
    np.testing.assert_allclose(usual.eigenvalues, free.eigenvalues, rtol=1e-8)
    assert overlap(usual.basis, free.basis) == pytest.approx(1)
    np.testing.assert_allclose(free.basis.T @ free.basis, np.eye(rank), atol=1e-10)
    w = pass_weights(s, usual.signal)  # not a fixed point, but the formula of the pass
    assert np.all(w > 0)


def test_wide_data_never_form_a_square_matrix(monkeypatch):
    rng = np.random.default_rng(1)
    x, s = sample(30, 50_000, 60.0, rng)  # 50,000 x 50,000 doubles would be 20 GB
    found = weighted_subspace(x, s, 1, rng)
    assert overlap(found.basis, np.eye(50_000, 1)) > 0.5


def test_sums_by_level_give_what_samples_give():
    rng = np.random.default_rng(2)
    x, s = sample(500, 8, 1.0, rng)
    levels = np.unique(s)
    n = np.array([(s == v).sum() for v in levels], dtype=float)
    first = np.array([x[s == v].sum(axis=0) for v in levels])
    second = np.array([x[s == v].T @ x[s == v] for v in levels])
    a, b = weighted_subspace(x, s, 2, rng), subspace_from_moments(levels, n, first, second, 2)
    np.testing.assert_allclose(a.eigenvalues, b.eigenvalues, rtol=1e-8)
    np.testing.assert_allclose(a.centre, b.centre, rtol=1e-10)
    assert overlap(a.basis, b.basis) == pytest.approx(1)


def test_rotating_the_data_rotates_the_subspace():
    rng = np.random.default_rng(3)
    x, s = sample(300, 6, 2.0, rng)
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    a, b = weighted_subspace(x, s, 1, rng), weighted_subspace(x @ q.T, s, 1, rng)
    assert overlap(q @ a.basis, b.basis) == pytest.approx(1)
    assert a.signal == pytest.approx(b.signal)


def test_signal_strength_is_estimated_without_bias_of_the_noise():
    rng = np.random.default_rng(4)
    x, s = sample(40_000, 5, 2.0, rng)
    assert weighted_subspace(x, s, 1, rng).signal == pytest.approx(4.0, rel=0.1)


def miss(weights, levels, n, lam, d):
    """1 - overlap to first order: (d-1) sum n w^2 s^2 (lam + s^2) / (lam sum n w)^2."""
    return (d - 1) * np.sum(n * weights**2 * levels**2 * (lam + levels**2)) / (lam * np.sum(n * weights)) ** 2


def test_overlap_falls_short_by_the_first_order_formula_and_two_passes_beat_one_on_strong_signals():
    rng, levels, n, d, rho = np.random.default_rng(5), np.array([1.0, 3.0]), [2000, 18_000], 12, 3.0
    law, axis = embed(AtomicLaw([-rho, rho]), d), np.eye(d, 1)
    one, two = [], []
    for _ in range(150):
        sums = draw_second_moments(law, levels, n, rng)
        one.append(1 - overlap(subspace_from_moments(levels, np.array(n, float), *sums, 1, passes=1).basis, axis))
        two.append(1 - overlap(subspace_from_moments(levels, np.array(n, float), *sums, 1, passes=2).basis, axis))
    for got, signal in ((one, None), (two, rho**2)):
        expected = miss(pass_weights(levels, signal), levels, np.array(n, float), rho**2, d)
        assert np.mean(got) == pytest.approx(expected, abs=5 * np.std(got) / np.sqrt(len(got)))
    gain = np.array(one) - np.array(two)
    assert gain.mean() > 5 * gain.std() / np.sqrt(len(gain))


def test_lift_keeps_the_centre_outside_the_subspace():
    space = Subspace(np.array([1.0, 2.0, 3.0]), np.eye(3)[:, :1], np.ones(1), 1.0)
    np.testing.assert_allclose(space.lift(np.array([[7.0]])), [[7, 2, 3]])
    np.testing.assert_allclose(space.project(np.array([[5.0, 6.0, 7.0]])), [[5]])


def test_more_directions_than_samples_are_refused():
    with pytest.raises(UsageError, match="n = 2 samples"):
        weighted_subspace(np.ones((2, 5)), np.ones(2), 2, np.random.default_rng(0))


def test_leading_pairs_fall():
    values, vectors = leading_of_matrix(np.diag([1.0, 5.0, 3.0]), 2)
    assert values.tolist() == [5, 3]
    np.testing.assert_allclose(np.abs(vectors), np.eye(3)[:, [1, 2]])
