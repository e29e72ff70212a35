"""The published table: stored as printed, and what it says by arithmetic alone."""

from __future__ import annotations

import math

import pytest
from compare_sweeps import record

from ambient_theory.compare.cells.grouping import group_records, shipped_records
from ambient_theory.compare.scores.analysis import analyse_group
from ambient_theory.compare.scores.published import worth_of_rows


def rows_of(dataset):
    (group,) = [g for g in group_records(shipped_records()) if g.key.dataset == dataset and g.key.source == "published"]
    return {r.kind: r for r in worth_of_rows(group)}


@pytest.mark.parametrize(
    ("dataset", "mixed", "alone"), [("cifar10", 0.66, 0.15), ("celeba64", 0.80, 0.09), ("imagenet64", 0.80, 0.22)]
)
def test_one_worth_cannot_hold_both_the_mixed_and_the_noisy_only_row(dataset, mixed, alone):
    found = rows_of(dataset)
    assert round(found["mixed"].c, 2) == mixed
    assert round(found["noisy only"].c, 2) == alone


def test_a_table_made_with_one_worth_gives_it_back_from_both_rows():
    # The negative control: were one c true of both rows, the arithmetic would say so.
    c, p = 0.4, 0.9

    def printed(n_clean, n_noisy):
        value = (n_clean + c * n_noisy) ** -p
        return record(n_clean, n_noisy, 0.2 if n_noisy else None, value, None, source="published", stderr=None)

    (group,) = group_records([printed(1_000, 0), printed(100, 0), printed(0, 1_000), printed(100, 900)])
    found = worth_of_rows(group)
    assert [r.c for r in found] == pytest.approx([c, c], rel=1e-9)
    assert found[0].exponent == pytest.approx(p)


def test_worths_do_not_depend_on_the_size_of_the_data_set():
    def scaled(factor):
        rows = [(1_000, 0, 1.4), (100, 0, 10.6), (100, 900, 1.7)]
        return group_records(
            [record(a * factor, b * factor, 0.2 if b else None, v, None, source="published") for a, b, v in rows]
        )[0]

    assert worth_of_rows(scaled(1))[0].c == pytest.approx(worth_of_rows(scaled(77))[0].c, rel=1e-12)


def test_printed_scores_have_no_standard_error_and_get_no_interval():
    published = [r for r in shipped_records() if r.source == "published"]
    assert all(r.stderr is None for r in published)
    assert all("spread" in r.extra for r in published if r.extra["grade"] == "primary" and r.metric == "fid")
    for group in group_records(published):
        found = analyse_group(group)
        assert found.single is None
        assert found.pairwise is None
        assert any("no standard error" in p for p in found.problems)


def test_a_table_without_two_clean_rows_says_nothing():
    (group,) = group_records(
        [record(1_000, 0, None, 1.0, None, source="published"), record(0, 900, 0.2, 2.0, None, source="published")]
    )
    assert worth_of_rows(group) == []
    assert math.isfinite(group.cells[0].mean)
