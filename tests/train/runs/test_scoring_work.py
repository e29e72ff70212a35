"""What scores take is counted before: the evaluations of the network that a run then makes, and a tenth of its time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch

from ambient_theory.shared.records import HELDOUT_BEST
from ambient_train.evaluation.denoising import LEVELS
from ambient_train.networks.precond import EDMPrecond
from ambient_train.runs.heldout import HeldOut
from ambient_train.runs.resolve import resolve
from ambient_train.runs.run import execute
from ambient_train.runs.scoring_work import SHARE, scoring_work
from ambient_train.runs.session import Session
from ambient_train.settings.layers import settings_from
from ambient_train.settings.run_options import Schedule

TRAINED_OVER_EVALUATED = {"digits": 4.6, "small": 3.5}
"""Time of a training image over that of an evaluation on one core, Muon and averages included, about as measured; the
least that theory allows is 3."""


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images through the network without gradients."""
    counts: list[int] = []
    original = EDMPrecond.forward

    def forward(self: EDMPrecond, x: torch.Tensor, *arguments: Any, **keywords: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            counts.append(len(x))
        return original(self, x, *arguments, **keywords)

    monkeypatch.setattr(EDMPrecond, "forward", forward)
    return counts


@pytest.mark.parametrize("generate_at", ["every", "end"])
@pytest.mark.parametrize("best", [True, False])
def test_a_run_takes_what_was_counted(
    tmp_path: Path, evaluated: list[int], monkeypatch: pytest.MonkeyPatch, generate_at: str, best: bool
) -> None:
    """With the first candidate best for ever, so that nothing is saved, and previews off."""
    if best:
        monkeypatch.setattr("ambient_train.runs.heldout.FIRST_POINT", 64)
        values = iter(range(1000))
        original = HeldOut.quick
        monkeypatch.setattr(HeldOut, "quick", lambda *a: (original(*a), float(next(values)))[1])
        monkeypatch.setattr(Session, "_taken_over", lambda *_: [])
    evaluation = replace(tiny_run.EVALUATION, generate_at=generate_at, best=best)
    job = replace(tiny_run.job(), evaluation=evaluation, schedule=Schedule(duration_nimg=320, score_at=(128,)))
    execute(job, tmp_path / "run", replace(tiny_run.OPTIONS, samples_nimg=0))
    work = scoring_work(job)
    assert work.evaluations == sum(evaluated)
    assert work.generated == (2 if best else 1) * (2 if generate_at == "every" else 1) * evaluation.n
    assert (work.compare > 0) == best


def test_where_the_last_checkpoint_is_the_best_nothing_is_evaluated_twice(
    tmp_path: Path, evaluated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter(range(1000, 0, -1))
    monkeypatch.setattr(HeldOut, "quick", lambda *a: float(next(values)))
    job = replace(tiny_run.job(), schedule=Schedule(duration_nimg=320))
    found = execute(job, tmp_path / "run", replace(tiny_run.OPTIONS, samples_nimg=0))[320]
    assert {r.extra["nimg"] for r in found} == {320}
    assert {r.checkpoint for r in found} == {"last", HELDOUT_BEST}
    work, clean = scoring_work(job), tiny_run.EVALUATION.denoise
    assert sum(evaluated) == work.generate // 2 + clean * LEVELS


@pytest.mark.parametrize(("data", "preset"), [("digits", "digits"), ("photos32", "small")])
def test_scores_of_a_preset_take_about_a_tenth_of_its_training(data: str, preset: str) -> None:
    """A tenth where the last checkpoint is the best, half as much again at most."""
    job = resolve(settings_from({"data": data, "preset": preset}))
    work = scoring_work(job)
    train = job.schedule.duration_nimg * TRAINED_OVER_EVALUATED[preset]
    assert replace(work, generate=work.generate // 2).share(train, 1.0) <= SHARE
    assert work.share(train, 1.0) <= 1.5 * SHARE
