"""`--init`: a training that begins from a trained network is another run than one from nothing, and resumes exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from invoke import ambient

from ambient_theory.shared.errors import UsageError
from ambient_train.interchange.load import load_trained, starting_weights
from ambient_train.runs.directory import RunDirectory
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.layers import settings_from
from ambient_train.settings.run_options import RunOptions
from ambient_train.tasks.train import TrainResult, train
from ambient_train.training import checkpoints

TINY: dict[str, Any] = {
    "preset": "digits",
    "max_images": 64,
    "batch": 16,
    "duration": 64,
    "network": {"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
    "evaluation": {"n": 40, "extractors": ["pixels"], "metrics": ["fd"], "denoise": 0, "sampler": {"steps": 2}},
}


def go(path: Path, options: RunOptions | None = None, **changes: Any) -> Path:
    options = replace(options or RunOptions(), device="cpu", score=False)
    assert isinstance(train(settings_from({**TINY, **changes}), options, outdir=path, quiet=True), TrainResult)
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return go(tmp_path_factory.mktemp("first") / "run", seed=3)


def stored(path: Path) -> dict[str, torch.Tensor]:
    found = checkpoints.newest_valid(path / "checkpoints")[0]
    assert found is not None
    return {f"{g}.{k}": t for g, ts in found.groups.items() for k, t in ts.items()}


def test_the_first_step_starts_at_the_averaged_weights_of_the_source(first: Path, tmp_path: Path) -> None:
    """With a learning rate of next to nothing weights and averages are still where they began."""
    path = go(tmp_path / "tuned", init=str(first), duration=16, optimizer="adam", lr=1e-12)
    expected, found = load_trained(first).network.state_dict(), stored(path)
    for name, value in expected.items():
        torch.testing.assert_close(found[f"network.{name}"], value, rtol=0, atol=1e-7)
        if f"ema.{name}" in found:
            torch.testing.assert_close(found[f"ema.{name}"], value, rtol=0, atol=1e-7)


def test_it_is_another_run_that_its_start_names_and_not_the_path(first: Path, tmp_path: Path) -> None:
    export = tmp_path / "hub"
    assert ambient("export", first, export).exit_code == 0
    runs = [go(tmp_path / name, init=init) for name, init in (("a", str(first)), ("b", str(export)), ("c", ""))]
    hashes = [TrainConfig.from_dict(RunDirectory(run).manifest()["config"]).hash for run in runs]
    assert hashes[0] == hashes[1] != hashes[2]
    left, right = stored(runs[0]), stored(runs[1])
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_run_that_is_continued_is_bit_equal(first: Path, tmp_path: Path) -> None:
    whole = go(tmp_path / "whole", init=str(first), duration=128)
    part = go(tmp_path / "part", init=str(first), duration=64)
    go(part, init=str(first), duration=128)
    left, right = stored(whole), stored(part)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_another_architecture_is_refused_before_anything_is_written(first: Path, tmp_path: Path) -> None:
    wider = {**TINY["network"], "model_channels": 8}
    with pytest.raises(UsageError, match=r"another architecture, \d+ of its tensors differ"):
        go(tmp_path / "wide", init=str(first), network=wider)
    assert not (tmp_path / "wide").exists()


def test_starting_weights_are_the_averaged_ones(first: Path) -> None:
    found = checkpoints.newest_valid(first / "checkpoints")[0]
    assert found is not None
    weights = starting_weights(str(first))
    assert all(torch.equal(weights[name], value) for name, value in found.groups["ema"].items())
