"""`ambient sweep init`: the grid that it writes is one that `sweep plan` takes, with all that its comments offer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from invoke import ambient

from ambient_train.runs.resolve import resolve
from ambient_train.sweep.grid import read_grid


def test_the_grid_is_planned(tmp_path: Path) -> None:
    grid = tmp_path / "mine.toml"
    written = ambient("sweep", "init", grid, "--sigma", 0.2, "--sigma", 0.4, "--duration", "10k", "--seeds", 3)
    assert written.exit_code == 0, written.output
    assert "4 cells, 12 trainings" in written.stdout
    plan = ambient("sweep", "plan", grid, "--json")
    assert plan.exit_code == 0, plan.output
    cells = {cell["cell"]: cell for cell in json.loads(plan.stdout)["cells"]}
    assert list(cells) == ["clean", "mixture sigma 0.2", "mixture sigma 0.4", "clean part alone"]
    mixture, alone = cells["mixture sigma 0.4"], cells["clean part alone"]
    assert (mixture["n_clean"], mixture["n_noisy"], mixture["sigma_n"]) == (144, 1298, 0.4)
    assert (alone["n_clean"], alone["n_noisy"]) == (mixture["n_clean"], 0)
    assert all(cell["train_nimg"] == 30_000 for cell in cells.values())


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_the_clean_part_is_that_of_the_mixture(tmp_path: Path, share: float) -> None:
    grid = tmp_path / "grid.toml"
    assert ambient("sweep", "init", grid, "--corruption", share).exit_code == 0
    jobs = {cell.name: resolve(cell.settings).config for cell in read_grid(grid).cells}
    assert jobs["clean part alone"].n_clean == jobs["mixture"].n_clean
    assert jobs["clean"].n_clean == jobs["mixture"].n_clean + jobs["mixture"].n_noisy


def test_clean_cells_take_no_noisy_image_of_data_that_came_with_some(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "partly.npz", images=images, sigma=np.repeat([0.0, 0.3], [20, 40]))
    grid = tmp_path / "grid.toml"
    made = ambient("sweep", "init", grid, "--data", tmp_path / "partly.npz", "--corruption", 0.75, "--sigma", 0.3)
    assert made.exit_code == 0, made.output
    alone = next(c for c in read_grid(grid).cells if c.name == "clean part alone")
    config = resolve(alone.settings).config
    assert config.n_noisy == 0
    assert config.n_clean > 0


def test_what_the_comments_offer_is_taken(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    assert ambient("sweep", "init", grid).exit_code == 0
    lines = grid.read_text().splitlines()
    offered = [line[2:] if line.startswith("# ") and ("=" in line or "[[" in line) else line for line in lines]
    assert offered != lines
    grid.write_text("\n".join(offered).replace("resolution = 32", "resolution = 8").replace("100k", "60k"))
    cells = {cell.name: cell.settings for cell in read_grid(grid).cells}
    noisy = cells["noisy only"]
    assert (noisy.amounts.corruption, noisy.train.sigma_n) == (1.0, 0.2)
    assert (noisy.train.resolution, noisy.train.max_images, noisy.schedule.score_at) == (8, 2000, (50_000, 60_000))
    assert noisy.evaluation.sampler.to_dict()["stop_sigma"] == 0.2
    assert cells["clean"].evaluation.n == 1000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["grid.json"], 2, "ends in .toml"),
        (["there.toml"], 2, "--overwrite"),
        (["nowhere/grid.toml"], 3, "no such directory"),
        (["grid.toml", "--sigma", "0"], 2, "must be > 0"),
        (["grid.toml", "--corruption", "1"], 2, "must be > 0 and < 1"),
        (["there.toml", "--overwrite", "--sigma", "0.2", "--sigma", "0.2"], 2, "two cells are called"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "there.toml").write_text("mine")
    result = ambient("sweep", "init", tmp_path / arguments[0], *arguments[1:])
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "there.toml").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["there.toml"]


def test_odd_names_are_written_as_they_are_and_data_that_are_not_here_are_said(tmp_path: Path) -> None:
    data = str(tmp_path / 'my "photos" \x1b[0m')
    grid = tmp_path / "a\nb.toml"
    result = ambient("sweep", "init", grid, "--data", data)
    assert result.exit_code == 0, result.output
    assert "is not here" in result.stderr
    assert "\x1b" not in result.output
    assert {cell.settings.train.data for cell in read_grid(grid).cells} == {data}
