"""What a record says of how its network was trained: the same for every mixture, never the same for two methods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny_run

from ambient_train.runs.score import Subject, method_of


@pytest.mark.parametrize("change", [{"n_clean": 3}, {"n_noisy": 7}, {"sigma_n": 0.5}, {"seed": 4}, {"data": "fashion"}])
def test_the_data_and_the_seed_are_no_part_of_the_method(change: dict[str, Any]) -> None:
    config = tiny_run.config()
    assert method_of(replace(config, **change)) == method_of(config)


@pytest.mark.parametrize(
    "change",
    [
        {"dropout": 0.1},
        {"weight": "x0"},
        {"lr": 0.5},
        {"batch": 32},
        {"network": {"model_channels": 8}},
        {"ema_ramp": 0.5},
    ],
)
def test_every_setting_of_the_training_is(change: dict[str, Any]) -> None:
    config = tiny_run.config()
    assert method_of(replace(config, **change)) != method_of(config)


@pytest.mark.parametrize(
    ("clean", "noisy", "regime", "sigma_n"),
    [(96, 0, "clean", None), (30, 66, "mixture", 0.3), (0, 96, "noisy-only", 0.3)],
)
def test_a_subject_names_its_regime_and_the_noise_of_its_data(
    clean: int, noisy: int, regime: str, sigma_n: float | None
) -> None:
    subject = Subject.of_job(tiny_run.job(n_clean=clean, n_noisy=noisy))
    assert (subject.regime, subject.sigma_n, subject.share) == (regime, sigma_n, noisy / 96)
