"""Effective sizes, the terms of the bound, the crossover: invariances, closed forms, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient_theory.bounds import rates
from ambient_theory.bounds import sizes as bounds
from ambient_theory.shared.errors import UsageError


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20), st.randoms())
def test_effective_sizes_do_not_depend_on_order_or_grouping(levels, random):
    shuffled = list(levels)
    random.shuffle(shuffled)
    values, counts = np.unique(levels, return_counts=True)
    for size in (bounds.n_d, lambda *a: bounds.n_l(3, *a)):
        assert size(levels) == pytest.approx(size(shuffled))
        assert size(levels) == pytest.approx(size(values, counts))


@pytest.mark.parametrize(("k", "n"), [(2, 3072**3), (3, 3072 ** (5 / 3))])
def test_crossover_without_constants(k, n):
    assert rates.CROSSOVER(k=k, d=3072, C_d=1, C_l=1) == pytest.approx(n)


def test_fitted_constants_move_the_crossover_by_orders_of_magnitude():
    assert rates.CROSSOVER(k=2, d=3072, C_d=1, C_l=0.34) == pytest.approx(1.2e16, rel=0.05)


@settings(max_examples=20)
@given(st.integers(2, 5), st.integers(2, 4000), st.floats(1, 4), st.floats(0.3, 3))
def test_both_terms_are_equal_at_the_crossover_whatever_the_noise(k, d, s, c_l):
    n = rates.CROSSOVER(k=k, d=d, C_d=1, C_l=c_l)
    terms = bounds.bound(k, d, [s], [n], c_l=c_l)
    assert terms.pca == pytest.approx(terms.low, rel=1e-9)
    more = bounds.bound(k, d, [s], [10 * n], c_l=c_l)
    assert more.low > more.pca  # the slower of two falling terms


def test_mean_estimation_has_no_subspace_term():
    terms = bounds.bound(1, 50, [1, 2], [100, 400])
    assert (terms.pca, terms.low) == (0, pytest.approx(math.sqrt(50 / 200)))


def test_the_exponent_of_the_line():
    assert bounds.lowdim_exponent(3) == 1 / 10
    assert bounds.lowdim_exponent(1) == 1 / 2


def test_one_clean_sample_among_noisy_ones_breaks_the_weight_condition():
    assert bounds.weight_condition(100, [1.0], [10_000]) < 0.02
    assert bounds.weight_condition(100, [0.01, 1.0], [1, 10_000]) > 90


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_conditions_have_no_unit_and_terms_that_of_the_noise(unit):
    """At k = 5 n_l is a sum of s^-18, beyond what a number holds at s = 1e-20."""
    s, counts = np.array([1.0, 2.5]), [30, 70]
    one, other = bounds.bound(5, 3, s, counts, radius=2.0), bounds.bound(5, 3, unit * s, counts, radius=2 * unit)
    for name in ("pca", "low", "floor"):
        assert getattr(other, name) / unit == pytest.approx(getattr(one, name), rel=1e-12)
    assert other.weight_condition == pytest.approx(one.weight_condition, rel=1e-12)
    assert other.low_weight_condition == pytest.approx(one.low_weight_condition, rel=1e-12)
    assert one.low == pytest.approx((30 + 70 * 2.5**-18) ** (-1 / 18), rel=1e-12)


def test_the_low_dimensional_term_has_its_own_condition():
    """One precise sample carries n_l alone: the subspace's condition at d = 1 is just above 1, this one says it."""
    levels, counts = [0.1, 2.0], [1, 4999]
    assert bounds.low_weight_condition(2, levels, counts) == pytest.approx(4, rel=1e-3)
    assert bounds.weight_condition(1, levels, counts) < 2
    assert bounds.low_weight_condition(2, [1.0], [5000]) < 0.001


@pytest.mark.parametrize(("precise", "fisher", "floor"), [(10, 0.183, 0.244), (30, 0.140, 0.197), (100, 0.090, 0.133)])
def test_the_floor_counts_the_samples_that_see_the_atoms(precise, fisher, floor):
    """A few samples at s = .001 among 5000 at s = 20, atoms -1 and 1.5: the efficient risk from Fisher information lies
    within a factor of 1.6 below the floor, while R / sqrt(n) = .021 would be four to nine times too small."""
    levels, counts = [1e-3, 20.0], [precise, 5000 - precise]
    terms = bounds.bound(2, 1, levels, counts, radius=1.5)
    assert terms.floor == pytest.approx(floor, abs=0.002)
    assert terms.total == terms.pca + terms.low + terms.floor
    assert fisher < terms.floor < 1.6 * fisher
    assert 1.5 / math.sqrt(5000) < fisher / 4


def test_the_floor_of_equal_noise_is_the_radius_over_root_n_as_the_noise_vanishes():
    assert bounds.bound(2, 1, [1e-9], [400], radius=3.0).floor == pytest.approx(3 / 20)
    assert bounds.bound(2, 1, [1.0], [400]).floor == 0  # no radius, no floor
    assert bounds.bound(1, 1, [1.0], [400], radius=3.0).floor == 0  # one atom has no weights
    assert bounds.n_counted(2.0, [2.0], [10]) == pytest.approx(5)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_bad_noise_levels_get_a_sentence(bad):
    with pytest.raises(UsageError, match="noise level"):
        bounds.n_d([1.0, bad])


@pytest.mark.parametrize(
    "call",
    [
        lambda: bounds.n_l(0, [1.0]),
        lambda: bounds.n_l(2.5, [1.0]),
        lambda: bounds.n_d([1.0, 2.0], [1]),
        lambda: bounds.n_d([1.0], [0]),
        lambda: bounds.n_d([1.0], [-1]),
        lambda: bounds.bound(2, 0, [1.0]),
        lambda: bounds.bound(2, 3, [1.0], delta=0),
        lambda: bounds.bound(2, 3, [1.0], radius=0.0),
        lambda: bounds.total_noise(-0.1),
        lambda: bounds.total_noise(0.1, 0.0),
    ],
)
def test_bad_arguments_are_usage_errors(call):
    with pytest.raises(UsageError):
        call()
