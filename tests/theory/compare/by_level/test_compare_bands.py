"""Worth by level: intervals that cover, and refusals in one sentence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from level_sweeps import CLEAN, LEVELS, error, formula, level_sweep, one_good, record, two_goods

from ambient_theory.compare.by_level.bands import bands
from ambient_theory.compare.by_level.levels import LEVEL_BEST, check_priceable, level_tables, uneven_scatter
from ambient_theory.compare.fitting.clean_curve import BEYOND
from ambient_theory.shared.errors import DataError


def table(rows):
    return level_tables(rows)[0]


# ------------------------------------------------------------------------------------------------------------- recovery


def test_without_scatter_the_worth_at_each_level_is_the_laws_within_the_interpolation():
    size = two_goods(0.4, 1.2, 2.0)
    found = bands(table(level_sweep(None, size)))
    seen = 0
    for m in found.mixtures:
        for b in m.bands:
            true = size(b.level, m.cell.n_clean, m.cell.n_noisy, m.cell.sigma_n)
            if b.inside:
                assert b.equivalent.value == pytest.approx(true, rel=0.02)
                assert b.worth.value == pytest.approx((b.equivalent.value - m.cell.n_clean) / m.cell.n_noisy)
                assert b.worth.low is None  # copies are no replicates
                seen += 1
            else:
                assert not CLEAN[0] * 1.01 < true < CLEAN[-1] * 0.99
    assert seen >= 30


def test_a_mixture_better_than_every_clean_model_is_beyond_and_keeps_a_lower_end():
    rng = np.random.default_rng(3)
    found = bands(table(level_sweep(rng, one_good(1.0), clean=(50, 100, 200), mixed=((100, 1000),))))
    for b in found.mixtures[0].bands:
        assert b.where == BEYOND
        assert b.equivalent.value == math.inf == b.equivalent.high
        assert 150 < b.equivalent.low <= 200
        assert b.to_dict()["equivalent_clean"][0] is None


def test_one_seed_a_cell_gives_estimates_without_intervals():
    found = bands(table(level_sweep(np.random.default_rng(0), one_good(0.3), seeds=1)))
    assert all(b.worth.low is None and b.worth.high is None for m in found.mixtures for b in m.bands)


# ------------------------------------------------------------------------------------------------------------- coverage


def test_intervals_of_equivalent_images_cover_as_often_as_they_say_and_half_of_their_width_does_not():
    """150 sweeps, 90 %: the levels of a sweep count as one observation of its mean, which bounds the standard error of
    the share by sqrt(.09/150) = .0245; tolerance 3 of them plus .01 for the bias of interpolation."""
    rng, size = np.random.default_rng(11), one_good(0.3)
    covered, narrow = [], []
    for _ in range(150):
        rows = level_sweep(rng, size, mixed=((100, 200), (200, 1000)), seeds=3, scatter=0.02)
        for m in bands(table(rows), confidence=0.9).mixtures:
            true = math.log(size(0.0, m.cell.n_clean, m.cell.n_noisy, 0.0))
            for b in m.bands:
                low, high, at = (math.log(x) for x in (b.equivalent.low, b.equivalent.high, b.equivalent.value))
                covered.append(low <= true <= high)
                narrow.append(at + (low - at) / 2 <= true <= at + (high - at) / 2)
    assert abs(np.mean(covered) - 0.9) < 3 * 0.0245 + 0.01
    assert np.mean(narrow) < 0.75  # expected 2 Phi(1.645/2) - 1 = .59


def test_the_gradient_is_the_derivative_of_the_worth():
    rng = np.random.default_rng(5)
    rows = level_sweep(rng, one_good(0.3), mixed=((100, 200),), seeds=2)
    first = bands(table(rows))
    moved = [
        record(r.n_clean, r.n_noisy, r.sigma_n, r.level, r.value * math.exp(1e-4 * (r.n_noisy > 0)), r.seed)
        for r in rows
    ]
    second = bands(table(moved))
    a, b = first.mixtures[0], second.mixtures[0]
    position = first.cells.index(a.cell)
    for k in range(len(LEVELS)):
        change = (b.bands[k].worth.value - a.bands[k].worth.value) / 1e-4
        assert a.gradient[k, position] == pytest.approx(change, rel=0.02)
        assert a.gradient[k].sum() == pytest.approx(0.0, abs=1e-9)  # a common factor of all errors changes nothing


# ------------------------------------------------------------------------------------------------ records, and refusals


def test_levels_of_one_model_are_one_curve_and_records_read_twice_count_once():
    rows = level_sweep(np.random.default_rng(0), one_good(0.3))
    t = table(rows + rows)
    assert len(t.cells) == 12
    assert t.levels == pytest.approx(LEVELS)
    assert t.n_seeds == 4
    assert t.scatter.dof == 11 * 3  # twelve cells in four blocks
    assert t.whole_scatter.dof == 12 * 3
    assert t.scatter.correlation[0, 1] > 0.3  # made with exp(-1/3) = .72


def test_a_seed_recorded_with_two_values_refuses_its_cell_and_says_so():
    rows = level_sweep(np.random.default_rng(0), one_good(0.3))
    t = table([*rows, record(100, 0, None, LEVELS[2], 1.0, 0)])
    assert [c.n_clean for c in t.clean] == [n for n in CLEAN if n != 100]
    assert any("100 clean: seed 0 was recorded with two different values" in note for note in t.notes)


def test_mixed_evaluations_never_meet_in_one_table_and_each_says_so():
    rng = np.random.default_rng(0)
    rows = level_sweep(rng, one_good(0.3))
    rows += level_sweep(rng, one_good(0.3), extra={"images": "ffff0000", "dim": 64})
    tables = level_tables(rows)
    assert len(tables) == 2
    assert {t.key.images for t in tables} == {"abcd1234", "ffff0000"}
    assert all(any("2 evaluations that differ" in note for note in t.notes) for t in tables)
    assert not any("evaluations" in note for note in level_tables(level_sweep(rng, one_good(0.3)))[0].notes)


def test_the_best_duration_at_each_level_is_the_least_error_of_each_seed():
    rows = level_sweep(None, one_good(0.3), duration_nimg=1000)
    other = [
        record(r.n_clean, r.n_noisy, r.sigma_n, r.level, r.value * (0.9 if r.level > 0.1 else 1.2), r.seed,
               duration_nimg=2000)
        for r in rows
    ]  # fmt: skip
    tables = {t.key.checkpoint: t for t in level_tables(rows + other)}
    best = tables[LEVEL_BEST]
    assert best.key.duration_nimg == 2000
    clean = next(c for c in best.clean if c.n_clean == 100)
    expected = [math.log(error(s, 100) * (0.9 if s > 0.1 else 1.0)) for s in LEVELS]
    assert clean.log_error[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (level_sweep(None, one_good(0.3), clean=(100,)), "all clean-only models have the same 100 images"),
        (level_sweep(None, one_good(0.3), clean=()), "no model was trained on clean images alone"),
        (level_sweep(None, one_good(0.3), mixed=()), "no model was trained on clean and noisy images together"),
    ],
)
def test_a_table_that_prices_nothing_says_why_in_one_sentence(rows, sentence):
    with pytest.raises(DataError, match=sentence):
        check_priceable(table(rows))
    with pytest.raises(DataError, match=sentence):
        bands(table(rows))


def test_records_without_levels_or_with_unusable_ones_are_refused():
    with pytest.raises(DataError, match="no record has metric 'denoise'"):
        level_tables([])
    with pytest.raises(DataError, match="both must be > 0"):
        level_tables([record(100, 0, None, 0.0, 0.1, 0)])
    with pytest.raises(DataError, match="no sigma_n"):
        level_tables([record(100, 100, None, 0.1, 0.1, 0)])


def test_uneven_scatter_is_seen_and_even_scatter_is_not():
    rng = np.random.default_rng(2)
    assert uneven_scatter(table(level_sweep(rng, one_good(0.3), seeds=5))) > 0.01
    rows = level_sweep(rng, one_good(0.3), seeds=5, scatter=0.002, mixed=())
    rows += level_sweep(rng, one_good(0.3), seeds=5, scatter=0.05, clean=())
    assert uneven_scatter(table(rows)) < 1e-4
    by_size = table(level_sweep(rng, one_good(0.3), seeds=5, exponent=2.0))
    assert uneven_scatter(by_size) > 0.01  # what the sizes explain is no unevenness
    unexplained = replace(by_size)
    unexplained.__dict__["blocked"] = replace(by_size.blocked, weight=np.ones_like(by_size.blocked.weight))
    assert uneven_scatter(unexplained) < 1e-4
    assert uneven_scatter(table(level_sweep(rng, one_good(0.3), seeds=1))) is None


def test_noisy_only_models_are_shown_and_enter_no_clean_curve():
    rows = level_sweep(None, formula) + [record(0, 500, 0.25, s, error(s, 120), 0) for s in LEVELS]
    t = table(rows)
    assert [c.n_noisy for c in t.noisy_only] == [500]
    last = bands(t).mixtures[-1]
    assert last.cell.n_clean == 0
    assert [b.equivalent.value for b in last.bands] == pytest.approx([120] * len(LEVELS), rel=0.02)


def test_levels_that_differ_in_their_last_digit_are_one_level_and_others_are_not():
    """Two processors work out other last digits of the same levels: their seeds stand in one table."""
    rng = np.random.default_rng(4)
    rows = level_sweep(rng, one_good(0.3))
    half = {r.seed for r in rows if r.seed is not None and r.seed % 2}

    def moved(by: float):
        return [replace(r, level=r.level * (1 + by)) if r.seed in half else r for r in rows]

    (whole,) = level_tables(rows, level_best=False)
    (found,) = level_tables(moved(2e-16), level_best=False)
    assert [c.seeds for c in found.clean] == [c.seeds for c in whole.clean]
    assert np.array_equal(found.levels, whole.levels)
    assert len(level_tables(moved(1e-6), level_best=False)) == 2
