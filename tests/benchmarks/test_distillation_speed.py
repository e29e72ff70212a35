"""Cost of a step with the consistency loss, and of a step of distillation, beside a plain one on one thread.

`ratio` is the time of such a step over that of a plain step, measured in turns within one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from ambient_train.data.load import load_images
from ambient_train.data.mixture import corrupt
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.presets import PRESETS
from ambient_train.training.distillation import DistillState, train_distilled
from ambient_train.training.loop import StepEnd, train
from ambient_train.training.state import TrainState

TURNS, STEPS = 5, 3


@pytest.mark.parametrize("kind", ["consistency", "distillation"])
def test_a_step_beside_a_plain_one(benchmark, kind: str) -> None:
    torch.set_num_threads(1)
    plain_config = TrainConfig.from_dict({**PRESETS["digits"].train, "n_noisy": 1000, "sigma": 0.2})
    data = corrupt(load_images("digits"), n_clean=0, n_noisy=1000, sigma_n=0.2, seed=0)
    cpu = torch.device("cpu")

    def plain() -> Iterator[StepEnd]:
        return train(TrainState(plain_config, data.shape, 0, cpu), data, 10**9)

    def measured() -> Iterator[StepEnd]:
        if kind == "consistency":
            return train(TrainState(replace(plain_config, consistency=1.0), data.shape, 0, cpu), data, 10**9)
        first = TrainState(plain_config, data.shape, 0, cpu)
        config = replace(plain_config, teacher="a/b/0")
        weights, errors = first.network.state_dict(), first.errors.state()
        return train_distilled(DistillState(config, data.shape, 0, cpu, weights=weights, errors=errors), data, 10**9)

    def seconds(steps: Iterator[StepEnd]) -> float:
        begun = time.perf_counter()
        for _ in range(STEPS):
            next(steps)
        return time.perf_counter() - begun

    other, own = plain(), measured()
    seconds(other)
    before: list[float] = []

    def turn() -> None:
        before.append(seconds(other))

    benchmark.pedantic(lambda: seconds(own), setup=turn, rounds=TURNS, warmup_rounds=1)
    if benchmark.stats is not None:
        benchmark.extra_info["ratio"] = benchmark.stats.stats.median / statistics.median(before)
