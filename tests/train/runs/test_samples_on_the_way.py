"""Grids of samples while a run trains: where they come, what they show, and that nothing depends on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from PIL import Image

from ambient_train.diffusion.sampler_settings import SamplerConfig
from ambient_train.runs import session
from ambient_train.runs.session import PREVIEW, PREVIEW_SHARE, Session
from ambient_train.settings.run_options import RunOptions, Schedule


def options(every: int | None, **more: object) -> RunOptions:
    return dataclasses.replace(tiny_run.OPTIONS, samples_nimg=every, **more)  # type: ignore[arg-type]


def grids(path: Path) -> dict[int, bytes]:
    return {int(p.stem): p.read_bytes() for p in (path / "samples").glob("*.png")}


def test_grids_change_neither_weights_nor_metrics_nor_scores(tmp_path: Path) -> None:
    tiny_run.run(tmp_path / "with", options(48))
    tiny_run.run(tmp_path / "without", options(0))
    tiny_run.assert_same_run(tmp_path / "with", tmp_path / "without")
    drawn = grids(tmp_path / "with")
    assert sorted(drawn) == [48, 96, 144, 192, 240, 288, 320]
    assert sorted(grids(tmp_path / "without")) == [320]  # that of the scores
    assert drawn[320] == grids(tmp_path / "without")[320]
    assert len({drawn[n] for n in (48, 144, 288)}) == 3


def test_a_run_that_is_continued_draws_the_same_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between a grid and the next checkpoint, and between a checkpoint and the next grid."""
    tiny_run.run(tmp_path / "once", options(48))
    monkeypatch.setattr(Session, "_save", _dies_at(112, Session._save))
    with pytest.raises(RuntimeError, match="killed"):
        tiny_run.run(tmp_path / "killed", options(48, checkpoint_nimg=56))
    monkeypatch.undo()
    assert 96 in grids(tmp_path / "killed")
    (tmp_path / "killed" / "samples" / f"{96:012d}.png").write_bytes(b"half")
    tiny_run.run(tmp_path / "killed", options(48))
    assert grids(tmp_path / "killed") == grids(tmp_path / "once")
    tiny_run.assert_same_run(tmp_path / "killed", tmp_path / "once")


def _dies_at(nimg: int, save: object) -> object:
    def saving(self: Session) -> None:
        if self.state.nimg >= nimg:
            raise RuntimeError("killed")
        save(self)  # type: ignore[operator]

    return saving


def test_a_grid_on_the_way_shows_the_first_images_of_the_one_that_scores_draw(tmp_path: Path) -> None:
    """The same seeds: the grid at the end of a run without scores is the beginning of the scored one's."""
    tiny_run.run(tmp_path / "run", options(320, score=False))
    few = np.asarray(Image.open(tmp_path / "run" / "samples" / f"{320:012d}.png"))
    tiny_run.run(tmp_path / "run", options(320))
    many = np.asarray(Image.open(tmp_path / "run" / "samples" / f"{320:012d}.png"))
    assert many.shape[0] > few.shape[0]
    row = few[: few.shape[0] // 4]
    assert np.array_equal(row[:, : row.shape[1] - 2], many[: row.shape[0], : row.shape[1] - 2])


def test_without_an_answer_grids_are_so_rare_that_they_cost_a_hundredth(tmp_path: Path) -> None:
    every = {}
    for steps in (12, 256):
        for duration in (10_000, 10_000_000):
            job = tiny_run.job()
            evaluation = dataclasses.replace(job.evaluation, sampler=SamplerConfig(steps=steps))
            asked = dataclasses.replace(job, evaluation=evaluation, schedule=Schedule(duration_nimg=duration))
            session = object.__new__(Session)
            session.job, session.options, session.evaluation = asked, RunOptions(), evaluation
            every[steps, duration] = session._preview_every()
            cost = PREVIEW * (2 * steps - 1) / 3  # in images trained on
            assert cost <= PREVIEW_SHARE * every[steps, duration]
    assert every[12, 10_000_000] == 1_000_000
    assert every[12, 10_000] > 10_000  # too short for one


def test_a_first_look_comes_early_where_grids_are_rare_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "FIRST_LOOK_S", 0.0)
    said: list[str] = []
    tiny_run.run(tmp_path / "early", options(None), talk=said.append)
    monkeypatch.setattr(session, "FIRST_LOOK_S", 1e9)
    tiny_run.run(tmp_path / "never", options(None))
    tiny_run.assert_same_run(tmp_path / "early", tmp_path / "never")
    assert sorted(grids(tmp_path / "early")) == [tiny_run.BATCH, 320]
    assert sorted(grids(tmp_path / "never")) == [320]
    (told,) = [s for s in said if "first look" in s]
    assert Path(told.split(": ")[1]).read_bytes() == grids(tmp_path / "early")[tiny_run.BATCH]


def test_no_first_look_where_grids_are_not_wanted_or_too_dear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FIRST_LOOK_S", 0.0)
    tiny_run.run(tmp_path / "none", options(0))
    monkeypatch.setattr(session, "FIRST_LOOK_COST_S", 0.0)
    tiny_run.run(tmp_path / "dear", options(None))
    assert sorted(grids(tmp_path / "none")) == sorted(grids(tmp_path / "dear")) == [320]
