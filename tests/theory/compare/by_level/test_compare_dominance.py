"""A mixture is compared with its parts at every level, by paired seeds, within a margin of t."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from experiment_script import experiment
from level_sweeps import LEVELS, noise, record

from ambient_theory.compare.by_level.dominance import Losses, compare_with_parts
from ambient_theory.compare.by_level.levels import level_tables
from ambient_theory.shared.records import Record

CLEAN, NOISY, SIGMA = 100, 200, 0.25


def trained(mixture: float, *, seeds: int = 5, scatter: float = 0.01, cells: int = 1, key: int = 0) -> list[Record]:
    """Parts whose error is .1 at levels below (clean) and above (noisy) the noise and .12 elsewhere; the mixture has
    exp(mixture) times the better of the two."""
    rng = np.random.default_rng(key)
    out = []
    for extra in range(cells):
        for seed in range(seeds):
            for n_clean, n_noisy in ((CLEAN + extra, 0), (0, NOISY + extra), (CLEAN + extra, NOISY + extra)):
                by = noise(rng, scatter, len(LEVELS))
                for level, shift in zip(LEVELS, by, strict=True):
                    alone = 0.1 if (level < SIGMA) == (n_clean > 0) else 0.12
                    value = 0.1 * math.exp(mixture) if n_clean and n_noisy else alone
                    sigma = SIGMA if n_noisy else None
                    out.append(record(n_clean, n_noisy, sigma, level, value * math.exp(shift), seed))
    return out


def test_the_better_part_is_chosen_level_by_level_and_the_excess_is_against_it() -> None:
    [found] = compare_with_parts(level_tables(trained(0.03, scatter=0.0))[0])
    assert found.excess == pytest.approx(0.03)
    assert found.better == tuple("100 clean" if s < SIGMA else "200 noisy (σ 0.25)" for s in LEVELS)


def test_an_excess_of_five_standard_errors_is_found_at_every_level() -> None:
    # a paired difference scatters by .01 sqrt 2, five seeds: s.e. .0063
    [found] = compare_with_parts(level_tables(trained(0.05))[0])
    assert found.lost.sum() == len(LEVELS)
    assert "worse at 6 of 6 levels" in found.sentence()


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_mixtures_seem_to_lose_as_often_as_chance_says(seeds: int) -> None:
    # one part lies 18 scatters away, so one of the two tests of a level never loses, the other at its rate.
    # levels of a cell are correlated: at worst the 200 cells are independent and their 6 levels the same
    found = compare_with_parts(level_tables(trained(0.0, seeds=seeds, cells=200, key=3))[0])
    losses = Losses.of(found)
    assert losses.compared == 200 * len(LEVELS)
    assert losses.tests == 2 * losses.compared
    rate = losses.expected / losses.tests
    assert losses.lost / losses.compared == pytest.approx(rate, abs=3 * math.sqrt(rate * (1 - rate) / 200))
    worse = Losses.of(compare_with_parts(level_tables(trained(0.04, seeds=seeds, cells=200, key=3))[0]))
    assert worse.lost / worse.compared > rate + 6 * math.sqrt(rate / 200)  # control: a real excess is seen


def test_a_part_that_scatters_hides_no_loss_to_one_that_does_not() -> None:
    rng = np.random.default_rng(8)
    rows = [
        replace(r, value=r.value * math.exp(0.3 * rng.standard_normal())) if not r.n_clean else r for r in trained(0.05)
    ]
    [found] = compare_with_parts(level_tables(rows)[0])
    below = np.array(LEVELS) < SIGMA
    assert found.lost[below].all()
    assert set(np.array(found.better)[below]) == {"100 clean"}


def test_seeds_are_paired_and_a_missing_part_is_left_out() -> None:
    rows = trained(0.0)
    common = {1: 0.4, 2: -0.4, 3: 0.2, 4: 0.0, 0: -0.2}  # what a seed does to all of its models falls out
    moved = [replace(r, value=r.value * math.exp(common[r.seed or 0])) for r in rows]
    [plain], [shifted] = (compare_with_parts(level_tables(x)[0]) for x in (rows, moved))
    assert shifted.stderr == pytest.approx(plain.stderr)
    assert shifted.excess == pytest.approx(plain.excess)
    only_clean = [r for r in rows if r.n_clean]
    [found] = compare_with_parts(level_tables(only_clean)[0])
    assert found.n_parts == 1
    assert set(found.better) == {"100 clean"}
    assert compare_with_parts(level_tables([r for r in rows if r.n_clean and r.n_noisy])[0]) == []


def test_one_seed_has_a_difference_and_no_verdict() -> None:
    [found] = compare_with_parts(level_tables(trained(0.5, seeds=1))[0])
    assert not found.lost.any()
    assert "no standard error" in found.sentence()
    assert Losses.of([found]) == Losses(0, 0, 0)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """experiments/methods.py, which writes docs/methods.md."""
    return experiment("methods")


def test_the_page_of_methods_is_what_its_script_writes(script: ModuleType) -> None:
    assert script.PAGE.read_text(encoding="utf-8") == script.page()


def test_the_page_counts_lost_levels_by_duration_and_shows_scores_and_copies(script: ModuleType) -> None:
    method = {"weight": "x0", "dropout": 0.1}
    rows = [
        replace(r, method=method, duration_nimg=nimg)
        for nimg, excess in ((1000, 0.05), (2000, 0.0))
        for r in trained(excess)
    ]
    score = replace(rows[0], metric="fd", level=None, extractor="pixels", reference="heldout-clean", value=3.25)
    copied = {"memorisation": {"ratio": 0.41}}
    rows.append(replace(score, n_clean=CLEAN, n_noisy=NOISY, sigma_n=SIGMA, duration_nimg=2000, extra=copied))
    text = "\n".join(script.dominance_tables(rows))
    assert "| made-up | at fixed compute | x0, dropout 0.1 | 6 of 6 (0.3) | 0 of 6 (0.3) |" in text
    assert "After 2,000 images" in text
    [row] = [line for line in text.splitlines() if line.startswith("| 100 clean + 200 noisy")]
    assert row.endswith("| -, -, - | 3.25 | 0.41 |")
    assert "lost" not in row
    assert script.dominance_tables([r for r in rows if r.n_clean and r.n_noisy]) == []  # no parts, no comparison
    alone = "\n".join(script.dominance_tables([r for r in rows if r.seed == 0]))
    assert "Levels lost" not in alone  # one seed has no standard error


def test_parts_alone_serve_mixtures_under_every_draw_and_weight_that_is_nothing_to_them(script: ModuleType) -> None:
    own = {"weight": "x0", "dropout": 0.1, "draw": "sigma-first", "settings": "a"}
    late = {**own, "draw": "clean-first", "settings": "b"}
    other = {**own, "dropout": 0.2}
    rows = [replace(r, method=m) for m in (own, late, other) for r in trained(0.0, seeds=1) if r.n_clean and r.n_noisy]
    parts = [replace(r, method=own) for r in trained(0.0, seeds=1) if not (r.n_clean and r.n_noisy)]
    shared = [r for r in script.with_shared_parts([*rows, *parts]) if not (r.n_clean and r.n_noisy)]
    assert [r.method for r in shared if r.method != own] == [late] * len(parts)
    assert [r for r in shared if r.method == own] == parts
    assert script.short_method("draw clean-first, dropout 0.1, weight x0") == "x0, dropout 0.1, clean-first"


def test_both_draws_are_compared_over_the_mixtures_and_seeds_that_have_both(script: ModuleType) -> None:
    early = {"weight": "x0", "dropout": 0.1, "draw": "sigma-first", "settings": "a"}
    rows = [replace(r, method=early, duration_nimg=1000) for r in trained(0.3, seeds=4)]
    late = [replace(r, method={**early, "draw": "clean-first"}) for r in rows if r.n_clean and r.n_noisy and r.seed]
    late = [replace(r, value=0.1) for r in late]
    rows = [replace(r, value=0.02) if r.n_clean and r.n_noisy and not r.seed else r for r in rows]  # compared with none
    totals = [
        replace(r, metric=m, level=None, extractor="x", reference="heldout-clean", value=v + 0.5 * (r.seed or 0))
        for r in (*rows, *late)
        if r.n_clean and r.n_noisy and r.level == LEVELS[0]
        for m, v in ((script.NATS, 90.0 if r in late else 92.0), ("fd", 1.0 if r in late else 1.25))
    ]
    text = "\n".join(script.both_draws([*rows, *late, *totals]))
    assert "| x0, dropout 0.1 | 6 of 6" in text
    assert "| x0, dropout 0.1, clean-first | 0 of 6" in text
    assert "| 100 clean + 200 noisy (σ 0.25) | at fixed compute | 3 | -2.00 ± 0.00 | -0.25 ± 0.00 |" in text
    assert script.both_draws(rows) == []
