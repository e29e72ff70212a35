"""Told and untold: what knowing the noise of noisy images is worth, read from models that were told another noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from level_sweeps import SIGMA, level_sweep, two_goods

from ambient_theory.compare.advice.adviser import judged_table
from ambient_theory.compare.by_level.findings import analyse_levels, told_and_untold
from ambient_theory.compare.by_level.levels import level_tables
from ambient_theory.compare.by_level.price_bands import price_bands
from ambient_theory.compare.by_level.words import TOLD_COLUMNS, told_row
from ambient_theory.compare.cells.grouping import group_records
from ambient_theory.shared.errors import DataError

METHOD = {"weight": "x0", "draw": "edm", "settings": "abcdef"}
KNOWN, UNKNOWN = 0.4, 0.1


def sweep(worth, seed, **changes):
    rows = level_sweep(np.random.default_rng(seed), two_goods(worth, 1.0, 2.0), method=METHOD)
    return [replace(r, **changes) for r in rows]


def told(worth, seed, told_sigma=0.0):
    """The mixtures of a sweep whose models were told another noise; clean-only models are trained once."""
    rows = sweep(worth, seed, method={**METHOD, "told_sigma": told_sigma})
    return [r for r in rows if r.n_noisy]


def pairs(rows):
    found, _ = analyse_levels(rows)
    return found, told_and_untold(w for f in found for w in f.moves)


def test_the_worth_that_knowledge_of_the_noise_adds_is_found():
    found, (pair,) = pairs(sweep(KNOWN, 0) + told(UNKNOWN, 1))
    assert pair.truth.coarse.contains(KNOWN)
    assert pair.said.coarse.contains(UNKNOWN)
    assert not pair.truth.coarse.contains(UNKNOWN)
    assert pair.said.key.told == "0"
    assert pair.kept == pytest.approx(pair.said.coarse.value / pair.truth.coarse.value)
    assert len(told_row(pair)) == len(TOLD_COLUMNS)
    assert all(not f.table.key.told for f in found)  # they never lead


def test_where_knowledge_is_worth_nothing_both_worths_agree():
    _, (pair,) = pairs(sweep(KNOWN, 0) + told(KNOWN, 1))
    assert pair.truth.coarse.contains(pair.said.coarse.value)
    assert pair.said.coarse.contains(pair.truth.coarse.value)


def test_models_that_were_told_another_noise_never_meet_those_that_knew_it():
    rows = sweep(KNOWN, 0) + told(UNKNOWN, 1)
    by_told = {t.key.told: t for t in level_tables(rows, level_best=False)}
    assert set(by_told) == {"", "0"}
    (alone,) = level_tables(sweep(KNOWN, 0), level_best=False)
    for ours, known in zip(by_told[""].cells, alone.cells, strict=True):
        assert np.array_equal(ours.log_error, known.log_error)
    # clean images have no noise to be wrong about: their models serve both
    assert [c.n_clean for c in by_told["0"].clean] == [c.n_clean for c in by_told[""].clean]
    assert "told that the noise is 0" in by_told["0"].key.label()


def test_without_such_models_there_is_nothing_to_compare():
    _, found = pairs(sweep(KNOWN, 0))
    assert found == []


def test_scores_of_models_that_were_told_another_noise_form_a_group_with_the_clean_only_ones():
    def scores(rows):
        return [replace(r, metric="fd", extractor="f:1", level=None) for r in rows if r.level == 0.8]

    groups = group_records(scores(sweep(KNOWN, 0) + told(UNKNOWN, 1, 0.05)))
    assert len(groups) == 2
    truth, other = sorted(groups, key=lambda g: "told_sigma" in g.key.method)
    assert "told_sigma 0.05" in other.key.method
    assert [c.n_clean for c in other.cells if not c.n_noisy] == [c.n_clean for c in truth.cells if not c.n_noisy]
    assert other.noise_levels == (SIGMA,)
    by_mixture = {(c.n_clean, c.n_noisy): c.values for c in truth.cells if c.n_noisy}
    assert all(by_mixture[c.n_clean, c.n_noisy] != c.values for c in other.cells if c.n_noisy)


def test_kinds_of_noise_are_kept_apart_and_share_the_models_of_clean_images():
    rows = sweep(KNOWN, 0)
    other = [r for r in sweep(UNKNOWN, 1, method={**METHOD, "noise": "correlated:0.6"}) if r.n_noisy]
    by_noise = {t.key.noise: t for t in level_tables(rows + other, level_best=False)}
    assert set(by_noise) == {"", "correlated:0.6"}
    white, correlated = by_noise[""], by_noise["correlated:0.6"]
    assert len(white.clean) == len(correlated.clean) > 0
    assert [c.name for c in white.clean] == [c.name for c in correlated.clean]
    mixed = {c.name: c for c in white.cells if c.n_noisy}
    assert all(not np.array_equal(c.log_error, mixed[c.name].log_error) for c in correlated.cells if c.n_noisy)
    assert "noise correlated:0.6" in correlated.key.label()
    assert correlated.noise.white
    assert any("do not hold the eigenvalues of noise 'correlated:0.6'" in note for note in correlated.notes)


def of_kind(rows, eigenvalues):
    """The mixtures of a sweep as those of a noise that is not white."""
    kept = [[float(v) for v in eigenvalues], [1 / len(eigenvalues)] * len(eigenvalues)]
    method = {**METHOD, "noise": "correlated:0.6"}
    return [replace(r, method=method, extra={**r.extra, "noise_eigenvalues": kept}) if r.n_noisy else r for r in rows]


def test_noise_that_is_not_white_ends_at_the_root_of_its_largest_eigenvalue():
    """Worth .4 above a level of twice the noise and factor 2 below it: the eigenvalues say where that is."""
    largest = 4.0
    law = two_goods(KNOWN, 1.0, 2.0)
    rows = level_sweep(np.random.default_rng(0), lambda s, n, m, sigma: law(s, n, m, 2 * sigma), method=METHOD)
    rows = of_kind(rows, [0.5] * 7 + [largest] + [0.0625] * 8)
    (table,) = [t for t in level_tables(rows, level_best=False) if t.mixtures]
    assert table.noise.lowest_level(SIGMA) == pytest.approx(2 * SIGMA)
    found, _ = analyse_levels(rows)
    judged = found[0].judgements[SIGMA]
    assert np.array_equal(judged.market.above, table.levels > 2 * SIGMA)
    assert judged.coarse.contains(KNOWN)
    expected = found[0].formula.scatters.worth(SIGMA, table.levels)[0]
    assert np.all(expected[table.levels <= 2 * SIGMA] == 0)
    points = found[0].formula.points
    assert points.predicted == pytest.approx(expected[points.level])
    (answer,) = price_bands(rows, SIGMA)
    assert f"Noise 'correlated:0.6' ends at level {2 * SIGMA:.3g}" in answer.sentence()
    assert judged_table(rows).key.noise == "correlated:0.6"
    # taken for white, the levels in between are counted as above it, and the worth is drawn to theirs (control)
    (other,) = price_bands(of_kind(rows, [1.0]), SIGMA)
    assert other.judgement.coarse.value < 0.8 * judged.coarse.value


def test_eigenvalues_that_are_none_are_refused_by_name():
    rows = of_kind(sweep(KNOWN, 0), [1.0, -1.0])
    with pytest.raises(DataError, match="eigenvalues of noise must be two lists"):
        level_tables(rows)
