"""A training may be told a wrong noise level, as a control; then draws and loss follow what is told, the images not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_run import config, source
from typer.testing import CliRunner

from ambient_train.data.mixture import corrupt
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.runs.score import method_of
from ambient_train.training.loop import Batch, prepare_batch
from cli import app


def batch(told: float | None) -> Batch:
    c = replace(config(), told_sigma=told, xflip=False)
    data = corrupt(source(), n_clean=30, n_noisy=66, sigma_n=0.3, seed=0, told_sigma=told)
    return prepare_batch(c, data, LevelTable.of(data.levels), torch.arange(2000), 0, torch.device("cpu"))


def test_told_the_truth_is_the_same_training() -> None:
    truth, told = batch(None), batch(0.3)
    assert torch.equal(truth.y, told.y)
    assert torch.equal(truth.sigma, told.sigma)
    assert torch.equal(truth.sigma_n, told.sigma_n)


def test_told_that_all_is_clean_uses_noisy_images_at_every_level_as_they_are() -> None:
    truth, told = batch(None), batch(0.0)
    below = told.sigma < 0.3
    assert not told.sigma_n.any()
    assert torch.isin(told.index[below], torch.arange(30, 96)).sum() == pytest.approx(
        66 / 96 * int(below.sum()), abs=4 * (int(below.sum()) * 66 / 96 * 30 / 96) ** 0.5
    )
    assert not torch.isin(truth.index[truth.sigma < 0.3], torch.arange(30, 96)).any()  # control
    same = [int(i) for i in told.index[:200] if i >= 30][:5]
    for i in same:  # the noise is in the image all the same
        noised = told.y[told.index == i][0]
        clean = torch.from_numpy(corrupt(source(), n_clean=30, n_noisy=66, sigma_n=0.3, seed=0).source.pixels([i]))[0]
        assert (noised - clean).std() == pytest.approx(0.3, rel=4 / (2 * 64) ** 0.5)


def test_the_name_of_a_run_and_its_method_tell_it_apart() -> None:
    plain, told = config(), replace(config(), told_sigma=0.0)
    assert "told_sigma" not in plain.identity()
    assert plain.hash != told.hash
    method = method_of(told)
    assert method.pop("told_sigma") == 0.0
    assert method == method_of(plain)  # everything else is the same training


def test_told_of_noise_that_is_not_there_is_refused() -> None:
    result = CliRunner().invoke(app, ["train", "--data", "digits", "--told-sigma", "0.2", "--dry-run"])
    assert result.exit_code == 2
    assert "there is none; leave it out" in result.stderr
