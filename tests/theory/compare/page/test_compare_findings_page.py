"""docs/findings.md: every question answered from records, what is missing said, the same bytes twice, refusals."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compare_sweeps import record as score_record
from experiment_script import experiment
from level_sweeps import CLEAN, MIXED, SIGMA, formula, level_sweep, one_good, two_goods

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
    assert "Better than its clean part alone in 6 of 6" in section(text, "as good as the paper says")
    assert "than noisy images alone in 1 of 1" in section(text, "as good as the paper says")
    worse = findings.page(distances(np.random.default_rng(1), better=False), ["x"])
    assert re.search(r"its clean part alone in 0 of [1-6] certain", worse)


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
