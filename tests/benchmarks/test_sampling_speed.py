"""Speed of sampling on one thread: whole images of the digits preset, and one evaluation of the CIFAR-10 network.

An image of the CIFAR-10 preset takes 35 evaluations (18 Heun steps, the last without correction).
"""

from __future__ import annotations

import torch

from ambient_train.diffusion.generate import denoiser, generate
from ambient_train.diffusion.sampling import SamplerConfig
from ambient_train.networks.precond import EDMPrecond
from ambient_train.settings.config import TrainConfig
from ambient_train.settings.edm_presets import EDM_PRESETS
from ambient_train.settings.presets import PRESETS
from ambient_train.training.state import build_network

IMAGES, BATCH = 256, 4


def test_sampling_of_the_digits_preset(benchmark) -> None:
    torch.set_num_threads(1)
    preset = PRESETS["digits"]
    config = TrainConfig.from_dict(dict(preset.train))
    network, sampler = build_network(config, (1, 8, 8)), SamplerConfig(**preset.sampler)

    def sample() -> int:
        return sum(len(part) for part in generate(network, range(IMAGES), sampler, precision=config.precision))

    assert benchmark.pedantic(sample, rounds=3, warmup_rounds=1) == IMAGES
    if benchmark.stats is not None:
        benchmark.extra_info["images_per_s"] = IMAGES / benchmark.stats.stats.median


def test_sampling_of_the_cifar10_preset_one_evaluation(benchmark) -> None:
    torch.set_num_threads(1)
    preset = EDM_PRESETS["cifar10"]["train"]
    network = EDMPrecond(32, 3, model_type=preset["arch"], augment_dim=9, **preset["network"]).eval()
    denoise, x = denoiser(network, "bf16"), torch.zeros(BATCH, 3, 32, 32, dtype=torch.float64)

    def evaluate() -> torch.Tensor:
        with torch.no_grad():
            return denoise(x, torch.tensor(1.0))

    assert benchmark.pedantic(evaluate, rounds=2, warmup_rounds=1).shape == x.shape
    if benchmark.stats is not None:
        evaluations = 2 * SamplerConfig(**EDM_PRESETS["cifar10"]["sampler"]).steps - 1
        benchmark.extra_info["images_per_s"] = BATCH / benchmark.stats.stats.median / evaluations
