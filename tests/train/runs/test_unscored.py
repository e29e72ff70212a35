"""`--no-score`: the same run, scored later, is the run that was scored on the way."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from invoke import ambient

from ambient_train.runs.directory import RunDirectory
from ambient_train.runs.run import execute
from ambient_train.runs.state import state_of
from ambient_train.settings.run_options import RunOptions, Schedule

OPTIONS = dataclasses.replace(tiny_run.OPTIONS, keep_checkpoints=1)
UNSCORED = dataclasses.replace(OPTIONS, score=False)


def run(path: Path, options: RunOptions, *score_at: int) -> Any:
    torch.set_num_threads(1)
    job = tiny_run.job()
    schedule = Schedule(duration_nimg=tiny_run.DURATION, score_at=score_at)
    return execute(dataclasses.replace(job, schedule=schedule), path, options)


@pytest.mark.parametrize("score_at", [(), (96, 200)])
def test_scoring_later_is_scoring_on_the_way(tmp_path: Path, score_at: tuple[int, ...]) -> None:
    assert run(tmp_path / "later", UNSCORED, *score_at) == {}
    assert not (tmp_path / "later" / "result.json").exists()
    assert state_of(tmp_path / "later").state == "trained"
    assert run(tmp_path / "later", UNSCORED, *score_at) == {}  # nothing to do
    lines = tiny_run.metrics(tmp_path / "later")
    assert set(run(tmp_path / "later", OPTIONS, *score_at)) == {*score_at, tiny_run.DURATION}
    assert tiny_run.metrics(tmp_path / "later") == lines
    run(tmp_path / "once", OPTIONS, *score_at)
    tiny_run.assert_same_run(tmp_path / "later", tmp_path / "once")


def test_the_best_checkpoint_of_every_point_is_kept_for_its_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The criterion falls at 16 images, then at 160: the best of the point at 96 is no longer the best at the end."""
    monkeypatch.setattr("ambient_train.runs.session.candidate_points", lambda batch, upto: tuple(range(16, upto, 16)))
    found = {16: 5.0, 160: 4.0}
    monkeypatch.setattr(
        "ambient_train.runs.session.Session._compare",
        lambda self: _noted(self, found.get(self.state.nimg, 9.0)),
    )
    run(tmp_path / "run", UNSCORED, 96)
    kept = {int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {16, 96, 160, 320} <= kept
    scores = run(tmp_path / "run", OPTIONS, 96)
    best = {r.extra["nimg"] for r in scores[96] if r.checkpoint == "heldout-best"}
    assert best == {16}


def _noted(session: Any, value: float) -> float:
    if session.state.best is None or value < session.state.best[1]:
        session.state.best = (session.state.nimg, value)
    return value


def test_metrics_are_repeated_where_a_later_checkpoint_is_damaged(tmp_path: Path) -> None:
    run(tmp_path / "run", UNSCORED, 96)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        if int(path.name) > 96:
            (path / "meta.json").write_text("{")
    run(tmp_path / "run", OPTIONS, 96)
    run(tmp_path / "once", OPTIONS, 96)
    tiny_run.assert_same_run(tmp_path / "run", tmp_path / "once")


def test_the_command_trains_alone_and_scores_later(tmp_path: Path, tiny_config: Path) -> None:
    words = ("train", "--config", tiny_config, "--outdir", tmp_path / "run", "--device", "cpu", "--quiet")
    first = ambient(*words, "--no-score")
    assert first.exit_code == 0, first.output
    assert "not scored: the same command without --no-score scores it" in first.stdout
    named = RunDirectory(tmp_path / "run").manifest()["config_hash"]
    then = ambient(*words)
    assert then.exit_code == 0, then.output
    assert "heldout-clean" in then.stdout or "heldout-cle" in then.stdout
    assert RunDirectory(tmp_path / "run").manifest()["config_hash"] == named
    assert state_of(tmp_path / "run").state == "done"
