"""Records that cannot be used, or that say less than they seem to: one sentence each, for every command that reads."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from compare_sweeps import record, sweep
from level_sweeps import level_sweep, one_good
from typer.testing import CliRunner

from ambient_theory.shared.records import write_records
from cli import app

BUY = ("budget", "--price-clean", "1", "--price-noisy", "0.3", "--budget", "20000")
PRICE = ("price", "--sigma", "0.2")


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.mark.parametrize(
    "command", [("compare", "--outdir", "unused"), PRICE, BUY, ("price", "--sigma", "0.2", "--from")]
)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no "),  # no record, or no denoising error among them
        ("not json\n", ":1: "),
        ('{"schema": "ambient.result/9"}\n', "schema 'ambient.result/9' is unknown"),
        ('{"schema": "ambient.result/2", "colour": 1}\n', "unknown field(s) colour"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(command, text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(text)
    result = run(*command, "rows.jsonl")
    assert result.exit_code == 3, result.output
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()[-1]) < 400
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sigma_n": None}, "noisy images and no sigma_n"),
        ({"n_clean": 0, "n_noisy": 0}, "neither clean nor noisy"),
        ({"metric": "denoise", "level": 0.1, "value": -1.0}, "both must be > 0"),
    ],
)
def test_a_record_that_says_too_little_is_said_with_its_file(changes, words, tmp_path):
    rows = [replace(r, **changes) if r.n_noisy else r for r in sweep(None, seeds=1)]
    write_records(tmp_path / "rows.jsonl", rows)
    for command in (("compare", "--outdir", tmp_path / "out"), PRICE, BUY):
        result = run(*command, tmp_path / "rows.jsonl")
        assert result.exit_code == 3
        assert result.stderr.splitlines()[-1].startswith(f"ambient: {tmp_path / 'rows.jsonl'}: ")
        assert words in result.stderr


def test_numbers_that_no_machine_word_holds_and_no_json_are_compared(tmp_path):
    rows = [
        json.dumps(r.to_dict() | {"value": 10**19 + k, "evaluation": {"seed": 1, "sampler": {"rho": "@"}}})
        for k, r in enumerate(sweep(None, seeds=2))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows).replace('"@"', "NaN"))
    result = run("compare", tmp_path / "rows.jsonl", "--outdir", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output


def test_a_broken_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_records(path, sweep(None, seeds=1))
    path.write_text(path.read_text() + "{\n")
    count = len(sweep(None, seeds=1))
    assert f"rows.jsonl:{count + 1}:" in run(*PRICE, path).stderr


def prices(path):
    result = run(*PRICE, path, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["prices"]


def test_scores_of_two_extractors_or_samplers_never_meet_in_one_price(tmp_path):
    alone, mixed = tmp_path / "alone.jsonl", tmp_path / "mixed.jsonl"
    rows = sweep(np.random.default_rng(0))
    write_records(alone, rows)
    other = sweep(np.random.default_rng(1), extractor="pixels:00000000", worth={0.2: 0.05, 0.6: 0.01})
    steps = sweep(np.random.default_rng(2), evaluation={"sampler": {"steps": 9}}, worth={0.2: 0.05, 0.6: 0.01})
    write_records(mixed, [*rows, *other, *steps])
    of_rows = prices(alone)[0]["price_1_over_c"]
    found = prices(mixed)
    assert len(found) == 3
    assert of_rows in [p["price_1_over_c"] for p in found]


def test_one_seed_gives_no_interval_and_says_so(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_records(path, sweep(np.random.default_rng(0), seeds=1))
    assert "one training seed a cell, so no interval can be given" in run(*PRICE, path).stdout
    write_records(path, level_sweep(np.random.default_rng(0), one_good(0.3), seeds=1, sigmas=(0.2,)))
    assert "no price; no scatter over training seeds" in run(*PRICE, path).stdout


def test_cells_of_one_size_price_nothing_and_say_what_to_train(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = level_sweep(None, one_good(0.3), clean=(100,), sigmas=(0.2,))
    write_records(path, rows)
    refused = run(*PRICE, path)
    assert refused.exit_code == 3
    assert "have the same 100 images; train some at a smaller and at a larger number" in refused.stderr
    write_records(
        path, [record(600, 0, None, 1.0, s) for s in range(3)] + [record(600, 6000, 0.2, 0.9, s) for s in range(3)]
    )
    refused = run(*PRICE, path)
    assert refused.exit_code == 3
    assert "all cells have the same number of clean samples" in refused.stderr
