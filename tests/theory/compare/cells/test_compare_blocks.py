"""Seeds as blocks: what a seed does to all its models alike moves no comparison, and is no scatter; models of few
images scatter more."""

from __future__ import annotations

from dataclasses import replace

import level_sweeps
import numpy as np
import pytest
from level_sweeps import LEVELS, SIGMA, level_sweep, two_goods
from scipy import stats

from ambient_theory.compare.by_level.goods import TWO, Market, fit_laws
from ambient_theory.compare.by_level.levels import LevelTable, level_tables
from ambient_theory.compare.by_level.potency import worth_intervals
from ambient_theory.compare.cells.blocks import blocked, blocked_by_size
from ambient_theory.compare.cells.grouping import group_records
from ambient_theory.compare.cells.tables import table_of
from ambient_theory.shared.records import Record


def test_where_every_cell_has_every_seed_means_are_plain_and_the_rest_is_what_two_margins_leave() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 4, 3)) + 5 * rng.standard_normal((4, 3))
    found = blocked([range(4)] * 6, list(values))
    np.testing.assert_allclose(found.mean, values.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.replicates, 4.0)
    assert found.dof() == 5 * 3
    by_hand = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean(axis=(0, 1))
    np.testing.assert_allclose(np.array(found.rest), by_hand, atol=1e-12)


def test_a_cell_of_one_unlucky_seed_is_put_where_the_others_say() -> None:
    cells, seeds = np.array([1.0, 2.0, 4.0]), {7: -0.3, 8: 0.1, 9: 0.2}  # which add up to 0
    have = [(7, 8, 9), (7,), (8, 9)]
    found = blocked(have, [np.array([[m + seeds[s]] for s in own]) for m, own in zip(cells, have, strict=True)])
    np.testing.assert_allclose(found.mean[:, 0], cells, atol=1e-12)
    assert found.dof() == 6 - 3 - 2
    assert 0.5 < found.replicates[1] < 1  # worth less than one model: its seed's part is estimated too
    plain = cells[1] + seeds[7]
    assert abs(plain - cells[1]) > 0.2


@pytest.mark.parametrize("have", [[(1, 2), (3, 4, 5)], [(None,), (None, None)], [(1,), (2,)]])
def test_seeds_that_no_two_cells_share_make_no_block(have: list[tuple[int | None, ...]]) -> None:
    rng = np.random.default_rng(1)
    values = [rng.standard_normal((len(own), 2)) for own in have]
    found = blocked(have, values)
    assert found.spent == 0
    np.testing.assert_allclose(found.mean, [v.mean(axis=0) for v in values], rtol=1e-14)
    assert found.dof() == sum(len(own) - 1 for own in have)


def test_cells_that_no_seed_links_keep_their_own_means() -> None:
    rng = np.random.default_rng(2)
    have = [(1, 2), (1, 2), (3, 4), (3, 4)]
    values = [rng.standard_normal((2, 1)) for _ in have]
    found = blocked(have, values)
    np.testing.assert_allclose(found.mean, [v.mean(axis=0) for v in values], atol=1e-12)
    assert found.dof() == 2


def test_intervals_of_a_difference_cover_with_blocks_and_cover_too_much_without() -> None:
    """2,000 tables of 6 cells and 4 seeds, some models missing; the standard error of a share near .9 is .007."""
    rng = np.random.default_rng(3)
    have = [(0, 1, 2, 3), (0, 1, 2, 3), (0, 1), (1, 2, 3), (0, 2, 3), (0, 1, 2, 3)]
    inside, pooled_inside, draws = 0, 0, 2000
    for _ in range(draws):
        seed = rng.standard_normal(4)
        values = [np.array([[0.3 * rng.standard_normal() + seed[s]] for s in own]) for own in have]
        found = blocked(have, values)
        s2 = sum(float(np.sum(r**2)) for r in found.rest) / found.dof()
        half = stats.t.ppf(0.95, found.dof()) * np.sqrt(s2 * (1 / found.replicates[0] + 1 / found.replicates[2]))
        inside += abs(float(found.mean[0, 0] - found.mean[2, 0])) <= half
        dof = sum(len(own) - 1 for own in have)
        s2 = sum(float(np.sum((v - v.mean()) ** 2)) for v in values) / dof
        half = stats.t.ppf(0.95, dof) * np.sqrt(s2 * (1 / 4 + 1 / 4))
        pooled_inside += abs(float(values[0].mean() - values[1].mean())) <= half  # of two whole cells
    assert abs(inside / draws - 0.9) < 4 * 0.0067
    assert pooled_inside / draws > 0.99


HAVE = [(0, 1, 2, 3, 4)] * 8 + [(0, 1, 2), (1, 3, 4)]
IMAGES = np.geomspace(50, 3200, 10)


def unequal(rng: np.random.Generator, exponent: float) -> list[np.ndarray]:
    """Two outcomes of cells whose variance falls with their images; seeds move them all alike."""
    seed = rng.standard_normal((5, 2))
    spread = (IMAGES / 400) ** (-exponent / 2)
    return [
        np.array([seed[s] + 0.3 * w * rng.standard_normal(2) for s in own]) for own, w in zip(HAVE, spread, strict=True)
    ]


def test_the_fit_with_weights_is_that_of_the_whole_design() -> None:
    values = unequal(np.random.default_rng(6), 2.0)
    size = np.repeat(IMAGES[:, None], 2, axis=1)
    found = blocked(HAVE, values, size)
    assert 1.0 < found.exponent < 3.0
    owner = np.repeat(np.arange(10), [len(own) for own in HAVE])
    log_n = np.log(IMAGES)[owner]
    assert found.typical == pytest.approx(np.exp(log_n.mean()))
    root = np.exp(found.exponent / 2 * (log_n - log_n.mean()))
    blocks = np.eye(5)[[s for own in HAVE for s in own]]
    design = np.hstack([np.eye(10)[owner], blocks[:, :4] - blocks[:, 4:]])  # blocks add up to 0
    rows = np.vstack(values)
    by_hand, *_ = np.linalg.lstsq(root[:, None] * design, root[:, None] * rows, rcond=None)
    inverse = np.linalg.inv(design.T @ (root[:, None] ** 2 * design))
    np.testing.assert_allclose(found.mean, by_hand[:10], atol=1e-10)
    np.testing.assert_allclose(found.replicates, np.repeat(1 / np.diag(inverse)[:10, None], 2, axis=1), rtol=1e-10)
    np.testing.assert_allclose(np.vstack(found.rest), root[:, None] * (rows - design @ by_hand), atol=1e-10)
    np.testing.assert_allclose(np.repeat(found.weight[:, 0], [len(own) for own in HAVE]), root**2, rtol=1e-10)
    plain = blocked(HAVE, values)
    assert plain.exponent == 0
    assert np.all(plain.weight == 1)


def test_the_exponent_is_found_where_there_is_one_and_rarely_where_there_is_none() -> None:
    """200 tables of 46 models: 32 degrees of freedom in each of two outcomes, log n with standard deviation 1.3, so one
    exponent has a standard error of about sqrt(2/(2 x 32))/1.3 = .14, and the mean of 200 of .01. Without one, 1 % at
    most seem to have one, for the outcomes' mean says less than each of them: at most 2 + 3 x 1.4 of 200."""
    rng = np.random.default_rng(7)
    size = np.repeat(IMAGES[:, None], 2, axis=1)
    found = np.array([[blocked(HAVE, unequal(rng, g), size).exponent for g in (1.5, 0.0)] for _ in range(200)])
    assert np.mean(found[:, 0]) == pytest.approx(1.5, abs=0.04)
    assert 0.08 < np.std(found[:, 0]) < 0.25
    assert np.sum(found[:, 1] > 0) <= 6


def test_intervals_cover_whatever_the_size_and_pooled_ones_too_much_of_large_and_too_little_of_small_ones() -> None:
    """500 tables; the standard error of a share near .9 is .0134. The exponent is estimated, with a standard error of
    .14: at the ends, 2 from the mean of log n, that is 14 % of a standard deviation, so some 2 points are allowed."""
    rng, draws = np.random.default_rng(8), 500
    size = np.repeat(IMAGES[:, None], 2, axis=1)
    pairs = {"small": (0, 1), "large": (6, 7)}
    held = {(name, by_size): 0 for name in pairs for by_size in (True, False)}
    for _ in range(draws):
        values = unequal(rng, 2.0)
        for by_size in (True, False):
            found = blocked(HAVE, values, size if by_size else None)
            s2 = sum(float(np.sum(r[:, 0] ** 2)) for r in found.rest) / found.dof()
            for name, (a, b) in pairs.items():
                width = np.sqrt(s2 * (1 / found.replicates[a, 0] + 1 / found.replicates[b, 0]))
                half = stats.t.ppf(0.95, found.dof()) * width
                held[name, by_size] += abs(float(found.mean[a, 0] - found.mean[b, 0])) <= half
    assert abs(held["small", True] / draws - 0.9) < 3 * 0.0134 + 0.02
    assert abs(held["large", True] / draws - 0.9) < 3 * 0.0134 + 0.02
    assert held["small", False] / draws < 0.75
    assert held["large", False] / draws > 0.985


def test_a_mixture_counts_for_the_clean_images_that_do_as_well() -> None:
    rng = np.random.default_rng(9)
    n_clean, n_noisy = np.array([50.0, 100, 200, 400, 50, 50]), np.array([0.0, 0, 0, 0, 100, 500])
    count = np.array([50.0, 100, 200, 400, 100, 800])  # the last one does better than any clean-only cell
    mean = 1 - 0.2 * np.log(count)
    spread = 0.4 * (count / 50) ** -1.0
    values = [(m + s * rng.standard_normal((200, 1))) for m, s in zip(mean, spread, strict=True)]
    seeds = [range(k * 200, k * 200 + 200) for k in range(6)]
    found = blocked_by_size(seeds, values, n_clean, n_noisy)
    expected = (count.clip(50, 400) / np.exp(np.log(count.clip(50, 400)).mean())) ** found.exponent
    np.testing.assert_allclose(found.weight[:, 0], expected, rtol=0.3)  # read on means with standard errors of .03
    assert found.exponent > 1.5
    one_size = blocked_by_size(seeds[3:], values[3:], n_clean[3:], n_noisy[3:])
    assert one_size.exponent == 0


def by_seed(rows: list[Record], rng: np.random.Generator, scatter: float) -> list[Record]:
    """The same records, all models of a seed moved alike."""
    shift = {s: level_sweeps.noise(rng, scatter, len(LEVELS)) for s in {r.seed for r in rows}}
    return [replace(r, value=r.value * float(np.exp(shift[r.seed][LEVELS.index(r.level)]))) for r in rows]


def only(rows: list[Record]) -> LevelTable:
    [found] = level_tables(rows)
    return found


def test_what_a_seed_does_to_all_its_models_changes_no_worth_and_no_interval() -> None:
    rng = np.random.default_rng(4)
    rows = level_sweep(rng, two_goods(0.4, 1.0, 3.0), scatter=0.01)
    moved = by_seed(rows, rng, 0.2)
    found = []
    for records in (rows, moved):
        law = fit_laws(Market.of(only(records), SIGMA), (TWO,))[TWO]
        found.append([(i.value, i.low, i.high) for i in worth_intervals(law)])
    np.testing.assert_allclose(found[1], found[0], rtol=2e-3)
    table, other = only(rows), only(moved)
    assert other.scatter.deviation == pytest.approx(table.scatter.deviation, rel=1e-9)
    assert np.all(other.whole_scatter.deviation > 5 * table.whole_scatter.deviation)


def test_distances_too() -> None:
    rng = np.random.default_rng(5)
    rows = [
        replace(r, metric="fd", level=None, extractor="pixels:0")
        for r in level_sweep(rng, two_goods(0.4, 1.0, 3.0), levels=(0.35,), scatter=0.01)
    ]
    shift = {0: 0.4, 1: -0.3, 2: 0.2, 3: 0.1}
    moved = [replace(r, value=r.value * float(np.exp(shift[r.seed or 0]))) for r in rows]
    tables = [table_of(group_records(x)[0]) for x in (rows, moved)]
    assert tables[0].dof == 11 * 3
    assert tables[1].variance == pytest.approx(tables[0].variance, rel=1e-9)
    np.testing.assert_allclose(tables[1].y - tables[1].y[0], tables[0].y - tables[0].y[0], atol=1e-12)
    lost = [r for r in moved if (r.n_clean, r.n_noisy, r.seed) != (100, 200, 0)]  # a lucky seed of one mixture
    fewer = table_of(group_records(lost)[0])
    [cell] = [k for k, name in enumerate(fewer.names) if name.startswith("100 clean + 200 noisy")]
    assert fewer.y[cell] == pytest.approx(tables[1].y[cell], abs=0.03)
    assert 2.5 < fewer.seeds[cell] < 3


def test_models_of_noisy_images_alone_widen_nothing_and_have_their_own_scatter() -> None:
    rng = np.random.default_rng(6)
    rows = level_sweep(rng, two_goods(0.4, 1.0, 3.0), scatter=0.01)
    noise = 0.2 * rng.standard_normal((2, 4, len(LEVELS)))  # twenty times that of the others
    alone = [
        level_sweeps.record(0, n, SIGMA, level, 0.3 * float(np.exp(noise[k, seed, i])), seed)
        for k, n in enumerate((200, 1000))
        for seed in range(4)
        for i, level in enumerate(LEVELS)
    ]
    without, beside = only(rows), only([*rows, *alone])
    np.testing.assert_allclose(beside.scatter.covariance, without.scatter.covariance, rtol=1e-12)
    np.testing.assert_allclose(beside.whole_scatter.covariance, without.whole_scatter.covariance, rtol=1e-12)
    assert beside.scatter.dof == without.scatter.dof
    for cell in without.cells:
        [same] = [c for c in beside.cells if (c.n_clean, c.n_noisy) == (cell.n_clean, cell.n_noisy)]
        for mine, other in zip(beside.means([same]), without.means([cell]), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-12)
    replicates = beside.means(beside.noisy_only)[1]
    stderr = beside.scatter.deviation / np.sqrt(replicates)  # of a mean of four, blocks taken out: 3 d.o.f. a level
    own = (noise - noise.mean(axis=0)).std(axis=1, ddof=1)[0] * np.sqrt(2)
    np.testing.assert_allclose(stderr, np.broadcast_to(own / 2, stderr.shape), rtol=1e-6)
    pooled = blocked([c.seeds for c in beside.cells], [c.log_error for c in beside.cells])  # control
    whole = np.sqrt(sum((r**2).sum(axis=0) for r in pooled.rest) / pooled.dof())
    assert np.all(whole > 3 * without.scatter.deviation)
