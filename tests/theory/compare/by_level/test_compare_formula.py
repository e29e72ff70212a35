"""V/(V + v): its limits, the bound's terms on the same ratio, and the regression that judges it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from level_sweeps import LEVELS, SIGMA, bayes_error, formula, level_sweep, one_good

from ambient_theory.bounds.laws import LAWS
from ambient_theory.compare.by_level.bands import bands
from ambient_theory.compare.by_level.formula import (
    BOUND_TERMS,
    NOT_REJECTED,
    Calibration,
    Scatters,
    excess_scatter,
    judge_formula,
    predicted_worth,
)
from ambient_theory.compare.by_level.levels import level_tables
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.shared.errors import UsageError

CLEAN = (50, 100, 200, 400, 800, 1600, 6400, 200_000)


def found(rows, confidence=0.95):
    return bands(level_tables(rows)[0], confidence)


def test_the_scatter_of_a_target_made_of_a_noisy_image_is_that_of_the_simulated_one():
    """Variance of 200,000 draws: relative standard error sqrt(2/200,000) = .0032; five of them are allowed."""
    rng, sigma, s, x0 = np.random.default_rng(0), 0.3, 0.8, 0.4
    noisy = x0 + sigma * rng.standard_normal(200_000)
    raised = noisy + math.sqrt(s**2 - sigma**2) * rng.standard_normal(200_000)
    target = (noisy - (sigma / s) ** 2 * raised) / (1 - (sigma / s) ** 2)
    # what x_s says of the target beyond x0 is nothing: the two are uncorrelated, so this is the scatter at fixed x_s
    assert np.cov(target, raised)[0, 1] == pytest.approx(0, abs=5 * sigma * s / math.sqrt(200_000) * 2)
    assert target.var() == pytest.approx(float(excess_scatter(sigma, s)), rel=5 * 0.0032)
    assert target.mean() == pytest.approx(x0, abs=5 * 0.35 / math.sqrt(200_000))


def test_far_above_the_noise_it_is_the_strong_signal_law_and_below_it_nothing():
    v, sigma = 0.21, 0.4
    far = predicted_worth(v, sigma, 1e6)
    assert far == pytest.approx(LAWS["strong"].worth(sigma, math.sqrt(v)), rel=1e-9)
    assert predicted_worth(v, sigma, [0.1, 0.4]).tolist() == [0.0, 0.0]
    assert predicted_worth(v, sigma, 0.4001) < 0.01
    assert predicted_worth(v, 0.0, LEVELS) == pytest.approx(1.0)


def test_it_falls_with_the_noise_of_the_data_and_rises_with_the_level():
    s = np.geomspace(0.3, 20, 40)
    for a, b in ((0.1, 0.2), (0.2, 0.29)):
        assert np.all(predicted_worth(0.2, a, s) > predicted_worth(0.2, b, s))
    v = np.array([bayes_error(x) for x in s])
    assert np.all(np.diff(predicted_worth(v, 0.25, s)) > 0)


def test_the_bounds_terms_are_powers_of_the_same_ratio():
    base = predicted_worth(0.2, 0.3, [0.5, 1.0, 4.0])
    for name in BOUND_TERMS:
        assert predicted_worth(0.2, 0.3, [0.5, 1.0, 4.0], LAWS[name]) == pytest.approx(base ** LAWS[name].m)


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_noise_that_is_no_noise_level_is_refused(sigma):
    with pytest.raises(UsageError, match="must be finite and >= 0"):
        excess_scatter(sigma, LEVELS)


def test_the_second_largest_model_brackets_the_prediction_from_above():
    scatters = Scatters.of(level_tables(level_sweep(None, formula))[0])
    low, high = scatters.worth(SIGMA, np.array(LEVELS))
    truth = predicted_worth([bayes_error(s) for s in LEVELS], SIGMA, LEVELS)
    above = np.array(LEVELS) > SIGMA
    assert scatters.sizes == (1600, 800)
    assert np.all(truth[above] < low[above])
    assert np.all(low[above] < high[above])
    assert high[~above].tolist() == [0.0] * int((~above).sum())


def test_the_formula_passes_where_it_holds_and_fails_where_one_worth_does():
    rng = np.random.default_rng(4)
    kw = {"clean": CLEAN, "sigmas": (0.1, 0.25, 0.5), "seeds": 5, "scatter": 0.01}
    good = judge_formula(found(level_sweep(rng, formula, **kw)))
    assert good.above.slope.contains(1.0)
    assert good.above.intercept.contains(0.0)
    assert good.below.slope is None
    assert good.below.intercept.contains(0.0)
    assert good.above.slope.high - good.above.slope.low < 0.3
    bad = judge_formula(found(level_sweep(rng, one_good(0.3), **kw)))
    assert bad.above.verdict == "fails"
    assert not bad.above.slope.contains(1.0)
    assert not bad.below.intercept.contains(0.0)
    assert set(good.by_sigma_n) == {0.1, 0.25, 0.5}
    assert good.to_dict()["above"]["verdict"] == "holds"


@pytest.mark.slow
def test_slope_and_intercept_cover_as_often_as_they_say_and_half_of_their_width_does_not():
    """120 sweeps at 90 %: standard error of each share sqrt(.09/120) = .027; three of them, plus .01 for the bias of
    interpolation and of V."""
    rng = np.random.default_rng(8)
    hits, narrow = [], []
    for _ in range(120):
        rows = level_sweep(rng, formula, clean=CLEAN, sigmas=(0.1, 0.25), mixed=((100, 200), (200, 1000), (400, 400)))
        c = judge_formula(found(rows, 0.9)).above
        for i, true in ((c.slope, 1.0), (c.intercept, 0.0)):
            hits.append(i.contains(true))
            narrow.append(abs(true - i.value) <= (i.high - i.low) / 4)
    assert abs(np.mean(hits) - 0.9) < 3 * 0.027 + 0.01
    assert np.mean(narrow) < 0.75


def test_one_seed_gives_slopes_without_intervals_and_says_so():
    c = judge_formula(found(level_sweep(np.random.default_rng(0), formula, seeds=1))).above
    assert c.slope.low is None
    assert c.verdict == "no interval"


def test_mixtures_off_the_clean_curve_are_counted_and_not_used():
    rows = level_sweep(np.random.default_rng(0), one_good(1.0), clean=(50, 100, 200), mixed=((50, 100), (200, 1000)))
    judged = judge_formula(found(rows))
    both = judged.above.points + judged.above.left_out
    assert both == 2 * sum(s > SIGMA for s in LEVELS)
    assert judged.above.left_out == sum(s > SIGMA for s in LEVELS)


@pytest.mark.parametrize(
    ("slope", "intercept", "verdict"),
    [
        (Interval(1.0, 0.8, 1.2), Interval(0.0, -0.1, 0.1), "holds"),
        (Interval(0.0, -6.0, 6.0), Interval(0.0, -3.4, 3.4), NOT_REJECTED),
        (Interval(0.3, 0.1, 0.6), Interval(0.0, -0.1, 0.1), "fails"),
        (None, Interval(0.0, -0.1, 0.1), "holds"),
        (None, Interval(0.2, -2.0, 2.0), NOT_REJECTED),
        (None, Interval(0.5, 0.3, 0.7), "fails"),
    ],
)
def test_data_that_say_nothing_confirm_nothing(slope, intercept, verdict):
    assert Calibration("made-up", 9, 0, slope, intercept, None).verdict == verdict
