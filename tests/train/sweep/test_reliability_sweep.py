"""A cell of a sweep is done only if its result is valid: whatever happens to the files, the table is the same."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch

from ambient_theory.shared.errors import StoppedError
from ambient_theory.shared.progress import ignore
from ambient_train.runs import run as running
from ambient_train.settings.layers import settings_from
from ambient_train.sweep.grid import Grid, SweepCell
from ambient_train.sweep.pool import CellOutcome, cell_state, check, run_sweep
from ambient_train.sweep.summary import summarise

SETTINGS: dict[str, Any] = {
    "data": "digits",
    "max_images": 96,
    "batch": 16,
    "precision": "fp32",
    "duration_nimg": 64,
    "score_at": [32],
    "network": {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
    "evaluation": {"n": 40, "extractors": ["pixels"], "metrics": ["fd"], "denoise": 16, "sampler": {"steps": 2}},
}
CELLS = tuple(
    SweepCell(name, 0, settings_from({**SETTINGS, **noise, "n_clean": clean, "n_noisy": 96 - clean, "seed": 0}))
    for name, clean, noise in (("clean", 96, {}), ("mixed", 10, {"sigma": 0.3}), ("few", 40, {"sigma": 0.3}))
)
GRID = Grid("tiny", "", CELLS, tuple(c.name for c in CELLS))


def table(outcomes: list[CellOutcome]) -> list[tuple[Any, ...]]:
    records = [r for outcome in outcomes for r in outcome.records]
    return [
        (s.cell, s.duration_nimg, s.metric, s.level, s.checkpoint, s.reference, s.mean)
        for s in summarise(records, GRID.order)
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[Any, ...]]]:
    torch.set_num_threads(1)
    runs = tmp_path_factory.mktemp("sweep")
    outcomes = run_sweep(GRID, runs)
    check(outcomes, GRID)
    return runs, table(outcomes)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("seed", range(3))
def test_cells_deleted_and_damaged_at_random_are_run_again_to_the_same_table(
    done: tuple[Path, list[tuple[Any, ...]]], tmp_path: Path, seed: int
) -> None:
    original, expected = done
    runs = Path(shutil.copytree(original, tmp_path / "runs"))
    generator = np.random.default_rng(seed)
    cells = list(CELLS)
    generator.shuffle(cells)  # type: ignore[arg-type]
    shutil.rmtree(cell_state(cells[0], runs)[1])
    flip(cell_state(cells[1], runs)[1] / "result.json")
    newest = sorted((cell_state(cells[1], runs)[1] / "checkpoints").iterdir())[-1]
    (newest / ["ema.safetensors", "manifest.json", "meta.json"][seed]).unlink()
    assert [cell_state(c, runs)[0] for c in cells] == ["missing", "started", "done"]
    outcomes = run_sweep(GRID, runs)
    check(outcomes, GRID)
    assert table(outcomes) == expected


def test_a_cell_of_another_config_in_its_place_is_not_taken_for_it(
    done: tuple[Path, list[tuple[Any, ...]]], tmp_path: Path
) -> None:
    runs = Path(shutil.copytree(done[0], tmp_path / "runs"))
    first, second = (cell_state(c, runs)[1] for c in CELLS[:2])
    shutil.copy(second / "result.json", first / "result.json")
    assert cell_state(CELLS[0], runs)[0] == "started"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR2, 75)])
def test_a_signal_stops_the_sweep_with_its_code_and_the_same_call_continues(
    done: tuple[Path, list[tuple[Any, ...]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    original: Callable[..., Any] = running.execute

    def disturbed(job: Any, *arguments: Any, **keywords: Any) -> Any:
        listener = tiny_run.send(number, "training", 48) if job.config.n_clean == 10 else ignore
        return original(job, *arguments, **keywords, listener=listener)

    monkeypatch.setattr(running, "execute", disturbed)
    outcomes = run_sweep(GRID, tmp_path)
    assert [o.state for o in outcomes] == ["done", "stopped"]
    with pytest.raises(StoppedError, match="stopped with 1 of 3 cells done") as caught:
        check(outcomes, GRID)
    assert caught.value.exit_code == code
    monkeypatch.setattr(running, "execute", original)
    assert table(run_sweep(GRID, tmp_path)) == done[1]
