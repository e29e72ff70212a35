"""The hot loop: what a step asks of its device, counted, and how fast batches come.

`host_syncs`, `launches` and `sent_bytes` are of one step, counted on a CPU with the state and the data marked as if
they lay on a device (tests/train/counting.py); no GPU is timed. `ratio` is within one run.
"""

from __future__ import annotations

import statistics
import time

import counting
import numpy as np
import pytest
import torch

from ambient_train.data.images import ImageSet
from ambient_train.data.mixture import TrainingSet, corrupt
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.presets import PRESETS
from ambient_train.training.state import TrainState

CPU = torch.device("cpu")
N, BATCH = 5_000, 64


def mixture(shape: tuple[int, int, int], n: int) -> TrainingSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(np.uint8)
    source = ImageSet("bench", pixels, None, np.arange(n, dtype=np.int64))
    return corrupt(source, n_clean=n // 10, n_noisy=n - n // 10, sigma_n=0.2, seed=0)


@pytest.mark.parametrize(("preset", "batch"), [("digits", 64), ("small", 8), ("cifar10", 2)])
def test_what_a_step_asks_of_its_device(benchmark, preset: str, batch: int) -> None:
    torch.set_num_threads(1)
    chosen = PRESETS[preset]
    table = {**chosen.train, "precision": "fp32", "batch": batch, "n_clean": 10, "n_noisy": 90, "sigma": 0.2}
    config, data = TrainConfig.from_dict(table), mixture(chosen.shape, 100)
    counts = benchmark.pedantic(
        lambda: counting.of_a_step(TrainState(config, data.shape, 0, CPU), data), rounds=1, iterations=1
    )
    assert counts.syncs == 1
    benchmark.extra_info |= {
        "host_syncs": counts.syncs,
        "launches": counts.launches,
        "sent_bytes": counts.sent_bytes,
        "batch": batch,
    }


def test_noisy_batches_at_32x32_beside_making_their_noise_again(benchmark) -> None:
    torch.set_num_threads(1)
    data = mixture((3, 32, 32), N)
    place, order = data.on(CPU), torch.randperm(N, generator=torch.Generator().manual_seed(0))
    parts = [part for part in order.split(BATCH) if len(part) == BATCH]

    def kept() -> None:
        for part in parts:
            place.batch(part, part)

    kept()
    again: list[float] = []

    def turn() -> None:
        begun = time.perf_counter()
        for part in parts[:8]:
            data.batch(part)
        again.append((time.perf_counter() - begun) / 8)

    benchmark.pedantic(kept, setup=turn, rounds=7)
    if benchmark.stats is not None:
        a_batch = benchmark.stats.stats.median / len(parts)
        benchmark.extra_info |= {"images_per_s": BATCH / a_batch, "ratio": statistics.median(again) / a_batch}
