"""Effective sizes, exchange rates, crossover, identifiability, SNR."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient_theory.bounds import laws as bounds
from ambient_theory.bounds import rates
from ambient_theory.shared.errors import UsageError

PRICES = {  # 1/c at sigma .05 .1 .2 .4 .8, calibrated on 1/c(0.2) = 1.6
    "strong (m=1)": (1.0375, 1.15, 1.6, 3.4, 10.6),
    "subspace (m=2)": (1.033, 1.137, 1.6, 4.24, 27.4),
    "lowdim k=2 (m=3)": (1.032, 1.133, 1.6, 4.73, 51.2),
    "lowdim k=3 (m=5)": (1.031, 1.129, 1.6, 5.27, 114),
    "exponential (m->inf)": (1.030, 1.125, 1.6, 6.55, 1845),
}


def test_calibrated_prices_equal_the_tabulated_ones():
    band = bounds.identifiability_band([0.05, 0.1, 0.2, 0.4, 0.8])
    assert set(band.prices) == set(PRICES)
    for law, expected in PRICES.items():
        np.testing.assert_allclose(band.prices[law], expected, rtol=4e-3)


def test_laws_cannot_be_told_apart_below_the_anchor_and_can_above_it():
    band = bounds.identifiability_band(np.linspace(0, 0.8, 81))
    small = band.sigmas <= 0.2
    assert band.spread[small].max() < 0.03
    assert band.spread[band.sigmas >= 0.4].min() > 0.9


@pytest.mark.parametrize(("law", "k"), [("strong", None), ("subspace", None), ("lowdim", 3), ("exponential", None)])
def test_exchange_rate_is_one_without_noise_and_falls_smoothly(law, k):
    sigma = np.linspace(0, 3, 301)
    c = bounds.exchange_rate(law, sigma, 0.7, k)
    assert c[0] == 1
    assert np.all(np.diff(c) < 0)
    assert abs(c[1] - c[0]) < 1e-2  # no kink at 0: the first step is of second order


def test_exchange_rate_is_the_power_of_the_total_noise():
    s = bounds.total_noise(1.3, 0.5)
    assert bounds.c_low(1.3, 3, 0.5) == pytest.approx((s / 0.5) ** -10)
    assert bounds.c_pca(1.3, 0.5) == pytest.approx((s / 0.5) ** -4)
    assert bounds.c_strong(1.3, 0.5) == pytest.approx((s / 0.5) ** -2)


def test_exponential_is_the_limit_of_the_power_laws():
    m = 4001  # k = 2001
    power = bounds.exchange_rate("lowdim", 0.4, math.sqrt(m), 2001)
    assert power == pytest.approx(bounds.exchange_rate("exponential", 0.4, 1.0), rel=1e-4)


def test_direction_rate_runs_from_fourth_to_second_power():
    s = bounds.total_noise(2.0)
    assert bounds.c_subspace(2.0, 0.0) == pytest.approx(s**-4)
    assert bounds.c_subspace(2.0, 1e12) == pytest.approx(s**-2)


@given(st.floats(0.05, 5), st.floats(1.01, 100), st.sampled_from(["strong", "subspace", "exponential"]))
def test_calibration_inverts_the_law(sigma, price, law):
    assert 1 / bounds.exchange_rate(law, sigma, bounds.calibrate_s0(law, sigma, price)) == pytest.approx(price)


def test_a_noisy_sample_counts_its_exchange_rate_in_the_effective_sizes():
    s = float(bounds.total_noise(1.5))
    assert bounds.n_l(2, [1, s], [100, 1000]) == pytest.approx(100 + 1000 * bounds.c_low(1.5, 2))
    assert bounds.n_d([1, s], [100, 1000]) == pytest.approx(100 + 1000 * bounds.c_pca(1.5))
    assert bounds.n_l(1, [1, s], [3, 4]) == bounds.n_mean([1, s], [3, 4])


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
    assert bounds.crossover(k, 3072) == pytest.approx(n)
    assert bounds.crossover(k, 3072, 7.0) == pytest.approx(n)  # the noise cancels when it is equal
    assert rates.CROSSOVER(k=k, d=3072, C_d=1, C_l=1) == pytest.approx(n)


def test_fitted_constants_move_the_crossover_by_orders_of_magnitude():
    assert bounds.crossover(2, 3072, c_d=1.0, c_l=0.34) == pytest.approx(1.2e16, rel=0.05)


@settings(max_examples=40)
@given(st.integers(2, 5), st.integers(2, 4000), st.floats(1, 4), st.floats(0.01, 0.99), st.floats(0.3, 3))
def test_both_terms_are_equal_at_the_crossover_of_any_mix(k, d, s, share, c_l):
    n = bounds.crossover(k, d, [1, s], [share, 1 - share], c_l=c_l)
    terms = bounds.bound(k, d, [1, s], [n * share, n * (1 - share)], c_l=c_l)
    assert terms.pca == pytest.approx(terms.low, rel=1e-9)


def test_mean_estimation_has_no_subspace_term():
    terms = bounds.bound(1, 50, [1, 2], [100, 400])
    assert (terms.pca, terms.low) == (0, pytest.approx(math.sqrt(50 / 200)))
    with pytest.raises(UsageError, match="k must be a whole number >= 2"):
        bounds.crossover(1, 50)


def test_exponents():
    assert bounds.lowdim_exponent(3) == 1 / 10
    assert bounds.separated_exponent(3, 3) == 1 / 2
    assert bounds.separated_exponent(3, 1) == bounds.lowdim_exponent(3)


def test_one_clean_sample_among_noisy_ones_breaks_the_weight_condition():
    assert bounds.weight_condition(100, [1.0], [10_000]) < 0.02
    assert bounds.weight_condition(100, [0.01, 1.0], [1, 10_000]) > 90


def test_snr_round_trip():
    assert bounds.snr_db(0.1) == pytest.approx(20)
    assert bounds.sigma_from_snr_db(bounds.snr_db(0.37, 0.5), 0.5) == pytest.approx(0.37)
    assert bounds.sigma_from_snr(bounds.snr(0.37)) == pytest.approx(0.37)


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
        lambda: bounds.exchange_rate("cubic", 1.0, 1.0),
        lambda: bounds.exchange_rate("lowdim", 1.0, 1.0),
        lambda: bounds.exchange_rate("strong", -0.1, 1.0),
        lambda: bounds.exchange_rate("strong", 0.1, 0.0),
        lambda: bounds.calibrate_s0("strong", 0.2, 1.0),
        lambda: bounds.bound(2, 0, [1.0]),
        lambda: bounds.bound(2, 3, [1.0], delta=0),
        lambda: bounds.snr(0.0),
        lambda: bounds.sigma_from_snr(0.0),
        lambda: bounds.separated_exponent(2, 3),
    ],
)
def test_bad_arguments_are_usage_errors(call):
    with pytest.raises(UsageError):
        call()


def test_every_statement_names_source_grade_regime_and_symbols():
    assert len({s.name for s in rates.STATEMENTS}) == len(rates.STATEMENTS)
    for statement in rates.STATEMENTS:
        assert statement.source
        assert statement.regime
        assert statement.grade in rates.GRADES
        assert statement.latex()
        assert statement.free_names() == set(statement.symbols)
    reconstructed = {s.name for s in rates.STATEMENTS if s.source == rates.AMBIENT}
    assert all(s.grade == "reconstructed" for s in rates.STATEMENTS if s.name in reconstructed)


def test_symbolic_and_numeric_rates_agree():
    levels, counts = [1.0, 2.0], [100, 900]
    log_term = {"delta": math.exp(-1)}
    sizes = {"n_d": bounds.n_d(levels, counts), "n_l": bounds.n_l(3, levels, counts)}
    expected = bounds.bound(3, 40, levels, counts, c_d=1.5, c_l=0.5, **log_term)
    assert rates.SUBSPACE_TERM(d=40, n_d=sizes["n_d"], C_d=1.5, **log_term) == pytest.approx(expected.pca)
    assert rates.HETEROSCEDASTIC(k=3, d=40, C_d=1.5, C_l=0.5, **sizes, **log_term) == pytest.approx(expected.total)
    assert rates.C_LOW(k=3, sigma=0.4, s_0=0.9) == pytest.approx(bounds.c_low(0.4, 3, 0.9))
    assert rates.C_PCA(sigma=0.4, s_0=0.9) == pytest.approx(bounds.c_pca(0.4, 0.9))
    assert rates.N_L(n=3, k=2, s=[1, 2, 3]) == pytest.approx(bounds.n_l(2, [1, 2, 3]))
    assert rates.SEPARATED(n=1e6, k=3, k_0=2) == pytest.approx(1e6 ** -bounds.separated_exponent(3, 2))
    s = float(bounds.total_noise(2.0))
    assert rates.C_SUBSPACE(**{"lambda": 4, "s": s, "s_0": 1}) == pytest.approx(bounds.c_subspace(2.0, 4))
    with pytest.raises(UsageError, match="needs"):
        rates.C_LOW(k=3)
