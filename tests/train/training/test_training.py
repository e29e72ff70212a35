"""Training is a pure function of its config: same twice, resumed or split into micro-batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_set import TINY, data

from ambient_theory.shared.errors import DivergedError, UsageError
from ambient_train.data.load import ImageSet
from ambient_train.data.mixture import corrupt
from ambient_train.diffusion.ema import EMA
from ambient_train.settings.config import TrainConfig
from ambient_train.training import checkpoints
from ambient_train.training.loop import learning_rate, train
from ambient_train.training.state import TrainState

CPU = torch.device("cpu")


def trained(config: TrainConfig, nimg: int, **options: object) -> tuple[TrainState, list[float]]:
    state = TrainState(config, (1, 8, 8), 3 if config.cond else 0, CPU)
    losses = [end.loss for end in train(state, data(config), nimg, **options)]  # type: ignore[arg-type]
    return state, losses


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    return {f"{group}.{name}": t for group, ts in state.checkpoint().groups.items() for name, t in ts.items()}


def assert_equal(a: TrainState, b: TrainState) -> None:
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize("weight", ["x0", "optimal"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_run_twice_is_bitwise_equal(weight: str, precision: str) -> None:
    config = replace(TINY, weight=weight, precision=precision)
    first, a = trained(config, 160)
    second, b = trained(config, 160)
    assert a == b
    assert_equal(first, second)
    _, c = trained(replace(config, seed=1), 160)
    assert a != c


@pytest.mark.parametrize("weight", ["x0", "optimal", "y"])
@pytest.mark.parametrize("stop", [16, 80])
def test_resume_is_bitwise_equal_to_the_uninterrupted_run(tmp_path: Path, weight: str, stop: int) -> None:
    config = replace(TINY, weight=weight, cond=True)
    config = replace(config, dropout=0.2 if weight == "x0" else 0.0)
    whole, losses = trained(config, 160)
    part, before = trained(config, stop)
    checkpoints.save(tmp_path, part.checkpoint())
    restored = TrainState(config, (1, 8, 8), 3, CPU)
    restored.restore(checkpoints.load(checkpoints.available(tmp_path)[0]))
    after = [end.loss for end in train(restored, data(config), 160)]
    assert before + after == losses
    assert_equal(restored, whole)


def test_gradient_accumulation_gives_the_same_weights_up_to_rounding() -> None:
    whole, _ = trained(TINY, 96)
    dropping, _ = trained(replace(TINY, dropout=0.2), 96)
    assert not torch.equal(next(dropping.network.parameters()), next(whole.network.parameters()))
    for config, micro in ((TINY, 4), (TINY, 8), (replace(TINY, dropout=0.2), 4)):
        whole, _ = trained(config, 96)
        split, _ = trained(config, 96, micro_batch=micro)
        for name, p in whole.network.named_parameters():
            torch.testing.assert_close(dict(split.network.named_parameters())[name], p, rtol=0, atol=1e-5)


def test_training_draws_nothing_from_the_global_generator() -> None:
    torch.default_generator.manual_seed(5)
    before = torch.random.get_rng_state()
    trained(TINY, 32)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_learns() -> None:
    constant = np.full((64, 1, 8, 8), 200, np.uint8)
    source = ImageSet("flat", constant, None, np.arange(64, dtype=np.int64))
    mixture = corrupt(source, n_clean=4, n_noisy=60, sigma_n=0.5, seed=0)
    state = TrainState(replace(TINY, lr=5e-3), (1, 8, 8), 0, CPU)
    losses = [end.loss for end in train(state, mixture, 3200)]
    x = torch.full((1, 1, 8, 8), 200 / 127.5 - 1)
    noisy = x + 1.0 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = float((state.network.eval()(noisy, torch.tensor(1.0)) - x).square().mean())
    assert error < 0.05  # the prior alone leaves 0.2
    assert np.mean(losses[-20:]) < np.mean(losses[:20])


@pytest.mark.parametrize(("n_clean", "n_noisy"), [(0, 64), (1, 0), (1, 63)])
def test_all_noisy_and_one_clean_image_train(n_clean: int, n_noisy: int) -> None:
    _, losses = trained(replace(TINY, n_clean=n_clean, n_noisy=n_noisy), 48)
    assert np.isfinite(losses).all()


def test_not_a_number_stops_before_the_update_and_names_the_batch() -> None:
    state = TrainState(TINY, (1, 8, 8), 0, CPU)
    steps = train(state, data(), 160)
    next(steps)
    before = {n: p.detach().clone() for n, p in state.network.named_parameters()}
    poisoned = next(iter(state.network.parameters()))
    handle = poisoned.register_hook(lambda g: g * float("nan"))
    with pytest.raises(DivergedError, match=r"samples 16-31, sigma"):
        next(steps)
    handle.remove()
    assert state.nimg == 16
    for name, p in state.network.named_parameters():
        assert torch.equal(p, before[name])


def test_batch_that_does_not_divide_is_refused() -> None:
    state = TrainState(TINY, (1, 8, 8), 0, CPU)
    with pytest.raises(UsageError, match="micro-batch 5"):
        next(train(state, data(), 32, micro_batch=5))


def test_learning_rate_ramps_then_stays_or_falls_like_the_inverse_root() -> None:
    config = replace(TINY, lr=1.0, lr_ramp_nimg=64)
    assert learning_rate(config, 0) == pytest.approx(16 / 64)
    assert learning_rate(config, 10_000) == 1.0
    falling = replace(config, lr_decay_nimg=100)
    assert learning_rate(falling, 400 - 16) == pytest.approx(0.5)


def test_ema_halves_a_difference_in_one_half_life() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(layer, halflife_nimg=40, ramp=0)
    start = float(ema.shadow["weight"])
    with torch.no_grad():
        layer.weight.fill_(start + 1)
    for k in range(4):
        ema.update(layer, 10, 10 * (k + 1))
    assert float(ema.shadow["weight"]) == pytest.approx(start + 0.5, abs=1e-6)
    follow = EMA(layer, halflife_nimg=0, ramp=0)
    with torch.no_grad():
        layer.weight.fill_(7.0)
    follow.update(layer, 10, 10)
    assert float(follow.shadow["weight"]) == 7.0


def test_ema_half_life_is_at_most_a_share_of_the_images_so_far() -> None:
    """beta = 2^(-batch/min(h, ramp n)): the average of a straight line against the recursion written out."""
    layer = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(layer, halflife_nimg=40, ramp=0.25)
    expected = float(ema.shadow["weight"])
    halves = []
    for k in range(1, 31):
        with torch.no_grad():
            layer.weight.fill_(float(k))
        ema.update(layer, 10, 10 * k)
        halves.append(min(40.0, 0.25 * 10 * k))
        beta = 2 ** (-10 / halves[-1])
        expected = beta * expected + (1 - beta) * k
        assert float(ema.shadow["weight"]) == pytest.approx(expected, rel=1e-5)
    assert halves[0] == 2.5  # the ramp at work
    assert halves[-1] == 40.0  # and at its end
    young, old = EMA(layer, halflife_nimg=40, ramp=0.25), EMA(layer, halflife_nimg=40, ramp=0)
    with torch.no_grad():
        layer.weight.fill_(0.0)
    young.update(layer, 10, 10)
    old.update(layer, 10, 10)
    assert float(young.shadow["weight"]) == pytest.approx(30 / 16)  # 2^-4 of the way is left
    assert float(old.shadow["weight"]) == pytest.approx(30 * 2**-0.25)


@pytest.mark.parametrize(
    "bad",
    [
        {"batch": 0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"sigma": -0.1},
        {"sigma": float("nan")},
        {"weight": "w"},
        {"draw": "d"},
        {"buffer": 0.5},
        {"buffer": 1.0},
        {"draw": "paper"},
        {"precision": "fp8"},
        {"dropout": 1.0},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        TrainConfig.from_dict(bad)


def test_config_survives_json() -> None:
    assert TrainConfig.from_dict(TINY.to_dict()) == TINY
    assert TrainConfig.from_dict(TINY.to_dict()).hash == TINY.hash
    with pytest.raises(UsageError, match="learning_rate"):
        TrainConfig.from_dict({"learning_rate": 1.0})
