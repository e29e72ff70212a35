"""What to buy where a noisy image is two goods: a mix, not a corner; the interval holds it; the good that is short."""

from __future__ import annotations

import json

import numpy as np
import pytest
from compare_sweeps import record as score_record
from level_sweeps import CLEAN, LEVELS, MIXED, SIGMA, error, level_sweep, one_good, two_goods
from typer.testing import CliRunner

from ambient_theory.compare.by_level.judgement import judge
from ambient_theory.compare.by_level.levels import level_tables, nats_quadrature
from ambient_theory.compare.purchase.budget import Asked, answer_budget
from ambient_theory.compare.purchase.goods import COARSE_SHORT, FINE_SHORT, ScorePlanner
from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.records import write_records
from cli import app

GOODS = two_goods(0.4, 1.2, 2.0)
WEIGHT = 64 * nats_quadrature(np.array(LEVELS))


def nats(n_clean: float, n_noisy: float) -> float:
    """The true outcome of a mix under GOODS."""
    return float(WEIGHT @ [error(s, GOODS(s, n_clean, n_noisy, SIGMA)) for s in LEVELS])


@pytest.fixture(scope="module")
def rows():
    return level_sweep(np.random.default_rng(0), GOODS, seeds=4, scatter=0.006)


def buy(rows, sigma_n=SIGMA, **changes):
    asked = {"price_clean": 1.0, "price_noisy": 0.1, "budget": 400.0, **changes}
    return answer_budget(rows, Asked(**asked), sigma_n=sigma_n)


def true_best(price_noisy: float, budget: float) -> tuple[float, float]:
    """(share, nats) of the best mix under the truth."""
    shares = np.linspace(0, 0.9, 901)
    found = [nats((1 - x) * budget, x * budget / price_noisy) for x in shares]
    k = int(np.argmin(found))
    return float(shares[k]), found[k]


def test_the_best_purchase_of_two_goods_is_a_mix_that_the_truth_confirms(rows):
    (answer,) = buy(rows)
    share, least = true_best(0.1, 400.0)
    assert 0.05 < share < 0.7  # no corner
    low, high = answer.open_shares
    assert low - 0.02 <= share <= high + 0.02
    bought = nats(answer.best.n_clean, answer.best.n_noisy)
    assert bought / least - 1 < 0.01  # nearly as good as the best
    assert bought < min(nats(400, 0), nats(40, 3600))
    assert answer.determined
    assert answer.law == "two goods"
    (few, most), _ = answer.counts()
    assert few <= answer.best.n_clean <= most


def test_the_predicted_nats_are_those_of_the_truth(rows):
    (answer,) = buy(rows)
    assert answer.best.error == pytest.approx(nats(answer.best.n_clean, answer.best.n_noisy), rel=0.01)
    assert answer.best.error_low < answer.best.error < answer.best.error_high


def test_the_good_that_is_short_is_the_one_that_pays(rows):
    table = level_tables(rows)[0]
    from ambient_theory.compare.purchase.goods import NatsPlanner

    planner = NatsPlanner(judge(table, SIGMA), table, draws=2)
    assert planner.short(400.0, 0.0) in (COARSE_SHORT, FINE_SHORT)
    assert planner.short(50.0, 20_000.0) == FINE_SHORT
    # a factor on one good moves the levels on its side alone
    both = planner.with_more(100.0, 100.0, 1.1, 1.1)
    coarse, fine, none = (planner.with_more(100.0, 100.0, a, b) for a, b in ((1.1, 1.0), (1.0, 1.1), (1.0, 1.0)))
    assert none - both == pytest.approx((none - coarse) + (none - fine), rel=1e-9)


def test_a_target_in_nats_is_reached_by_the_cheapest_purchase_and_no_less(rows):
    (answer,) = buy(rows, budget=None, target_nats=nats(300, 300))
    assert answer.best.error == pytest.approx(nats(300, 300), rel=2e-3)
    (less,) = buy(rows, budget=answer.budget * 0.9)
    assert less.best.error > answer.best.error
    with pytest.raises(DataError, match="floor"):
        buy(rows, budget=None, target_nats=1e-6)


def test_noise_that_swamps_the_law_gives_no_recommendation():
    rough = level_sweep(np.random.default_rng(1), GOODS, seeds=2, scatter=0.5)
    (answer,) = buy(rough)
    assert not answer.determined
    assert "is not determined" in answer.sentence()
    assert answer.to_dict()["recommended"] is None


@pytest.mark.parametrize("twice", [1, 2, 4])
def test_scatter_of_fewer_models_than_levels_is_drawn_too(twice):
    """Of k models more than cells the covariance over levels has rank k: no Cholesky factor but for rounding."""
    rough = level_sweep(np.random.default_rng(twice), GOODS, seeds=2, scatter=0.1)
    again = {(r.n_clean, r.n_noisy) for r in rough}
    kept = sorted(again)[:twice]
    few = [r for r in rough if r.seed == 0 or (r.n_clean, r.n_noisy) in kept]
    (answer,) = buy(few)
    assert answer.open_shares is not None
    assert answer.best.error_low < answer.best.error_high


def test_one_seed_gives_a_mix_and_no_claim(rows):
    (answer,) = buy([r for r in rows if r.seed == 0])
    assert answer.open_shares is None
    assert "cannot be said" in answer.sentence()


def scores(rng, law=GOODS, scatter=0.01):
    """Distances of the same models: F_inf + a N_coarse^-.6 + b N_fine^-.8."""
    out = []
    for n_clean, n_noisy in [*((n, 0) for n in CLEAN), *MIXED]:
        coarse, fine = (law(s, n_clean, n_noisy, SIGMA) for s in (2.0, 0.02))
        value = 0.2 + 1.2 * (coarse / 100) ** -0.6 + 1.0 * (fine / 100) ** -0.8
        for seed in range(4):
            fields = {"duration_nimg": 131_072, "checkpoint": "last", "reference": "heldout-clean"}
            sigma_n = SIGMA if n_noisy else None
            out.append(
                score_record(n_clean, n_noisy, sigma_n, value * np.exp(scatter * rng.standard_normal()), seed, **fields)
            )
    return out


def test_scores_of_the_same_models_are_planned_by_two_goods_and_others_by_one_worth(rows):
    every = [*rows, *scores(np.random.default_rng(2))]
    by_nats, by_fd = buy(every)
    assert (by_nats.outcome, by_fd.outcome) == ("nats an image", "Fréchet distance")
    assert by_fd.law == "two goods"
    assert by_fd.best.n_noisy > 0
    assert by_fd.best.n_clean > 0.3 * 400
    one = level_sweep(np.random.default_rng(3), one_good(0.4), seeds=4, scatter=0.006)
    _, plain = buy([*one, *scores(np.random.default_rng(4), one_good(0.4))])
    assert plain.law == ""
    (only,) = buy(every, budget=None, target_fd=1.4)
    assert only.outcome == "Fréchet distance"


def test_the_curve_of_two_goods_gives_the_score_it_was_made_from(rows):
    from ambient_theory.compare.cells.grouping import group_records

    table = level_tables(rows)[0]
    (group,) = group_records(scores(np.random.default_rng(5), scatter=0.001))
    planner = ScorePlanner(judge(table, SIGMA), table, group, draws=3)
    for n_clean, n_noisy in ((100, 500), (300, 100)):
        coarse, fine = (GOODS(s, n_clean, n_noisy, SIGMA) for s in (2.0, 0.02))
        true = 0.2 + 1.2 * (coarse / 100) ** -0.6 + 1.0 * (fine / 100) ** -0.8
        assert planner.point(np.array([n_clean]), np.array([n_noisy]))[0] == pytest.approx(true, rel=0.03)


def test_a_noise_that_was_not_measured_by_level_is_said_to(rows):
    with pytest.raises(DataError, match=r"σ 0.4 was not measured by level \(measured: 0.25\)"):
        buy(rows, sigma_n=0.4)


def test_more_than_one_aim_is_refused():
    with pytest.raises(UsageError, match="either"):
        Asked(1.0, 1.0, 5.0, target_nats=3.0)


def test_the_command_says_the_mix_and_its_interval(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    write_records(path, rows)
    buying = ("budget", "--price-clean", "1", "--price-noisy", "0.1", "--budget", "400", "--quiet", str(path))
    shown = CliRunner().invoke(app, list(buying))
    assert shown.exit_code == 0, shown.output
    assert "predicted nats an image" in shown.stdout
    assert "are short" in shown.stdout
    answer = json.loads(CliRunner().invoke(app, [*buying, "--json"]).stdout)["answers"][0]
    low, high = answer["n_clean_interval"]
    assert low <= answer["recommended"]["n_clean"] <= high
