"""Training with the consistency loss: nothing where nothing is noisy, exact resume, any batch, any number of ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from groups import World, ranks, values

from ambient_theory.shared.errors import UsageError
from ambient_train.data.load import load_images
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.runs.resolve import make_training_set
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.layers import settings_from
from ambient_train.training import batches, checkpoints
from ambient_train.training.loop import train
from ambient_train.training.state import TrainState

TINY = TrainConfig(
    n_clean=8,
    n_noisy=24,
    sigma_n=0.3,
    batch=16,
    network={"model_channels": 4, "channel_mult": [1, 2], "emb_channels": 8},
    lr_ramp_nimg=64,
    consistency=1.0,
)


def data(config: TrainConfig) -> TrainingSet:
    return corrupt(
        load_images("digits"), n_clean=config.n_clean, n_noisy=config.n_noisy, sigma_n=config.sigma_n, seed=0
    )


def trained(config: TrainConfig, nimg: int = 64, **options: Any) -> TrainState:
    mixture = data(config)
    state = TrainState(config, mixture.shape, 10 if config.cond else 0, torch.device("cpu"))
    for _ in train(state, mixture, nimg, **options):
        pass
    return state


def assert_equal(a: TrainState, b: TrainState) -> None:
    for (name, p), q in zip(a.network.named_parameters(), b.network.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_clean_data_train_exactly_as_without() -> None:
    clean = replace(TINY, n_clean=32, n_noisy=0, sigma_n=0.0)
    assert_equal(trained(clean), trained(replace(clean, consistency=0.0)))
    with pytest.raises(AssertionError):  # noisy images do not
        assert_equal(trained(TINY), trained(replace(TINY, consistency=0.0)))


def test_clean_images_of_a_mixture_are_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    original = batches.assemble

    def watched(config: Any, mixture: TrainingSet, sample: Any, index: torch.Tensor, *others: Any, **named: Any) -> Any:
        seen.append(mixture.sigma_n[index])
        return original(config, mixture, sample, index, *others, **named)

    mixture = data(TINY)
    monkeypatch.setattr(batches, "assemble", watched)
    network = TrainState(TINY, mixture.shape, 0, torch.device("cpu")).network
    loss = batches.consistency_loss(TINY, network, mixture, torch.arange(200), 0, torch.device("cpu"))
    assert loss.shape == (200,)
    assert float(torch.cat(seen).min()) > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"cond": True, "augment": 0.3, "xflip": True, "dropout": 0.2},
        {"consistency_batch": 40},  # more than the batch
        {"consistency_batch": 3, "consistency_samples": 4, "consistency_steps": 2},
        {"consistency_form": "paper", "consistency_samples": 3},
    ],
)
def test_resume_is_bitwise_equal_and_micro_batches_change_rounding_alone(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = replace(TINY, **changes)
    whole, part = trained(config), trained(config, 32)
    checkpoints.save(tmp_path, part.checkpoint())
    restored = TrainState(config, (1, 8, 8), 10 if config.cond else 0, torch.device("cpu"))
    restored.restore(checkpoints.load(checkpoints.available(tmp_path)[0]))
    for _ in train(restored, data(config), 64):
        pass
    assert_equal(restored, whole)
    split = trained(config, micro_batch=4)
    for p, q in zip(split.network.parameters(), whole.network.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


def test_labels_of_classes_and_of_augmentation_reach_every_evaluation() -> None:
    config = replace(TINY, cond=True, augment=0.5)
    mixture = data(config)
    network = TrainState(config, mixture.shape, 10, torch.device("cpu")).network
    seen: list[tuple[int, int, float]] = []

    def watch(module: Any, arguments: Any, keywords: dict[str, torch.Tensor]) -> None:
        labels, maps = keywords["class_labels"], keywords["augment_labels"]
        seen.append((len(labels), len(maps), float(labels.sum(1).min())))
        assert torch.equal(labels, labels[:6].repeat(len(labels) // 6, 1))
        assert float(maps.abs().sum()) > 0

    network.register_forward_pre_hook(watch, with_kwargs=True)
    batches.consistency_loss(config, network, mixture, torch.arange(6), 10, torch.device("cpu"))
    assert seen == [(6, 6, 1.0), (12, 12, 1.0), (18, 18, 1.0)]  # one step to the anchor, K = 2 samples, all three


def on_ranks(world: World, sharded: bool) -> dict[str, Any]:
    config = tiny_run.config(consistency=1.0, consistency_batch=4)
    mixture = make_training_set(config, tiny_run.source())
    state = TrainState(config, mixture.shape, 0, world.device, sharded=sharded, world=world)
    losses = [end.loss for end in train(state, mixture, 48, world=world)]
    weights = {k: t.numpy() for k, t in state.checkpoint().groups["network"].items()}
    return {**weights, "losses": losses}


@pytest.mark.multiproc
@pytest.mark.parametrize("sharded", [False, True])
def test_two_ranks_give_the_weights_of_one(sharded: bool) -> None:
    alone = on_ranks(World(), False)
    for found in values(ranks(2, on_ranks, sharded)):
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(torch.as_tensor(found[name]), torch.as_tensor(value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"consistency_steps": 3}, "without a consistency loss: add --consistency WEIGHT"),
        ({"consistency": 1.0, "consistency_samples": 3}, "does not divide into two halves"),
        ({"consistency": 1.0, "consistency_form": "squared"}, "unbiased, paper"),
        (
            {"consistency": 1.0, "consistency_form": "unbiased", "compat": "paper"},
            "compat 'paper' sets consistency_form",
        ),
    ],
)
def test_half_a_setting_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings_from(given)


def test_compat_paper_takes_the_published_form_and_leaves_the_name_of_earlier_runs_alone() -> None:
    assert settings_from({"compat": "paper", "consistency": 1.0}).train.consistency_form == "paper"
    plain = settings_from({"compat": "paper"}).train
    assert "consistency_form" not in plain.identity()
    assert not [key for key in settings_from({}).train.identity() if key.startswith("consistency")]
