"""Distillation: the Gaussian it ends at, what a wrong critic does to it, exact resume, ranks, and what is refused."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import linear_toy as toy
import pytest
import tiny_run
import torch
from groups import World, ranks, values
from torch import Tensor

from ambient_train.diffusion.distill import generator_levels, generator_loss
from ambient_train.diffusion.noise_levels import LevelTable
from ambient_train.runs.resolve import make_training_set
from ambient_train.training.batches import prepare_batch
from ambient_train.training.distillation import DistillState, critic_batch, train_distilled
from ambient_train.training.loop import BatchDivergedError, TrainState, train

CPU = torch.device("cpu")


def test_levels_of_the_generator_are_edms_between_the_lowest_and_four_fifths_of_the_way_up() -> None:
    ends = generator_levels(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert float(ends[0]) == pytest.approx(0.002)
    assert float(ends[1]) == pytest.approx(24.4, rel=2e-3)
    assert bool((generator_levels(torch.linspace(0, 1, 9, dtype=torch.float64)).diff() > 0).all())


def test_generator_loss_is_its_formula_with_a_constant_omega() -> None:
    phi, psi, x = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_()
    loss = generator_loss(phi, psi, x, 1.2)
    omega = (x - phi).abs().mean(dim=(1, 2, 3)).detach()
    expected = ((phi - psi) * ((phi - x) - 1.2 * (phi - psi))).sum(dim=(1, 2, 3)) / omega
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(gradient, -(phi - psi) / omega.reshape(-1, 1, 1, 1))
    same = generator_loss(phi, psi, phi.clone().requires_grad_(), 1.0)
    assert bool(torch.isfinite(same).all())  # omega has a least value


SCATTER = torch.tensor([[0.9, 0.3, 0.0], [0.3, 0.7, -0.2], [0.0, -0.2, 0.4]], dtype=torch.float64)
ONE = torch.ones(1, 1, dtype=torch.float64)


@functools.cache
def found(d: int, n_clean: int, plain: bool) -> Tensor:
    data = toy.mixture(d, n_clean, 64 - n_clean, 0.5 if n_clean < 64 else 0.0)
    critic_on = toy.mixture(d, 64, 0, 0.0) if plain else None
    true = ONE if d == 1 else SCATTER
    return toy.distilled(true, data, steps=STEPS, batch=BATCH, critic_on=critic_on)


STEPS, BATCH = 800, 256


@pytest.mark.slow
@pytest.mark.parametrize(("d", "n_clean"), [(1, 0), (3, 0), (3, 16), (3, 64)])
def test_generator_ends_at_the_covariance_of_the_clean_images(d: int, n_clean: int) -> None:
    """Noisy only, a mixture, and clean images alone: within 2 % in every direction; it starts far off."""
    true = ONE if d == 1 else SCATTER
    start = toy.covariance_of(toy.Linear(true, 0.525))
    assert toy.error(start, true) > 0.1
    assert toy.error(found(d, n_clean, plain=False), true) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 3])
def test_a_critic_trained_as_plain_diffusion_misses_it(d: int) -> None:
    true = ONE if d == 1 else SCATTER
    assert toy.error(found(d, 0, plain=True), true) > 0.05


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
