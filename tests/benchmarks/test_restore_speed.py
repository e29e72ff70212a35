"""Speed of restoration on one thread beside plain sampling: both take 2 T - 1 evaluations for T levels.

`ratio` is the time of an image's posterior sample over that of a generated image, measured in turns within one run.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch

from ambient_train.diffusion.generate import denoiser, sample
from ambient_train.diffusion.restore import restore
from ambient_train.diffusion.sampling import SamplerConfig
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.presets import PRESETS
from ambient_train.training.state import build_network

IMAGES, SAMPLES, STEPS, TURNS = 64, 4, 6, 3


def test_a_posterior_sample_beside_a_generated_image(benchmark) -> None:
    torch.set_num_threads(1)
    config = TrainConfig.from_dict(dict(PRESETS["digits"].train))
    network = build_network(config, (1, 8, 8)).eval()
    denoise, rng = denoiser(network, config.precision), np.random.default_rng(0)
    noisy, ids = rng.normal(size=(IMAGES, 1, 8, 8)).astype(np.float32), np.arange(IMAGES)
    levels = np.full(IMAGES, 0.4)

    def restored() -> int:
        return restore(denoise, noisy, levels, ids, samples=SAMPLES, steps=STEPS).samples.shape[0]

    def generated() -> int:
        return sum(len(x) for x in sample(denoise, range(IMAGES * SAMPLES), (1, 8, 8), SamplerConfig(steps=STEPS)))

    def seconds(action) -> float:
        begun = time.perf_counter()
        action()
        return time.perf_counter() - begun

    generated()
    plain = [seconds(generated) for _ in range(TURNS)]
    assert benchmark.pedantic(restored, rounds=TURNS, warmup_rounds=1) == IMAGES
    plain += [seconds(generated) for _ in range(TURNS)]
    if benchmark.stats is not None:
        median = benchmark.stats.stats.median
        benchmark.extra_info["samples_per_s"] = IMAGES * SAMPLES / median
        benchmark.extra_info["ratio"] = median / statistics.median(plain)
