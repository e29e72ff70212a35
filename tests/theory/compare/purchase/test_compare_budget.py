"""What to buy: corners of a single worth, the undetermined region, targets, extrapolation, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compare_sweeps import TRUTH, record, sweep

from ambient_theory.bounds.laws import law_named
from ambient_theory.compare.cells.grouping import group_records, shipped_records
from ambient_theory.compare.purchase.budget import Asked, answer_budget
from ambient_theory.compare.purchase.goods import draws_for
from ambient_theory.compare.purchase.purchases import drawn_interval
from ambient_theory.compare.scores.analysis import analyse_group, price_at, price_from_print
from ambient_theory.compare.scores.published import PublishedPrice, published_prices
from ambient_theory.shared.errors import DataError, UsageError


@pytest.fixture(scope="module")
def rows():
    return sweep(np.random.default_rng(0))


def buy(rows, **changes):
    options = {"price_clean": 1.0, "price_noisy": 0.5, "budget": 20_000, "sigma_n": 0.2, **changes}
    sigma_n = options.pop("sigma_n")
    (answer,) = answer_budget(rows, Asked(**options), sigma_n=sigma_n)
    return answer


def test_noisy_images_are_bought_where_they_cost_less_than_they_are_worth(rows):
    cheap, dear = buy(rows, price_noisy=0.3), buy(rows, price_noisy=0.9)
    assert cheap.best.n_noisy > 50_000
    assert dear.best.n_noisy == 0
    assert dear.best.n_clean == 20_000
    assert cheap.determined
    assert dear.determined


def test_at_a_cost_inside_the_interval_of_c_the_answer_is_not_determined(rows):
    answer = buy(rows, price_noisy=TRUTH[0.2] * 1.02)
    assert not answer.determined
    assert answer.open_shares[0] == 0
    assert answer.open_shares[1] > 0.9
    assert "not determined" in answer.sentence()


def test_a_purchase_never_costs_more_than_the_budget(rows):
    for price_noisy in (0.1, 0.31, 0.77):
        answer = buy(rows, price_noisy=price_noisy, budget=12_345.6)
        for mix in (answer.best, *answer.alternatives):
            assert mix.n_clean + price_noisy * mix.n_noisy <= 12_345.6


def test_only_the_ratio_of_the_prices_and_the_budget_matters(rows):
    one, other = buy(rows), buy(rows, price_clean=10, price_noisy=5, budget=200_000)
    assert (one.best.n_clean, one.best.n_noisy) == (other.best.n_clean, other.best.n_noisy)


def test_the_budget_that_reaches_a_target_reaches_it_and_a_little_less_does_not(rows):
    target = 0.2
    answer = buy(rows, budget=None, target_fd=target)
    assert answer.best.error == pytest.approx(target, rel=1e-2)
    assert buy(rows, budget=answer.budget * 0.9).best.error > target
    assert buy(rows, budget=answer.budget * 1.1).best.error < target


def test_a_target_below_the_floor_is_refused(rows):
    with pytest.raises(DataError, match="floor"):
        buy(rows, budget=None, target_fd=1e-6)


def test_extrapolation_is_marked_and_measured_mixes_are_not(rows):
    assert any("more noisy images" in x for x in buy(rows, price_noisy=0.01).best.extrapolated)
    assert any("more clean images" in x for x in buy(rows, price_noisy=0.9, budget=1e6).best.extrapolated)
    assert buy(rows, price_noisy=0.9).best.extrapolated == ()
    assert any("not measured" in x for x in buy(rows, sigma_n=0.4, price_noisy=0.05).best.extrapolated)


def test_one_seed_gives_a_mix_and_no_claim(rows):
    answer = buy([r for r in rows if r.seed == 0])
    assert answer.open_shares is None
    assert answer.best.error_low is None
    assert "cannot be said" in answer.sentence()


@pytest.mark.parametrize("change", [{"price_clean": 0.0}, {"price_noisy": -1.0}, {"budget": 0.0}, {"sigma_n": -0.1}])
def test_prices_that_mean_nothing_are_refused(rows, change):
    with pytest.raises(UsageError):
        buy(rows, **change)


def test_budget_and_target_exclude_each_other(rows):
    with pytest.raises(UsageError, match="either"):
        buy(rows, target_fd=0.2)
    with pytest.raises(UsageError, match="either"):
        buy(rows, budget=None)


def test_records_without_mixtures_buy_nothing():
    with pytest.raises(DataError, match="prices a noisy image"):
        buy([record(n, 0, None, 1.0) for n in (600, 6_000)])


# ---------------------------------------------------------------------------------------------------------------- price


def test_a_measured_level_is_priced_by_its_own_cells(rows):
    analysis = analyse_group(group_records(rows)[0], deep=False)
    (answer,) = price_at([analysis], [], 0.2)
    assert answer.measured
    assert answer.laws == {}
    assert answer.price.value == pytest.approx(1 / analysis.single.worth[0.2].value)
    assert answer.price.low < answer.price.value < answer.price.high


def test_an_unmeasured_level_is_priced_by_the_band_of_the_laws_and_marked(rows):
    small = {s: float(law_named("subspace").worth(s, 0.5)) for s in (0.05, 0.1)}
    analysis = analyse_group(group_records(sweep(np.random.default_rng(1), worth=small))[0], deep=False)
    inside, outside = (price_at([analysis], [], s)[0] for s in (0.08, 0.6))
    assert not inside.measured
    assert len(outside.laws) == 5
    assert (outside.price.high / outside.price.low) > 3 * (inside.price.high / inside.price.low)


# Reference values: every law calibrated on 1/c(.2) = 1.6, at sigma .05, .1, .4, .8, to the digits given.
BAND = {
    "strong signal, m = 1": "1.0375 1.15 3.4 10.6",
    "subspace, m = 2": "1.033 1.137 4.24 27",
    "low-dimensional k = 2, m = 3": "1.032 1.133 4.73 51",
    "low-dimensional k = 3, m = 5": "1.031 1.129 5.27 114",
    "exponential limit": "1.030 1.125 6.55 1845",
}


@pytest.mark.parametrize(("index", "sigma"), list(enumerate((0.05, 0.1, 0.4, 0.8))))
def test_a_printed_price_gives_the_band_of_the_theory(index, sigma):
    answer = price_from_print(PublishedPrice("imagenet64", 0.2, 1.6, 1.6, 1.6), sigma)
    assert set(answer.laws) == set(BAND)
    for name, digits in BAND.items():
        stated = digits.split()[index]
        decimals = len(stated.partition(".")[2])
        assert answer.laws[name].value == pytest.approx(float(stated), abs=0.501 * 10**-decimals)


def test_below_the_anchor_no_law_is_told_from_another():
    price = PublishedPrice("imagenet64", 0.2, 1.6, 1.6, 1.6)
    for sigma in (0.05, 0.1):
        band = price_from_print(price, float(sigma)).price
        assert band.high / band.low < 1.0226
    wide = price_from_print(price, 0.4).price
    assert wide.high / wide.low > 1.9


def test_the_printed_price_ships_with_its_interval():
    (price,) = published_prices(shipped_records())
    assert (price.dataset, price.sigma_n, price.low, price.high) == ("imagenet64", 0.2, 1.5, 1.75)
    at_print = price_from_print(price, 0.2)
    assert (at_print.price.low, at_print.price.high) == (1.5, 1.75)


def test_records_that_price_nothing_are_refused_with_the_reason():
    analysis = analyse_group(group_records([record(0, 600, 0.2, 1.0)])[0])
    with pytest.raises(DataError, match="noisy-only"):
        price_at([analysis], [], 0.2)
    with pytest.raises(UsageError, match="sigma"):
        price_at([analysis], [], -1.0)


def test_a_target_in_frechet_distance_is_read_in_no_other_score(rows):
    kernel = [replace(r, metric="kid") for r in rows]
    with pytest.raises(DataError, match="no Fréchet distance, which --target-fd is in"):
        buy(kernel, budget=None, target_fd=1.5)
    assert buy(rows, budget=None, target_fd=1.5).target == 1.5


def test_an_interval_of_sixty_draws_holds_as_many_further_ones_as_it_says():
    rng = np.random.default_rng(3)
    sets, confidence = 4000, 0.95
    draws, further = rng.standard_normal((60, sets)), rng.standard_normal(sets)
    low, high = drawn_interval(draws, confidence)
    stderr = np.sqrt(confidence * (1 - confidence) / sets)
    assert abs(np.mean((low < further) & (further < high)) - confidence) < 3 * stderr
    ends = np.quantile(draws, [0.025, 0.975], axis=0)  # control: between order statistics as numpy does
    assert np.mean((ends[0] < further) & (further < ends[1])) < confidence - 5 * stderr
    assert draws_for(0.99) >= 200
