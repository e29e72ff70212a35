"""Muon: orthogonalised steps on hidden weights, Adam elsewhere, one state that a checkpoint carries exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import DURATION, config, final, job, run
from torch import nn
from typer.testing import CliRunner

from ambient_theory.shared.errors import UsageError
from ambient_train.training.muon import RMS, as_matrix, is_hidden, orthogonalised
from ambient_train.training.state import TrainState, make_optimizer
from cli import app

WIDE = {"model_channels": 16, "channel_mult": [1, 2], "emb_channels": 16}
CHANGES = {"optimizer": "muon", "network": WIDE, "weight_decay": 0.0}


@pytest.mark.parametrize("shape", [(32, 32), (16, 90), (90, 16)])
def test_singular_values_come_out_near_one_and_the_directions_stay(shape: tuple[int, int]) -> None:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    out = orthogonalised(x)
    inner = u.mT @ out @ v.mT
    assert torch.allclose(inner, torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1)), atol=1e-9)
    large = s > 0.02 * s.norm(dim=1, keepdim=True)  # five steps lift no smaller ones
    values = inner.diagonal(dim1=-2, dim2=-1)[large]
    assert values.min() > 0.65
    assert values.max() < 1.25
    assert s.max() / s.min() > 2  # control: they were far from equal


def test_an_update_of_a_kernel_has_the_stated_root_mean_square_and_lowers_the_loss() -> None:
    layer = nn.Conv2d(32, 32, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = nn.ModuleList([layer])
    optimizer = make_optimizer(config(optimizer="muon", muon_lr=0.05, lr=1e-4), network)
    x = torch.randn(8, 32, 8, 8, generator=torch.Generator().manual_seed(0))
    before = layer.weight.detach().clone()
    loss = layer(x).square().mean()
    loss.backward()
    optimizer.step()
    moved = as_matrix(layer.weight.detach() - before)
    # singular values are .7 to 1.2 of the ideal: so is the root mean square
    assert 0.65 < moved.square().mean().sqrt() / (0.05 * RMS) < 1.25
    assert layer(x).square().mean() < loss
    assert layer.bias is not None
    assert set(optimizer.state[layer.weight]) == {"momentum"}
    assert set(optimizer.state[layer.bias]) == {"step", "exp_avg", "exp_avg_sq"}


def test_every_parameter_has_one_rule_and_layers_that_touch_pixels_are_adams() -> None:
    state = TrainState(config(**CHANGES), (1, 8, 8), 0, torch.device("cpu"))
    groups = state.optimizer.param_groups
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in state.network.parameters())
    names = {id(p): n for n, p in state.network.named_parameters()}
    hidden = {names[id(p)] for p in groups[0]["params"]}
    assert "model.middle.conv0.weight" in hidden
    assert not any("conv_in" in n or "conv_out" in n or "bias" in n or "norm" in n for n in hidden)
    assert all(is_hidden(p) == (names[id(p)] in hidden) for p in state.network.parameters())


def test_stopped_and_continued_is_bit_equal(tmp_path: Path) -> None:
    run(tmp_path / "whole", changes=CHANGES)
    run(tmp_path / "halves", duration=DURATION // 2, changes=CHANGES)
    run(tmp_path / "halves", changes=CHANGES)
    whole, halves = final(tmp_path / "whole"), final(tmp_path / "halves")
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)
    assert any(name.startswith("optimizer.momentum.") for name in whole)


def test_adam_is_another_training_and_runs_from_before_keep_their_name() -> None:
    assert "optimizer" not in config().identity()
    assert job(optimizer="muon").config.hash != job().config.hash
    assert job(muon_lr=0.5).config.hash == job().config.hash  # idle without Muon
    assert job(optimizer="muon", muon_lr=0.5).config.hash != job(optimizer="muon").config.hash


def test_sharded_weights_are_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="without --shard"):
        make_optimizer(config(**CHANGES), nn.Linear(20, 20), sharded=True)
    result = CliRunner().invoke(app, ["train", "--optimizer", "lion", "--dry-run"])
    assert result.exit_code == 2
