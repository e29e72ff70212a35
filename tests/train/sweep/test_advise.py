"""`sweep plan --target price`: chosen cells are a grid of their own, and a sweep may grow while it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from invoke import ambient

from ambient_theory.shared.records import write_records
from ambient_train.settings.layers import read_toml
from ambient_train.sweep.grid import read_grid, write_grid
from ambient_train.sweep.pool import CellOutcome, run_sweep

sys.path.insert(0, str(Path(__file__).parents[2] / "theory" / "compare"))

GRID = """
name = "candidates"
description = "a \\"quoted\\" word"
seeds = [0]

[base]
data = "digits"
duration_nimg = 131072
score_at = [65536]
network = { model_channels = 4, channel_mult = [1, 2] }
evaluation = { n = 40, extractors = ["pixels"], denoise = 16, best = false, sampler = { steps = 2 } }

""" + "\n".join(
    [
        *(f'[[cell]]\nname = "c{n}"\nn_clean = {n}' for n in (50, 100, 200, 400, 800)),
        *(f'[[cell]]\nname = "m{n}"\nn_clean = {n}\nn_noisy = 400\nsigma = [0.25, 0.6]' for n in (50, 100)),
    ]
)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def plan(grid: Path, *more: object) -> dict[str, object]:
    found = ambient("sweep", "plan", grid, "--target", "price", "--runs", grid.parent / "runs", "--json", *more)
    assert found.exit_code == 0, found.output
    answer: dict[str, object] = json.loads(found.stdout)
    return answer


def test_a_plan_without_records_spreads_and_is_a_grid(tmp_path: Path, grid: Path) -> None:
    answer = plan(grid, "--sigma", 0.25, "--cells", 10, "--outdir", tmp_path)
    assert "nothing is measured yet" in str(answer["known"])
    chosen = read_grid(tmp_path / "candidates-next.toml")
    assert len(chosen.cells) == 10
    assert {c.seed for c in chosen.cells} == {0, 1}
    asked = read_grid(grid)
    settings = {c.name: c.settings.train for c in asked.cells}
    for cell in chosen.cells:
        same = settings[cell.name]
        assert cell.settings.train.differences({**same.to_dict(), "seed": cell.seed}) == []
        assert cell.settings.schedule == asked.cells[0].settings.schedule


def test_records_make_it_a_design_with_predictions_and_fresh_seeds(tmp_path: Path, grid: Path) -> None:
    from level_sweeps import level_sweep, one_good

    cells = {"clean": (50, 100, 200, 400, 800), "mixed": ((50, 400),)}
    write_records(tmp_path / "known.jsonl", level_sweep(np.random.default_rng(0), one_good(0.3), seeds=2, **cells))
    answer = plan(grid, tmp_path / "known.jsonl", "--sigma", 0.25, "--budget", "640k", "--outdir", tmp_path)
    steps = answer["steps"]
    assert isinstance(steps, list)
    assert len(steps) == 4  # of 131,072 images each
    factors = [answer["factor_now"], *(s["predicted_factor"] for s in steps)]
    assert factors == sorted(factors, reverse=True)
    assert min(answer["seeds"]) >= 2 if steps[0]["n_clean"] == 50 else True
    again = plan(grid, tmp_path / "known.jsonl", "--sigma", 0.25, "--budget", "640k", "--outdir", tmp_path)
    assert again == answer


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sigma", "0.25", "--cells", "3"], "add --target price"),
        (["--target", "price", "--cells", "3"], "needs --sigma"),
        (["--target", "price", "--sigma", "0.25"], "needs --cells or --budget"),
        (["--target", "price", "--sigma", "0.25", "--cells", "3", "--budget", "1M"], "needs --cells or --budget"),
        (["--target", "price", "--sigma", "0.9", "--cells", "3"], "it has 0.25, 0.6"),
        (["--target", "fd", "--sigma", "0.9", "--cells", "3"], "not one of price"),
    ],
)
def test_half_a_question_is_refused(grid: Path, options: list[str], words: str) -> None:
    found = ambient("sweep", "plan", grid, *options)
    assert found.exit_code == 2
    assert words in found.stderr


def test_another_file_of_that_name_stays(tmp_path: Path, grid: Path) -> None:
    mine = tmp_path / f"{read_grid(grid).name}-next.toml"
    mine.write_text("mine")
    asked = ("sweep", "plan", grid, "--target", "price", "--sigma", 0.25, "--cells", 3, "--outdir", tmp_path, "--json")
    first = json.loads(ambient(*asked).stdout)
    assert Path(first["grid"]).name == f"{mine.stem}-2.toml"
    assert read_grid(Path(first["grid"])).name == f"{mine.stem}-2"  # whose results have a folder of their own
    assert json.loads(ambient(*asked).stdout) == first
    assert mine.read_text() == "mine"


def test_a_written_grid_reads_as_it_was(tmp_path: Path, grid: Path) -> None:
    table = read_toml(grid)
    write_grid(tmp_path / "copy.toml", table)
    assert read_toml(tmp_path / "copy.toml") == table


TINY = """
name = "growing"
[base]
data = "digits"
duration_nimg = 32
batch = 16
network = { model_channels = 4, channel_mult = [1, 2], emb_channels = 8 }
evaluation = { n = 40, extractors = ["pixels"], metrics = ["fd"], denoise = 16, best = false, sampler = { steps = 2 } }
[[cell]]
name = "first"
n_clean = 50
[[cell]]
name = "second"
n_clean = 100
"""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.multiproc)])
def test_a_sweep_may_grow_while_it_runs(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(TINY)
    grid = read_grid(path)
    later = read_grid(path).cells[0]
    heard: list[str] = []

    def more(outcome: CellOutcome) -> list[object]:
        heard.append(outcome.cell.label)
        if len(heard) != 1:
            return []
        from dataclasses import replace

        settings = replace(later.settings, train=replace(later.settings.train, seed=5))
        return [replace(later, name="third", seed=5, settings=settings)]

    found = run_sweep(grid, tmp_path / "runs", workers=workers, more=more)  # type: ignore[arg-type]
    assert [o.cell.name for o in found] == ["first", "second", "third"]
    assert {o.state for o in found} == {"done"}
    assert sorted(heard) == ["first seed 0", "second seed 0", "third seed 5"]
