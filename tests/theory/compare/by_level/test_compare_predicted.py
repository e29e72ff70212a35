"""The price predicted from one denoiser: exact for a known V, intervals that cover, weights, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from level_sweeps import CLEAN, LEVELS, S0, bayes_error, error, formula, level_sweep, one_good, record
from typer.testing import CliRunner

from ambient_theory.compare.by_level.formula import predicted_worth
from ambient_theory.compare.by_level.predicted import (
    Denoiser,
    denoiser_of,
    denoisers,
    holds_records,
    nats_weights,
    predict_price,
)
from ambient_theory.compare.by_level.verdicts import formula_verdicts
from ambient_theory.shared.errors import DataError
from ambient_theory.shared.records import write_records
from cli import app

GRID = np.geomspace(0.002, 200.0, 4000)


def gaussian(levels: np.ndarray, sigma_n: float = 0.3) -> Denoiser:
    """The best denoiser of a Gaussian of deviation S0."""
    return Denoiser("made-up", levels, bayes_error_of(levels), np.zeros(len(levels)), 1000, 0, "exact")


def bayes_error_of(levels: np.ndarray) -> np.ndarray:
    return np.array([bayes_error(float(s)) for s in levels])


def test_far_above_the_noise_the_price_is_one_plus_the_noise_over_the_variance_of_the_data():
    far = np.geomspace(1e3, 1e4, 9)
    found = predict_price(gaussian(far), 0.3)
    assert found.above.inverse().value == pytest.approx(1 + (0.3 / S0) ** 2, rel=1e-4)
    assert found.everywhere == found.above


def test_the_nats_mean_of_a_gaussian_meets_its_closed_form():
    # V = S^2 s^2/(S^2 + s^2); V s^-3 ds integrates to log((S^2 + s^2)/s^2)/2 from s to infinity, S = S0. For
    # s > sigma_n: V/(V + v) = S^2 (s^2 - n^2) / (s^2 (S^2 + n^2)) , n = sigma_n, so with u = s^-2
    # int c V s^-3 ds = S^2/(2 (S^2 + n^2)) int_0^{1/n^2} (1 - n^2 u) S^2/(1 + S^2 u) du.
    n, big = 0.3, S0**2
    found = predict_price(gaussian(GRID), n)
    upto = math.log(1 + big / n**2)
    value = big / (big + n**2) * (upto - n**2 * (1 / n**2 - upto / big))
    every = math.log(1 + big / GRID[0] ** 2)
    assert found.everywhere.value == pytest.approx(value / every, rel=2e-3)
    assert found.above.value == pytest.approx(value / upto, rel=2e-3)


def test_the_weights_are_the_trapezoidal_rule_and_sum_to_one():
    gain = np.linspace(1, 2, len(LEVELS))
    levels = np.array(LEVELS)
    weights = nats_weights(levels, gain)
    whole = np.trapezoid(gain * levels**-2.0, np.log(levels))
    rising = np.arange(len(levels))
    assert weights.sum() == pytest.approx(1)
    assert weights @ rising == pytest.approx(np.trapezoid(gain * levels**-2.0 * rising, np.log(levels)) / whole)


def test_intervals_of_v_cover_what_the_exact_v_predicts():
    """90 % intervals by level, 150 sweeps of 3 seeds: a share of 450 correlated cases has a standard error < .03."""
    rng, inside, wrong, count = np.random.default_rng(3), 0, 0, 0
    true = predicted_worth([error(s, CLEAN[-1]) for s in LEVELS], 0.25, LEVELS)
    for _ in range(150):
        rows = level_sweep(rng, formula, seeds=3, mixed=(), scatter=0.02)
        rows = [record(r.n_clean, 0, None, r.level, r.value, r.seed, stderr=0.0) for r in rows]
        first, second = denoisers(rows, 0.9)
        found = predict_price(first, 0.25, second=second, confidence=0.9)
        for k in np.nonzero(true > 0)[0]:
            count += 1
            inside += found.worth[k].contains(true[k])
            wrong += found.worth[k].contains(1.05 * true[k])
    assert abs(inside / count - 0.9) < 0.045
    assert wrong / count < 0.7


def test_a_second_clean_size_brackets_v_and_gives_the_weight():
    rows = level_sweep(np.random.default_rng(0), formula, seeds=3)
    first, second = denoisers(rows)
    assert (first.n_clean, second.n_clean) == (CLEAN[-1], CLEAN[-2])
    found = predict_price(first, 0.25, second=second)
    true = predicted_worth([bayes_error(s) for s in LEVELS], 0.25, LEVELS)
    assert np.all(true <= [i.value for i in found.worth])  # a model's V is above the best denoiser's
    assert np.all([i.value for i in found.worth] <= found.second_worth)
    assert "excess nats between the models of 800 and 1,600" in found.weight
    alone = predict_price(first, 0.25)
    assert "as if one more image" in alone.weight
    assert "a second clean size would show" in " ".join(alone.sentences())


def test_the_predicted_price_is_the_one_that_is_measured_where_the_formula_holds_and_not_elsewhere():
    rng = np.random.default_rng(5)
    for size, verdict in ((formula, "holds"), (one_good(0.2), "fails")):
        rows = level_sweep(rng, size, sigmas=(0.1, 0.25), clean=(*CLEAN, 3200), scatter=0.01)
        (found,) = formula_verdicts(rows)
        assert found.verdict == verdict
        assert (found.median < 0.1) == (verdict == "holds")
    assert formula_verdicts([]) == []


NOISY_ONLY = [record(0, 100, 0.2, s, 0.1, 0) for s in LEVELS]
CLEAN_RUN = [record(100, 0, None, s, error(s, 100), 0) for s in LEVELS]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no held-out denoising error"),
        (NOISY_ONLY, "trained on noisy images alone"),
        ([*CLEAN_RUN, *(record(50, 0, None, s, 0.1, 0, dataset="other") for s in LEVELS)], "made-up, other"),
    ],
)
def test_where_v_is_not_known_nothing_is_predicted(rows, words):
    with pytest.raises(DataError, match=words):
        denoisers(rows)


def test_a_level_above_the_noise_must_have_been_measured():
    first, _ = denoisers(CLEAN_RUN)
    with pytest.raises(DataError, match=r"levels up to 2 only.*measure up to a higher level"):
        predict_price(first, 2.0)
    assert predict_price(first, 1.9).above.value > 0


def test_a_mixture_serves_where_no_clean_only_model_is_there():
    rows = [record(50, 100, 0.2, s, 0.1, 0) for s in LEVELS]
    assert denoisers(rows)[0].name == "the model of 50 clean images beside 100 noisy ones"
    assert denoisers([*rows, *CLEAN_RUN])[0].n_noisy == 0


def test_the_held_out_best_of_the_longest_training_is_taken():
    rows = CLEAN_RUN + [record(100, 0, None, s, 0.5, 0, duration_nimg=1000) for s in LEVELS]
    rows += [record(100, 0, None, s, 0.3, 0, checkpoint="heldout-best") for s in LEVELS]
    first, _ = denoisers(rows)
    assert "held-out best, 131,072" in first.how
    assert first.error[0] == pytest.approx(0.3)


def measured(**changes):
    fields = {"schema": "ambient.denoising/1", "levels": list(LEVELS), "mean": [error(s, 100) for s in LEVELS]}
    about = {"stderr": [0.001] * len(LEVELS), "n": 500, "dataset": "photos", "n_clean": None, "n_noisy": None}
    return {**fields, **about, **changes}


def test_an_error_measured_on_the_spot_predicts_as_a_record_of_it_does():
    of_record, _ = denoisers(CLEAN_RUN)
    of_network = denoiser_of(measured())
    a, b = (predict_price(d, 0.25) for d in (of_record, of_network))
    assert [i.value for i in a.worth] == pytest.approx([i.value for i in b.worth])
    assert "the network (measured on 500 held-out clean images)" in b.sentences()[1]
    with pytest.raises(DataError, match="noisy images alone"):
        denoiser_of(measured(n_clean=0, n_noisy=10))


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("from") / "run.jsonl"
    write_records(path, level_sweep(np.random.default_rng(0), formula, seeds=2))
    return path


def run(*arguments):
    return CliRunner().invoke(app, ["price", *map(str, arguments)])


def test_the_command_predicts_and_says_how_the_formula_was_tested(file):
    shown = run("--sigma", "0.25", "--from", file)
    assert shown.exit_code == 0, shown.output
    assert "predicted from one denoiser" in shown.stdout
    assert "not yet been tested on committed records" in shown.stdout or "How the formula stood" in shown.stdout
    own = run("--sigma", "0.25", "--from", file, file, "--json", "--quiet")
    answer = json.loads(own.stdout)
    assert answer["schema"] == "ambient.predicted-price/1"
    assert "made-up" in {t["condition"]["dataset"] for t in answer["tested"]}
    assert answer["price_above_the_noise"][0] > 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--from", "nowhere"), 3, "no such run"),
        (("--data", "digits"), 2, "give --from"),
        (("--n-denoise", "50"), 2, "give --from"),
        (("--from", "cli.py"), 2, "neither records nor a network"),
    ],
)
def test_a_source_that_is_none_is_refused_in_a_sentence(arguments, code, words):
    found = run("--sigma", "0.25", *arguments)
    assert found.exit_code == code, found.output
    assert words in found.stderr


def test_records_are_not_measured_anew(file):
    for idle in ("--resolution", "--n-denoise"):
        refused = run("--sigma", "0.25", "--from", file, idle, "16")
        assert (refused.exit_code, f"{idle} says how a network is measured" in refused.stderr) == (2, True)


def test_a_directory_holds_records_if_a_file_below_it_does(file, tmp_path):
    assert holds_records(file)
    assert holds_records(file.parent)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert not holds_records(tmp_path)
