"""Atomic laws, instance families, W1."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ambient_theory.mixtures.laws import (
    AtomicLaw,
    envelope_grid,
    hard_delta,
    hard_pair,
    moment_gap,
    parse_atoms,
    pca_hard_rho,
    quantise_levels,
    scaled,
    separated_law,
)
from ambient_theory.mixtures.w1 import w1, w1_line, w1_space
from ambient_theory.shared.errors import UsageError


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_hard_pair_shares_its_first_moments_and_differs_in_the_next(k):
    nu, other = hard_pair(k)
    assert nu.k == other.k == k
    np.testing.assert_allclose(nu.moments(2 * k - 2), other.moments(2 * k - 2), atol=1e-12)
    assert moment_gap(k) == pytest.approx(2.0 ** (3 - 2 * k))


@pytest.mark.parametrize(("k", "distance"), [(1, 2), (2, 2 / 3), (3, 0.4)])
def test_hard_pair_distance(k, distance):
    assert w1(*hard_pair(k)) == pytest.approx(distance)


def test_hard_pair_of_two_and_three_atoms():
    nu, other = hard_pair(2)
    assert dict(zip(nu.line().round(12), nu.weights.round(12), strict=True)) == {
        -0.5: 0.666666666667,
        1: 0.333333333333,
    }
    np.testing.assert_allclose(np.sort(other.line()), np.sort(-nu.line()))
    np.testing.assert_allclose(np.sort(hard_pair(3)[0].line()), [-0.809, 0.309, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("k", "n_l", "delta"),
    [(2, 1e4, 0.461), (2, 1e6, 0.214), (2, 1e8, 0.0993), (3, 1e4, 1.119), (3, 1e6, 0.706), (3, 1e8, 0.445)],
)
def test_hard_delta(k, n_l, delta):
    assert hard_delta(k, n_l) == pytest.approx(delta, rel=2e-3)


def test_other_families():
    law = separated_law(3, s_clean=0.5)
    np.testing.assert_allclose(np.diff(law.line()), 2.0)
    assert len(set(law.weights)) == 3
    assert pca_hard_rho(16, 1e4) == pytest.approx(1.2 * 0.2)
    grid = envelope_grid(2.0)
    assert (grid[0], grid[-1]) == (pytest.approx(0.02), pytest.approx(2.0))


def test_bin_probabilities_are_the_mixtures():
    law, edges = AtomicLaw([-1, 2], [0.3, 0.7]), np.linspace(-6, 7, 60)
    p = law.bin_probabilities(edges, 0.8)
    cdf = stats.norm.cdf(edges[:, None], [-1, 2], 0.8) @ law.weights
    np.testing.assert_allclose(p[1:-1], np.diff(cdf)[1:-1], atol=1e-14)
    assert p.sum() == pytest.approx(1)
    assert p[0] == pytest.approx(cdf[1])


def test_bin_probabilities_keep_their_digits_in_both_tails():
    law, edges = AtomicLaw([0.0]), np.linspace(-9, 9, 181)
    p = law.bin_probabilities(edges, 1.0)
    np.testing.assert_allclose(p, p[::-1], rtol=1e-9)
    assert p[1] == pytest.approx(stats.norm.cdf(-8.8) - stats.norm.cdf(-8.9), rel=1e-9)


def test_distinct_noise_levels_stay_and_continuous_ones_are_quantised():
    rng = np.random.default_rng(0)
    levels, index = quantise_levels(rng.choice([0.5, 1.0, 3.0], 10_000))
    assert levels.tolist() == [0.5, 1.0, 3.0]
    s = rng.uniform(0.5, 3, 10_000)
    levels, index = quantise_levels(s)
    assert len(levels) <= 64
    assert np.abs(np.log(levels[index] / s)).max() < np.log(6) / 64
    late = np.append(np.ones(5000), 2.0)  # a level that the first samples do not show
    assert quantise_levels(late)[0].tolist() == [1.0, 2.0]


def test_atoms_are_parsed_or_refused():
    law = parse_atoms("-0.6:0.4, 0.5:0.6")
    assert (law.line().tolist(), law.weights.tolist()) == ([-0.6, 0.5], [0.4, 0.6])
    for bad in ("", "a:b", "1:2:3", "0:0.4,1:0.4", "0:-1,1:2", "nan"):
        with pytest.raises(UsageError):
            parse_atoms(bad)


def test_an_atom_outside_the_ball_is_named():
    with pytest.raises(UsageError, match=r"distance 3.*R = 2"):
        AtomicLaw([0, 3]).check_inside(2.0)


laws = (
    st.integers(1, 5)
    .flatmap(
        lambda k: st.tuples(
            st.lists(st.floats(-5, 5), min_size=k, max_size=k), st.lists(st.floats(0.01, 1), min_size=k, max_size=k)
        )
    )
    .map(lambda p: (np.array(p[0]), np.array(p[1]) / sum(p[1])))
)


@given(laws, laws)
def test_w1_on_the_line_equals_scipys(first, second):
    expected = stats.wasserstein_distance(first[0], second[0], first[1], second[1])
    assert float(w1_line(*first, *second)) == pytest.approx(expected, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(laws, laws)
def test_transport_programme_equals_the_line(first, second):
    plane = [(np.column_stack([a, np.zeros_like(a)]), w) for a, w in (first, second)]
    assert w1_space(*plane[0], *plane[1]) == pytest.approx(float(w1_line(*first, *second)), abs=1e-7)


def test_w1_is_a_metric_and_scales():
    rng = np.random.default_rng(1)
    a, b, c = (AtomicLaw(rng.normal(size=(k, 3)), np.full(k, 1 / k)) for k in (2, 3, 4))
    assert w1(a, a) == pytest.approx(0, abs=1e-12)
    assert w1(a, b) == pytest.approx(w1(b, a))
    assert w1(a, c) <= w1(a, b) + w1(b, c) + 1e-9
    assert w1(scaled(a, 2.5), scaled(b, 2.5)) == pytest.approx(2.5 * w1(a, b))


def test_transport_equals_pot():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(2)
    for k, m in ((2, 2), (2, 4), (3, 3), (5, 4)):
        a, b = rng.normal(size=(k, 4)), rng.normal(size=(m, 4))
        p, q = rng.dirichlet(np.ones(k)), rng.dirichlet(np.ones(m))
        assert w1_space(a, p, b, q) == pytest.approx(ot.emd2(p, q, ot.dist(a, b, "euclidean")), rel=1e-8)
