"""Findings by level for whole sets of records: rules, other conditions, distances of the same models, sentences."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from compare_sweeps import record as score_record
from compare_sweeps import sweep
from level_sweeps import CLEAN, LEVELS, MIXED, SIGMA, level_sweep, one_good, record, two_goods

from ambient_theory.compare.by_level.findings import analyse_levels, worths_of
from ambient_theory.compare.by_level.goods import NAIVE, ONE, TWO
from ambient_theory.compare.by_level.judgement import judge
from ambient_theory.compare.by_level.levels import LEVEL_BEST, level_tables
from ambient_theory.compare.by_level.unseen import FITTED
from ambient_theory.compare.by_level.words import band_columns, band_rows, together, worth_text
from ambient_theory.compare.findings import gather_findings
from ambient_theory.compare.fitting.fits import Interval
from ambient_theory.compare.scores.words import span
from ambient_theory.shared.files import finite

TRUTH = two_goods(0.4, 1.2, 2.0)


def distances(**changes):
    """Frechet distances of the models of `level_sweep(..., TRUTH)`."""
    rows = []
    for n_clean, n_noisy in [*((n, 0) for n in CLEAN), *MIXED]:
        coarse, fine = (TRUTH(s, n_clean, n_noisy, SIGMA) if n_noisy else n_clean for s in (1.0, 0.0))
        value = 0.3 + 2.0 * (coarse / 100) ** -0.6 + 1.5 * (fine / 100) ** -1.0
        sigma = SIGMA if n_noisy else None
        fields = {"duration_nimg": 131_072, "checkpoint": "last", **changes}
        rows += [score_record(n_clean, n_noisy, sigma, value, seed, **fields) for seed in range(4)]
    return rows


def groups_of(rows):
    return [a.group for a in gather_findings(rows).analyses]


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    rows = level_sweep(rng, TRUTH)
    rows += level_sweep(rng, one_good(0.3), duration_nimg=65_536)
    rows += level_sweep(rng, TRUTH, checkpoint="heldout-best", n_eval=500, extra={"images": "half0000", "dim": 64})
    return rows + distances()


@pytest.fixture(scope="module")
def found(records):
    groups = groups_of([r for r in records if r.metric == "fd"])
    return analyse_levels(records, 0.9, groups=groups)


def test_the_longest_condition_is_judged_under_every_rule_and_the_leading_one_in_depth(found):
    findings, problems = found
    assert problems == []
    assert [f.table.key.checkpoint for f in findings] == ["last", "heldout-best", LEVEL_BEST]
    assert {f.table.key.duration_nimg for f in findings} == {131_072}
    assert findings[0].unseen
    assert not findings[1].unseen
    assert findings[0].judgements[SIGMA].surviving == TWO


def test_worths_under_every_condition_show_whether_they_move(found):
    moves = {(w.key.checkpoint, w.key.duration_nimg): w for w in found[0][0].moves}
    assert set(moves) == {("last", 131_072), ("last", 65_536), ("heldout-best", 131_072), (LEVEL_BEST, 131_072)}
    assert moves["last", 131_072].coarse.contains(0.4)
    assert moves["last", 65_536].coarse.contains(0.3)
    assert moves["last", 65_536].coarse.contains(0.4) is False


def test_of_several_noise_levels_prices_are_said_in_one_sentence_and_what_they_share_once(found):
    rows = level_sweep(np.random.default_rng(7), TRUTH, sigmas=(0.1, SIGMA, 0.5), scatter=0.004)
    [f] = analyse_levels(rows, 0.9)[0]
    first, *others = f.opening()
    assert first.startswith("made-up, at fixed compute, above the noise level one clean image is worth so many noisy")
    for sigma, judged in f.priced.items():
        assert f"{span(judged.coarse.inverse())} at σ {sigma:g}" in first
        for clause in judged.clauses():
            assert clause.casefold() in first.casefold()
    shared = set.intersection(*(set(j.clauses()) for j in f.priced.values()))
    assert shared
    assert all(first.count(clause) == 1 for clause in shared)
    assert "At every σ: " in first
    assert len(others) == 1  # each mixture by itself
    assert len(f.sentences()) == 4
    assert found[0][0].opening() == found[0][0].sentences()  # of one noise level there is nothing to put together


def test_what_holds_at_some_noise_levels_is_said_with_these():
    def judged(sigma_n, worth, clauses, apart=""):
        return SimpleNamespace(
            sigma_n=sigma_n, leading=worth, coarse=worth, confidence=0.9, clauses=lambda: list(clauses), apart=apart
        )

    said = together(
        [
            judged(0.1, Interval(0.5, 0.4, 0.8), ("two goods", "no law fits")),
            judged(0.2, Interval(0.25, 0.2, 0.5), ("two goods",)),
            judged(0.4, None, ("no price", "two goods")),
            judged(0.8, None, ("two goods",), "4 (few) and 9 (many)"),
        ]
    )
    assert said == (
        "above the noise level one clean image is worth so many noisy ones: 2.00 [1.25, 2.50] at σ 0.1; "
        "4.00 [2.00, 5.00] at σ 0.2 (90 %). No one price above the noise, since mixtures disagree: 4 (few) and 9 "
        "(many) at σ 0.8. At every σ: two goods. At σ 0.1: no law fits. At σ 0.4: no price."
    )


def test_distances_of_the_same_models_are_predicted_and_those_of_others_are_not(found, records):
    (label,) = found[0][0].unseen_fd
    assert "131,072 training images" in label
    by_law = {u.law: u for u in found[0][0].unseen_fd[label]}
    assert by_law[TWO].median < 0.8 * min(by_law[name].median for name in (FITTED, ONE, NAIVE))
    others = groups_of(distances(duration_nimg=65_537))
    lead = [r for r in records if r.metric == "denoise" and r.duration_nimg == 131_072 and r.checkpoint == "last"]
    assert analyse_levels(lead, groups=others)[0][0].unseen_fd == {}


def test_every_level_has_a_row_with_worth_formula_and_bound(found):
    f = found[0][0]
    rows = band_rows(f.judgements[SIGMA], f.formula.scatters)
    assert len(rows) == len(LEVELS)
    assert len(rows[0]) == len(band_columns(("a", "b")))
    assert [r[1] for r in rows] == ["above σ" if s > SIGMA else "below σ" for s in LEVELS]
    assert rows[0][3] == "0"


def test_a_worth_is_told_in_words_that_make_sense():
    assert worth_text(None) == "–"
    assert worth_text(Interval(0.3, 0.0, math.inf)) == "not determined"
    assert worth_text(Interval(0.3, 0.1, math.inf)) == "0.300, at least 0.100"
    assert worth_text(Interval(0.3, 0.2, 0.4)) == "0.300 [0.200, 0.400]"
    assert worth_text(Interval(0.3, None, None)) == "0.300 (no interval)"


def test_controls_are_judged_by_what_they_must_be_and_price_nothing():
    rng = np.random.default_rng(1)
    rows = level_sweep(rng, TRUTH) + level_sweep(rng, one_good(1.0), clean=(), mixed=MIXED[:2], sigmas=(0.001,))
    (f,), _ = analyse_levels(rows, 0.95, deep=False)
    assert set(f.judgements) == {0.001, SIGMA}
    assert set(f.priced) == {SIGMA}
    assert any("control at σ 0.001: a noisy image must be worth 1; passed" in s for s in f.sentences())


def test_mixtures_off_the_clean_curve_are_counted_and_what_to_train_is_said():
    rng = np.random.default_rng(4)
    (f,), _ = analyse_levels(level_sweep(rng, one_good(1.0), clean=(50, 100, 200, 400)), deep=False)
    (said,) = [p for p in f.problems if "off the clean-only curve" in p]
    # 1,000 noisy images in 3 of 6 mixtures; 200 + 200 is at the end of the curve, on one side of it by chance
    assert said.startswith("σ 0.25: ")
    count = int(said.split()[2])
    assert 18 <= count <= 24
    assert "ends at 400 images" in said
    assert "larger numbers" in said
    (whole,), _ = analyse_levels(level_sweep(rng, one_good(0.3)), deep=False)
    assert not any("off the clean-only curve" in p for p in whole.problems)


def test_findings_are_plain_json_and_the_same_twice(found):
    once = json.dumps(finite(found[0][0].to_dict()), allow_nan=False)
    assert json.loads(once)["condition"]["dataset"] == "made-up"


def test_records_without_levels_give_nothing_and_data_that_price_nothing_a_sentence():
    assert analyse_levels(sweep(None)) == ([], [])
    found, problems = analyse_levels(level_sweep(None, TRUTH, mixed=()))
    assert found == []
    assert problems == [
        "made-up: no model was trained on clean and noisy images together, so nothing prices a noisy one"
    ]
    assert worths_of(level_tables([record(100, 0, None, 0.1, 0.2, 0)])[0]) == []


def test_a_condition_that_prices_nothing_is_not_reported_where_another_of_the_data_does():
    rows = level_sweep(np.random.default_rng(2), TRUTH)
    rows += level_sweep(np.random.default_rng(3), TRUTH, mixed=(), duration_nimg=999)
    found, problems = analyse_levels(rows, deep=False)
    assert len(found) == 1
    assert problems == []


@pytest.mark.slow
def test_no_one_price_is_given_where_mixtures_disagree_and_one_is_where_they_do_not():
    def falls(level, n_clean, n_noisy, sigma):  # worth less beside more clean images
        return (
            n_clean + 0.4 * (100 / n_clean) ** 0.5 * n_noisy if level > sigma else TRUTH(level, n_clean, n_noisy, sigma)
        )

    sweeps, said = 60, {"one": 0, "several": 0}
    for seed in range(sweeps):
        for what, size in (("one", TRUTH), ("several", falls)):
            rows = level_sweep(np.random.default_rng([seed, 5]), size, sigmas=(SIGMA,), scatter=0.02)
            judged = judge(level_tables(rows)[0], SIGMA, 0.9)
            said[what] += judged.disagree
            assert judged.disagree == bool(judged.apart) == (judged.leading is None)
    assert said["one"] / sweeps < 0.05 + 3 * math.sqrt(0.05 * 0.95 / sweeps)
    assert said["several"] / sweeps > 0.7


def test_a_price_of_mixtures_that_disagree_names_the_two_that_differ_most():
    rows = level_sweep(None, lambda level, n, m, s: n + 0.4 * (100 / n) ** 0.5 * m, sigmas=(SIGMA,))
    rng = np.random.default_rng(2)
    rows = [replace(r, value=r.value * math.exp(0.002 * rng.standard_normal())) for r in rows]
    judged = judge(level_tables(rows)[0], SIGMA, 0.9)
    assert judged.disagree
    worths = {b.cell.n_clean: b.worth.value for b in judged.own}
    assert max(worths, key=worths.get) == 50
    assert min(worths, key=worths.get) == 400
    assert judged.price.count("(") == 2
    assert "(50 + 200) to" in judged.price
    assert "above the noise level mixtures disagree" in judged.sentence()
    assert "(400 clean + 1,000 noisy)" in judged.sentence()
