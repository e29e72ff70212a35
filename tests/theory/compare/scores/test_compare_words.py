"""Numbers and intervals in words, with and without finite ends; what a figure draws of an interval that starts at 0."""

from __future__ import annotations

import math

import numpy as np
import pytest
from compare_sweeps import record, sweep

from ambient_theory.compare.cells.grouping import group_records
from ambient_theory.compare.cells.tables import scores_alike, table_of
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.page.context import pair_table, price_table
from ambient_theory.compare.page.figures import price_figure
from ambient_theory.compare.scores.analysis import analyse_group
from ambient_theory.compare.scores.words import between, number, span, what_to_buy
from ambient_theory.shared.plain_text import plain, printable

INF = math.inf


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(1.536, 1.42, 1.66), "1.54 [1.42, 1.66]"),
        (Interval(4.87, 0.0, INF), "not determined"),
        (Interval(4.87, 1.2, INF), "4.87, at least 1.20"),
        (Interval(INF, 27.9, INF), "at least 27.9"),
        (Interval(INF, 0.0, INF), "not determined"),
        (Interval(INF, None, None), "no finite price (no interval)"),
        (Interval(2.0, None, None), "2.00 (no interval)"),
    ],
)
def test_an_interval_without_finite_ends_is_said_in_words(interval, words):
    assert span(interval) == words


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1, 11, "1.00 to 11.0"),
        (1, INF, "at least 1.00"),
        (0, 11, "at most 11.0"),
        (0, INF, "no bound"),
        (INF, INF, "no finite price"),
    ],
)
def test_a_bound_is_said_by_the_end_that_it_has(low, high, words):
    assert between(low, high) == words


@pytest.mark.parametrize(
    ("c", "words"),
    [
        (Interval(0.5, 0.2, 0.8), "noisy if below 0.200, clean if above 0.800"),
        (Interval(0.5, 0.0, 0.8), "clean if above 0.800, else not determined"),
        (Interval(0.5, 0.2, INF), "noisy if below 0.200, else not determined"),
        (Interval(0.5, 0.0, INF), "not determined at any cost"),
        (Interval(0.5, None, None), "not determined (one seed)"),
    ],
)
def test_what_to_buy_names_only_costs_at_which_it_is_known(c, words):
    assert what_to_buy(c) == words


def test_tables_of_an_undetermined_price_do_not_say_no_upper_end_as_a_number():
    rows = sweep(np.random.default_rng(0), scatter=0.6)
    found = analyse_group(group_records(rows)[0], deep=False)
    text = str(price_table(found)) + str(pair_table(found))
    assert "above no upper end" not in text
    assert "most no upper end" not in text
    assert "to no upper end" not in text
    assert "no pair" in text


# ------------------------------------------------------------------------------------------------------------- figures


def bar_of(single_interval):
    """The ends of the drawn interval at sigma 0.2, in prices."""
    found = analyse_group(group_records(sweep(np.random.default_rng(0)))[0], deep=False)
    found.single.worth[0.2] = single_interval
    figure = price_figure(found)
    (ax,) = figure.axes
    bars = [c for c in ax.collections if hasattr(c, "get_segments")]
    segments = [s for c in bars for s in c.get_segments() if len(s) == 2 and s[0][0] == s[1][0] == 0.2]
    (ends,) = [sorted(s[:, 1]) for s in segments]
    return ends, ax.get_ylim()


def test_an_interval_that_starts_at_zero_is_drawn_from_the_edge_of_the_axis():
    # c in [.3, inf): the price starts at 0, which a logarithmic axis cannot show.
    (low, high), (bottom, _) = bar_of(Interval(0.5, 0.3, INF))
    assert low < bottom
    assert high == pytest.approx(1 / 0.3)


def test_an_interval_inside_the_axis_is_drawn_as_it_is():
    (low, high), _ = bar_of(Interval(0.5, 0.3, 0.8))
    assert (low, high) == pytest.approx((1 / 0.8, 1 / 0.3))


# ----------------------------------------------------------------------------------------------------- scores alike


def test_the_test_that_all_cells_score_alike_is_the_analysis_of_variance():
    from scipy import stats

    t = table_of(group_records(sweep(np.random.default_rng(1), error=lambda n: 1.0, seeds=4))[0])
    group = group_records(sweep(np.random.default_rng(1), error=lambda n: 1.0, seeds=4))[0]
    y = np.log([c.values for c in group.price_cells])  # in blocks of seeds
    rest = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0) + y.mean()
    cells, seeds = y.shape
    f = seeds * np.var(y.mean(axis=1), ddof=1) / (np.sum(rest**2) / ((cells - 1) * (seeds - 1)))
    expected = stats.f.sf(f, cells - 1, (cells - 1) * (seeds - 1))
    assert scores_alike(t) == pytest.approx(expected, rel=1e-9)


def test_equal_means_are_called_different_in_five_per_cent_of_sweeps_and_different_ones_always():
    from scipy import stats

    rng, sweeps = np.random.default_rng(2), 400
    p = [scores_alike(table_of(group_records(sweep(rng, error=lambda n: 1.0))[0])) for _ in range(sweeps)]
    wrong = sum(x < 0.05 for x in p)
    assert stats.binom.ppf(1e-4, sweeps, 0.05) <= wrong <= stats.binom.ppf(1 - 1e-4, sweeps, 0.05)
    assert scores_alike(table_of(group_records(sweep(rng))[0])) < 1e-6


def test_without_replicates_nothing_is_said_about_alike_scores():
    assert scores_alike(table_of(group_records(sweep(np.random.default_rng(0), seeds=1))[0])) is None
    assert scores_alike(table_of(group_records([record(600, 0, None, x, i) for i, x in enumerate((1, 2))])[0])) is None


# --------------------------------------------------------------------------------------------------------- plain text


def test_symbols_become_words_where_a_stream_cannot_hold_them():
    text = "Fréchet distance, σ 0.2 → 1.5 ± 0.1 × 2 ≥ 1 ²…"
    assert plain(text) == "Frechet distance, sigma 0.2 -> 1.5 +- 0.1 x 2 >= 1 ^2..."
    assert printable(text, "utf-8") == text
    assert printable(text, "cp1252") == "Fréchet distance, sigma 0.2 -> 1.5 ± 0.1 × 2 >= 1 ²…"
    assert printable("漢", None) == "?"


def test_numbers_keep_three_digits_and_no_exponent():
    assert [number(x) for x in (0.0, 1.2345, 1234.5, 0.00012345, None)] == ["0", "1.23", "1,234", "0.000123", "–"]
