"""A step's numbers are read when the next one is on its way: nothing else changes, and nothing is spoiled."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import counting
import numpy as np
import pytest
import torch
from groups import World, ranks, values
from tiny_set import TINY, data

from ambient_theory.shared.errors import DivergedError
from ambient_train.settings.config import TrainConfig
from ambient_train.training import checkpoints, loop
from ambient_train.training.loop import train
from ambient_train.training.loss_scale import FIRST, GROWTH_STEPS, LEAST, LossScale
from ambient_train.training.state import TrainState

CPU = torch.device("cpu")
MUON = replace(
    TINY, optimizer="muon", weight_decay=0.01, network={"model_channels": 16, "channel_mult": [1, 2]}, dropout=0.1
)
VARIANTS = {
    "adam": TINY,
    "V": replace(TINY, weight="optimal", grad_clip=1.0, weight_decay=0.01),
    "muon": MUON,
    "all": replace(MUON, augment=0.5, xflip=True, cond=True, consistency=1.0),
}


def fresh(config: TrainConfig) -> TrainState:
    return TrainState(config, (1, 8, 8), 3 if config.cond else 0, CPU)


def tensors(state: TrainState) -> dict[str, torch.Tensor]:
    groups = state.checkpoint().groups
    return {f"{group}.{name}": t.clone() for group, ts in groups.items() for name, t in ts.items()}


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize("name", VARIANTS)
def test_reading_late_changes_no_number(name: str) -> None:
    config = VARIANTS[name]
    at_once, late = fresh(config), fresh(config)
    expected = [(end.nimg, end.loss, end.grad_norm, end.lr) for end in train(at_once, data(config), 96)]
    ends = list(train(late, data(config), 96, late=True))  # asked only when all is over
    assert [(end.nimg, end.loss, end.grad_norm, end.lr) for end in ends] == expected
    assert_equal(tensors(late), tensors(at_once))
    assert late.sums == at_once.sums


def test_the_state_is_whole_at_every_yield_though_the_step_is_still_under_way() -> None:
    at_once, late = fresh(MUON), fresh(MUON)
    for a, b in zip(train(at_once, data(), 80), train(late, data(), 80, late=True), strict=True):
        assert b.known_loss is None or b.nimg > 16  # nobody has waited for this step
        assert_equal(tensors(late), tensors(at_once))
        assert b.loss == a.loss == b.known_loss


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", ["adam", "V", "muon"])
def test_a_step_that_is_not_finite_changes_neither_weights_nor_averages_nor_optimiser(name: str, late: bool) -> None:
    config = VARIANTS[name]
    good, bad = fresh(config), fresh(config)
    list(train(good, data(config), 48))
    steps = train(bad, data(config), 160, late=late)
    for _ in range(3):
        next(steps)
    handle = next(iter(bad.network.parameters())).register_hook(lambda g: g * torch.nan)
    if late:
        assert next(steps).nimg == 64  # not heard of yet, but masked on the device already
        handle.remove()
    with pytest.raises(DivergedError, match=r"samples 48-63, sigma"):
        next(steps)
    handle.remove()
    assert bad.nimg == 48
    assert_equal(tensors(bad), tensors(good))


def test_who_asks_for_the_state_after_a_step_that_diverged_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = loop.batch_loss
    monkeypatch.setattr(
        loop, "batch_loss", lambda *a: (lambda loss, m: (loss * torch.inf, m))(*original(*a))
    )  # a loss that overflows, while its gradient need not
    state = fresh(TINY)
    next(train(state, data(), 160, late=True))
    with pytest.raises(DivergedError, match="loss inf with gradient norm nan"):
        state.checkpoint()
    assert state.nimg == 0


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_asks_the_device_once(name: str) -> None:
    config = VARIANTS[name]
    counts = counting.of_a_step(fresh(config), data(config))
    assert counts.syncs == 1
    anchors = 1 if config.consistency else 0
    assert counts.sent_bytes == 8 * 3 * config.batch + 8 * 6 * anchors  # sample, index, sigma; of an anchor twice three
    assert counts.launches > 100


def test_the_count_of_questions_sees_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a loop that looks at its loss in the middle of a step."""
    original = loop._update

    def looking(state: Any, parameters: Any, rate: float, factor: Any) -> Any:
        assert float(parameters[0].grad.sum()) == float(parameters[0].grad.sum())
        return original(state, parameters, rate, factor)

    monkeypatch.setattr(loop, "_update", looking)
    assert counting.of_a_step(fresh(TINY), data()).syncs == 3


def test_without_dropout_no_keys_are_made() -> None:
    dropping = replace(TINY, dropout=0.1)
    assert counting.of_a_step(fresh(dropping), data()).launches > counting.of_a_step(fresh(TINY), data()).launches + 50


# ---------------------------------------------------------------------------------------------------------------- fp16

HALF = replace(TINY, precision="fp16")


def test_the_factor_halves_at_an_overflow_and_doubles_after_a_while() -> None:
    scale = LossScale(HALF, CPU)
    assert float(scale.factor) == FIRST
    yes, no = torch.tensor(True), torch.tensor(False)
    scale.update(no)
    assert float(scale.factor) == FIRST / 2
    for _ in range(GROWTH_STEPS - 1):
        scale.update(yes)
    assert float(scale.factor) == FIRST / 2
    scale.update(yes)
    assert (float(scale.factor), int(scale.good)) == (FIRST, 0)
    for _ in range(40):
        scale.update(no)
    assert float(scale.factor) == LEAST
    assert float(LossScale(replace(HALF, loss_scale=100.0), CPU).factor) == 100


@pytest.mark.parametrize("late", [False, True])
def test_an_overflow_in_fp16_leaves_the_step_out_and_halves_the_factor(tmp_path: Path, late: bool) -> None:
    """And a run that is continued from a checkpoint after it has the same factor, and ends bit-equal."""

    def spoil(state: TrainState, steps: Any) -> None:
        handle = next(iter(state.network.parameters())).register_hook(lambda g: g * torch.inf)
        end = next(steps)
        handle.remove()
        assert math.isnan(end.loss)

    whole = fresh(HALF)
    steps = train(whole, data(), 16 * 16, late=late)
    for _ in range(10):  # the first factor is too large, as it should be
        next(steps)
    before, taken = tensors(whole), whole.sums["steps"]
    assert whole.scale is not None
    factor = float(whole.scale.factor)
    assert factor < FIRST
    assert taken == 10 - math.log2(FIRST / factor)
    spoil(whole, steps)
    after = tensors(whole)
    assert (float(whole.scale.factor), whole.nimg) == (factor / 2, 176)
    assert_equal(*({k: v for k, v in t.items() if "loss_scale" not in k} for t in (before, after)))
    assert whole.sums["steps"] == taken
    checkpoints.save(tmp_path, whole.checkpoint())
    list(steps)
    assert whole.sums["steps"] == taken + 5
    continued = fresh(HALF)
    continued.restore(checkpoints.load(checkpoints.available(tmp_path)[0]))
    list(train(continued, data(), 16 * 16, late=late))
    assert_equal(tensors(continued), tensors(whole))


def test_what_overflows_at_the_least_factor_has_diverged() -> None:
    state = fresh(replace(HALF, loss_scale=4.0))
    next(iter(state.network.parameters())).register_hook(lambda g: g * torch.nan)
    with pytest.raises(DivergedError, match="samples 32-47"):
        list(train(state, data(), 160))


# --------------------------------------------------------------------------------------------------------------- ranks


def in_a_group(world: World, agree_s: float, late: bool) -> tuple[list[Any], dict[str, Any], dict[str, float]]:
    """Losses, votes on a flag that the last rank sets in its fourth step, tensors and sums."""
    state, seen = fresh(replace(TINY, weight="optimal")), []
    ends: list[loop.StepEnd] = []
    steps = train(
        state,
        data(),
        16 * 40,
        world=world,
        late=late,
        agree_s=agree_s,
        flags=lambda: (world.rank == 1 and len(ends) >= 3,),
    )
    for end in steps:
        ends.append(end)
        seen.append(end.votes)
    sums = dict(state.sums)
    return (
        [(e.loss, v) for e, v in zip(ends, seen, strict=True)],
        {k: t.numpy() for k, t in tensors(state).items()},
        sums,
    )


@pytest.mark.multiproc
def test_ranks_that_agree_seldom_train_the_same_and_hear_the_same_request() -> None:
    often, seldom = values(ranks(2, in_a_group, 0.0, False)), values(ranks(2, in_a_group, 0.2, True))
    for steps, state, sums in seldom:
        assert [loss for loss, _ in steps] == [loss for loss, _ in often[0][0]]
        assert sums == often[0][2]
        for name, value in often[0][1].items():
            np.testing.assert_array_equal(state[name], value)
    assert [votes for _, votes in seldom[0][0]] == [votes for _, votes in seldom[1][0]]
    assert [votes for _, votes in often[0][0]] == [(False,)] * 3 + [(True,)] * 37
    heard = [n for n, (_, votes) in enumerate(seldom[0][0]) if votes == (True,)]
    assert heard  # within 40 steps of milliseconds, ...
    assert len(heard) < 37  # ... though not in every step
