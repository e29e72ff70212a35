"""Pairwise price bounds: the inequality of a pair, simultaneity over all pairs, intersection, contradictions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from compare_sweeps import TRUTH, power_law, record, sweep
from scipy import stats

from ambient_theory.compare.cells.grouping import group_records
from ambient_theory.compare.cells.tables import table_of
from ambient_theory.compare.scores.prices import certain_order, price_bounds


def table(rows):
    return table_of(group_records(rows)[0])


def three_seeds(n_clean, n_noisy, sigma, value):
    """Three seeds of known small scatter about `value`."""
    return [record(n_clean, n_noisy, sigma, value * f, seed) for seed, f in enumerate((0.99, 1.0, 1.01))]


def test_one_pair_gives_exactly_its_inequality():
    # 100 + 900 c is better than 400 clean: c >= 300 / 900.
    rows = three_seeds(100, 900, 0.2, 1.0) + three_seeds(400, 0, None, 2.0)
    (bound,) = price_bounds(table(rows)).bounds
    assert bound.c_low == pytest.approx(1 / 3, rel=1e-12)
    assert math.isinf(bound.c_high)
    assert (bound.price_low, bound.price_high) == pytest.approx((0.0, 3.0))
    assert bound.binding_low == (("100 clean + 900 noisy (σ 0.2)", "400 clean"),)


def test_two_pairs_intersect():
    # Worse than 550 clean as well: c <= 450 / 900.
    rows = three_seeds(100, 900, 0.2, 1.0) + three_seeds(400, 0, None, 2.0) + three_seeds(550, 0, None, 0.5)
    (bound,) = price_bounds(table(rows)).bounds
    assert (bound.c_low, bound.c_high) == pytest.approx((1 / 3, 1 / 2), rel=1e-12)


def test_pairs_of_two_noise_levels_are_intersected_jointly():
    # c(.2) <= 1/2 from the pair with 550 clean; twice as many images at .6 are worse than at .2: c(.6) <= c(.2).
    rows = three_seeds(550, 0, None, 0.8) + three_seeds(100, 900, 0.2, 1.0)
    rows += three_seeds(100, 1_800, 0.2, 0.4) + three_seeds(100, 1_800, 0.6, 0.6)
    bounds = {b.sigma_n: b for b in price_bounds(table(rows)).bounds}
    assert bounds[0.6].c_high == pytest.approx(0.5, rel=1e-9)
    assert len(bounds[0.6].binding_high) == 2
    assert bounds[0.6].c_low == pytest.approx(0.25, rel=1e-9)


def test_pairs_that_are_not_certain_bound_nothing():
    rng = np.random.default_rng(0)
    rows = [
        record(n, m, s, float(np.exp(rng.standard_normal())), k)
        for n, m, s in ((100, 900, 0.2), (400, 0, None))
        for k in range(3)
    ]
    result = price_bounds(table(rows))
    assert result.certain == 0
    assert (result.bounds[0].c_low, result.bounds[0].c_high) == (0.0, math.inf)


def test_scores_from_one_seed_order_no_pair():
    mask, critical = certain_order(table(sweep(np.random.default_rng(0), seeds=1)))
    assert not mask.any()
    assert math.isinf(critical)


def test_more_of_everything_and_certainly_worse_is_a_contradiction():
    rows = three_seeds(100, 100, 0.2, 1.0) + three_seeds(400, 900, 0.2, 2.0) + three_seeds(50, 0, None, 5.0)
    result = price_bounds(table(rows))
    (found,) = result.contradictions
    assert found.better == "100 clean + 100 noisy (σ 0.2)"
    assert found.worse == "400 clean + 900 noisy (σ 0.2)"
    assert "no worth" in found.why


def test_two_pairs_that_exclude_each_other_are_a_contradiction():
    # c >= 1/2 (better than 550) and c <= 1/3 (worse than 400, in another mixture with the same numbers scaled).
    rows = three_seeds(100, 900, 0.2, 1.0) + three_seeds(550, 0, None, 2.0)
    rows += three_seeds(200, 1_800, 0.2, 3.0) + three_seeds(700, 0, None, 2.5)
    result = price_bounds(table(rows))
    assert result.contradictions


def test_clean_sizes_out_of_order_are_a_contradiction_without_any_noisy_cell():
    rows = three_seeds(100, 0, None, 1.0) + three_seeds(400, 0, None, 2.0)
    result = price_bounds(table(rows))
    assert len(result.contradictions) == 1
    assert result.bounds == ()


def violations(confidence: float, sweeps: int, critical_of_one_pair: bool, scatter: float, seed: int) -> int:
    """Sweeps in which at least one order that was called certain is wrong. All cells have nearly the same truth."""
    rng, wrong = np.random.default_rng(seed), 0
    flat = lambda n: 1.0 + 1e-9 * power_law(n)  # noqa: E731
    for _ in range(sweeps):
        t = table(sweep(rng, scatter=scatter, error=flat))
        if critical_of_one_pair:
            limit = stats.t.ppf(0.5 + confidence / 2, t.dof) * np.sqrt(2 * t.variance / 3)
            mask = t.y[None, :] - t.y[:, None] > limit
        else:
            mask, _ = certain_order(t, confidence)
        wrong += bool(mask.any())
    return wrong


def test_the_family_wise_error_of_all_pairs_is_controlled():
    # With equal true means every "certain" order is an error; Tukey's range makes the family-wise rate exactly 5 %.
    sweeps = 400
    wrong = violations(0.95, sweeps, False, 0.06, seed=1)
    assert stats.binom.ppf(1e-4, sweeps, 0.05) <= wrong <= stats.binom.ppf(1 - 1e-4, sweeps, 0.05)


def test_pairs_tested_one_by_one_break_the_family_wise_error():
    # The negative control: with Student's quantile for one pair, most sweeps hold a wrong order.
    sweeps = 100
    assert violations(0.95, sweeps, True, 0.06, seed=2) > stats.binom.ppf(0.9999, sweeps, 0.2)


def test_the_true_worth_lies_in_the_joint_bounds():
    rng, sweeps = np.random.default_rng(3), 60
    outside = 0
    for _ in range(sweeps):
        result = price_bounds(table(sweep(rng, scatter=0.2)))
        outside += any(not b.c_low - 1e-9 <= TRUTH[b.sigma_n] <= b.c_high + 1e-9 for b in result.bounds)
    assert outside <= stats.binom.ppf(1 - 1e-4, sweeps, 0.05)


def test_bounds_do_not_depend_on_the_shape_of_the_curve():
    # Any falling curve puts the same models in the same order; only the order enters.
    def with_scatter(error):
        rng = np.random.default_rng(7)
        return price_bounds(table(sweep(rng, scatter=1e-6, error=error))).bounds

    first, second = with_scatter(power_law), with_scatter(lambda n: 1 / math.log(n))
    for a, b in zip(first, second, strict=True):
        assert (a.c_low, a.c_high) == pytest.approx((b.c_low, b.c_high), rel=1e-9)
