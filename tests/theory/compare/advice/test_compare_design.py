"""Which cell next: the predicted variance is that of least squares, the plan is determined, and it pays."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from level_sweeps import SIGMA, error, level_sweep, noise, one_good, record
from scipy import special, stats

from ambient_theory.compare.advice.design import MOST_SEEDS, Ensemble, Information, design
from ambient_theory.compare.advice.spread import spread
from ambient_theory.compare.by_level.goods import TWO, Market, fit_laws
from ambient_theory.compare.by_level.levels import LevelTable, level_tables
from ambient_theory.compare.by_level.potency import worth_interval
from ambient_theory.shared.advice import Mixture
from ambient_theory.shared.errors import UsageError
from ambient_theory.shared.records import Record

ABOVE = (0.3, 0.5, 0.8, 1.3)
CLEAN = (50, 100, 200, 400, 800, 1600)
CANDIDATES = [Mixture(n) for n in CLEAN] + [Mixture(n, n * k, SIGMA) for n in (50, 100, 200, 400) for k in (1, 2, 4, 8)]


def table(worth: float = 0.3, seeds: int = 4, seed: int = 0, **changes: object) -> LevelTable:
    rng = np.random.default_rng(seed)
    return level_tables(level_sweep(rng, one_good(worth), levels=ABOVE, seeds=seeds, **changes))[0]


def test_the_predicted_variance_is_that_of_least_squares_with_correlated_levels() -> None:
    """Against dense matrices: Var = (A^-1 B A^-1) at log c, A = J'J, B = J'(C x 1)J, over cells, seeds, levels."""
    ensemble = Ensemble.of(table(), SIGMA)
    information = Information(ensemble)
    extra = Mixture(100, 400, SIGMA)
    found = information.spread(ensemble.rows([extra]), np.array([False]), 0.95)[0]
    t = special.stdtrit(ensemble.dof, 0.975)
    trained = [m for m, n in ensemble.cells.items() for _ in range(n)] + [extra]
    rows = ensemble.rows(trained)
    levels = len(ABOVE)
    for b in (3, 16, 29):
        jacobian = np.zeros((len(trained), levels, 3 * levels + 1))
        for k in range(levels):
            jacobian[:, k, 3 * k : 3 * k + 3] = rows[:, b, k, :3]
            jacobian[:, k, -1] = rows[:, b, k, 3]
        inverse = np.linalg.inv(np.einsum("mkp,mkq->pq", jacobian, jacobian))
        middle = np.einsum("mkp,kl,mlq->pq", jacobian, ensemble.correlation, jacobian)
        dense = math.log((inverse @ middle @ inverse)[-1, -1] * t**2)
        assert found[b] == pytest.approx(dense, abs=1e-3)
        assert information.now(0.95)[b] > found[b]


def test_the_prediction_is_the_interval_that_the_fit_gives() -> None:
    """The linearised factor and the profile's differ by curvature alone: within a fifth of the log width, 20 times."""
    ratios = []
    for seed in range(20):
        measured = table(seed=seed)
        interval = worth_interval(fit_laws(Market.of(measured, SIGMA), (TWO,))[TWO], 0)
        assert interval.low is not None
        assert interval.high is not None
        predicted = math.log(Information(Ensemble.of(measured, SIGMA)).factor(0.95))
        ratios.append(predicted / math.log(interval.high / interval.low))
    assert abs(np.median(ratios) - 1) < 0.2
    wrong = [r * math.sqrt(2) for r in ratios]  # half the seeds would be seen
    assert abs(np.median(wrong) - 1) > 0.2


def test_models_of_few_images_tell_less_by_as_much_as_they_scatter_more() -> None:
    """Against the scatter over 200 seeds of what was made: 1.5 % at 200 images, in proportion to 1/N."""
    uneven = Ensemble.of(table(exponent=2.0), SIGMA)
    assert 1.5 < uneven.exponent < 2.5
    assert Ensemble.of(table(), SIGMA).exponent == 0
    few, many = Mixture(50), Mixture(800)
    rows = uneven.rows([few, many])[..., 0]  # one over the error and the scatter
    size = np.array([[50.0], [800.0]])[..., None]
    errors = uneven.curves.floor + uneven.curves.a * (size / uneven.curves.unit) ** -np.exp(uneven.curves.log_p)
    drawn = []
    for n in (50, 800):
        made = level_sweep(
            np.random.default_rng(n), one_good(0.3), levels=ABOVE, seeds=200, exponent=2.0, clean=(n,), mixed=()
        )
        values = np.log([[r.value for r in made if r.level == s] for s in ABOVE])
        drawn.append(values.std(axis=1, ddof=1))
    # 1/(row x error) is the deviation, known from 33 degrees of freedom and an exponent's error of .2
    np.testing.assert_allclose(1 / (rows * errors), np.repeat(np.array(drawn)[:, None], len(uneven.c), 1), rtol=0.5)


def test_same_records_give_the_same_plan_in_any_order() -> None:
    records = level_sweep(np.random.default_rng(1), one_good(0.3), levels=ABOVE, seeds=2)
    plans = [
        design(level_tables(rows)[0], SIGMA, order, cells=6)
        for rows, order in ((records, CANDIDATES), (records[::-1], CANDIDATES), (records, CANDIDATES))
    ]
    assert plans[0] == plans[1] == plans[2]
    assert [s.factor for s in plans[0].steps] == sorted((s.factor for s in plans[0].steps), reverse=True)


@pytest.mark.parametrize("worth", [0.03, 0.3, 0.9])
def test_clean_sizes_come_to_enclose_every_mixture(worth: float) -> None:
    """Begun with clean sizes that end far below the mixtures' equivalent size, planned anew after every three."""
    rng = np.random.default_rng(0)
    cells = {"clean": (50, 70, 100), "mixed": ((50, 400), (50, 200))}
    rows = level_sweep(rng, one_good(worth), levels=ABOVE, seeds=2, **cells)
    have = Counter({(r.n_clean, r.n_noisy): 2 for r in rows})
    for k in range(4):
        steps = design(level_tables(rows)[0], SIGMA, CANDIDATES, cells=3).steps
        if worth > 0.2 and k == 0:
            assert steps[0].why == "encloses 50c+200n-0.25"
        for m in (s.mixture for s in steps):
            rows += _trained(rng, m, have[m.n_clean, m.n_noisy], worth)
            have[m.n_clean, m.n_noisy] += 1
    clean = [n for n, noisy in have if not noisy]
    for n, noisy in have:
        assert min(clean) <= n + worth * noisy <= max(clean)
    assert max(have.values()) <= MOST_SEEDS


def test_where_nothing_is_known_it_says_so_and_spreads() -> None:
    advice = design(None, SIGMA, CANDIDATES, cells=10)
    assert "nothing is measured yet" in advice.sentence
    assert advice.factor is None
    chosen = Counter(s.mixture for s in advice.steps)
    assert set(chosen.values()) == {2}
    (mixture,) = (m for m in chosen if m.n_noisy)
    clean = [m.n_clean for m in chosen if not m.n_noisy]
    assert len(clean) == 4
    assert min(clean) <= mixture.n_clean
    assert max(clean) >= mixture.n_clean + mixture.n_noisy  # whatever the worth up to 1
    first = {s.mixture for s in advice.steps[:5]}
    assert first == set(chosen)  # whole replicates first
    rest = spread(CANDIDATES, chosen)
    assert rest == []


def test_what_is_under_way_is_taken_as_done() -> None:
    measured = table(seeds=2)
    steps = design(measured, SIGMA, CANDIDATES, cells=3).steps
    again = design(measured, SIGMA, CANDIDATES, cells=1, pending=[s.mixture for s in steps[:2]]).steps
    assert again[0] == steps[2]


def test_a_budget_is_kept_and_dear_cells_are_passed_over() -> None:
    measured = table(seeds=2)
    free = design(measured, SIGMA, CANDIDATES, cells=4).steps
    dear = free[0].mixture

    def cost(mixture: Mixture) -> float:
        return 50.0 if mixture == dear else 1.0

    steps = design(measured, SIGMA, CANDIDATES, cost=cost, budget=4.5).steps
    assert len(steps) == 4
    assert dear not in [s.mixture for s in steps]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "either a number of cells or a budget"),
        ({"cells": 2, "budget": 3.0}, "either a number of cells or a budget"),
        ({"cells": 0}, "above 0"),
        ({"cells": 3, "candidates": CANDIDATES[:6]}, "must hold a mixture"),
        ({"cells": 3, "candidates": [CANDIDATES[0], CANDIDATES[-1]]}, "two sizes or more"),
    ],
)
def test_what_cannot_be_planned_is_refused(changes: dict[str, object], words: str) -> None:
    arguments: dict[str, object] = {"candidates": CANDIDATES, **changes}
    with pytest.raises(UsageError, match=words):
        design(None, SIGMA, **arguments)  # type: ignore[arg-type]


def _trained(rng: np.random.Generator, mixture: Mixture, seed: int, worth: float) -> list[Record]:
    by = noise(rng, 0.015, len(ABOVE))
    n = mixture.n_clean + worth * mixture.n_noisy
    given = (mixture.n_clean, mixture.n_noisy, mixture.sigma_n)
    return [record(*given, s, error(s, n) * math.exp(e), seed) for s, e in zip(ABOVE, by, strict=True)]


def _interval(records: list[Record]) -> tuple[float, float]:
    law = fit_laws(Market.of(level_tables(records)[0], SIGMA), (TWO,))[TWO]
    found = worth_interval(law, 0)
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


@pytest.mark.slow
@pytest.mark.parametrize("worth", [0.05, 0.3])
def test_a_design_reaches_the_width_of_a_uniform_grid_at_half_its_cost_and_its_intervals_cover(worth: float) -> None:
    """200 sweeps: all 22 cells twice, against 22 trainings chosen four at a time after a spread of five."""
    uniform, designed, covered = [], [], 0
    for repeat in range(200):
        rng = np.random.default_rng([repeat, 0])
        rows = [r for m in CANDIDATES for seed in range(2) for r in _trained(rng, m, seed, worth)]
        low, high = _interval(rows)
        uniform.append(math.log(high / max(low, 1e-9)))
        rng = np.random.default_rng([repeat, 1])
        rows, have = [], Counter[Mixture]()
        while (left := len(CANDIDATES) - sum(have.values())) > 0:
            known = level_tables(rows)[0] if rows else None
            for step in design(known, SIGMA, CANDIDATES, cells=min(4 if rows else 5, left)).steps:
                rows += _trained(rng, step.mixture, have[step.mixture], worth)
                have[step.mixture] += 1
        low, high = _interval(rows)
        designed.append(math.log(high / max(low, 1e-9)))
        covered += low <= worth <= high
    assert np.median(designed) <= np.median(uniform)
    # a sign test: by chance alone 100 of 200 would be narrower, standard error 7
    assert np.sum(np.array(designed) < np.array(uniform)) > 100
    assert stats.binom.cdf(covered, 200, 0.95) > 0.005  # not below nominal
    assert stats.binom.cdf(100, 200, 0.95) < 1e-6  # an interval that covers half the time would be noticed
