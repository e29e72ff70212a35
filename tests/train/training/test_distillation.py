"""Training of a generator and its critic: exact resume, ranks, what the critic meets, and NaNs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny_run
import torch
from groups import World, ranks, values
from torch import Tensor

from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.runs.resolve import make_training_set
from ambient_train.training.batches import prepare_batch
from ambient_train.training.distillation import DistillState, critic_batch, train_distilled
from ambient_train.training.loop import BatchDivergedError, train
from ambient_train.training.state import TrainState

CPU = torch.device("cpu")


def teacher(config: Any) -> TrainState:
    state = TrainState(config, (1, 8, 8), 10 if config.cond else 0, CPU)
    for _ in train(state, make_training_set(config, tiny_run.source()), 64):
        pass
    return state


def second_stage(config: Any, device: torch.device = CPU) -> DistillState:
    first = teacher(config)
    weights = {**first.network.state_dict(), **first.ema.state()}
    copied = {k: v.detach().clone() for k, v in weights.items()}
    config = replace(config, teacher="a/b/64", lr=1e-3)
    return DistillState(config, (1, 8, 8), first.label_dim, device, weights=copied, errors=first.errors.state())


def advance(state: DistillState, nimg: int, **options: Any) -> list[tuple[float, float]]:
    data = make_training_set(state.config, tiny_run.source())
    return [(end.loss, end.grad_norm) for end in train_distilled(state, data, nimg, **options)]


def tensors(state: DistillState) -> dict[str, Tensor]:
    return {f"{g}.{k}": t.detach().clone() for g, ts in state.checkpoint().groups.items() for k, t in ts.items()}


@pytest.mark.parametrize("changes", [{}, {"weight": "x0", "cond": True, "dropout": 0.2, "augment": 0.3}])
def test_resume_is_bitwise_equal_and_micro_batches_change_rounding_alone(changes: dict[str, Any]) -> None:
    config = tiny_run.config(**changes)
    whole, part, again, split = (second_stage(config) for _ in range(4))
    losses = advance(whole, 64)
    before = advance(part, 32)
    again.restore(part.checkpoint())
    assert again.misfit(part.checkpoint()) == ""
    torch.rand(3)  # a global draw in between changes nothing
    assert before + advance(again, 64) == losses
    left, right = tensors(whole), tensors(again)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
    advance(split, 64, micro_batch=4)
    for name, value in tensors(split).items():
        if name.startswith(("network", "critic.", "ema")):
            torch.testing.assert_close(value, left[name], rtol=0, atol=2e-4)
    assert whole.misfit(teacher(config).checkpoint()) != ""


def test_teacher_stays_as_it_is_and_generator_and_critic_part_from_it() -> None:
    state = second_stage(tiny_run.config())
    begun = {k: v.clone() for k, v in state.teacher.state_dict().items()}
    for network in (state.network, state.critic):
        assert all(torch.equal(v, begun[k]) for k, v in network.state_dict().items())
    advance(state, 64)
    assert all(torch.equal(v, begun[k]) for k, v in state.teacher.state_dict().items())
    for network in (state.network, state.critic):
        assert not all(torch.equal(v, begun[k]) for k, v in network.state_dict().items())
    assert all(p.requires_grad for p in state.critic.parameters())


def test_hidden_weights_have_the_rate_of_muon_in_generator_and_critic() -> None:
    config = tiny_run.config(optimizer="muon", muon_lr=0.02, network={"model_channels": 16, "channel_mult": [1, 2]})
    state = second_stage(replace(config, lr_ramp_nimg=64))
    advance(state, 32)
    for optimizer in (state.optimizer, state.critic_optimizer):
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.0005])
        assert len(optimizer.param_groups[0]["params"]) > 5


def test_critic_meets_levels_and_images_as_the_teacher_did() -> None:
    """Same positions, levels and strengths of noise as the teacher's draw has under that seed; generated images."""
    state = second_stage(tiny_run.config())
    data = make_training_set(state.config, tiny_run.source())
    table, sample = LevelTable.of(data.levels), torch.arange(200)
    own = prepare_batch(state.config, data, table, sample, 0, CPU)
    made = critic_batch(state.config, state.network.eval(), data, table, sample, 0)
    for name in ("sample", "index", "sigma", "sigma_n"):
        assert torch.equal(getattr(own, name), getattr(made, name))
    assert bool((made.sigma_n == 0).any())
    assert bool((made.sigma_n > 0).any())
    assert not made.y.requires_grad
    assert not torch.equal(own.y, made.y)


def test_not_a_number_stops_before_the_update() -> None:
    state = second_stage(tiny_run.config())
    next(state.critic.parameters()).register_hook(lambda g: g * float("nan"))
    before = tensors(state)
    with pytest.raises(BatchDivergedError, match="samples 0-15"):
        advance(state, 16)
    assert all(torch.equal(v, before[k]) for k, v in tensors(state).items())


def on_ranks(world: World, micro: int | None) -> dict[str, Any]:
    state = second_stage(tiny_run.config())
    losses = advance(state, 48, world=world, micro_batch=micro)
    kept = {k: v.numpy() for k, v in tensors(state).items() if k.startswith(("network", "critic.", "errors"))}
    return {**kept, "losses": losses}


@pytest.mark.multiproc
def test_two_ranks_give_the_weights_of_one() -> None:
    alone = on_ranks(World(), None)
    for other in values(ranks(2, on_ranks, 4)):
        assert other.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(torch.as_tensor(other[name]), torch.as_tensor(value), rtol=1e-3, atol=2e-4)
