"""The table of laws: values, limits, calibration, the band in which prices cannot tell them apart."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient_theory.bounds import sizes
from ambient_theory.bounds.laws import LAWS, Law, identifiability_band, law_named, laws_for_atoms, lowdim
from ambient_theory.shared.errors import UsageError

PRICES = {  # 1/c at sigma .05 .1 .2 .4 .8, calibrated on 1/c(0.2) = 1.6
    "strong signal, m = 1": (1.0375, 1.15, 1.6, 3.4, 10.6),
    "subspace, m = 2": (1.033, 1.137, 1.6, 4.24, 27.4),
    "low-dimensional k = 2, m = 3": (1.032, 1.133, 1.6, 4.73, 51.2),
    "low-dimensional k = 3, m = 5": (1.031, 1.129, 1.6, 5.27, 114),
    "exponential limit": (1.030, 1.125, 1.6, 6.55, 1845),
}


def test_calibrated_prices_equal_the_tabulated_ones():
    band = identifiability_band([0.05, 0.1, 0.2, 0.4, 0.8])
    assert set(band.prices) == set(PRICES)
    for law, expected in PRICES.items():
        np.testing.assert_allclose(band.prices[law], expected, rtol=4e-3)


def test_laws_cannot_be_told_apart_below_the_anchor_and_can_above_it():
    band = identifiability_band(np.linspace(0, 0.8, 81))
    small = band.sigmas <= 0.2
    assert band.spread[small].max() < 0.03
    assert band.spread[band.sigmas >= 0.4].min() > 0.9


@pytest.mark.parametrize("name", list(LAWS))
def test_worth_is_one_without_noise_and_falls_smoothly(name):
    c = LAWS[name].worth(np.linspace(0, 3, 301), 0.7)
    assert c[0] == 1
    assert np.all(np.diff(c) < 0)
    assert abs(c[1] - c[0]) < 1e-2  # no kink at 0: the first step is of second order


@pytest.mark.parametrize(("name", "power"), [("strong", -2), ("subspace", -4), ("lowdim-k2", -6), ("lowdim-k3", -10)])
def test_worth_is_the_power_of_the_total_noise(name, power):
    s = sizes.total_noise(1.3, 0.5)
    assert LAWS[name].worth(1.3, 0.5) == pytest.approx((s / 0.5) ** power)


def test_the_exponential_law_is_the_limit_of_the_power_laws():
    many = lowdim(2001)
    assert many.worth(0.4, math.sqrt(many.m)) == pytest.approx(law_named("exponential").worth(0.4, 1.0), rel=1e-4)


@given(st.floats(0.05, 5), st.floats(1.01, 100), st.sampled_from(list(LAWS)))
def test_calibration_inverts_the_law(sigma, price, name):
    law = LAWS[name]
    assert 1 / law.worth(sigma, law.calibrate(sigma, price)) == pytest.approx(price)


def test_a_noisy_sample_counts_its_worth_in_the_effective_sizes():
    s = float(sizes.total_noise(1.5))
    assert sizes.n_l(2, [1, s], [100, 1000]) == pytest.approx(100 + 1000 * lowdim(2).worth(1.5, 1.0))
    assert sizes.n_d([1, s], [100, 1000]) == pytest.approx(100 + 1000 * law_named("subspace").worth(1.5, 1.0))
    assert sizes.n_l(1, [1, s], [3, 4]) == sizes.n_mean([1, s], [3, 4])


@pytest.mark.parametrize("name", list(LAWS))
def test_the_formula_of_a_law_is_the_law(name):
    law = LAWS[name]
    assert law.formula()(sigma=0.4, s_0=0.9) == pytest.approx(law.worth(0.4, 0.9))


def test_laws_of_k_atoms_leave_out_other_numbers_of_atoms_and_limits():
    assert [law.name for law in laws_for_atoms(2)] == ["strong", "subspace", "lowdim-k2"]
    assert [law.m for law in laws_for_atoms(5)] == [1, 2, 9]


@pytest.mark.parametrize(
    "call",
    [
        lambda: law_named("cubic"),
        lambda: lowdim(0),
        lambda: law_named("strong").worth(-0.1, 1.0),
        lambda: law_named("strong").worth(0.1, 0.0),
        lambda: law_named("strong").calibrate(0.2, 1.0),
        lambda: law_named("strong").calibrate(0.0, 1.6),
        lambda: Law(name="none", label="none", m=0, regime="", colour="k", line="-"),
    ],
)
def test_bad_arguments_are_usage_errors(call):
    with pytest.raises(UsageError):
        call()
