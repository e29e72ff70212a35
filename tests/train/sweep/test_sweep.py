"""Sweeps: finished cells are skipped, damaged ones are run again, the table is the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoke import ambient

from ambient_theory.shared.errors import DataError, UsageError
from ambient_theory.shared.reading import read_records
from ambient_train.sweep import pool, report
from ambient_train.sweep.grid import SweepCell, read_grid

GRID = """
name = "tiny"
seeds = [0, 1]

[base]
data = "digits"
duration_nimg = 64
score_at = [32, 64]
batch = 16
precision = "fp32"
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 16, best = false, sampler = { steps = 2 } }

[[cell]]
name = "clean"

[[cell]]
name = "mixed"
corruption = 0.9
sigma = [0.2, 0.6]
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def test_grid_expands_to_independent_cells_whole_replicates_first(grid: Path) -> None:
    cells = read_grid(grid).cells
    assert [c.label for c in cells] == [
        *("clean seed 0", "mixed sigma 0.2 seed 0", "mixed sigma 0.6 seed 0"),
        *("clean seed 1", "mixed sigma 0.2 seed 1", "mixed sigma 0.6 seed 1"),
    ]


def test_tables_of_a_cell_are_merged_with_those_of_the_base(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        GRID + '\n[[cell]]\nname = "own"\nnetwork = { channel_mult = [1] }\n'
        "evaluation = { sampler = { stop_sigma = 0.2 } }\n"
        '[[cell]]\nname = "distilled"\ndistill = "own"\nevaluation = { n = 50 }\n'
    )
    plain, *_, own, distilled = (c.settings for c in read_grid(path).cells if c.seed == 0)
    assert own.train.network == {"model_channels": 4, "channel_mult": [1], "emb_channels": 8}
    assert (own.evaluation.n, own.evaluation.extractors) == (plain.evaluation.n, plain.evaluation.extractors)
    assert own.evaluation.sampler == replace(plain.evaluation.sampler, stop_sigma=0.2)
    assert (distilled.evaluation.n, distilled.evaluation.extractors) == (50, plain.evaluation.extractors)
    path.write_text(GRID + '\n[[cell]]\nname = "odd"\nnetwork = 3\n')
    with pytest.raises(UsageError, match="cell 'odd': network must be a table"):
        read_grid(path)


def test_sweep_skips_what_is_done_and_runs_again_what_is_damaged(tmp_path: Path, grid: Path) -> None:
    runs = tmp_path / "runs"
    first = ambient("sweep", "run", grid, "--runs", runs, "--device", "cpu", "--json", "--quiet")
    assert first.exit_code == 0, first.output
    answer = json.loads(first.stdout)
    assert answer["cells"] == {"done": 6}
    records = (runs / "sweep-tiny" / "records.jsonl").read_text()
    assert len(records.splitlines()) == 6 * 2 * (2 + 17)  # cells, durations; references, levels and their total
    row = answer["summary"][0]
    assert row["seeds"] == 2
    assert row["stderr"] > 0

    directories = sorted(p for p in runs.iterdir() if p.name.startswith("digits"))
    stamps = {p: (p / "result.json").stat().st_mtime_ns for p in directories}
    result = directories[0] / "result.json"
    result.write_text(result.read_text().replace('"value": ', '"value": 1', 1))
    (directories[1] / "result.json").unlink()
    shutil.rmtree(directories[2])
    status = ambient("sweep", "status", grid, "--runs", runs, "--json")
    assert json.loads(status.stdout)["counts"] == {"done": 3, "started": 2, "missing": 1}

    again = ambient("sweep", "run", grid, "--runs", runs, "--device", "cpu", "--json", "--quiet")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["summary"] == answer["summary"]
    untouched = directories[3:]
    assert all((p / "result.json").stat().st_mtime_ns == stamps[p] for p in untouched)
    strip = lambda text: [  # noqa: E731
        {k: v for k, v in json.loads(line).items() if k != "wall_s"} for line in text.splitlines()
    ]
    assert strip((runs / "sweep-tiny" / "records.jsonl").read_text()) == strip(records)


def test_a_failing_cell_does_not_stop_the_others(tmp_path: Path, grid: Path) -> None:
    grid.write_text(GRID + '\n[[cell]]\nname = "impossible"\nn_clean = 999999\n')
    result = ambient("sweep", "run", grid, "--runs", tmp_path / "runs", "--device", "cpu", "--json", "--quiet")
    assert result.exit_code == 5
    answer = json.loads(result.stdout)
    assert answer["cells"] == {"done": 6, "failed": 2}
    assert "999999" in answer["failed"][0]["message"]


def test_a_folder_with_the_results_of_another_grid_is_refused_before_anything_is_run(
    tmp_path: Path, grid: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    record = {"source": "train", "dataset": "digits", "n_clean": 3, "n_noisy": 0, "sigma_n": None, "metric": "fd"}
    more = {"extractor": "pixels:0", "value": 1.0, "stderr": None, "n_eval": 40, "seed": 0, "config_hash": "x"}
    line = json.dumps({"schema": "ambient.result/2", **record, **more, "cell": "theirs"}) + "\n"
    (out / "records.jsonl").write_text(line)
    result = ambient("sweep", "run", grid, "--runs", tmp_path / "runs", "--outdir", out, "--quiet")
    assert (result.exit_code, "theirs" in result.stderr) == (2, True)
    assert (out / "records.jsonl").read_text() == line
    assert not (tmp_path / "runs").exists()


def test_a_sweep_that_dies_leaves_the_records_of_what_was_done(
    tmp_path: Path, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        """As a kill: nothing catches it."""

    def died(*_: object) -> None:
        raise Died

    monkeypatch.setattr(report, "REWRITE_S", 0.0)
    monkeypatch.setattr(report, "report", died)
    with pytest.raises(Died):
        report.run_grid(grid, tmp_path / "runs", device="cpu", quiet=True)
    left = read_records(tmp_path / "runs" / "sweep-tiny" / "records.jsonl")
    assert [(r.cell, r.seed) for r in left[:: 2 * 19]] == [(c.name, c.seed) for c in read_grid(grid).cells]


def test_records_stay_of_what_a_later_command_does_not_get_to(
    tmp_path: Path, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    run = ("sweep", "run", grid, "--runs", runs, "--outdir", out, "--device", "cpu", "--quiet")
    assert ambient(*run).exit_code == 0
    files = {name: (out / name).read_bytes() for name in (report.RECORDS, report.TABLE)}
    shutil.rmtree(runs)  # as on another machine: every cell is trained again
    one = pool.run_cell

    def stopped_at_the_second(cell: SweepCell, *arguments: Any) -> pool.CellOutcome:
        if cell.label.startswith("mixed"):
            return pool.CellOutcome(cell, "stopped", message="stopped", exit_code=130)
        return one(cell, *arguments)

    monkeypatch.setattr(pool, "run_cell", stopped_at_the_second)
    monkeypatch.setattr(report, "REWRITE_S", 0.0)
    again = ambient(*run, "--json")
    assert again.exit_code == 130
    assert json.loads(again.stdout)["earlier"] == [
        *("mixed sigma 0.2 seed 0", "mixed sigma 0.6 seed 0", "clean seed 1"),
        *("mixed sigma 0.2 seed 1", "mixed sigma 0.6 seed 1"),
    ]
    assert (out / report.TABLE).read_bytes() == files[report.TABLE]
    assert len(list(read_records(out / report.RECORDS))) == len(files[report.RECORDS].splitlines())
    grid.write_text(GRID.replace("seeds = [0, 1]", "seeds = [0]").replace("batch = 16", "batch = 16\nlr = 0.5"))
    edited = ambient(*run, "--json")
    assert edited.exit_code == 130
    assert json.loads(edited.stdout)["left_out"] == ["clean seed 1"]
    kept = {(r.cell, r.seed) for r in read_records(out / report.RECORDS)}
    assert ("clean", 1) not in kept  # the cell is trained in another way now
    assert {("mixed sigma 0.2", 1), ("mixed sigma 0.6", 1)} <= kept


@pytest.mark.multiproc
@pytest.mark.slow
def test_workers_give_the_records_of_one_process(tmp_path: Path, grid: Path) -> None:
    answers = []
    for workers in (1, 2):
        runs = tmp_path / f"runs{workers}"
        result = ambient("sweep", "run", grid, "--runs", runs, "--workers", workers, "--device", "cpu", "--json", "-q")
        assert result.exit_code == 0, result.output
        answers.append(json.loads(result.stdout)["summary"])
    assert answers[0] == answers[1]


def test_plan_counts_cells_and_images(grid: Path) -> None:
    result = ambient("sweep", "plan", grid, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["cells"]
    assert [r["train_nimg"] for r in rows] == [128, 128, 128]
    assert [r["generate_nimg"] for r in rows] == [160, 160, 160]


@pytest.mark.parametrize("idle", ["--outdir", "--runs"])
def test_a_plan_without_a_target_has_no_use_for_folders(tmp_path: Path, grid: Path, idle: str) -> None:
    refused = ambient("sweep", "plan", grid, idle, tmp_path / "x")
    assert (refused.exit_code, f"{idle} is for a chosen grid: add --target price" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", UsageError),
        ("cell = 3", UsageError),
        ("colour = 1\n" + GRID, UsageError),
        (GRID.replace('name = "clean"', ""), UsageError),
        (GRID.replace('name = "clean"', 'name = "mixed sigma 0.2"'), UsageError),
        (GRID.replace("[0, 1]", '["a"]'), UsageError),
        (GRID.replace('["fd"]', '["fjd"]'), UsageError),
        (GRID.replace('["pixels"]', '["pixel"]'), UsageError),
        ("[[[", DataError),
    ],
)
def test_wrong_grids_are_refused(tmp_path: Path, text: str, error: type[Exception]) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(error):
        read_grid(path)
    assert ambient("sweep", "run", path, "--runs", tmp_path / "r").exit_code in (2, 3)


def test_what_is_shown_of_a_sweep_fits_the_terminal_and_says_what_the_scores_leave_out(
    tmp_path: Path, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid.write_text(GRID.replace("seeds = [0, 1]", "seeds = [0]").replace("n = 40", "n = 48"))
    monkeypatch.setenv("COLUMNS", "80")
    shown = ambient("sweep", "run", grid, "--runs", tmp_path / "runs", "--device", "cpu", "--quiet")
    assert shown.exit_code == 0, shown.output
    table = [line for line in shown.stdout.splitlines() if line.startswith(("┃", "│"))]
    assert table
    assert max(map(len, table)) <= 80
    assert "48 generated images in 64 dimensions" in shown.stdout
    assert "score of as many clean images (drawn with replacement where there are fewer): pixels" in shown.stdout
