"""How long a training takes is told where it is long, with flags that end it in ten minutes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoke import ambient
from PIL import Image

from ambient_train.diffusion.sampler_settings import OneStep, SamplerConfig, evaluations
from ambient_train.runs.resolve import Job, resolve
from ambient_train.runs.scoring_work import scoring_work
from ambient_train.settings.layers import settings_from
from ambient_train.settings.run_options import Schedule
from ambient_train.tasks import forecast as module
from ambient_train.tasks.forecast import AIM_S, forecast, may_take_long
from ambient_train.training.cost import StepCost


def job_of(duration: int, n: int = 2000) -> Job:
    job = resolve(settings_from({"data": "digits"}))
    return replace(job, schedule=Schedule(duration_nimg=duration), evaluation=replace(job.evaluation, n=n))


def cost(train: float, passes: float) -> StepCost:
    return StepCost(1, 1, train, passes, 0, 0, 0)


def seconds(job: Job, at: StepCost, duration: int, n: int) -> float:
    short = Schedule(duration_nimg=duration)
    work = scoring_work(replace(job, schedule=short, evaluation=replace(job.evaluation, n=n)))
    return duration / at.train_img_per_s + work.evaluations / at.evaluations_per_s


def test_what_ends_within_a_quarter_of_an_hour_needs_no_words() -> None:
    job, fast = job_of(60_000), cost(200.0, 600.0)
    assert seconds(job, fast, 60_000, 2000) < 900
    assert forecast(job, fast) is None


@pytest.mark.parametrize(("train", "passes"), [(200.0, 600.0), (40.0, 100.0), (600.0, 300.0)])
def test_the_flags_that_are_named_end_within_ten_minutes(train: float, passes: float) -> None:
    job, at = job_of(1_000_000), cost(train, passes)
    said = forecast(job, at)
    assert said is not None
    found = dict(re.findall(r"--(duration|n-eval) (\d+)", said))
    n = int(found.get("n-eval", 2000))
    assert 0.5 * AIM_S < seconds(job, at, int(found["duration"]), n) <= AIM_S
    assert f"({train:.3g} img/s)" in said


def test_where_nothing_ends_in_ten_minutes_smaller_images_are_named() -> None:
    said = forecast(job_of(1_000_000), cost(1.0, 3.0))
    assert said is not None
    assert "for a first look give" in said
    assert "within about ten minutes" not in said


def test_scores_that_are_not_wanted_are_not_counted() -> None:
    job, at = job_of(20_000, n=20_000), cost(100.0, 100.0)
    assert "scoring (up to 40,000 generated ones)" in str(forecast(job, at))  # the last and the held-out best
    assert forecast(job, at, score=False) is None


def test_passes_through_the_network() -> None:
    assert evaluations(SamplerConfig(steps=18)) == 35
    assert evaluations(SamplerConfig(steps=18, solver="euler")) == 18
    assert evaluations(OneStep()) == 1


def test_a_short_training_measures_nothing() -> None:
    assert not may_take_long(job_of(10_000))
    assert may_take_long(job_of(10_000_000))


def test_a_folder_of_photographs_is_told_its_time_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_config: Path
) -> None:
    monkeypatch.setattr(module, "measure", lambda *_, **__: cost(30.0, 90.0))
    monkeypatch.setattr(module, "SURELY_SHORT", 0.0)
    monkeypatch.setattr(module, "LONG_S", 1.0)
    pixels: Any = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for k, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{k}.png")
    command = ["train", "--config", tiny_config, "--data", tmp_path / "photos", "--outdir", tmp_path / "run"]
    told = ambient(*command, "--device", "cpu", "--no-score")
    assert told.exit_code == 0, told.stderr
    assert "img/s)" in told.stderr.split("training ")[1]
    assert "--duration" in told.stderr
