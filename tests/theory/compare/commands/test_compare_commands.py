"""`compare`, `price` and `budget` as a person and a program meet them: what is read, said, refused, and how wide."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compare_sweeps import record, sweep
from typer.testing import CliRunner

import ambient_theory
from ambient_theory.shared.files import write_sealed
from ambient_theory.shared.records import write_records
from cli import app


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "sweep.jsonl"
    write_records(path, sweep(np.random.default_rng(0)))
    return str(path)


UNDECIDED = Path(ambient_theory.__file__).parent / "compare/shipped/price_fashion.jsonl"
"""Shipped scores that compute limits, so that they determine no price."""


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def compared(file, tmp_path_factory):
    """`ambient compare` of the file, and where its page is."""
    outdir = tmp_path_factory.mktemp("compared") / "r"
    return run("compare", file, "--outdir", outdir), outdir


@pytest.mark.slow
def test_compare_without_arguments_answers_from_what_ships(tmp_path):
    result = run("compare", "--outdir", tmp_path / "report", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["answers"]
    assert (tmp_path / "report" / "index.html").exists()


def test_compare_prints_its_answer_and_where_the_page_is(compared):
    result, outdir = compared
    assert result.exit_code == 0, result.output
    assert "one clean image is worth" in result.stdout
    assert str(outdir / "index.html") in result.stderr


def test_price_marks_what_was_not_measured(file):
    measured, other = (json.loads(run("price", "--sigma", s, file, "--json").stdout)["prices"][0] for s in (0.2, 0.4))
    assert measured["measured"] is True
    assert other["measured"] is False
    assert other["laws"]


def test_budget_recommends_a_mix_for_each_measured_level(file):
    result = run("budget", "--price-clean", 1, "--price-noisy", 0.3, "--budget", 20_000, file, "--json")
    answers = json.loads(result.stdout)["answers"]
    assert [a["sigma_n"] for a in answers] == [0.2, 0.6]
    assert answers[0]["best"]["n_noisy"] > 0
    assert answers[1]["best"]["n_noisy"] == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("compare", "nowhere.jsonl"), 3),
        (("compare", "--confidence", "2"), 2),
        (("compare", "--metric", "nonsense"), 3),
        (("price", "--sigma", "-1"), 2),
        (("budget", "--price-clean", "1", "--price-noisy", "0", "--budget", "5"), 2),
        (("budget", "--price-clean", "1", "--price-noisy", "1"), 2),
    ],
)
def test_bad_input_is_one_sentence_and_the_documented_exit_code(arguments, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()[-1]) > 20


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("{}\n")
    result = run("compare", path, "--outdir", tmp_path / "r")
    assert result.exit_code == 3
    assert "bad.jsonl:1" in result.stderr


# ------------------------------------------------------------------------------------------------------ what is read


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same sweep as run directories: one for each training, with its scores in a sealed result."""
    root = tmp_path_factory.mktemp("runs")
    for i, r in enumerate(sweep(np.random.default_rng(0))):
        point = {"nimg": r.duration_nimg, "evaluation": {}, "records": [r.to_dict()], "wall_s": 1.0}
        write_sealed(root / f"run-{i}" / "result.json", {"schema": "ambient.run-result/1", "points": [point]})
    return root


def prices(*arguments):
    result = run("price", "--sigma", "0.2", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_run_directories_are_read_as_the_file_of_their_records(runs, file):
    of_runs, of_file = prices(runs), prices(file)
    assert of_runs["prices"] == of_file["prices"]
    assert of_runs["read"] == {"records": 36, "runs": 36, "files": 0}
    assert of_file["read"] == {"records": 36, "runs": 0, "files": 1}
    assert prices(runs, file)["prices"] == of_file["prices"]  # a score that is read twice counts once
    assert prices(*sorted(runs.iterdir()))["prices"] == of_file["prices"]


def test_every_command_says_how_much_it_read(runs, tmp_path):
    said = "36 records of 36 runs"
    assert said in run("price", "--sigma", "0.2", runs).stderr
    assert said in run("compare", runs, "--outdir", tmp_path / "r").stderr
    assert said in run("budget", "--price-clean", 1, "--price-noisy", 0.3, "--budget", 20_000, runs).stderr


SHIPPED_PRICE = ("price", "--sigma", "0.2")
SHIPPED_BUDGET = ("budget", "--price-clean", "10", "--price-noisy", "1", "--budget", "5000")


def widest(output):
    """Width of the widest line of a table."""
    return max(len(line) for line in output.splitlines() if line.startswith(("│", "┃", "┏")))


@pytest.mark.parametrize("command", [SHIPPED_PRICE, pytest.param(SHIPPED_BUDGET, marks=pytest.mark.slow)])
def test_what_ships_is_said_to_be_not_your_data_in_tables_as_wide_as_a_terminal(command, file, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    said = run(*command).stdout
    assert said.startswith("not your data: 8x8 Fashion-MNIST")
    assert 80 - 25 < widest(said) <= 80
    assert "not your data" not in run(*command, file).output


def test_prices_know_whether_they_are_of_what_ships(file):
    assert prices()["shipped"] is True
    assert prices(file)["shipped"] is False


# ------------------------------------------------------------------------------------------------------ what is said


def test_a_price_ends_with_the_sentence_of_compare(file, compared):
    last = run("price", "--sigma", "0.2", file).stdout.strip().splitlines()[-1]
    assert last.startswith("made-up, σ 0.2: one clean image is worth")
    assert last in compared[0].stdout
    assert "do not determine the price" in run("price", "--sigma", "0.2", UNDECIDED).stdout.strip().splitlines()[-1]
    shipped = run("price", "--sigma", "0.2").stdout
    assert "fashion8, at fixed compute, σ 0.2: above the noise level" in shipped  # the evidence by level is among them
    assert "not measured (measured: 0.2, 0.6)" in run("price", "--sigma", "0.4", file).stdout


def test_nothing_is_recommended_where_nothing_is_determined(file):
    buy = ("budget", "--price-clean", "10", "--price-noisy", "1", "--budget", "5000")
    undecided = run(*buy, UNDECIDED)
    assert "is not determined" in undecided.stdout
    assert "recommended" not in undecided.stdout
    assert all(a["recommended"] is None for a in json.loads(run(*buy, UNDECIDED, "--json").stdout)["answers"])
    cheap = ("budget", "--price-clean", "1", "--price-noisy", "0.3", "--budget", "20000", "--sigma", "0.2", file)
    assert "recommended" in run(*cheap).stdout
    (answer,) = json.loads(run(*cheap, "--json").stdout)["answers"]
    assert answer["recommended"] == answer["best"]


def test_cells_that_score_alike_are_said_to_and_nothing_is_tested(tmp_path):
    rng = np.random.default_rng(3)
    rows = sweep(rng, error=lambda n: 38.65, scatter=0.004)
    path = tmp_path / "alike.jsonl"
    write_records(path, [record(r.n_clean, r.n_noisy, r.sigma_n, r.value, r.seed, extra={"floor": 1.7}) for r in rows])
    result = run("compare", path, "--outdir", tmp_path / "r")
    assert "all cells score alike (38" in result.stdout
    assert "far from the floor (1.7): undertrained" in result.stdout
    assert "train longer or add seeds" in result.stdout
    assert "fits" not in result.stdout
    stored = json.loads((tmp_path / "r" / "fit.json").read_text())["groups"][0]
    assert {c["verdict"] for c in stored["single_c"]["laws"].values()} == {"not testable"}
    assert (stored["two_term"], stored["held_out"]) == ({}, [])
    assert "all cells score alike" in run("price", "--sigma", "0.2", path).stdout


# ------------------------------------------------------------------------------------------------------ the terminal


def in_a_process(*arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "PYTHONIOENCODING", "PYTHONUTF8", "LC_ALL")}
    return subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        capture_output=True,
        env={**clean, **environment},
        check=False,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 120])
def test_tables_are_as_wide_as_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (SHIPPED_PRICE, SHIPPED_BUDGET):
        assert width - 25 < widest(run(*command).stdout) <= width


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_a_stream_that_cannot_hold_sigma_gets_the_word(encoding, file, tmp_path):
    for command in (
        ("price", "--sigma", "0.2", file),
        ("budget", "--price-clean", "10", "--price-noisy", "1", "--budget", "500", file),
        ("simulate-gmm", "--n", "1e3,1e4,1e5", "--reps", "4", "--bins", "150", "--outdir", tmp_path / encoding),
    ):
        found = in_a_process(*command, PYTHONIOENCODING=encoding)
        assert found.returncode == 0, found.stderr[-500:]
        text = found.stdout.decode(encoding)
        assert b"Traceback" not in found.stderr
        assert "?" not in text
    last = in_a_process("price", "--sigma", "0.2", file, PYTHONIOENCODING=encoding)
    assert "sigma 0.2" in last.stdout.decode(encoding)


def test_price_waits_for_no_library_that_it_does_not_need(file):
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom cli import app\n"
        f"result = CliRunner().invoke(app, ['price', '--sigma', '0.2', {file!r}])\n"
        "assert result.exit_code == 0, result.output\n"
        "print([m for m in ('scipy.stats', 'scipy.optimize', 'matplotlib', 'sympy', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert out.stdout.strip() == "[]"


def test_compare_replaces_its_own_page_and_no_other_file(file, compared, tmp_path):
    _, own = compared
    assert run("compare", file, "--outdir", own).exit_code == 0
    (tmp_path / "table.csv").write_text("of a sweep\n")
    refused = run("compare", file, "--outdir", tmp_path)
    assert (refused.exit_code, "holds table.csv and no page of ambient" in refused.stderr) == (2, True), refused.output
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "of a sweep\n"
