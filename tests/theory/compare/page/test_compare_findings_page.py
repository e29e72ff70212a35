"""docs/findings.md: every question answered from records, what is missing said, the same bytes twice, refusals."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compare_sweeps import record as score_record
from compare_sweeps import sweep
from experiment_script import experiment
from level_sweeps import CLEAN, MIXED, SIGMA, formula, level_sweep, one_good, two_goods

from ambient_theory.compare.cells.grouping import group_records
from ambient_theory.compare.cells.tables import table_of
from ambient_theory.shared.records import write_records

ROOT = Path(__file__).parents[4]
SCRIPT = ROOT / "experiments" / "findings.py"
GOODS = two_goods(0.4, 1.2, 2.0)
HEADINGS = (
    "as good as the paper says",
    "worth, by level",
    "beside what is there already",
    "Which law survives",
    "H1",
    "H2",
    "Does the worth move",
    "left-out mixtures",
    "One worth, from scores alone",
    "Where it fails",
)


@pytest.fixture(scope="module")
def findings():
    return experiment("findings")


def distances(rng, better=True):
    """Distances of clean-only models, mixtures and the noisy part alone; better False: noisy images only hurt."""
    out = []
    cells = [*((n, 0) for n in CLEAN), *MIXED, (0, 300)]
    for n_clean, n_noisy in cells:
        size = n_clean + (0.4 if better else -0.02) * n_noisy if n_clean else 20.0
        for seed in range(3):
            value = (0.3 + (size / 100) ** -0.7) * np.exp(0.01 * rng.standard_normal())
            sigma_n = SIGMA if n_noisy else None
            out.append(score_record(n_clean, n_noisy, sigma_n, value, seed, duration_nimg=131_072, checkpoint="last"))
    return out


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    best = level_sweep(rng, formula, checkpoint="heldout-best", clean=(*CLEAN, 3200), scatter=0.01)
    return [*level_sweep(rng, GOODS, scatter=0.01), *best, *distances(rng)]


@pytest.fixture(scope="module")
def text(findings, rows):
    return findings.page(rows, ["made-up.jsonl"])


def section(text: str, heading: str) -> str:
    return re.split(r"\n#{2,3} ", text.split(heading, 1)[1], maxsplit=1)[0]


def test_every_question_has_an_answer_from_the_records(text):
    for heading in HEADINGS:
        assert heading in text
    assert "Missing: no record" not in text
    assert "| made-up | at fixed compute | 0.25 | two goods | rejected | rejected | rejected |" in text
    assert "above the noise it holds in 1 and fails in 0 of 1" in section(text, "### H1")
    assert "holds: 1" in section(text, "### H2")


def test_a_mixture_is_judged_against_its_parts_and_the_verdict_turns_with_the_truth(findings, text):
    for part in ("their clean part alone 6 are better, 0 worse", "noisy images alone 1 are better, 0 worse"):
        assert f"beside {part}" in section(text, "as good as the paper says")
        assert f"beside {part}" in section(text, "## In short")
    worse = findings.page(distances(np.random.default_rng(1), better=False), ["x"])
    assert re.search(r"their clean part alone 0 are better, [1-6] worse", worse)


def test_every_verdict_of_the_page_stands_at_its_top(text):
    short = section(text, "## In short")
    for words in (
        "noisy images for one clean one, above the noise: ",
        "some law fits all mixtures in",
        "H1: ",
        "H2, of 1",
    ):
        assert words in short
    assert "two goods predict the denoising error of a left-out mixture within" in short
    assert short.count("\n- ") == len(re.findall(r"(?m)^\*\*[^*]+\*\*$", text)) + 1  # and how much fails


@pytest.fixture(scope="module")
def mix_distances():
    return experiment("mix_distances")


def test_between_clean_sizes_as_many_clean_images_are_read_on_their_curve(mix_distances):
    rows = sweep(None, worth={0.2: 1.0}, error=lambda n: (n / 1_000) ** -0.7)
    [group] = group_records([replace(r, reference="heldout-clean") for r in rows])
    for m in mix_distances.mixtures(group):
        total = m.cell.n_clean + m.cell.n_noisy
        as_many = m.others[0]
        assert as_many.score == pytest.approx(m.score, rel=1e-6) == pytest.approx((total / 1_000) ** -0.7)
        assert as_many.read == (total != 60_000)
        assert as_many.verdict == ""  # copies are no replicates
    beyond = [r for r in rows if r.n_clean < 60_000]
    [group] = group_records([replace(r, reference="heldout-clean") for r in beyond])
    assert {m.others[0] for m in mix_distances.mixtures(group) if m.cell.n_clean + m.cell.n_noisy > 6_000} == {None}


def test_other_evaluations_are_other_conditions_and_the_score_that_is_tested_is_shown(mix_distances):
    rng = np.random.default_rng(7)
    rows = [replace(r, reference="heldout-clean") for r in sweep(rng, worth={0.2: 1.0})]
    rows = [r for r in rows if (r.n_clean, r.n_noisy, r.seed) != (600, 6_000, 2)]  # a seed that others have
    twice = [replace(r, evaluation={"sampler": {"steps": steps}}) for r in rows for steps in (12, 18)]
    conditions = mix_distances.by_condition(group_records(twice))
    assert [len(found) for found in conditions.values()] == [4, 4]
    [group] = group_records(rows)
    [lacking] = [m for m in mix_distances.mixtures(group) if (m.cell.n_clean, m.cell.n_noisy) == (600, 6_000)]
    pooled = table_of(group, group.cells)
    shown = float(np.exp(pooled.y[group.cells.index(lacking.cell)]))
    assert lacking.score == pytest.approx(shown, rel=1e-12)
    assert lacking.score != pytest.approx(float(np.exp(np.mean(np.log(lacking.cell.values)))), rel=1e-6)


def test_of_laws_that_cannot_be_tested_nothing_is_said_at_the_top(findings):
    one_seed = [r for r in level_sweep(np.random.default_rng(3), GOODS) if r.seed == 0]
    page = findings.page(one_seed, ["x"])
    assert "not testable" in page
    assert "fits all mixtures in" not in page


def test_equal_scores_are_called_different_as_rarely_as_stated_and_a_half_worth_is_seen(mix_distances):
    """320 sweeps, each with one mixture between sizes; the share of 5 % has a standard error of 1.2 %."""
    power = lambda n: (n / 1_000) ** -0.7  # noqa: E731
    rng, called = np.random.default_rng(5), {1.0: 0, 0.5: 0}
    for worth in called:
        for _ in range(320):
            rows = [r for r in sweep(rng, worth={0.2: worth}, error=power) if r.n_noisy in (0, 6_000)]
            [group] = group_records([replace(r, reference="heldout-clean") for r in rows])
            [mix] = [m for m in mix_distances.mixtures(group) if m.cell.n_clean == 6_000]
            called[worth] += mix.others[0].verdict != mix_distances.OPEN
    assert 0.05 - 3.5 * 0.0122 < called[1.0] / 320 < 0.05 + 3.5 * 0.0122
    assert called[0.5] / 320 > 0.5


def test_what_is_missing_is_said(findings):
    alone = findings.page(distances(np.random.default_rng(2)), ["x"])
    assert "Missing: no records with denoising errors" in alone
    assert "Not tested: no held-out best checkpoint" in alone
    assert "Not tested: no mixtures at fixed compute" in alone
    levels = findings.page(level_sweep(np.random.default_rng(3), GOODS), ["x"])
    assert "Missing: no record is a distance of a mixture" in levels
    assert "one duration only" in levels


def test_the_same_records_give_the_same_bytes_in_any_order_of_files(findings, rows, text):
    assert findings.page(rows, ["made-up.jsonl"]) == text


def test_a_failed_control_and_a_bad_prediction_stand_where_it_fails(findings):
    rng = np.random.default_rng(4)
    rows = level_sweep(rng, GOODS, scatter=0.01)
    rows += level_sweep(rng, one_good(0.2), sigmas=(0.001,), clean=(), scatter=0.01)
    fails = section(findings.page(rows, ["x"]), "## Where it fails")
    assert "the control at σ 0.001 fails" in fails


@pytest.mark.parametrize(
    ("line", "words"), [("{", "bad.jsonl:1"), ('{"schema": "ambient.result/9"}', "schema"), ("", "no")]
)
def test_records_that_cannot_be_read_are_refused_in_a_sentence(line, words, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n" if line else "")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(path), "--out", str(tmp_path / "f.md")],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert words in done.stderr
    assert not (tmp_path / "f.md").exists()


def test_the_page_of_a_sweep_is_written(rows, tmp_path):
    write_records(tmp_path / "a.jsonl", distances(np.random.default_rng(6)))
    command = [sys.executable, str(SCRIPT), str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "f.md")]
    subprocess.run(command, check=True, timeout=300)
    assert "`a.jsonl`" in (tmp_path / "f.md").read_text()
