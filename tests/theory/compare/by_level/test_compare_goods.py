"""One good or two: exact recovery, coverage of intervals, nested tests, controls, and shuffles that price nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from level_sweeps import LEVELS, MIXED, SIGMA, formula, level_sweep, one_good, two_goods
from scipy import optimize, stats

from ambient_theory.compare.by_level.goods import (
    ADDITIVE,
    CLEAN_ONLY,
    FREE,
    LAWS,
    NAIVE,
    NOTHING_BELOW,
    ONE,
    TWO,
    Market,
    fit_laws,
)
from ambient_theory.compare.by_level.judgement import FORMULA, judge
from ambient_theory.compare.by_level.levels import level_tables
from ambient_theory.compare.by_level.potency import compare_laws, parallelism, worth_interval
from ambient_theory.compare.by_level.unseen import goods_sizes
from ambient_theory.compare.fitting import varpro
from ambient_theory.compare.fitting.quadratic import basis, form
from ambient_theory.shared.errors import DataError

TWO_TRUTH = two_goods(0.4, 1.2, 2.0)
LARGE = (50, 100, 200, 400, 800, 1600, 200_000)


def table(rows):
    return level_tables(rows)[0]


def laws(rows, sigma=SIGMA, names=LAWS):
    market = Market.of(table(rows), sigma)
    return market, fit_laws(market, names)


# -------------------------------------------------------------------------------------------------------------- algebra


def test_variable_projection_finds_the_minimum_of_a_general_solver_or_a_lower_one():
    rng = np.random.default_rng(0)
    size, levels = rng.uniform(50, 2000, (1, 9)), 5
    error = 0.1 + (size / 300) ** -0.7 * np.exp(0.1 * rng.standard_normal((levels, 9)))
    errors = varpro.Errors(error, 1 / error, 300.0)
    found = varpro.fit(size, errors)
    for k in range(levels):
        best = min(
            optimize.least_squares(
                lambda t, k=k: (t[0] + t[1] * (size[0] / 300) ** -np.exp(t[2]) - error[k]) / error[k],
                (0.05, 1.0, start), bounds=([0, 0, math.log(0.05)], [9, 99, math.log(4)]),
            ).cost * 2
            for start in (-2.0, -0.5, 0.8)
        )  # fmt: skip
        assert found.sse[0, k] <= best * (1 + 1e-4) + 1e-9
    assert np.all(found.floor >= 0)
    assert np.all(found.a >= 0)


def test_rows_of_a_batch_are_the_fits_of_each_row_alone():
    rng = np.random.default_rng(1)
    size = rng.uniform(50, 2000, (4, 8))
    errors = varpro.Errors(rng.uniform(0.5, 1, (3, 8)), np.ones((3, 8)), 300.0)
    together = varpro.fit(size, errors)
    for row in range(4):
        assert varpro.fit(size[row : row + 1], errors).sse[0] == pytest.approx(together.sse[row], rel=1e-9)
    by_level = varpro.fit(np.repeat(size[:, None], 3, axis=1), errors)
    assert by_level.sse == pytest.approx(together.sse, rel=1e-6)


def test_a_quadratic_form_has_the_mean_and_variance_of_simulated_residuals():
    """4,000 draws: the mean has standard error sqrt(2 m^2/(h n)); five of them."""
    rng = np.random.default_rng(2)
    c = np.exp(-np.abs(np.subtract.outer(np.arange(3), np.arange(3))) / 2)
    columns = rng.standard_normal((15, 5))
    large, small = basis(columns), basis(columns[:, :2])
    f = form(large, small, c)
    draws = (np.linalg.cholesky(c) @ rng.standard_normal((4000, 3, 5))).reshape(4000, 15)
    values = np.sum((draws @ large) ** 2, axis=1) - np.sum((draws @ small) ** 2, axis=1)
    assert values.mean() == pytest.approx(f.mean, abs=5 * math.sqrt(2 / f.dof / 4000) * f.mean)
    assert values.var() == pytest.approx(2 * f.mean**2 / f.dof, rel=0.25)
    assert form(large, small, np.eye(3)).dof == pytest.approx(3)


# ------------------------------------------------------------------------------------------------------------- recovery


def test_without_scatter_one_good_gives_back_its_worth_at_every_level():
    _, found = laws(level_sweep(None, one_good(0.3)))
    for name in (ONE, TWO, FREE):
        assert found[name].worth == pytest.approx([0.3] * 6, rel=2e-3)
    assert found[CLEAN_ONLY].sse > 100 * found[ONE].sse


def test_without_scatter_two_goods_give_back_worth_gain_and_saturation():
    market, found = laws(level_sweep(None, TWO_TRUTH))
    two = found[TWO]
    assert two.worth[market.above] == pytest.approx(0.4, rel=3e-3)
    assert two.worth[~market.above] == pytest.approx(1.2 / (2.0 + market.reference), rel=3e-3)
    assert two.q == pytest.approx(1 / 2.0, rel=0.02)
    assert two.sse < 1e-3 * found[ADDITIVE].sse
    judged = judge(table(level_sweep(None, TWO_TRUTH)), SIGMA)
    assert judged.ceiling == pytest.approx(1 + 1.2, rel=0.01)
    coarse, fine = (float(x) for x in goods_sizes(judged.laws[TWO], np.array(100.0), np.array(1000.0)))
    assert coarse == pytest.approx(100 + 0.4 * 1000, rel=3e-3)
    assert fine == pytest.approx(100 * (1 + 1.2 * 10 / 12), rel=5e-3)


def test_every_law_fits_at_least_as_well_as_the_laws_it_holds():
    rng = np.random.default_rng(3)
    for size in (one_good(0.3), TWO_TRUTH, formula):
        _, found = laws(level_sweep(rng, size, scatter=0.03))
        sse = {name: law.sse for name, law in found.items()}
        for nested, full in (
            (CLEAN_ONLY, ONE),
            (NAIVE, ONE),
            (ONE, TWO),
            (NOTHING_BELOW, TWO),
            (ADDITIVE, TWO),
            (TWO, FREE),
        ):
            assert sse[full] <= sse[nested] + 0.05


# -------------------------------------------------------------------------------------------------------- nested tests


def test_the_laws_that_hold_survive_and_those_that_do_not_are_rejected():
    rng = np.random.default_rng(5)
    one = judge(table(level_sweep(rng, one_good(0.3))), SIGMA)
    assert one.surviving == ONE
    assert one.rejected(NAIVE, ONE)
    assert one.rejected(CLEAN_ONLY, ONE)
    assert "cannot be told apart" in one.sentence()
    two = judge(table(level_sweep(rng, TWO_TRUTH)), SIGMA)
    assert two.surviving == TWO
    assert two.rejected(ADDITIVE, TWO)
    assert two.rejected(NOTHING_BELOW, TWO)
    assert "multiply the clean ones and saturate" in two.sentence()
    steep = judge(table(level_sweep(rng, formula, clean=LARGE, sigmas=(0.1,), scatter=0.005)), 0.1)
    assert steep.surviving == FREE
    assert steep.rejected(FORMULA, FREE) is False
    assert "without a fitted constant, is not rejected" in steep.sentence()
    assert two.rejected(FORMULA, FREE)


def test_two_laws_that_noise_hides_from_each_other_are_said_to_be_indistinguishable():
    rows = level_sweep(np.random.default_rng(6), TWO_TRUTH, scatter=0.3, seeds=2, mixed=((100, 200), (200, 200)))
    judged = judge(table(rows), SIGMA)
    assert judged.surviving == ONE
    assert "cannot be told apart" in judged.sentence() or "no price" in judged.sentence()


@pytest.mark.slow
def test_a_true_small_law_is_rejected_as_often_as_five_percent_says():
    """40 sweeps, tests at 10 %: standard error sqrt(.09/40) = .047; three of them. The control is a false law."""
    rng = np.random.default_rng(7)
    true, false = [], []
    for _ in range(40):
        _, found = laws(level_sweep(rng, one_good(0.3)))
        true.append([compare_laws(found[ONE], found[TWO]).p, found[FREE].lack.p, parallelism(found[ONE]).p])
        false.append(compare_laws(found[NAIVE], found[ONE]).p)
    assert np.mean(np.array(true) < 0.1, axis=0) == pytest.approx(0.1, abs=3 * 0.047)
    assert max(false) < 0.01


def test_the_parallelism_test_finds_mixtures_that_disagree_about_the_worth():
    rng = np.random.default_rng(9)
    agree = judge(table(level_sweep(rng, one_good(0.3))), SIGMA)
    assert agree.parallel[ONE].verdict == "not rejected"
    lazy = lambda s, n, m, sigma: n + 0.3 * min(m, 300)  # the first 300 noisy images count, the others do not  # noqa: E731
    differ = judge(table(level_sweep(rng, lazy)), SIGMA)
    assert differ.parallel[ONE].verdict == "rejected"
    assert any(t.verdict == "rejected" for t in differ.parallel_by_level)


# ------------------------------------------------------------------------------------------------------------- coverage


def coverage(size, sweeps, seed):
    """(coarse, fine) intervals at 90 % that hold the truth, and their halves, over synthetic sweeps."""
    rng = np.random.default_rng(seed)
    hits, halves = [], []
    for _ in range(sweeps):
        market, found = laws(level_sweep(rng, size), names=(ONE, TWO))
        r = market.reference
        truth = [
            size(1.0, 100, 100, SIGMA) / 100 - 1,
            (size(0.0, 1000, round(1000 * r), SIGMA) - 1000) / round(1000 * r),
        ]
        columns = [(found[TWO], 0, truth[0]), (found[TWO], 1, truth[1])]
        if truth[0] == pytest.approx(truth[1]):
            columns.append((found[ONE], 0, truth[0]))
        row, half = [], []
        for law, column, true in columns:
            i = worth_interval(law, column, 0.9)
            row.append(i.low <= true <= i.high)
            half.append((i.value + i.low) / 2 <= true <= (i.value + i.high) / 2)
        hits.append(row)
        halves.append(half)
    return np.mean(hits, axis=0), np.mean(halves, axis=0)


@pytest.mark.parametrize("size", [one_good(0.3), TWO_TRUTH], ids=["one good", "two goods"])
def test_intervals_of_worth_cover_as_often_as_they_say_and_half_of_their_width_does_not(size):
    """40 sweeps at 90 %: standard error sqrt(.09/40) = .047; three of them."""
    whole, half = coverage(size, 40, 12)
    assert np.all(np.abs(whole - 0.9) < 3 * 0.047)
    assert np.all(half < 0.8)  # 2 Phi(1.645/2) - 1 = .59, standard error .08, not quite three of them


@pytest.mark.slow
@pytest.mark.parametrize("size", [one_good(0.3), TWO_TRUTH], ids=["one good", "two goods"])
def test_intervals_of_worth_cover_within_four_and_a_half_points_over_400_sweeps(size):
    """400 sweeps at 90 %: standard error sqrt(.09/400) = .015, so .045 is three of them."""
    whole, half = coverage(size, 400, 13)
    assert np.all(np.abs(whole - 0.9) < 0.045)
    assert np.all(half < 0.7)


# ------------------------------------------------------------------------------------------------------------- controls


def test_shuffled_scores_give_no_price():
    """Scores given to other cells at random say nothing. 20 shuffles; at 5 % each, more than 4 prices among them have
    probability .0026; the same sweep in its order has one."""
    rng = np.random.default_rng(14)
    t = table(level_sweep(rng, TWO_TRUTH, scatter=0.03))
    assert judge(t, SIGMA).priced
    prices = 0
    for _ in range(20):
        order = rng.permutation(len(t.cells))
        cells = tuple(replace(c, log_error=t.cells[k].log_error) for c, k in zip(t.cells, order, strict=True))
        prices += judge(replace(t, cells=cells), SIGMA).priced
    assert stats.binom.sf(4, 20, 0.05) < 0.003
    assert prices <= 4


def test_scores_of_pure_noise_give_no_price_and_say_what_to_do():
    t = table(level_sweep(np.random.default_rng(15), one_good(0.3), scatter=0.02))
    rng = np.random.default_rng(16)
    flat = tuple(replace(c, log_error=0.02 * rng.standard_normal(c.log_error.shape)) for c in t.cells)
    judged = judge(replace(t, cells=flat), SIGMA)
    assert not judged.priced
    assert "train longer, or add seeds" in judged.sentence()


def test_calibration_controls_have_the_worth_they_must_have():
    rng = np.random.default_rng(17)
    for sigma, worth in ((0.001, 1.0), (80.0, 0.0)):
        rows = level_sweep(rng, one_good(worth), mixed=((50, 200), (100, 200), (200, 400)), sigmas=(sigma,))
        judged = judge(table(rows), sigma)
        assert judged.expected == worth
        assert judged.one.contains(worth)
        assert judged.one.contains(0.3) is False


def test_levels_on_one_side_of_the_noise_and_mixtures_of_one_ratio_are_named():
    rows = level_sweep(np.random.default_rng(18), one_good(0.3), sigmas=(0.01,), mixed=((50, 100), (100, 200)))
    judged = judge(table(rows), 0.01)
    assert judged.fine is None
    assert "no measured level lies below the noise" in judged.notes
    same = judge(table(level_sweep(np.random.default_rng(18), one_good(0.3), mixed=((50, 100), (100, 200)))), SIGMA)
    assert any("saturation below the noise cannot be seen" in note for note in same.notes)
    assert same.saturation == 0


# ------------------------------------------------------------------------------------------------------------ bad input


def test_one_seed_a_cell_gives_worths_without_intervals_and_no_price():
    judged = judge(table(level_sweep(np.random.default_rng(0), one_good(0.3), seeds=1)), SIGMA)
    assert judged.one.value == pytest.approx(0.3, rel=0.25)
    assert judged.one.low is None
    assert not judged.priced
    assert "no scatter over training seeds" in judged.sentence()
    assert all(t.verdict == "not testable" for t in judged.tests.values())


@pytest.mark.parametrize(
    ("rows", "sigma", "sentence"),
    [
        (level_sweep(None, one_good(0.3), clean=(100,)), SIGMA, "all clean-only models have the same 100 images"),
        (level_sweep(None, one_good(0.3), clean=()), SIGMA, "no model was trained on clean images alone"),
        (level_sweep(None, one_good(0.3), mixed=()), SIGMA, "no model was trained on clean and noisy images together"),
        (level_sweep(None, one_good(0.3)), 0.7, "no mixture has noise σ 0.7; measured are 0.25"),
        (level_sweep(None, one_good(0.3), clean=(50, 100), mixed=MIXED[:1]), SIGMA, "3 cells cannot determine"),
    ],
)
def test_a_table_that_determines_no_law_says_why_in_one_sentence(rows, sigma, sentence):
    with pytest.raises(DataError, match=sentence):
        judge(table(rows), sigma)


def test_a_judgement_is_the_same_twice_and_is_plain_json():
    import json

    rows = level_sweep(np.random.default_rng(20), TWO_TRUTH)
    once, twice = (json.dumps(judge(table(rows), SIGMA).to_dict(), allow_nan=True) for _ in range(2))
    assert once == twice
    assert len(json.loads(once)["free_worths"]) == len(LEVELS)
