"""Finite differences and equivalent clean samples: exact on curves that are exact, honest at the ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from compare_sweeps import TRUTH, record, sweep
from scipy import stats

from ambient_theory.compare.cells.grouping import group_records
from ambient_theory.compare.cells.tables import table_of
from ambient_theory.compare.scores.utility import equivalents, exchange_rates, fieller


def table(rows):
    return table_of(group_records(rows)[0])


def pure_power(n):
    return (n / 1_000) ** -0.7


def test_on_a_pure_power_law_a_mixture_is_worth_exactly_n_clean_plus_c_n_noisy():
    for e in equivalents(table(sweep(None, error=pure_power))):
        assert e.equivalent.value == pytest.approx(e.n_clean + TRUTH[e.sigma_n] * e.n_noisy, rel=1e-3)
        assert e.worth.value == pytest.approx(TRUTH[e.sigma_n], rel=2e-3)
        assert e.worth.low is None


def test_a_mixture_better_than_every_clean_model_has_no_finite_equivalent():
    rows = sweep(None, error=pure_power)
    rows += [record(6_000, 500_000, 0.2, 1e-4, seed) for seed in range(3)]
    best = max(equivalents(table(rows)), key=lambda e: e.n_noisy)
    assert math.isinf(best.equivalent.value)


def test_a_mixture_worse_than_every_clean_model_is_worth_less_than_nothing():
    rows = [*sweep(None, error=pure_power), record(600, 1_000, 0.2, 1e3)]
    worst = min(equivalents(table(rows)), key=lambda e: e.equivalent.value)
    assert worst.equivalent.value == 0
    assert worst.worth.value == pytest.approx(-0.6)


def test_equivalents_cover_the_truth_at_their_confidence():
    rng, sweeps, inside, total = np.random.default_rng(0), 60, 0, 0
    for _ in range(sweeps):
        e = equivalents(table(sweep(rng, error=pure_power)))[0]
        inside += e.worth.contains(TRUTH[e.sigma_n])
        total += 1
    assert inside >= stats.binom.ppf(1e-4, total, 0.95)


def test_one_clean_size_gives_no_equivalent():
    assert equivalents(table([r for r in sweep(None) if r.n_clean == 600])) == []


def test_a_linear_log_score_has_its_exchange_rate_exactly():
    # log E = -(n_clean + c n_noisy) / 1e5: every difference is exact and the ratio is c.
    linear = lambda n: math.exp(-n / 1e5)  # noqa: E731
    rates = exchange_rates(table(sweep(None, error=linear)))
    assert len(rates) == 4
    for rate in rates:
        assert rate.measured.value == pytest.approx(TRUTH[rate.sigma_n], rel=1e-9)


def test_the_fitted_curve_goes_through_the_same_differences():
    t = table(sweep(np.random.default_rng(1)))
    for rate in exchange_rates(t, fitted=lambda same: same.y):
        assert rate.fitted == pytest.approx(rate.measured.value, rel=1e-12)


def test_exchange_rates_cover_the_truth_at_their_confidence():
    rng, inside, total = np.random.default_rng(2), 0, 0
    linear = lambda n: math.exp(-n / 3e4)  # noqa: E731
    for _ in range(150):
        rate = exchange_rates(table(sweep(rng, error=linear)))[0]
        inside += rate.measured.contains(TRUTH[rate.sigma_n])
        total += 1
    assert stats.binom.ppf(1e-4, total, 0.95) <= inside <= stats.binom.ppf(1 - 1e-4, total, 0.99)


def test_fieller_is_the_ratio_when_there_is_no_noise_and_open_when_the_denominator_may_be_zero():
    assert fieller(3.0, 2.0, np.zeros((2, 2)), 2.0) == pytest.approx((1.5, 1.5))
    assert fieller(3.0, 0.1, np.eye(2), 2.0) == (-math.inf, math.inf)


def test_fieller_solves_its_equation():
    cov = np.array([[0.2, 0.05], [0.05, 0.1]])
    for r in fieller(3.0, 2.0, cov, 1.9):
        variance = cov[0, 0] - 2 * r * cov[0, 1] + r**2 * cov[1, 1]
        assert (3.0 - r * 2.0) ** 2 == pytest.approx(1.9**2 * variance, rel=1e-9)
