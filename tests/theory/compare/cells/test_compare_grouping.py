"""Grouping: only comparable scores meet, repeated records count once, conflicts are refused and named."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from compare_sweeps import record, sweep
from scipy import stats

from ambient_theory.compare.cells.grouping import group_records, longest, select, shipped_records
from ambient_theory.compare.cells.tables import table_of, uneven_scatter
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.records import Record


@pytest.mark.parametrize(
    "change",
    [
        {"extractor": "net:87654321"},
        {"metric": "kid"},
        {"reference": "train-clean"},
        {"n_eval": 5_000},
        {"duration_nimg": 1_600_000},
        {"dataset": "other"},
        {"metric": "nats"},
        {"method": {"loss": "x0"}},
        {"method": "distilled"},
        {"checkpoint": "heldout-best"},
        {"evaluation": {"seed": 1, "sampler": {"steps": 18}}},
    ],
)
def test_scores_that_differ_in_one_condition_never_meet_in_one_group(change):
    groups = group_records([*sweep(None), *sweep(None, **change)])
    assert len(groups) == 2
    assert all(len(g.cells) == 12 and g.n_seeds == 3 for g in groups)


SAMPLER = {"steps": 18, "sigma_max": 80.0}


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1, "sampler": SAMPLER},
        {"seed": 2, "sampler": {**SAMPLER, "steps": 9}},
        {"seed": 2, "sampler": {**SAMPLER, "sigma_max": 20.0}},
    ],
)
def test_another_sampler_or_evaluation_seed_is_another_group(other):
    settings = {"seed": 2, "sampler": SAMPLER}
    groups = group_records([*sweep(None, evaluation=settings), *sweep(None, evaluation=other)])
    assert len(groups) == 2
    assert groups[0].key.label() != groups[1].key.label()


def test_what_else_was_scored_beside_it_does_not_part_two_scores():
    one = {"n": 100, "seed": 2, "sampler": SAMPLER, "metrics": ["fd"], "extractors": ["pixels"]}
    other = {**one, "metrics": ["fd", "kid"], "extractors": ["pixels", "smallcnn"]}
    assert len(group_records([*sweep(None, evaluation=one), *sweep(None, evaluation=other)])) == 1


def test_errors_at_a_level_are_curves_and_make_no_groups():
    levels = [r for s in (0.5, 2.0) for r in sweep(None, metric="denoise", level=s)]
    assert group_records(levels) == []
    (group,) = group_records([*levels, *sweep(None, metric="nats")])
    assert group.key.metric == "nats"


def test_records_of_schema_1_without_an_evaluation_still_group_together():
    old = []
    for r in sweep(None):
        d = r.to_dict()
        d["sigma"] = d.pop("sigma_n")
        for name in ("level", "method", "checkpoint", "cell", "regime", "evaluation"):
            del d[name]
        old.append(Record.from_dict({**d, "schema": "ambient.result/1"}))
    (group,) = group_records(old)
    assert len(group.cells) == 12


def test_cells_collect_their_seeds_whatever_the_order_of_the_records():
    rows = sweep(np.random.default_rng(0))
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    first, second = group_records(rows)[0], group_records(shuffled)[0]
    assert [c.name for c in first.cells] == [c.name for c in second.cells]
    for a, b in zip(first.cells, second.cells, strict=True):
        assert sorted(a.values) == sorted(b.values)


def test_the_same_record_twice_counts_once():
    rows = sweep(np.random.default_rng(0))
    once, twice = group_records(rows)[0], group_records([*rows, *rows])[0]
    assert once == twice


@pytest.mark.parametrize(
    ("value", "stderr", "factor"), [(0.4, 0.01, 1 + 9e-7), (0.4, 0.01, 1 + 9e-6), (1e-5, 1e-3, 1.05)]
)
def test_the_same_cell_of_two_machines_counts_once(value, stderr, factor):
    # Within 1e-6 of the value, or within a thousandth of its standard error (a kernel distance near 0 has no digits).
    rows = [record(600, 0, None, v, 0, stderr=stderr) for v in (value, value * factor)]
    (group,) = group_records(rows)
    assert [c.values for c in group.cells] == [(value,)]
    assert group.notes == ()


@pytest.mark.parametrize(("factor", "stderr"), [(1.001, 0.01), (1 + 9e-6, None), (-1.0, 0.01)])
def test_one_seed_with_two_values_is_refused_by_name_and_the_rest_is_kept(factor, stderr):
    rows = [replace(r, stderr=stderr) for r in sweep(None)]
    (first,) = [r for r in rows if (r.n_clean, r.n_noisy, r.seed) == (600, 0, 0)]
    group = group_records([*rows, replace(first, value=first.value * factor)])[0]
    assert len(group.cells) == 11
    (note,) = group.notes
    assert "600 clean" in note
    assert "seed 0" in note
    assert f"{first.value:g}" in note
    assert "all else equal" in note


def test_a_contradiction_says_in_what_the_two_differ():
    rows = [
        record(600, 0, None, 1.0, 0, versions={"torch": "2.11", "numpy": "2"}, config_hash="aaaaaaaa"),
        record(600, 0, None, 2.0, 0, versions={"torch": "2.13", "numpy": "2"}, config_hash="bbbbbbbb"),
    ]
    (note,) = group_records(rows)[0].notes
    assert "versions torch 2.11 / 2.13" in note
    assert "config_hash aaaaaaaa / bbbbbbbb" in note
    assert "numpy" not in note


def test_a_cell_keeps_the_names_that_its_grids_and_its_regime_gave_it():
    rows = [
        record(600, 0, None, 1.0, 0, cell="1 % clean", regime="clean"),
        record(600, 0, None, 1.1, 1, cell="clean 600"),
    ]
    (cell,) = group_records(rows)[0].cells
    assert (cell.grid_name, cell.regime) == ("1 % clean / clean 600", "clean")


def test_noisy_only_cells_are_kept_apart_from_those_that_are_fitted():
    group = group_records([*sweep(None), record(0, 60_000, 0.2, 5.0)])[0]
    assert [c.n_noisy for c in group.noisy_only] == [60_000]
    assert all(c.n_clean > 0 for c in group.price_cells)
    assert table_of(group).size == 12


def test_pooled_variance_is_what_cells_and_seeds_leave_on_the_log_scale():
    rng = np.random.default_rng(3)
    group = group_records(sweep(rng))[0]
    table = table_of(group)
    y = np.log([c.values for c in group.price_cells])
    rest = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0) + y.mean()
    assert table.dof == (len(y) - 1) * (y.shape[1] - 1)
    assert table.variance == pytest.approx(np.sum(rest**2) / table.dof, rel=1e-12)
    apart = replace(group, cells=tuple(replace(c, seeds=tuple(k + 100 * i for k in range(len(c.seeds))))
                                       for i, c in enumerate(group.cells)))  # fmt: skip
    within = [np.var(np.log(c.values), ddof=1) for c in apart.price_cells]
    assert table_of(apart).variance == pytest.approx(np.mean(within), rel=1e-12)
    assert table_of(apart).dof == 24


def test_pooled_variance_covers_the_true_scatter():
    scatter, rng = 0.06, np.random.default_rng(4)
    ratios = np.array(
        [table_of(group_records(sweep(rng, scatter=scatter))[0]).variance / scatter**2 for _ in range(60)]
    )
    # dof * s^2 / sigma^2 is chi-square with 24 degrees of freedom each; the sum has 60 * 24.
    total = float(np.sum(ratios * 24))
    assert stats.chi2.ppf(1e-4, 60 * 24) < total < stats.chi2.ppf(1 - 1e-4, 60 * 24)


def test_scores_that_may_be_negative_are_pooled_on_the_raw_scale():
    group = group_records([record(600, 0, None, 0.01), record(6_000, 0, None, -0.001, metric="fd")])[0]
    assert group.scale == "raw"
    assert group_records([record(600, 0, None, 0.01)])[0].scale == "log"


def test_uneven_scatter_is_noticed_and_even_scatter_is_not():
    rng = np.random.default_rng(5)
    even = group_records(sweep(rng, seeds=6))[0]
    assert uneven_scatter(even) > 0.01
    rough = [
        record(
            r.n_clean,
            r.n_noisy,
            r.sigma_n,
            r.value * math.exp((0.8 if r.n_clean == 60 else 0.0) * rng.standard_normal()),
            r.seed,
        )
        for r in sweep(rng, seeds=6)
    ]
    assert uneven_scatter(group_records(rough)[0]) < 1e-4


def test_uneven_scatter_is_bartletts_test():
    group = group_records(sweep(np.random.default_rng(6), seeds=5))[0]
    expected = stats.bartlett(*(np.log(c.values) for c in group.price_cells)).pvalue
    assert uneven_scatter(group) == pytest.approx(expected, rel=1e-9)


def test_noisy_images_without_a_noise_level_are_an_error():
    with pytest.raises(DataError, match="no sigma_n"):
        group_records([record(600, 600, None, 1.0)])


def test_several_noise_levels_in_one_cell_are_left_out_and_named():
    group = group_records([*sweep(None), record(600, 600, (0.2, 0.4), 1.0)])[0]
    assert len(group.cells) == 12
    assert any("several noise levels" in note for note in group.notes)


def test_select_names_what_the_records_have():
    groups = group_records(sweep(None))
    assert select(groups, metric="fd", extractor="net") == groups
    assert select(groups, extractor="net:12345678") == groups
    with pytest.raises(DataError, match="fd in net:12345678"):
        select(groups, metric="kid")


def test_second_hand_numbers_stay_out_of_every_group():
    rows = shipped_records()
    assert any(r.extra.get("grade") == "second-hand" for r in rows)
    for group in group_records(rows):
        values = {v for c in group.cells for v in c.values}
        assert not values & {r.value for r in rows if r.extra.get("grade") == "second-hand"}


def test_the_best_supported_group_comes_first():
    small = sweep(None, seeds=1, extractor="other:00000000")
    few = [r for r in sweep(None, dataset="few") if r.n_noisy == 0]
    groups = group_records([*few, *small, *sweep(None)])
    assert [g.key.extractor_name for g in groups][:2] == ["net", "other"]
    assert groups[-1].key.dataset == "few"


def test_of_groups_that_differ_in_duration_alone_the_longest_is_kept():
    rows = sweep(np.random.default_rng(0))
    other = [replace(r, metric="kid") for r in rows]
    groups = group_records([replace(r, duration_nimg=n) for n in (1000, 4000) for r in rows] + other)
    kept, left = longest(groups)
    assert left == 1
    assert {(g.key.metric, g.key.duration_nimg) for g in kept} == {("fd", 4000), ("kid", other[0].duration_nimg or 0)}
