"""Left-out mixtures: the true law predicts them, others do not; Frechet distances from two goods."""

from __future__ import annotations

import math

import numpy as np
import pytest
from compare_sweeps import record as score_record
from level_sweeps import CLEAN, MIXED, SIGMA, level_sweep, one_good, two_goods
from scipy import optimize

from ambient_theory.compare.by_level.goods import CLEAN_ONLY, NAIVE, ONE, TWO
from ambient_theory.compare.by_level.judgement import judge
from ambient_theory.compare.by_level.levels import level_tables
from ambient_theory.compare.by_level.unseen import (
    FITTED,
    nonnegative,
    one_curve,
    two_goods_curve,
    unseen_errors,
    unseen_scores,
)
from ambient_theory.compare.cells.tables import Group, GroupKey, MeasuredCell

TRUTH = two_goods(0.4, 1.2, 2.0)


def table(rows):
    return level_tables(rows)[0]


def by_name(found):
    return {u.law: u for u in found}


def scores(law, rng=None, seeds=4, scatter=0.03):
    """A group of Frechet distances with a known law of (N_coarse, N_fine)."""
    cells = []
    for n_clean, n_noisy in [*((n, 0) for n in CLEAN), *MIXED]:
        sizes = [TRUTH(s, n_clean, n_noisy, SIGMA) if n_noisy else n_clean for s in (1.0, 0.0)]
        noise = np.zeros(seeds) if rng is None else scatter * rng.standard_normal(seeds)
        values = tuple(float(law(*sizes) * math.exp(x)) for x in noise)
        cells.append(MeasuredCell(n_clean, n_noisy, SIGMA if n_noisy else None, tuple(range(seeds)), values))
    r = score_record(1, 0, None, 1.0)
    key = GroupKey(r.dataset, r.source, "fd", r.extractor, r.reference, 131_072, 1000)
    return Group(key, tuple(cells), "log")


def fd(coarse, fine):
    return 0.3 + 2.0 * (coarse / 100) ** -0.6 + 1.5 * (fine / 100) ** -1.0


def test_non_negative_least_squares_agrees_with_scipy_on_every_row():
    rng = np.random.default_rng(0)
    columns, target = rng.standard_normal((40, 8, 3)), rng.standard_normal(8)
    sse, found = nonnegative(columns, target)
    for k in range(40):
        theirs, norm = optimize.nnls(columns[k], target)
        assert found[k] == pytest.approx(theirs, abs=1e-6)
        assert sse[k] == pytest.approx(norm**2, abs=1e-8)


def test_the_curves_give_back_the_scores_they_were_fitted_to():
    n = np.geomspace(50, 5000, 9)
    assert one_curve(n, 0.2 + (n / 300) ** -0.7)(777.0) == pytest.approx(0.2 + (777 / 300) ** -0.7, rel=1e-3)
    rng = np.random.default_rng(1)
    coarse, fine = n, n * rng.uniform(0.3, 1, 9)
    found = two_goods_curve(coarse, fine, fd(coarse, fine))
    assert found(500.0, 300.0) == pytest.approx(fd(500, 300), rel=0.01)


def test_the_true_law_predicts_errors_it_has_not_seen_to_the_scatter_and_the_controls_do_not():
    rng = np.random.default_rng(2)
    t = table(level_sweep(rng, TRUTH))
    found = by_name(unseen_errors(t, t.noise_levels))
    assert found[TWO].tested == len(MIXED) * len(t.levels)
    assert found[TWO].median < 2.5 * found[TWO].noise  # a fit of its own has an error too
    assert found[TWO].median < 0.5 * found[ONE].median
    assert found[TWO].median < 0.2 * min(found[NAIVE].median, found[CLEAN_ONLY].median)


def test_one_good_needs_no_second():
    t = table(level_sweep(np.random.default_rng(3), one_good(0.3)))
    found = by_name(unseen_errors(t, t.noise_levels))
    assert found[ONE].median < 2.5 * found[ONE].noise
    assert found[NAIVE].median > 3 * found[ONE].median


def test_distances_are_predicted_from_two_goods_and_not_from_one():
    t = table(level_sweep(np.random.default_rng(4), TRUTH))
    judged = {SIGMA: judge(t, SIGMA)}
    found = by_name(unseen_scores(scores(fd), judged))
    assert found[TWO].tested == len(MIXED)
    assert found[TWO].median < 0.02
    assert min(found[name].median for name in (FITTED, ONE, NAIVE, CLEAN_ONLY)) > 2 * found[TWO].median
    noisy = by_name(unseen_scores(scores(fd, np.random.default_rng(5)), judged))
    assert noisy[TWO].noise == pytest.approx(0.6745 * 0.03 / 2, rel=0.3)
    assert noisy[TWO].median < 5 * noisy[TWO].noise


def test_distances_of_shuffled_cells_are_predicted_by_no_law():
    t = table(level_sweep(np.random.default_rng(4), TRUTH))
    group = scores(fd)
    order = np.random.default_rng(6).permutation(len(group.cells))
    cells = [
        MeasuredCell(c.n_clean, c.n_noisy, c.sigma_n, c.seeds, group.cells[k].values)
        for c, k in zip(group.cells, order, strict=True)
    ]
    found = unseen_scores(Group(group.key, tuple(cells), "log"), {SIGMA: judge(t, SIGMA)})
    assert min(u.median for u in found) > 0.1


def test_too_few_cells_leave_nothing_to_predict():
    rows = level_sweep(np.random.default_rng(0), one_good(0.3), clean=(50, 100, 200, 400), mixed=MIXED[:1])
    assert unseen_errors(table(rows), (SIGMA,)) == []
    group = scores(fd)
    few = tuple(c for c in group.cells if not c.n_noisy or (c.n_clean, c.n_noisy) == MIXED[0])
    assert unseen_scores(Group(group.key, few, "log"), {SIGMA: judge(table(level_sweep(None, TRUTH)), SIGMA)}) == []
    assert unseen_scores(Group(group.key, group.cells, "raw"), {}) == []
